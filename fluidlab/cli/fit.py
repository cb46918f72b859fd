"""`fluidlab fit`: the tokenizers, the text encoder and the emoji atlas, wired to the data that they learn from."""

from pathlib import Path

from fluidlab.cli.options import add_threads, given, use_threads
from fluidlab.config import check_range


def add_fit(p) -> None:
    p.add_argument("what", choices=("atlas", "vae", "vq", "t5", "detector"))
    p.add_argument("--out", type=Path, help="folder to write; the atlas always goes to data/")
    p.add_argument("--steps", type=int, help="optimizer steps")
    p.add_argument("--minutes", type=float, help="for vae and vq, instead of steps")
    p.add_argument("--lr", type=float, help="peak learning rate; default: the recipe's")
    p.add_argument("--batch-size", type=int, help="default: the recipe's")
    p.add_argument("--codebook-size", type=int, help="for vq")
    p.add_argument("--decoder-of", type=Path, help="for vae and vq: keep the encoder of this folder, train its decoder")
    p.add_argument("--photo-share", type=float, default=0.0625, help="share of a batch that is photograph crops")
    p.add_argument("--num-captions", type=int, default=60_000, help="for t5: scenes whose captions are read")
    p.add_argument("--precision", default="float32", choices=("float32", "bf16"), help="for t5")
    p.add_argument("--resume", action="store_true", help="for vae, vq and detector")
    add_threads(p)


def run_fit(args) -> None:
    """Train a tokenizer (vae, vq), the text encoder (t5) or SceneEval's judge (detector), or draw the atlas anew."""
    use_threads(args)
    if args.what == "atlas":
        from fluidlab.data.atlas import build_atlas
        build_atlas()
    elif args.out is None:
        raise ValueError(f"fit {args.what} needs --out, the folder to write.")
    else:
        {"t5": fit_text_encoder, "detector": fit_judge}.get(args.what, fit_image_tokenizer)(args)


def fit_image_tokenizer(args) -> None:
    """Scenes and photograph crops, a fixed share of each in every batch, into `fit_tokenizer`."""
    import torch

    from fluidlab.data.photos import PhotoCrops
    from fluidlab.data.scenes import EmojiScenes
    from fluidlab.tokenizer.fit import TOKENIZERS, FitConfig, fit_tokenizer
    check_range("photo_share", args.photo_share, 0, 1)
    if args.codebook_size is not None and args.what != "vq":
        raise ValueError(f"codebook_size is for fit vq alone, got it for fit {args.what}.")
    config = FitConfig(**given(lr=args.lr, batch_size=args.batch_size))
    scenes, photos = EmojiScenes("train"), PhotoCrops("train")
    num_photos = round(args.photo_share * config.batch_size)
    num_scenes = config.batch_size - num_photos

    def batches(step: int) -> torch.Tensor:
        parts = [source.batch([(step * n + i) % len(source) for i in range(n)])
                 for source, n in ((scenes, num_scenes), (photos, num_photos)) if n]
        return torch.cat([part[0] if isinstance(part, tuple) else part for part in parts])     # (B, 3, 64, 64) uint8
    model_config = TOKENIZERS[args.what][1](**given(codebook_size=args.codebook_size))
    fit_tokenizer(args.what, batches, args.out, steps=args.steps, minutes=args.minutes, config=config,
                  model_config=model_config, resume=args.resume, decoder_of=args.decoder_of)


def fit_text_encoder(args) -> None:
    """Captions of scenes, and nothing else, into `fit_text`."""
    from fluidlab.data.captions_text import caption_documents
    from fluidlab.text.fit import fit_text
    fit_text(caption_documents("train", args.num_captions), caption_documents("validation", 1000), args.out,
             precision=args.precision, **given(steps=args.steps, lr=args.lr, batch_size=args.batch_size))


def fit_judge(args) -> None:
    """True scenes, spoiled a little, into `fit_detector`."""
    from fluidlab.evaluate.detector_fit import DetectorRecipe, fit_detector
    if args.minutes is not None:
        raise ValueError(f"fit detector is budgeted in --steps, got --minutes {args.minutes:g}.")
    fit_detector(args.out, DetectorRecipe(**given(steps=args.steps, lr=args.lr, batch_size=args.batch_size)),
                 resume=args.resume)
