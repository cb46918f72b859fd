"""All that can only be tried where there is a network: one step for each part that is not shipped.

A step knows an address, about how much of it is fetched, and what must be found there. This file is the list and the
way through it; how a kind of part is tried stands in online_parts.py. What to notice: what passed is written down after
every step, so that hours of downloads are not begun again because of the last of them.
"""

import gc
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import torch

from fluidlab.checks import online_parts as parts
from fluidlab.data.coco import COCO_ON_THE_HUB, NUM_PAIRS
from fluidlab.evaluate.geneval_judge import CLIP, DETECTOR
from fluidlab.whole import write_json

REPORT = "verify-online.json"
LIBRARIES = ("torch", "diffusers", "transformers", "datasets", "huggingface_hub")
MINE = "USER/NAME"                                   # stands for the repository that --push-to names


@dataclass(frozen=True, kw_only=True)
class Step:
    """One part to try.

    Args:
        name: for the command line.  what: for people.  id: the address.
        megabytes: about what is fetched (or sent) the first time.
        check: called as check(step, folder); returns what was found, or raises with the reason.
        expects: what `check` compares with.
        asked_for: run only where its name is given.
    """

    name: str
    what: str
    id: str
    megabytes: int
    check: Callable[["Step", Path], str]
    expects: dict = field(default_factory=dict)
    asked_for: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a step ended. `found` is what it found, or the sentence of its error; `seconds` None = kept from before."""

    step: Step
    passed: bool
    found: str
    seconds: float | None


STEPS = (
    Step(name="vae", what="Stable Diffusion's autoencoder", id="stabilityai/sd-vae-ft-ema", megabytes=335,
         check=parts.check_vae, expects={"token_dim": 16, "decibels": 20}),
    Step(name="vae-16", what="one with 16 channels in a pipeline's sub-folder", id="Alpha-VLLM/Lumina-Image-2.0/vae",
         megabytes=335, check=parts.check_vae, expects={"token_dim": 64, "decibels": 26}),
    Step(name="vq", what="aMUSEd's codes", id="amused/amused-256/vqvae", megabytes=600, check=parts.check_vq,
         expects={"codebook_size": 8192, "decibels": 14}),
    Step(name="t5-small", what="a text encoder for a CPU", id="google/t5-v1_1-small", megabytes=310,
         check=parts.check_text, expects={"dim": 512}),
    Step(name="flan-t5", what="the default one for pictures of the world", id="google/flan-t5-base", megabytes=990,
         check=parts.check_text, expects={"dim": 768}),
    Step(name="t5-xxl", what="the paper's text encoder, in bfloat16", id="google/t5-v1_1-xxl", megabytes=44_600,
         check=parts.check_text, expects={"dim": 4096, "dtype": torch.bfloat16}, asked_for=True),
    Step(name="captions", what="a data set of parquet files, streamed", id="lambdalabs/naruto-blip-captions",
         megabytes=360, check=parts.check_stream),
    Step(name="webdataset", what="a data set of tar files, streamed", id="pixparse/cc3m-wds", megabytes=20,
         check=parts.check_stream),
    Step(name="coco", what="the pairs of MS-COCO 2014", id=COCO_ON_THE_HUB, megabytes=5_000, check=parts.check_coco,
         expects={"rows": NUM_PAIRS}),
    Step(name="inception", what="FID's network, through torch-fidelity", id="torch-fidelity", megabytes=95,
         check=parts.check_inception),
    Step(name="geneval", what="GenEval's Mask2Former and CLIP", id=f"{DETECTOR} {CLIP}", megabytes=2_000,
         check=parts.check_judge, expects={"finds": "cat"}),
    Step(name="push", what="a pipeline to a private repository and back", id=MINE, megabytes=40,
         check=parts.check_push),
    Step(name="token-cache", what="a token cache to a private data set, and streamed", id=f"hf://datasets/{MINE}-tokens",
         megabytes=1, check=parts.check_token_cache),
)


def choose_steps(steps: Iterable[Step], only: list[str] | None = None, skip: list[str] | None = None,
                 push_to: str | None = None) -> list[Step]:
    """Those of the steps that are to run, in their order.

    Args:
        only: names; None for all but those that run only where they are asked for.  skip: names to leave out.
        push_to: a repository "USER/NAME" of one's own, without which nothing is sent anywhere.

    Raises:
        ValueError: a name that no step has, or a step that sends something without a place to send it to.
    """
    names = [step.name for step in steps]
    unknown = [name for name in (*(only or ()), *(skip or ())) if name not in names]
    if unknown:
        raise ValueError(f"there is no step {unknown[0]!r}; allowed are {', '.join(names)}.")
    if push_to is not None and (push_to.count("/") != 1 or not all(push_to.split("/"))):
        raise ValueError(f"--push-to takes USER/NAME, got {push_to!r}.")
    chosen = []
    for step in steps:
        sends = MINE in step.id
        wanted = step.name in only if only else not step.asked_for and not (sends and push_to is None)
        if not wanted or step.name in (skip or ()):
            continue
        if sends and push_to is None:
            raise ValueError(f"step {step.name} sends something: say where with --push-to {MINE}.")
        chosen.append(replace(step, id=step.id.replace(MINE, push_to or MINE)))
    return chosen


def run_steps(steps: Iterable[Step], folder: Path) -> Iterator[Outcome]:
    """Try one step after the other; what raises ends that step alone. `folder` keeps the report and what is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for step in steps:
        kept = read_report(folder).get(step.name, {})
        if kept.get("passed") and kept["id"] == step.id and kept["with"] == libraries():
            yield Outcome(step, True, kept["found"], None)
            continue
        began = time.perf_counter()
        try:
            found, passed = step.check(step, folder), True
        except Exception as error:                   # whatever goes wrong out there is what this is here to report
            sentence = isinstance(error, ValueError)
            found, passed = " ".join(f"{'' if sentence else f'{type(error).__name__}: '}{error}".split()), False
        seconds = time.perf_counter() - began
        free_memory()
        write_json(folder / REPORT, {**read_report(folder), step.name: {
            "passed": passed, "seconds": round(seconds, 1), "found": found, "id": step.id, "with": libraries()}})
        yield Outcome(step, passed, found, seconds)


def read_report(folder: Path) -> dict:
    """What earlier runs found, by the names of steps."""
    path = folder / REPORT
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def libraries() -> dict[str, str]:
    """Versions of the packages that reach the hub: with others, what passed is tried again."""
    return {name: version(name) for name in LIBRARIES}


def free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
