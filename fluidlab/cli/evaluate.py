"""`fluidlab evaluate`: tokenizers on what they have never seen, SceneEval's judge, and what a pipeline draws."""

import json
from pathlib import Path

from fluidlab.cli.options import add_threads, use_threads

USAGE_SCENES = 4096   # enough tokens (65,536) to show every code of a vocabulary of 8,192 that is in use at all


def add_evaluate(p) -> None:
    p.add_argument("what", choices=("tokenizers", "judge", "images"))
    p.add_argument("names", nargs="*", help="shipped names or folders; default: the shipped tokenizers, the shipped "
                                            "judge, or random-diffusion-mini")
    p.add_argument("--num-images", type=int, default=512, help="tokenizers: scenes and crops; the three photographs "
                                                               "are always all")
    p.add_argument("--per-skill", type=int, default=100, help="images: prompts of each skill; judge: 4 times as many "
                                                              "true scenes of each")
    p.add_argument("--images-per-prompt", type=int, default=4, help="images: of SceneEval")
    p.add_argument("--frechet-images", type=int, default=4000, help="images: drawn for the Frechet distance")
    p.add_argument("--guidance-scale", type=float, default=3.0)
    p.add_argument("--temperature", type=float, default=1.0)
    p.add_argument("--num-inference-steps", type=int, default=None)
    p.add_argument("--num-denoising-steps", type=int, default=25)
    p.add_argument("--seed", type=int, default=0, help="images: of the drawing")
    p.add_argument("--detector", default="scenes-detector", help="shipped name or folder of the judge")
    p.add_argument("--out", type=Path, help="images: folder where drawings' verdicts are kept; run again to go on")
    p.add_argument("--results", type=Path, help="images: add the numbers to this results.csv")
    add_threads(p)


def run_evaluate(args) -> None:
    """Measure tokenizers, SceneEval's judge, or what a pipeline draws, on scenes that none of them has seen."""
    use_threads(args)
    {"tokenizers": tokenizers, "judge": judge, "images": images}[args.what](args)


def tokenizers(args) -> None:
    """PSNR, SSIM and bits of tokenizers on held-out scenes and photographs, and the use of their codes."""
    import torch

    from fluidlab.data.photos import PHOTOS_HELDOUT, PhotoCrops, load_photo
    from fluidlab.data.scenes import EmojiScenes
    from fluidlab.tokenizer import load_tokenizer
    from fluidlab.tokenizer.metrics import code_perplexity, codebook_usage, evaluate_tokenizer
    if args.num_images < 1:
        raise ValueError(f"num_images must be at least 1, got {args.num_images}.")
    loaded = {name: load_tokenizer(name) for name in args.names or ("scenes-vae", "scenes-vq")}
    indices, scenes = range(args.num_images), EmojiScenes("test", 64)
    sets = {"held-out scenes, 64 px": scenes.batch(indices)[0],
            "held-out photograph crops, 64 px": PhotoCrops("test", 64).batch(indices),
            "held-out photographs, 256 px": torch.stack([load_photo(name, 256) for name in PHOTOS_HELDOUT])}
    print("| images | tokenizer | PSNR dB | SSIM | bits an image | more |\n|---|---|---|---|---|---|")
    for title, pixels in sets.items():
        for name, tokenizer in loaded.items():
            result = evaluate_tokenizer(tokenizer, pixels.float() / 127.5 - 1, 32)
            psnr, ssim, bits = (result.pop(key) for key in ("psnr", "ssim", "bits_per_image"))
            more = ", ".join(f"{key} {value:.4g}" for key, value in result.items())
            print(f"| {title} | {name} | {psnr:.2f} | {ssim:.3f} | {bits:.0f} | {more} |", flush=True)
    for name, tokenizer in loaded.items():
        if tokenizer.kind == "discrete":
            starts = range(0, USAGE_SCENES, 256)
            codes = torch.cat([tokenizer.encode(scenes.batch(range(s, s + 256))[0].float() / 127.5 - 1)
                               for s in starts])                                        # (USAGE_SCENES, N)
            size = tokenizer.codebook_size
            print(f"{name}: {codebook_usage(codes, size):.1%} of {size} codes in use over {USAGE_SCENES} held-out "
                  f"scenes, worth {code_perplexity(codes, size):.0f} equally likely ones")


def judge(args) -> None:
    """What a judge says of true scenes with their own captions, and with those of other scenes."""
    import torch

    from fluidlab.evaluate.detector import load_detector
    from fluidlab.evaluate.sceneval import SKILLS, examine
    from fluidlab.tokenizer import load_tokenizer

    def through(name: str):
        tokenizer = load_tokenizer(name)
        return lambda images: tokenizer.decode(tokenizer.encode(images))

    changes = {"as they are": lambda images: images,
               **{f"through {name}": through(name) for name in ("scenes-vae", "scenes-vq")}}
    print(f"| judge | true scenes | caption | {' | '.join(SKILLS)} | overall |\n|{'---|' * (len(SKILLS) + 4)}")
    for name in args.names or (args.detector,):
        detector = load_detector(name)
        for title, change in changes.items():
            with torch.no_grad():
                both = examine(detector, 4 * args.per_skill, through=change)
            for caption, found in zip(("its own", "another's"), both, strict=True):
                cells = " | ".join(f"{found.skills[skill].value:.3f}" for skill in SKILLS)
                print(f"| {name} | {title} | {caption} | {cells} | {found.overall} |", flush=True)


def images(args) -> None:
    """SceneEval and the Frechet distance of what pipelines draw."""
    from fluidlab.config import data_dir
    from fluidlab.data.token_cache import weights_fingerprint
    from fluidlab.evaluate.detector import load_detector
    from fluidlab.evaluate.report import evaluate_generator
    from fluidlab.evaluate.results import append_results, provenance
    from fluidlab.pipeline import FluidPipeline
    if args.out is None:
        raise ValueError("evaluate images needs --out, the folder where verdicts are kept.")
    detector = load_detector(args.detector)
    options = {name: getattr(args, name) for name in ("guidance_scale", "temperature", "num_inference_steps",
                                                      "num_denoising_steps")}
    names = args.names or ("random-diffusion-mini",)
    if args.results is not None:
        trained = {name: training_facts(Path(name) if Path(name).is_dir() else data_dir() / name) for name in names}
    for name in names:
        pipe = FluidPipeline.from_pretrained(name)
        parts = {"model": pipe.model, "tokenizer": pipe.tokenizer, "judge": detector}
        made_by = {key: weights_fingerprint(part) for key, part in parts.items()}
        made_by |= {"text_encoder": pipe.text_encoder.fingerprint(), **options}
        report = evaluate_generator(
            lambda prompts, seeds, pipe=pipe: pipe(prompts, seed=seeds, **options).pixels, detector,
            args.out / Path(name).name, per_skill=args.per_skill, images_per_prompt=args.images_per_prompt,
            frechet_images=args.frechet_images, seed=args.seed, facts=made_by)
        print(f"\n{name}, {report.num_images} images, "
              + ", ".join(f"{key} {value}" for key, value in options.items()))
        for key, value in report.metrics().items():
            if not key.endswith(("_low", "_high", "_error")):
                print(f"  {key:<24} {value:8.3f}")
        if args.results is not None:
            facts = trained[name]
            base = {"order": pipe.model.config.order, "head": pipe.model.config.head, "preset": facts["preset"],
                    "params": pipe.model.count_parameters()["total"],
                    "steps": facts.get("steps", facts["train"]["steps"]), "seed": facts["train"]["seed"],
                    **provenance()}
            append_results([{**base, "metric": key, "value": round(value, 6)}
                            for key, value in report.metrics().items()], args.results)


def training_facts(folder: Path) -> dict:
    """How a shipped or exported model was trained; `ValueError` if nobody wrote it down."""
    if not (folder / "training.json").is_file():
        raise ValueError(f"{folder} holds no training.json, which --results needs; `fluidlab export` writes one.")
    return json.loads((folder / "training.json").read_text(encoding="utf-8"))
