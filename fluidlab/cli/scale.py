"""`fluidlab scale`: train the cells of the scaling study one by one, or say what they will cost, or fit their laws."""

import time
from pathlib import Path

from fluidlab.cli.options import add_threads, use_threads
from fluidlab.cli.train import facts_of, make_trainer

GRID_PROMPTS = ("a photo of a purple umbrella", "a photo of two dogs", "a photo of a banana left of a cat",
                "a photo of a red car and a blue cup")
PLAIN = {"guidance_scale": 1.0, "temperature": 1.0}  # for the distance: the distribution that the loss is about


def add_scale(p) -> None:
    p.add_argument("--cache", type=Path, help="folder of `fluidlab cache` with both kinds of tokens; or give two")
    p.add_argument("--cache-discrete", type=Path, help="cache of the discrete tokens, instead of --cache")
    p.add_argument("--cache-continuous", type=Path, help="cache of the continuous tokens, instead of --cache")
    p.add_argument("--validation", type=Path, help="the validation split's cache; or its two, as above")
    p.add_argument("--validation-discrete", type=Path)
    p.add_argument("--validation-continuous", type=Path)
    p.add_argument("--sizes", nargs="+", help="default: the study's, femto to midi")
    p.add_argument("--orders", nargs="+", default=["raster", "random"])
    p.add_argument("--heads", nargs="+", default=["softmax", "diffusion"])
    p.add_argument("--seeds", nargs="+", type=int, default=[0])
    p.add_argument("--name", default="study", help="what the metrics of the results begin with: another name for cells "
                                                   "that were trained longer")
    p.add_argument("--steps", type=int, default=3200)
    p.add_argument("--batch-size", type=int, default=32)
    for head, lr in (("softmax", 1e-3), ("diffusion", 1.5e-3), ("flow", 1.5e-3)):
        p.add_argument(f"--lr-{head}", type=float, default=lr, help="peak learning rate at mini's width; the others' "
                                                                    "is as one over their width")
    p.add_argument("--sweep-lr", type=float, nargs="+", help="train every cell at each of these learning rates "
                                                            "instead, to choose one for each head")
    p.add_argument("--validate-every", type=int, default=800)
    p.add_argument("--precision", default="bf16", choices=("float32", "bf16"))
    p.add_argument("--out", type=Path, help="folder of the study, one folder a cell; run again to go on")
    p.add_argument("--results", type=Path, help="results.csv to add the losses to, or with --fit to read")
    p.add_argument("--score", action="store_true", help="only draw with every trained cell: SceneEval at the best "
                                                        "settings of the shipped sweep, the Frechet distance at "
                                                        "guidance scale and temperature 1")
    p.add_argument("--per-skill", type=int, default=50, help="--score: prompts of each skill, one image each")
    p.add_argument("--frechet-images", type=int, default=1000, help="--score: images for the distance")
    p.add_argument("--reference-images", type=int, default=10_000, help="--score: true scenes to compare with")
    p.add_argument("--moments", action="store_true", help="keep the weights wherever the loss is measured; with "
                                                          "--score, look at each of them and not only at the last")
    p.add_argument("--draw", type=Path, help="only draw the same prompts with every trained cell of the first seed, "
                                             "onto one PNG")
    p.add_argument("--prompts", nargs="+", default=GRID_PROMPTS, help="--draw: what is drawn")
    p.add_argument("--plan", action="store_true", help="only print parameters, FLOPs and the time each cell would take")
    p.add_argument("--fit", action="store_true", help="only fit the laws to the results")
    add_threads(p)


def run_scale(args) -> None:
    """The scaling study: train what is not yet trained of it, plan it (--plan), or fit its laws (--fit)."""
    use_threads(args)
    if args.fit:
        return fit(args)
    from fluidlab.evaluate.scaling import STUDY_SIZES, study_cells
    cells = study_cells(args.sizes or STUDY_SIZES, args.heads, args.orders, args.seeds)
    if args.plan:
        return plan(args, cells)
    if args.out is None:
        raise ValueError("scale needs --out, the folder of the study.")
    if args.score:
        return score(args, cells)
    if args.draw is not None:
        return draw(args, cells)
    for lr in args.sweep_lr or [None]:
        study(args, cells, lr)


def caches(args, cell) -> list:
    """The training cache and the validation cache of a cell (None if it was not given)."""
    from fluidlab.config import TOKEN_KINDS
    from fluidlab.data.token_cache import TokenCache, cache_tokenizer
    kind, found = TOKEN_KINDS[cell.head], []
    for what in ("cache", "validation"):
        folder = getattr(args, f"{what}_{kind}") or getattr(args, what)
        if folder is None and what == "cache":
            raise ValueError(f"the cell {cell.name} needs --cache or --cache-{kind}, got neither.")
        if folder is None and what == "validation" and not (args.plan or args.score or args.draw):
            raise ValueError(f"the cell {cell.name} needs --validation or --validation-{kind}, got neither: its loss "
                             f"is what the study is about.")
        found.append(folder and TokenCache(folder, cache_tokenizer(folder, kind)))
    return found


def check_same_images(args, cells) -> None:
    """Raise `ValueError` unless all heads learn from the same images and are measured on the same ones."""
    sources = {}
    for cell in {cell.head: cell for cell in cells}.values():
        data, held_out = caches(args, cell)
        sources[cell.head] = {**data.facts(), "validation": held_out.facts(),
                              "text": data.fingerprints()["text_encoder"][:12]}
    first = next(iter(sources))
    for head, source in sources.items():
        if source != sources[first]:
            raise ValueError(f"a study compares heads on the same images, but {first} has {sources[first]} and {head} "
                             f"has {source}.")


def trainer_of(args, cell, steps: int, lr: float | None = None):
    """A trainer for one cell, as `fluidlab train` makes it; without lr at its head's, for its width."""
    from fluidlab.config import TrainConfig
    from fluidlab.evaluate.scaling import rate_at
    from fluidlab.presets import preset
    data, held_out = caches(args, cell)
    lr = rate_at(getattr(args, f"lr_{cell.head}"), preset(cell.size).width) if lr is None else lr
    config = TrainConfig(steps=steps, batch_size=args.batch_size, lr=lr,
                         warmup_steps=min(200, max(1, steps // 8)), ema_decay=0.995, precision=args.precision,
                         log_every=100, validate_every=args.validate_every, save_every=500, seed=cell.seed)
    return make_trainer(config, data, held_out, cell.size, order=cell.order, head=cell.head)


def plan(args, cells) -> None:
    """Parameters, FLOPs and time of every cell, from a few timed steps."""
    from fluidlab.model.cost import part_counts, training_flops
    total = 0.0
    print(f"| cell | parameters | of them backbone | FLOPs of all steps | images/s | minutes |\n{'|---' * 6}|")
    for cell in cells:
        trainer = trainer_of(args, cell, args.steps)
        trainer.step()
        start = time.perf_counter()
        for _ in range(3):
            trainer.step()
        seconds = (time.perf_counter() - start) / 3
        counts, images = part_counts(trainer.model.config), args.steps * args.batch_size
        total += seconds * args.steps
        print(f"| {cell.name} | {counts['total']:,} | {counts['backbone']:,} "
              f"| {training_flops(trainer.model.config) * images:.2e} | {args.batch_size / seconds:.0f} "
              f"| {seconds * args.steps / 60:.1f} |", flush=True)
    print(f"{len(cells)} cells, {args.steps * args.batch_size:,} images each, {total / 60:.0f} minutes in all")


def study(args, cells, lr: float | None = None) -> None:
    """Train what is not trained yet, cell by cell; what was stopped is resumed. With lr: one value of a sweep."""
    import json

    from fluidlab.evaluate.results import append_results, provenance
    from fluidlab.train.loop import check_same_run, train
    check_same_images(args, cells)
    for number, cell in enumerate(cells, start=1):
        run = args.out / (cell.name if lr is None else f"{cell.name}-lr{lr:g}")
        done = (run / "model" / "config.json").is_file()  # written last
        print(f"[{number}/{len(cells)}] {run.name}{' is trained' if done else ''}", flush=True)
        trainer = trainer_of(args, cell, args.steps, lr)
        facts = {"preset": cell.size, **provenance(), **facts_of(*caches(args, cell))}
        if done:
            check_same_run(run, {"model": trainer.model.config.to_dict(), "train": trainer.config.to_dict(), **facts})
        else:
            if args.moments:
                keep_moments(trainer, run)
            train(trainer, run, resume=True, facts=facts)
        if args.results is not None:
            facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
            base = {"order": cell.order, "head": cell.head, "preset": cell.size,
                    "params": trainer.model.count_parameters()["total"], "seed": cell.seed,
                    **{key: facts[key] for key in provenance()}}
            metric = f"{args.name}_loss" if lr is None else f"loss_at_lr_{lr:g}"
            log = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
            measured = [r for r in log if r["val_loss"] is not None]
            if not measured or measured[-1]["step"] != args.steps:
                raise ValueError(f"{run} was trained to step {args.steps} but its loss was last measured at step "
                                 f"{measured[-1]['step'] if measured else 0}: remove the folder and train it again.")
            append_results([{**base, "steps": r["step"], "metric": metric, "value": round(r["val_loss"], 6)}
                            for r in measured], args.results)


def keep_moments(trainer, run: Path) -> None:
    """Keep the running mean of the weights in run/moments/STEP wherever the validation loss is measured."""
    from fluidlab.model.files import save_model
    measure = trainer.validate

    def validate(model) -> float:
        save_model(model, run / "moments" / f"{trainer.done:06d}")
        return measure(model)

    trainer.validate = validate


def painter(args, cell, text_encoder) -> tuple:
    """A function from a model's folder to a pipeline, and the settings at which the variant's sweep was best.

    Raises:
        ValueError: the tokenizer or the text encoder is not the one that the cell was trained with.
    """
    import json

    from fluidlab.data.token_cache import tokens_fingerprint
    from fluidlab.evaluate.sweep import DEFAULT_STEPS, best_setting, read_sweep
    from fluidlab.model.files import load_model
    from fluidlab.pipeline import FluidPipeline
    from fluidlab.tokenizer import load_tokenizer
    tokenizer = load_tokenizer(caches(args, cell)[0].tokenizer)
    made_with = json.loads((args.out / cell.name / "run.json").read_text(encoding="utf-8"))["fingerprints"]
    found = {"tokenizer": tokens_fingerprint(tokenizer), "text_encoder": text_encoder.fingerprint()}
    for part, fingerprint in found.items():
        if made_with[part] != fingerprint:
            raise ValueError(f"the cell {cell.name} was trained with another {part}: fingerprint "
                             f"{made_with[part][:12]}, the present one has {fingerprint[:12]}.")
    setting = best_setting(read_sweep(model=f"{cell.order}-{cell.head}-mini", **DEFAULT_STEPS))
    return lambda folder: FluidPipeline(load_model(folder), tokenizer, text_encoder), setting


def check_trained(args, cells) -> None:
    """Raise `ValueError` unless every cell is trained."""
    missing = [cell.name for cell in cells if not (args.out / cell.name / "model" / "config.json").is_file()]
    if missing:
        raise ValueError(f"{len(missing)} of {len(cells)} cells are not trained yet, {missing[0]} first: run the "
                         f"study without --score or --draw before.")


def draw(args, cells) -> None:
    """The same prompts by every cell: a row for each variant and prompt, a column for each size (figure 9)."""
    import torch

    from fluidlab.evaluate.results import provenance
    from fluidlab.evaluate.sheet import write_sheet
    from fluidlab.text.encoder import load_text_encoder
    check_trained(args, cells)
    text_encoder, drawn, prompts = load_text_encoder("scenes-t5"), {}, list(args.prompts)
    for cell in (cell for cell in cells if cell.seed == args.seeds[0]):
        pipeline, setting = painter(args, cell, text_encoder)
        pixels = pipeline(args.out / cell.name / "model")(prompts, seed=list(range(len(prompts))), **setting).pixels
        for prompt, image in zip(prompts, pixels, strict=True):
            drawn.setdefault((f"{cell.order}-{cell.head}", prompt), {})[cell.size] = image
    sizes = list(dict.fromkeys(cell.size for cell in cells))
    pixels = torch.stack([torch.stack([row[size] for size in sizes]) for row in drawn.values()])
    rows = [{"variant": variant, "prompt": prompt} for variant, prompt in drawn]
    print(write_sheet(args.draw, pixels, {"rows": rows, "columns": sizes, **provenance()}))


def score(args, cells) -> None:
    """SceneEval and the Frechet distance of every trained cell, few images each: the study has many cells."""
    import json

    from fluidlab.cli.evaluate import fingerprints
    from fluidlab.evaluate.detector import load_detector
    from fluidlab.evaluate.report import evaluate_generator, reference_features
    from fluidlab.evaluate.results import append_results
    from fluidlab.evaluate.scaling import STUDY_METRICS
    from fluidlab.text.encoder import load_text_encoder
    check_trained(args, cells)
    text_encoder = load_text_encoder("scenes-t5")
    for cell in {(cell.order, cell.head): cell for cell in cells}.values():
        painter(args, cell, text_encoder)   # complains before anything is drawn
    detector = load_detector()
    reference = reference_features(detector, args.reference_images)
    for number, cell in enumerate(cells, start=1):
        run = args.out / cell.name
        pipeline, setting = painter(args, cell, text_encoder)
        last = json.loads((run / "run.json").read_text(encoding="utf-8"))["train"]["steps"]
        moments = {int(folder.name): folder for folder in sorted((run / "moments").glob("*")) if args.moments}
        for steps, folder in {**moments, last: run / "model"}.items():
            pipe = pipeline(folder)

            def draw_with(setting: dict, pipe=pipe):
                return lambda prompts, seeds: pipe(prompts, seed=seeds, **setting).pixels

            report = evaluate_generator(
                draw_with(setting), detector, run / "scored" / str(steps), per_skill=args.per_skill,
                images_per_prompt=1, frechet_images=args.frechet_images, reference=reference,
                draw_plainly=draw_with(PLAIN), facts={**fingerprints(pipe, detector), **setting, "distance_at": PLAIN})
            print(f"[{number}/{len(cells)}] {cell.name}, step {steps}: SceneEval {report.sceneval.overall}, Frechet "
                  f"{report.frechet:.3f}", flush=True)
            if args.results is not None:
                base = {"order": cell.order, "head": cell.head, "preset": cell.size, "steps": steps,
                        "seed": cell.seed, "params": pipe.model.count_parameters()["total"], **report.made_by}
                append_results([{**base, "metric": f"{args.name}_{key}", "value": round(value, 6)}
                                for key, value in report.metrics().items() if key in STUDY_METRICS], args.results)


def fit(args) -> None:
    """The laws of the study's losses against parameters, the backbone's alone, and FLOPs."""
    from fluidlab.evaluate.results import read_results
    from fluidlab.evaluate.scaling import X_AXES, study_laws, study_points
    from fluidlab.presets import preset
    points = study_points(read_results(args.results), lambda size, order, head: preset(size, order=order, head=head),
                          metric=f"{args.name}_loss", batch_size=args.batch_size)
    print(f"| variant | x | floor | b | c | R2 | largest size, held out |\n{'|---' * 7}|")
    sizes = min(len({p.size for p in points if p.variant == variant}) for variant in {p.variant for p in points})
    for x in X_AXES:
        for floor in (False, True)[:1 + (sizes > 3)]:  # three parameters want more than three sizes
            for found in study_laws(points, x, floor=floor):
                held_out = "" if found.held_out_error is None else f"{found.held_out_error:+.2%}"
                print(f"| {found.variant} | {x} | {'yes' if floor else 'no'} | {found.law.b_interval} "
                      f"| {found.law.c:.3f} | {found.law.r2:.4f} | {held_out} |")
