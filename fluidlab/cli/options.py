"""Options that several commands share."""

import argparse

from fluidlab.config import check_range

MOST_THREADS = 4096         # with very many, OpenMP ends the process without a word


def add_threads(p: argparse.ArgumentParser) -> None:
    p.add_argument("--threads", type=int, default=0, help="CPU threads, 0 = all")


def use_threads(args) -> None:
    import torch
    check_range("threads", args.threads, 0, MOST_THREADS, kind=int)
    if args.threads:
        torch.set_num_threads(args.threads)


def add_source(p, num_images: int) -> None:
    p.add_argument("--split", default="train", choices=("train", "validation", "test"))
    p.add_argument("--image-size", type=int, default=64)
    p.add_argument("--data-seed", type=int, default=0, help="seed of the scenes")
    p.add_argument("--num-images", type=int, default=num_images)


def given(**options) -> dict:
    """The options that were given on the line, so that the recipe's own defaults stay for the rest."""
    return {name: value for name, value in options.items() if value is not None}
