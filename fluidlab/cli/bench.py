"""`fluidlab bench`: every speed of the course in one run, beside the plain definition and the machine's own limit.

The last line is JSON: {"speedup": {"raster-softmax": ..., ..., "train": ...}, ...}.
"""

import json
from pathlib import Path

from fluidlab.cli.options import add_threads, use_threads

VARIANTS = ("raster-softmax", "raster-diffusion", "random-softmax", "random-diffusion")
PARTS = ("sampling", "training", "parts", "curves")


def add_bench(p) -> None:
    p.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="what is measured")
    p.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    p.add_argument("--tokens", type=int, default=256, help="tokens of an image that is drawn: 16, 64, 256")
    p.add_argument("--batch", type=int, default=16, help="images drawn at once, beside one alone")
    p.add_argument("--train-batch", type=int, default=128)
    p.add_argument("--repeats", type=int, default=3, help="of each measurement; the median counts")
    p.add_argument("--results", type=Path, help="keep the rows in this bench.csv")
    add_threads(p)


def run_bench(args) -> None:
    """How fast everything is, as ratios to the plain definition and as shares of the machine's peak."""
    import torch

    from fluidlab.bench.clock import peak_flops
    from fluidlab.bench.curves import axes, curve_rows, exponents
    from fluidlab.bench.parts import part_rows
    from fluidlab.bench.rows import keep_rows
    from fluidlab.bench.sampling import sampling_rows
    from fluidlab.bench.training import training_rows
    from fluidlab.config import check_range
    for name in ("batch", "train_batch", "repeats"):
        check_range(name, getattr(args, name), 1, kind=int)
    use_threads(args)
    threads = torch.get_num_threads()
    peaks = {"float32": peak_flops(), "bf16": peak_flops(torch.bfloat16)}
    print(f"{threads} threads; a large matrix product does {peaks['float32'] / 1e9:.0f} GFLOP/s in float32, "
          f"{peaks['bf16'] / 1e9:.0f} in bf16")
    rows, pairs = [], [tuple(variant.split("-")) for variant in args.variants]

    def told(more):
        for row in more:
            print(row.line(), flush=True)
            rows.append(row)
    for order, head in pairs if "sampling" in args.only else ():
        told(sampling_rows(order, head, args.tokens, args.batch, peaks["float32"], args.repeats))
    for order, head in pairs if "training" in args.only else ():
        told(training_rows(order, head, args.train_batch, peaks, args.repeats))
    if "parts" in args.only:
        told(part_rows(args.train_batch, peaks["float32"], args.repeats))
    for axis in axes() if "curves" in args.only else ():
        told(curve_rows(axis, args.repeats))
        time, memory = exponents(rows)
        print(f"curve: {axis.name}: time grows with the power {time:.2f}, memory with {memory:.2f}; "
              f"expected of the time: {axis.expected}")
    if args.results is not None:
        keep_rows(rows, args.results, threads)
    print(json.dumps(summary(rows, peaks)))


def summary(rows: list, peaks: dict[str, float]) -> dict:
    """What the last line says: the last rung of each ladder, and the worst of the trainings."""
    sampling = [row for row in rows if row.what.startswith("sampling ")]
    alone, together = ({row.what.removeprefix("sampling "): round(row.speedup, 2) for row in sampling
                        if (row.batch == 1) == one} for one in (True, False))
    best = {}
    for row in rows:
        if row.what.startswith("training "):
            best[row.what] = max(row.speedup, best.get(row.what, 0.0))
    speedup = {name: together.get(name, value) if name.startswith("raster") else value for name, value in alone.items()}
    return {"speedup": {**speedup, **({"train": round(min(best.values()), 2)} if best else {})},
            "speedup_batch_1": alone, "speedup_in_a_batch": together,
            "peak_gflops": {name: round(value / 1e9, 1) for name, value in peaks.items()}}
