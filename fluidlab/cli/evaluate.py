"""`fluidlab evaluate`: tokenizers on what they have never seen, SceneEval's judge, losses, and drawings.

FID and GenEval, the paper's own measures, are in fid.py and geneval.py beside this file.
"""

import json
from pathlib import Path

from fluidlab.cli.fid import add_fid, fid
from fluidlab.cli.geneval import add_geneval, geneval
from fluidlab.cli.options import add_threads, use_threads

JUDGE_SCENES = 50     # true scenes of each skill that the judge is tried on beside every score
USAGE_SCENES = 4096   # enough tokens (65,536) to show every code of a vocabulary of 8,192 that is in use at all


FOUR = [f"{order}-{head}-mini" for order in ("raster", "random") for head in ("softmax", "diffusion")]


def add_evaluate(p) -> None:
    p.add_argument("what", choices=("tokenizers", "judge", "loss", "images", "sweep", "card", "fid", "geneval"))
    p.add_argument("names", nargs="*", help="shipped names or folders; default: the shipped tokenizers, the shipped "
                                            "judge, or the four shipped models for loss, sweep and "
                                            "card, and random-diffusion-mini for images")
    p.add_argument("--num-images", type=int, help="tokenizers: scenes and crops, loss: validation scenes, default 512; "
                                                  "fid: pairs of image and caption, default 30,000")
    p.add_argument("--per-skill", type=int, default=100, help="images: prompts of each skill; judge: 4 times as many "
                                                              "true scenes of each")
    p.add_argument("--images-per-prompt", type=int, default=4, help="images: of SceneEval; geneval: of GenEval")
    p.add_argument("--frechet-images", type=int, default=4000, help="images: drawn for the Frechet distance")
    p.add_argument("--reference-images", type=int, default=10_000, help="true scenes that the distance compares with")
    p.add_argument("--guidance-scale", type=float, default=3.0)
    p.add_argument("--temperature", type=float, default=1.0)
    p.add_argument("--num-inference-steps", type=int, default=None)
    p.add_argument("--num-denoising-steps", type=int, default=25)
    p.add_argument("--solver", help="images: of the continuous head, such as dpm++; default: its own")
    p.add_argument("--guidance-scales", type=float, nargs="+", default=[1.0, 2.0, 3.0, 4.0, 6.0],
                   help="sweep: every combination of these")
    p.add_argument("--temperatures", type=float, nargs="+", default=[0.5, 0.7, 0.85, 1.0], help="sweep: and of these")
    p.add_argument("--inference-steps", type=int, nargs="+", default=[None], help="sweep: and of these")
    p.add_argument("--denoising-steps", type=int, nargs="+", default=[25], help="sweep: and of these")
    p.add_argument("--seed", type=int, default=0, help="images, fid, geneval: of the drawing")
    p.add_argument("--detector", default="scenes-detector", help="shipped name or folder of the judge")
    p.add_argument("--out", type=Path, help="images, sweep, fid, geneval: folder where what drawings get is kept; "
                                          "run again to go on")
    p.add_argument("--results", type=Path, help="add the numbers to this results.csv; sweep: to this sweep.csv; card: "
                                              "read it")
    add_fid(p)
    add_geneval(p)
    add_threads(p)


def run_evaluate(args) -> None:
    """Measure tokenizers, SceneEval's judge, or what a pipeline draws: on unseen scenes, or by FID and GenEval."""
    use_threads(args)
    if args.num_images is None:
        args.num_images = 30_000 if args.what == "fid" else 512
    {"tokenizers": tokenizers, "judge": judge, "loss": loss, "images": images, "sweep": sweep,
     "card": card, "fid": fid, "geneval": geneval}[args.what](args)


def tokenizers(args) -> None:
    """PSNR, SSIM and bits of tokenizers on held-out scenes and photographs, and the use of their codes."""
    import torch

    from fluidlab.data.photos import PHOTOS_HELDOUT, PhotoCrops, load_photo
    from fluidlab.data.scenes import EmojiScenes
    from fluidlab.evaluate.results import append_results, provenance
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
    floors = reconstruction_distances({"true scenes": None, **loaded}, args)
    for name, distance in floors.items():
        print(f"{name}: Frechet distance {distance:.4f} of {args.frechet_images} held-out scenes"
              + (" from others: only the bias of so few" if name not in loaded else
                 " after encoding and decoding: no model on these tokens gets below it"))
    if args.results is not None:
        append_results([{"order": "", "head": "", "preset": Path(name).name, "steps": "", "seed": "",
                         "params": sum(p.numel() for p in loaded[name].parameters()) if name in loaded else "",
                         **provenance(), "metric": "reconstruction_frechet", "value": round(distance, 6)}
                        for name, distance in floors.items()], args.results)


def reconstruction_distances(tokenizers: dict, args) -> dict[str, float]:
    """Frechet distance of the true scenes whose captions models draw, after a trip through each tokenizer, if any."""
    from fluidlab.evaluate.detector import load_detector
    from fluidlab.evaluate.frechet import frechet_distance
    from fluidlab.evaluate.report import CAPTION_SEED, reference_features
    detector = load_detector(args.detector)
    reference, distances = reference_features(detector, args.reference_images), {}
    for name, tokenizer in tokenizers.items():
        way = (lambda images: images) if tokenizer is None else lambda images, t=tokenizer: t.decode(t.encode(images))
        features = reference_features(detector, args.frechet_images, seed=CAPTION_SEED, through=way)
        distances[name] = frechet_distance(features, reference)
    return distances


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


def loss(args) -> None:
    """Validation loss of shipped or exported models on scenes, in its units, and by how many tokens are known."""
    from fluidlab.data.scenes import EmojiScenes
    from fluidlab.evaluate.loss import EncodedScenes, loss_when_known, nats_to_bits, validation_loss
    from fluidlab.evaluate.results import append_results, provenance
    from fluidlab.pipeline import FluidPipeline
    n, scenes, rows = args.num_images, EmojiScenes("validation"), []
    if args.results is not None:
        for name in args.names or FOUR:  # complains before anything is measured
            training_facts(name)
    print(f"| model | validation loss | bits a token | loss when k tokens are known |\n{'|---' * 4}|")
    for name in args.names or FOUR:
        pipe = FluidPipeline.from_pretrained(name)
        data, N = EncodedScenes(scenes, pipe.tokenizer, pipe.text_encoder, n), pipe.model.config.seq_len
        mean, discrete = validation_loss(pipe.model, data, n), pipe.tokenizer.kind == "discrete"
        by_known = {k: loss_when_known(pipe.model, data, k, n) for k in sorted({0, N // 4, N // 2, N - N // 4, N - 1})}
        print(f"| {name} | {mean:.4f} {'nats' if discrete else 'squared error'} "
              f"| {f'{nats_to_bits(mean):.3f}' if discrete else ''} "
              f"| {', '.join(f'{k}: {value:.4f}' for k, value in by_known.items())} |", flush=True)
        if args.results is not None:
            measured = {"loss": mean, **{f"loss_known_{k}": value for k, value in by_known.items()}}
            rows += rows_of(name, pipe, measured, provenance())
    if args.results is not None:
        append_results(rows, args.results)


def images(args) -> None:
    """SceneEval and the Frechet distance of what pipelines draw."""
    from fluidlab.evaluate.detector import load_detector
    from fluidlab.evaluate.report import evaluate_generator
    from fluidlab.evaluate.results import append_results
    from fluidlab.evaluate.sceneval import examine
    from fluidlab.pipeline import FluidPipeline
    if args.out is None:
        raise ValueError("evaluate images needs --out, the folder where verdicts are kept.")
    detector = load_detector(args.detector)
    options = {name: getattr(args, name) for name in ("guidance_scale", "temperature", "num_inference_steps",
                                                      "num_denoising_steps")}
    options |= {"solver": args.solver} if args.solver else {}
    names = args.names or ("random-diffusion-mini",)
    if args.results is not None:
        for name in names:  # complains before anything is drawn
            training_facts(name)
    of_true_scenes = examine(detector, JUDGE_SCENES)
    for name in names:
        pipe = FluidPipeline.from_pretrained(name)
        made_by = {**fingerprints(pipe, detector), **options}
        report = evaluate_generator(
            lambda prompts, seeds, pipe=pipe: pipe(prompts, seed=seeds, **options).pixels, detector,
            args.out / Path(name).name, per_skill=args.per_skill, images_per_prompt=args.images_per_prompt,
            frechet_images=args.frechet_images, reference_images=args.reference_images, seed=args.seed, facts=made_by)
        print(f"\n{name}, {report.num_images} images, "
              + ", ".join(f"{key} {value}" for key, value in options.items()))
        for key, value in report.metrics().items():
            if not key.endswith(("_low", "_high", "_error")):
                print(f"  {key:<24} {value:8.3f}")
        ceiling, mismatched = (found.overall for found in of_true_scenes)
        print(f"  of true scenes the judge says yes to {ceiling} with their own captions, to {mismatched} with others'")
        for file in keep_table(report, of_true_scenes, f"{pipe.model.config.order}-{pipe.model.config.head}",
                               args.out / Path(name).name):
            print(f"  {file}")
        if args.results is not None:
            append_results(rows_of(name, pipe, report.metrics(), report.made_by), args.results)


def keep_table(report, of_true_scenes: tuple, variant: str, folder: Path) -> list[Path]:
    """The scores of one run and what its judge is worth, as a table and as a picture, beside its verdicts."""
    import csv

    import matplotlib.pyplot as plt

    from fluidlab.viz.plots_evaluate import score_bars, skill_scores
    from fluidlab.whole import whole_file
    table, picture = folder / "scores.csv", folder / "scores.png"
    metrics = report.metrics()
    for name, found in zip(("judge_ceiling", "judge_mismatched"), of_true_scenes, strict=True):
        metrics |= {name: found.overall.value, f"{name}_low": found.overall.low, f"{name}_high": found.overall.high}
    with whole_file(table) as beside, beside.open("w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(("metric", "value", "low", "high"))
        writer.writerows((key, round(value, 6), metrics.get(f"{key}_low", ""), metrics.get(f"{key}_high", ""))
                         for key, value in metrics.items() if not key.endswith(("_low", "_high")))
    ceilings = {skill: interval.value for skill, interval in of_true_scenes[0].skills.items()}
    figure = score_bars({variant: skill_scores(metrics)}, {variant: ceilings})
    with whole_file(picture) as beside:
        figure.savefig(beside, format="png")
    plt.close(figure)
    return [table, picture]


def sweep(args) -> None:
    """SceneEval and the Frechet distance over guidance scales, temperatures and steps."""
    from fluidlab.evaluate.detector import load_detector
    from fluidlab.evaluate.sweep import best_setting, settings_grid, write_sweep
    from fluidlab.evaluate.sweep import sweep as run
    from fluidlab.pipeline import FluidPipeline
    if args.out is None:
        raise ValueError("evaluate sweep needs --out, the folder where verdicts are kept.")
    detector = load_detector(args.detector)
    grid = settings_grid(args.guidance_scales, args.temperatures, args.inference_steps, args.denoising_steps)
    for name in args.names or FOUR:
        pipe = FluidPipeline.from_pretrained(name)

        def report(row: dict, name=name) -> None:
            setting = ", ".join(f"{key} {row[key]}" for key in ("guidance_scale", "temperature", "num_inference_steps",
                                                                "num_denoising_steps"))
            print(f"{name}, {setting}: SceneEval {row['sceneval_overall']:.3f}, Frechet {row['frechet']:.3f}",
                  flush=True)
            if args.results is not None:
                write_sweep([{"model": Path(name).name, **row}], args.results)

        rows = run(lambda prompts, seeds, pipe=pipe, **setting: pipe(prompts, seed=seeds, **setting).pixels, detector,
                   args.out / Path(name).name, grid, per_skill=args.per_skill, frechet_images=args.frechet_images,
                   reference_images=args.reference_images, facts=fingerprints(pipe, detector), on_row=report)
        for metric in ("sceneval_overall", "frechet"):
            print(f"{name}, best {metric}: {best_setting(rows, metric)}", flush=True)


def card(args) -> None:
    """Write card.json and README.md into the folders of shipped or exported models."""
    from fluidlab.evaluate.card import write_card
    for name in args.names or FOUR:
        made = write_card(model_folder(name), args.results)
        print(f"{name}: {len(made['scores'])} scores, {made['images']:,} images")


def fingerprints(pipe, detector) -> dict[str, str]:
    """Of everything that an evaluation of a pipeline depends on."""
    from fluidlab.data.token_cache import weights_fingerprint
    parts = {"model": pipe.model, "tokenizer": pipe.tokenizer, "judge": detector}
    return {**{key: weights_fingerprint(part) for key, part in parts.items()},
            "text_encoder": pipe.text_encoder.fingerprint()}


def rows_of(name: str, pipe, measured: dict[str, float], made_by: dict[str, str]) -> list[dict]:
    """Rows of results.csv for what was measured of a shipped or exported model, and by which command."""
    facts = training_facts(name)
    base = {"order": pipe.model.config.order, "head": pipe.model.config.head, "preset": facts["preset"],
            "params": pipe.model.count_parameters()["total"], "steps": facts.get("steps", facts["train"]["steps"]),
            "seed": facts["train"]["seed"], **made_by}
    return [{**base, "metric": key, "value": round(value, 6)} for key, value in measured.items()]


def training_facts(name: str) -> dict:
    """How a shipped or exported model was trained; `ValueError` if nobody wrote it down."""
    folder = model_folder(name)
    if not (folder / "training.json").is_file():
        raise ValueError(f"{folder} holds no training.json, which --results needs; `fluidlab export` writes one.")
    return json.loads((folder / "training.json").read_text(encoding="utf-8"))


def model_folder(name: str) -> Path:
    """The folder itself, or the shipped one of that name."""
    from fluidlab.config import data_dir
    return Path(name) if Path(name).is_dir() else data_dir() / name
