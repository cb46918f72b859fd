"""`fluidlab doctor | fit | cache | train | export | sample | evaluate`: a few lines each over the package.

Mistakes are one sentence on stderr and exit code 2; Ctrl-C is exit code 130 after the state has been saved.
"""

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        return args.run(args) or 0
    except KeyboardInterrupt:
        return 130
    except (ValueError, FloatingPointError, OSError) as error:
        print(f"fluidlab {args.command}: {error}", file=sys.stderr)
        return 2


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fluidlab", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, add, run in (("doctor", add_doctor, run_doctor), ("fit", add_fit, run_fit),
                           ("cache", add_cache, run_cache), ("train", add_train, run_train),
                           ("export", add_export, run_export), ("sample", add_sample, run_sample),
                           ("evaluate", add_evaluate, run_evaluate)):
        command = commands.add_parser(name, help=run.__doc__, description=run.__doc__,
                                      formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        add(command)
        command.set_defaults(run=run)
    return parser


def add_threads(p: argparse.ArgumentParser) -> None:
    p.add_argument("--threads", type=int, default=0, help="CPU threads, 0 = all")


def use_threads(args) -> None:
    import torch
    if args.threads < 0:
        raise ValueError(f"threads must be at least 0, got {args.threads}.")
    if args.threads:
        torch.set_num_threads(args.threads)


def add_doctor(p) -> None:
    p.add_argument("--write-sums", action="store_true", help="write data/SHA256SUMS anew (for maintainers)")


def run_doctor(args) -> int:
    """Check Python, packages, device, memory, fonts and shipped files, and print the fix for each problem."""
    from fluidlab.checks import doctor
    return doctor.main(["--write-sums"] if args.write_sums else [])


def add_source(p, num_images: int) -> None:
    p.add_argument("--split", default="train", choices=("train", "validation", "test"))
    p.add_argument("--image-size", type=int, default=64)
    p.add_argument("--data-seed", type=int, default=0, help="seed of the scenes")
    p.add_argument("--num-images", type=int, default=num_images)


def add_cache(p) -> None:
    p.add_argument("folder", type=Path)
    p.add_argument("--tokenizers", nargs="+", default=["scenes-vae", "scenes-vq"])
    p.add_argument("--text-encoder", default="scenes-t5")
    p.add_argument("--batch-size", type=int, default=256)
    add_source(p, 320_000)
    add_threads(p)


def run_cache(args) -> None:
    """Compute tokens and text features once and keep them for training."""
    from fluidlab.data.scenes import EmojiScenes
    from fluidlab.data.token_cache import write_cache
    from fluidlab.text import load_text_encoder
    from fluidlab.tokenizer import load_tokenizer
    use_threads(args)
    scenes = EmojiScenes(args.split, args.image_size, args.data_seed, size=args.num_images)
    write_cache(args.folder, scenes, args.num_images, {n: load_tokenizer(n) for n in args.tokenizers},
                load_text_encoder(args.text_encoder), batch_size=args.batch_size,
                description={"scenes": args.split, "image_size": args.image_size, "seed": args.data_seed})
    print(f"{args.folder} holds {args.num_images} images")


def add_train(p) -> None:
    import dataclasses

    from fluidlab.config import TrainConfig
    p.add_argument("--order", default="random")
    p.add_argument("--head", default="diffusion")
    p.add_argument("--preset", default="mini")
    p.add_argument("--cache", type=Path, required=True, help="folder of `fluidlab cache`")
    p.add_argument("--validation", type=Path, help="another cache, of the validation split")
    p.add_argument("--tokenizer", help="which of the cache's tokens; default: the one of the head's kind")
    p.add_argument("--head-repeats", type=int, default=1)
    p.add_argument("--out", type=Path, required=True, help="folder of the run")
    p.add_argument("--resume", action="store_true")
    for field in dataclasses.fields(TrainConfig):
        if field.name != "betas":
            p.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    add_threads(p)


def run_train(args) -> None:
    """Train one variant on a cache; --resume continues a run that was stopped."""
    import dataclasses

    import torch

    from fluidlab.config import TOKEN_KINDS, TrainConfig, check_choice
    from fluidlab.data.token_cache import TokenCache, cache_tokenizer
    from fluidlab.evaluate.loss import validator
    from fluidlab.model.fluid import Fluid
    from fluidlab.presets import preset
    from fluidlab.train.loop import Trainer, train
    use_threads(args)
    check_choice("head", args.head, tuple(TOKEN_KINDS))
    names = [f.name for f in dataclasses.fields(TrainConfig) if f.name != "betas"]
    config = TrainConfig(**{name: getattr(args, name) for name in names})
    tokenizer = args.tokenizer or cache_tokenizer(args.cache, TOKEN_KINDS[args.head])
    data = TokenCache(args.cache, tokenizer)
    if data.kind != TOKEN_KINDS[args.head]:
        raise ValueError(f"head {args.head!r} needs {TOKEN_KINDS[args.head]} tokens, those of {tokenizer} are "
                         f"{data.kind}.")
    model_config = preset(args.preset, order=args.order, head=args.head, head_repeats=args.head_repeats,
                          **data.model_facts())
    torch.manual_seed(config.seed)
    model = Fluid(model_config)
    validate = None
    if args.validation is not None:
        held_out = TokenCache(args.validation, tokenizer)
        validate = validator(held_out, min(config.validate_images, len(held_out)))
    print(f"{args.order} + {args.head}, {args.preset}: {model.count_parameters()}, {len(data)} images")
    facts = {"preset": args.preset, "command": " ".join(["fluidlab", *sys.argv[1:]]),
             "fingerprints": data.fingerprints()}
    train(Trainer(model, data, config, validate), args.out, resume=args.resume, facts=facts)


def add_export(p) -> None:
    p.add_argument("trained", type=Path, metavar="run", help="folder of `fluidlab train`")
    p.add_argument("out", type=Path, help="folder to write, for `FluidPipeline.from_pretrained`")
    p.add_argument("--tokenizer", required=True, help="shipped name or folder of the tokenizer it was trained on")
    p.add_argument("--text-encoder", default="scenes-t5")
    p.add_argument("--results", type=Path, help="add the run's loss curve to this results.csv")


def run_export(args) -> None:
    """Turn a run's last checkpoint into a pipeline folder (half precision), and its log into rows of results.csv."""
    import json

    import torch

    from fluidlab.config import TrainConfig
    from fluidlab.data.token_cache import weights_fingerprint
    from fluidlab.evaluate.results import append_results, provenance
    from fluidlab.model.files import save_model, write_json
    from fluidlab.text import load_text_encoder
    from fluidlab.tokenizer import load_tokenizer
    from fluidlab.train.checkpoint import averaged_model
    model, steps = averaged_model(args.trained)
    facts = json.loads((args.trained / "run.json").read_text(encoding="utf-8"))
    config = TrainConfig.from_dict(facts["train"])
    found = {"tokenizer": weights_fingerprint(load_tokenizer(args.tokenizer)),
             "text_encoder": load_text_encoder(args.text_encoder).fingerprint()}
    for part, made_with in facts.setdefault("fingerprints", found).items():
        if found[part] != made_with:
            raise ValueError(f"the run was trained with another {part} than {getattr(args, part)}: fingerprint "
                             f"{made_with[:12]}, it has {found[part][:12]}.")
    save_model(model, args.out, dtype=torch.float16)
    write_json(args.out / "pipeline.json", {"tokenizer": args.tokenizer, "text_encoder": args.text_encoder})
    write_json(args.out / "training.json", {**facts, "steps": steps, "images": steps * config.batch_size})
    if args.results is not None:
        log = [json.loads(line) for line in (args.trained / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        base = {"order": model.config.order, "head": model.config.head, "preset": facts["preset"],
                "params": model.count_parameters()["total"], "seed": config.seed, **provenance(),
                "command": facts["command"]}
        rows = [{**base, "steps": r["step"], "metric": metric, "value": round(r[key], 6)}
                for r in log if r["step"] <= steps for key, metric in (("loss", "train_loss"), ("val_loss", "val_loss"))
                if r[key] is not None]
        append_results(rows, args.results)
    print(f"{args.out}: {model.config.order} + {model.config.head}, {steps * config.batch_size} images seen")


def add_sample(p) -> None:
    p.add_argument("prompt", nargs="+")
    p.add_argument("--model", default="random-diffusion-mini", help="shipped name or folder")
    p.add_argument("--out", type=Path, default=Path("sample.png"))
    p.add_argument("--num-images-per-prompt", type=int, default=1)
    p.add_argument("--guidance-scale", type=float, default=3.0)
    p.add_argument("--guidance-schedule", default="constant")
    p.add_argument("--temperature", type=float, default=1.0)
    p.add_argument("--num-inference-steps", type=int, default=None)
    p.add_argument("--num-denoising-steps", type=int, default=25)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--scale", type=int, default=4, help="how many times larger the picture is written")
    add_threads(p)


def run_sample(args) -> None:
    """Draw pictures from prompts, side by side in one file."""
    from fluidlab.pipeline import FluidPipeline
    from fluidlab.viz.show import image_grid
    use_threads(args)
    if args.scale < 1:
        raise ValueError(f"scale must be at least 1, got {args.scale}.")
    names = ("seed", "num_images_per_prompt", "guidance_scale", "guidance_schedule", "temperature",
             "num_inference_steps", "num_denoising_steps")
    output = FluidPipeline.from_pretrained(args.model)(args.prompt, **{n: getattr(args, n) for n in names})
    image_grid(output.pixels, columns=args.num_images_per_prompt, scale=args.scale).save(args.out)
    print(f"{args.out}: {len(output.images)} images")


def add_evaluate(p) -> None:
    p.add_argument("what", choices=("tokenizers",))
    p.add_argument("names", nargs="*", default=["scenes-vae", "scenes-vq"], help="shipped names or folders")
    p.add_argument("--num-images", type=int, default=512, help="scenes and crops; the three photographs are always all")
    add_threads(p)


def run_evaluate(args) -> None:
    """Measure tokenizers on scenes and photographs that they have never seen."""
    import torch

    from fluidlab.data.photos import PHOTOS_HELDOUT, PhotoCrops, load_photo
    from fluidlab.data.scenes import EmojiScenes
    from fluidlab.tokenizer import load_tokenizer
    from fluidlab.tokenizer.metrics import evaluate_tokenizer
    use_threads(args)
    if args.num_images < 1:
        raise ValueError(f"num_images must be at least 1, got {args.num_images}.")
    indices = range(args.num_images)
    sets = {"held-out scenes, 64 px": EmojiScenes("test", 64).batch(indices)[0],
            "held-out photograph crops, 64 px": PhotoCrops("test", 64).batch(indices),
            "held-out photographs, 256 px": torch.stack([load_photo(name, 256) for name in PHOTOS_HELDOUT])}
    print("| images | tokenizer | PSNR dB | SSIM | bits an image | more |\n|---|---|---|---|---|---|")
    for title, images in sets.items():
        for name in args.names:
            result = evaluate_tokenizer(load_tokenizer(name), images.float() / 127.5 - 1, 32)
            psnr, ssim, bits = (result.pop(key) for key in ("psnr", "ssim", "bits_per_image"))
            more = ", ".join(f"{key} {value:.4g}" for key, value in result.items())
            print(f"| {title} | {name} | {psnr:.2f} | {ssim:.3f} | {bits:.0f} | {more} |", flush=True)


def add_fit(p) -> None:
    p.add_argument("what", choices=("atlas", "vae", "vq", "t5"))
    p.add_argument("--out", type=Path, help="folder to write; the atlas always goes to data/")
    p.add_argument("--steps", type=int, help="optimizer steps")
    p.add_argument("--minutes", type=float, help="for vae and vq, instead of steps")
    p.add_argument("--lr", type=float, help="peak learning rate; default: the recipe's")
    p.add_argument("--batch-size", type=int, help="default: the recipe's")
    p.add_argument("--codebook-size", type=int, help="for vq")
    p.add_argument("--photo-share", type=float, default=0.0625, help="share of a batch that is photograph crops")
    p.add_argument("--num-captions", type=int, default=60_000, help="for t5: scenes whose captions are read")
    p.add_argument("--precision", default="float32", choices=("float32", "bf16"), help="for t5")
    p.add_argument("--resume", action="store_true", help="for vae and vq")
    add_threads(p)


def run_fit(args) -> None:
    """Train a tokenizer (vae, vq) or the text encoder (t5), or draw the emoji atlas anew."""
    use_threads(args)
    if args.what == "atlas":
        from fluidlab.data.atlas import build_atlas
        build_atlas()
    elif args.out is None:
        raise ValueError(f"fit {args.what} needs --out, the folder to write.")
    else:
        (fit_text_encoder if args.what == "t5" else fit_image_tokenizer)(args)


def given(**options) -> dict:
    """The options that were given on the line, so that the recipe's own defaults stay for the rest."""
    return {name: value for name, value in options.items() if value is not None}


def fit_image_tokenizer(args) -> None:
    """Scenes and photograph crops, a fixed share of each in every batch, into `fit_tokenizer`."""
    import torch

    from fluidlab.data.photos import PhotoCrops
    from fluidlab.data.scenes import EmojiScenes
    from fluidlab.tokenizer.fit import TOKENIZERS, FitConfig, fit_tokenizer
    config = FitConfig(**given(lr=args.lr, batch_size=args.batch_size))
    scenes, photos = EmojiScenes("train"), PhotoCrops("train")
    num_photos = round(args.photo_share * config.batch_size)
    num_scenes = config.batch_size - num_photos
    if not 0 <= num_photos <= config.batch_size:
        raise ValueError(f"photo_share must be a number from 0 to 1, got {args.photo_share}.")

    def batches(step: int) -> torch.Tensor:
        parts = [source.batch([(step * n + i) % len(source) for i in range(n)])
                 for source, n in ((scenes, num_scenes), (photos, num_photos)) if n]
        return torch.cat([part[0] if isinstance(part, tuple) else part for part in parts])     # (B, 3, 64, 64) uint8
    model_config = TOKENIZERS[args.what][1](**given(codebook_size=args.codebook_size))
    fit_tokenizer(args.what, batches, args.out, steps=args.steps, minutes=args.minutes, config=config,
                  model_config=model_config, resume=args.resume)


def fit_text_encoder(args) -> None:
    """Captions of scenes, and nothing else, into `fit_text`."""
    from fluidlab.data.captions_text import caption_documents
    from fluidlab.text.fit import fit_text
    fit_text(caption_documents("train", args.num_captions), caption_documents("validation", 1000), args.out,
             precision=args.precision, **given(steps=args.steps, lr=args.lr, batch_size=args.batch_size))
