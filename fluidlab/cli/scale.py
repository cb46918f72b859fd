"""`fluidlab scale`: train the cells of the scaling study one by one, or say what they will cost, or fit their laws."""

import time
from pathlib import Path

from fluidlab.cli.options import add_threads, use_threads
from fluidlab.cli.train import make_trainer


def add_scale(p) -> None:
    p.add_argument("--cache", type=Path, help="folder of `fluidlab cache` with both kinds of tokens; or give two")
    p.add_argument("--cache-discrete", type=Path, help="cache of the discrete tokens, instead of --cache")
    p.add_argument("--cache-continuous", type=Path, help="cache of the continuous tokens, instead of --cache")
    p.add_argument("--validation", type=Path, help="the validation split's cache; or its two, as above")
    p.add_argument("--validation-discrete", type=Path)
    p.add_argument("--validation-continuous", type=Path)
    p.add_argument("--sizes", nargs="+", help="default: the study's, pico to maxi")
    p.add_argument("--orders", nargs="+", default=["raster", "random"])
    p.add_argument("--heads", nargs="+", default=["softmax", "diffusion"])
    p.add_argument("--seeds", nargs="+", type=int, default=[0])
    p.add_argument("--steps", type=int, default=1500)
    p.add_argument("--batch-size", type=int, default=128)
    p.add_argument("--lr-softmax", type=float, default=2e-3)
    p.add_argument("--lr-diffusion", type=float, default=2e-3)
    p.add_argument("--lr-flow", type=float, default=2e-3)
    p.add_argument("--validate-every", type=int, default=500)
    p.add_argument("--precision", default="bf16", choices=("float32", "bf16"))
    p.add_argument("--out", type=Path, help="folder of the study, one folder a cell; run again to go on")
    p.add_argument("--results", type=Path, help="results.csv to add the losses to, or with --fit to read")
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
    return plan(args, cells) if args.plan else study(args, cells)


def caches(args, cell) -> list:
    """The training cache and the validation cache of a cell (None if it was not given)."""
    from fluidlab.config import TOKEN_KINDS
    from fluidlab.data.token_cache import TokenCache, cache_tokenizer
    kind, found = TOKEN_KINDS[cell.head], []
    for what in ("cache", "validation"):
        folder = getattr(args, f"{what}_{kind}") or getattr(args, what)
        if folder is None and what == "cache":
            raise ValueError(f"the cell {cell.name} needs --cache or --cache-{kind}, got neither.")
        if folder is None and what == "validation" and not args.plan:
            raise ValueError(f"the cell {cell.name} needs --validation or --validation-{kind}, got neither: its loss "
                             f"is what the study is about.")
        found.append(folder and TokenCache(folder, cache_tokenizer(folder, kind)))
    return found


def check_same_images(args, cells) -> None:
    """Raise `ValueError` unless all heads learn from the same images."""
    sources = {}
    for cell in {cell.head: cell for cell in cells}.values():
        manifest = caches(args, cell)[0].manifest
        sources[cell.head] = {"num_images": manifest["num_images"], "source": manifest["source"],
                              "text": manifest["text"]["fingerprint"][:12]}
    first = next(iter(sources))
    for head, source in sources.items():
        if source != sources[first]:
            raise ValueError(f"a study compares heads on the same images, but {first} has {sources[first]} and {head} "
                             f"has {source}.")


def trainer_of(args, cell, steps: int):
    """A trainer for one cell, as `fluidlab train` makes it."""
    from fluidlab.config import TrainConfig
    data, held_out = caches(args, cell)
    config = TrainConfig(steps=steps, batch_size=args.batch_size, lr=getattr(args, f"lr_{cell.head}"),
                         warmup_steps=min(200, max(1, steps // 8)), ema_decay=0.995, precision=args.precision,
                         log_every=100, validate_every=args.validate_every, save_every=500, seed=cell.seed)
    return make_trainer(config, data, held_out, cell.size, order=cell.order, head=cell.head)


def plan(args, cells) -> None:
    """Parameters, FLOPs and time of every cell, from a few timed steps."""
    from fluidlab.evaluate.scaling import part_counts, training_flops
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


def study(args, cells) -> None:
    """Train what is not trained yet, cell by cell; what was stopped is resumed."""
    import json

    from fluidlab.evaluate.results import append_results, provenance
    from fluidlab.train.loop import check_same_run, train
    if args.out is None:
        raise ValueError("scale needs --out, the folder of the study.")
    check_same_images(args, cells)
    for number, cell in enumerate(cells, start=1):
        run = args.out / cell.name
        done = (run / "model" / "config.json").is_file()  # written last
        print(f"[{number}/{len(cells)}] {cell.name}{' is trained' if done else ''}", flush=True)
        trainer = trainer_of(args, cell, args.steps)
        facts = {"preset": cell.size, **provenance(), "fingerprints": trainer.data.fingerprints()}
        if done:
            check_same_run(run, {"model": trainer.model.config.to_dict(), "train": trainer.config.to_dict(), **facts})
        else:
            train(trainer, run, resume=True, facts=facts)
        if args.results is not None:
            facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
            base = {"order": cell.order, "head": cell.head, "preset": cell.size,
                    "params": trainer.model.count_parameters()["total"], "seed": cell.seed,
                    **{key: facts[key] for key in provenance()}}
            log = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
            append_results([{**base, "steps": r["step"], "metric": "study_loss", "value": round(r["val_loss"], 6)}
                            for r in log if r["val_loss"] is not None], args.results)


def fit(args) -> None:
    """The laws of the study's losses against parameters, the backbone's alone, and FLOPs."""
    from fluidlab.evaluate.results import read_results
    from fluidlab.evaluate.scaling import X_AXES, study_laws, study_points
    from fluidlab.presets import preset
    points = study_points(read_results(args.results), lambda size, order, head: preset(size, order=order, head=head),
                          metric="study_loss", batch_size=args.batch_size)
    print(f"| variant | x | floor | b | c | R2 | largest size, held out |\n{'|---' * 7}|")
    sizes = min(len({p.size for p in points if p.variant == variant}) for variant in {p.variant for p in points})
    for x in X_AXES:
        for floor in (False, True)[:1 + (sizes > 3)]:  # three parameters want more than three sizes
            for found in study_laws(points, x, floor=floor):
                held_out = "" if found.held_out_error is None else f"{found.held_out_error:+.2%}"
                print(f"| {found.variant} | {x} | {'yes' if floor else 'no'} | {found.law.b_interval} "
                      f"| {found.law.c:.3f} | {found.law.r2:.4f} | {held_out} |")
