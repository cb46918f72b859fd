"""`fluidlab evaluate geneval`: draw the 553 prompts, judge the pictures, sum up.

`fluidlab evaluate geneval MODEL --out FOLDER` does all three; --draw-only leaves the judging to another machine,
--images judges pictures that are there, and a score file (.jsonl) in a model's place is only summed up.
"""

from pathlib import Path

from fluidlab.cli.fid import DEFAULT_MODEL, drawing_settings, pick_device, pipeline_fingerprints


def add_geneval(p) -> None:
    p.add_argument("--prompts", type=Path, help="geneval: a file in the format of GenEval's evaluation_metadata.jsonl; "
                                                "default: the published 553 prompts")
    p.add_argument("--object-detector", default="facebook/mask2former-swin-small-coco-instance",
                   help="geneval: hub id or folder of a Mask2Former for MS-COCO's 80 classes")
    p.add_argument("--clip", default="openai/clip-vit-large-patch14", help="geneval: hub id or folder of a CLIP")
    p.add_argument("--precision", default="float32", choices=("float32", "bf16"), help="geneval: of the judge")
    p.add_argument("--draw-only", action="store_true", help="geneval: do not judge")


def geneval(args) -> None:
    """GenEval of what models draw, of pictures in a folder, or of score files."""
    names = args.names or (() if args.images is not None else (DEFAULT_MODEL,))
    files, models = [n for n in names if n.endswith(".jsonl")], [n for n in names if not n.endswith(".jsonl")]
    if args.images is not None and models:
        raise ValueError(f"give either a model to draw with or --images to judge, got {models[0]} and {args.images}.")
    if models and args.out is None:
        raise ValueError("evaluate geneval needs --out, the folder where pictures and verdicts are kept.")
    for name in files:
        sum_up(name, Path(name))
    if args.images is not None:
        judge_folder(args, args.images.name, args.images, open_judge(args))
    if models:
        draw_and_judge(args, models)


def draw_and_judge(args, models: list[str]) -> None:
    """Models one by one; everything that can be missing is asked for before the first picture is drawn."""
    from fluidlab.cli.evaluate import rows_of, training_facts
    from fluidlab.evaluate.results import append_results
    from fluidlab.evaluate.resume import made_by
    from fluidlab.pipeline import FluidPipeline
    prompts, judge = wanted_prompts(args), None if args.draw_only else open_judge(args)
    if args.results is not None:
        for name in models:
            training_facts(name)
    for name in models:
        pipe, folder = FluidPipeline.from_pretrained(name), args.out / Path(name).name
        begun = made_by(folder)
        draw(args, name, pipe, prompts, folder)
        if judge is None:
            print(f"{name}: {len(prompts)} prompts, {args.images_per_prompt} pictures each, in {folder}")
            continue
        found = judge_folder(args, name, folder, judge)
        if args.results is not None:
            append_results(rows_of(name, pipe, found.metrics(), begun), args.results)


def wanted_prompts(args) -> list[dict]:
    from fluidlab.evaluate.geneval_prompts import geneval_prompts, read_prompts
    return geneval_prompts() if args.prompts is None else read_prompts(args.prompts)


def open_judge(args):
    from fluidlab.evaluate.geneval_judge import Judge
    return Judge.from_pretrained(args.object_detector, args.clip, device=pick_device(args.device),
                                 precision=args.precision)


def draw(args, name: str, pipe, prompts: list[dict], folder: Path) -> None:
    from fluidlab.evaluate.geneval import draw_images
    settings = drawing_settings(args)
    draw_images(lambda texts, seeds: pipe(texts, seed=seeds, **settings).pixels, prompts, folder,
                images_per_prompt=args.images_per_prompt, seed=args.seed, batch_size=args.batch_size,
                facts={**pipeline_fingerprints(pipe), **settings})


def judge_folder(args, name: str, folder: Path, judge):
    """Judge, print the table; with --images and --out the score file goes to --out."""
    from fluidlab.evaluate.geneval import RESULTS, judge_images
    results = folder / RESULTS
    if args.images is not None and args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        results = args.out / RESULTS
    judge_images(judge, folder, results=results)
    return sum_up(name, results)


def sum_up(name: str, results: Path):
    from fluidlab.evaluate.geneval_score import geneval_scores, read_records
    found = geneval_scores(read_records(results))
    print(f"\n{name}: GenEval {found.overall}, {found.prompts_solved:.1%} of the prompts have a right picture "
          f"({results})\n{found.table()}", flush=True)
    return found
