"""`fluidlab demo`: a page for a lecture hall, discrete beside continuous reconstruction."""

from pathlib import Path

SCENES = (2, 5)     # of the test split: several objects, and fine outlines


def add_demo(p) -> None:
    p.add_argument("--out", default="build/demo.html", help="the HTML file to write")
    p.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256],
                   help="pixels a side, multiples of 16 from 64 to 256")


def run_demo(args) -> int:
    """One HTML file for a lecture hall: pictures through both tokenizers, computed now, shown without waiting."""
    from fluidlab.data.photos import PHOTOS_HELDOUT, load_photo
    from fluidlab.data.scenes import EmojiScenes
    from fluidlab.tokenizer import load_tokenizer
    from fluidlab.viz.demo import demo_page, states
    from fluidlab.whole import write_text
    pictures = {f"scene {i}": (lambda size, i=i: EmojiScenes("test", size, 0)[i]["image"]) for i in SCENES}
    pictures |= {name: (lambda size, name=name: load_photo(name, size)) for name in PHOTOS_HELDOUT}
    found, sources = states(load_tokenizer("scenes-vq"), load_tokenizer("scenes-vae"), pictures, args.sizes)
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, demo_page(found, sources))
    print(f"wrote {out}: {len(found)} states, {out.stat().st_size / 1e6:.1f} MB")
    return 0
