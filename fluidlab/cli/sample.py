"""`fluidlab sample`: prompts to one PNG that remembers how each of its pictures was made.

A row for every model and prompt, a column for every seed. What was asked for stands in the PNG's text under
"fluidlab sample", as JSON, so that any picture can be drawn again: PIL.Image.open(path).text["fluidlab sample"].
"""

import json
import os
import sys
import textwrap
from argparse import SUPPRESS
from pathlib import Path

from fluidlab.cli.options import add_threads, use_threads
from fluidlab.config import check_range

KEY = "fluidlab sample"
MODEL = "random-diffusion-mini"
SETTINGS = ("guidance_scale", "guidance_schedule", "temperature", "num_inference_steps", "num_denoising_steps")
LARGEST_SCALE, MOST_COLUMNS = 32, 1024                  # a sheet of more would not fit into memory
LABEL_WIDTH = 24        # characters of a row's name before it is broken


def add_sample(p) -> None:
    p.add_argument("prompt", nargs="+")
    p.add_argument("--model", action="append", default=SUPPRESS, help="shipped name, folder or Hub id; several: once "
                   f"for each (default: {MODEL})")
    p.add_argument("--out", type=Path, default=Path("sample.png"), help="PNG to write")
    p.add_argument("--seed", type=int, action="append", default=SUPPRESS, help="of the first picture in a row; "
                   "several: once for each picture (default: 0)")
    p.add_argument("--num-images-per-prompt", type=int, default=SUPPRESS, help="with seeds that count up (default: one "
                   "for each seed)")
    p.add_argument("--guidance-scale", type=float, default=SUPPRESS, help="(default: the model's, else 3)")
    p.add_argument("--guidance-schedule", default=SUPPRESS, help="constant or linear (default: the model's, else "
                   "constant)")
    p.add_argument("--temperature", type=float, default=SUPPRESS, help="(default: the model's, else 1)")
    p.add_argument("--num-inference-steps", type=int, default=SUPPRESS, help="steps over the sequence (default: the "
                   "model's, else one for each token, at most 64)")
    p.add_argument("--num-denoising-steps", type=int, default=SUPPRESS, help="inside a continuous head (default: the "
                   "model's, else 25)")
    p.add_argument("--solver", default=SUPPRESS, help="of a continuous head: ancestral, dpm++, ddim; heun, euler "
                   "(default: the model's, else the head's own)")
    p.add_argument("--scale", type=int, default=4, help="how many times larger the pictures are written")
    p.add_argument("--no-labels", action="store_true", help="pictures only, without names of rows and columns")
    p.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps, ...")
    p.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of text encoder and backbone")
    add_threads(p)


def run_sample(args) -> None:
    """Draw pictures from prompts, side by side in one file."""
    use_threads(args)
    check_range("scale", args.scale, 1, LARGEST_SCALE, kind=int)
    args.model = vars(args).get("model", [MODEL])
    seeds = _seeds(vars(args).get("seed", [0]), vars(args).get("num_images_per_prompt"))
    partial = _reserve(args.out)
    try:
        pixels, rows = _draw(args, seeds)
        picture = _sheet(pixels, rows, seeds, args)
        picture.save(partial, format="PNG", pnginfo=_facts(rows, seeds, args))
        os.replace(partial, args.out)
    finally:
        partial.unlink(missing_ok=True)
    print(f"{args.out}: {len(pixels)} images")


def _seeds(seeds: list[int], number: int | None) -> list[int]:
    if number is not None:
        check_range("num_images_per_prompt", number, 1, MOST_COLUMNS, kind=int)
    if len(seeds) > 1 and number not in (None, len(seeds)):
        raise ValueError(f"num_images_per_prompt must be the number of seeds, {len(seeds)}, got {number}.")
    return seeds if len(seeds) > 1 else [seeds[0] + i for i in range(number or 1)]


def _reserve(out: Path) -> Path:
    """The file to write to before it is renamed; made now, since a folder that cannot be written to is told at once."""
    if out.suffix.lower() != ".png":
        raise ValueError(f"out must end in .png, which can hold how it was made, got {str(out)!r}.")
    if out.is_dir() or not out.parent.is_dir():
        what = "a folder" if out.is_dir() else f"in a folder that does not exist, {out.parent}"
        raise ValueError(f"out must be a file in an existing folder, got {out}, which is {what}.")
    partial = out.with_name(out.name + ".part")
    partial.touch()
    return partial


def _draw(args, seeds: list[int]) -> tuple[list, list[dict]]:
    """Pixels (3, H, W) row by row, and what each row is."""
    import torch

    from fluidlab.config import SampleConfig
    from fluidlab.device import usable_device
    from fluidlab.pipeline import FluidPipeline
    from fluidlab.viz.studio import heard
    asked = {name: value for name, value in vars(args).items() if name in SETTINGS}
    SampleConfig(**asked)                                                       # refused before a model is read
    pixels, rows, told = [], [], set()
    for name in args.model:
        pipe = FluidPipeline.from_pretrained(name, dtype=getattr(torch, args.dtype)).to(usable_device(args.device))
        settings = SampleConfig(**{**pipe.config.defaults, **asked}).to_dict()
        for prompt in args.prompt:
            output, notes = heard(lambda pipe=pipe, prompt=prompt: pipe([prompt] * len(seeds), seed=seeds, **asked))
            pixels += output.pixels.cpu().unbind()
            rows.append({"model": name, "prompt": prompt, **settings})
            for note in notes if prompt not in told else ():
                print(f"fluidlab sample: {note}", file=sys.stderr)
            told.add(prompt)
    return pixels, rows


def _sheet(pixels: list, rows: list[dict], seeds: list[int], args):
    from fluidlab.viz.plots import contact_sheet
    from fluidlab.viz.show import image_grid
    if args.no_labels or len(pixels) == 1:
        return image_grid(pixels, columns=len(seeds), scale=args.scale)
    several = len(args.model) > 1
    labels = [(f"{Path(row['model']).name}\n" if several else "") + textwrap.fill(row["prompt"] or "(no text)",
                                                                                  LABEL_WIDTH) for row in rows]
    return contact_sheet(pixels, labels, [f"seed {seed}" for seed in seeds], scale=args.scale)


def _facts(rows: list[dict], seeds: list[int], args):
    import torch
    from PIL.PngImagePlugin import PngInfo

    import fluidlab
    facts = {"rows": rows, "seeds": seeds, "device": args.device, "dtype": args.dtype,
             "fluidlab": fluidlab.__version__, "torch": torch.__version__}
    text = PngInfo()
    text.add_itxt(KEY, json.dumps(facts, ensure_ascii=False))
    return text
