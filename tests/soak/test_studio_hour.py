"""An hour of the studio: sliders moved, prompts typed, mistakes made, and nothing piles up."""

import os
import random
import time

import pytest
from gauges import held, slope

from fluidlab.config import data_dir
from fluidlab.pipeline import FluidPipeline
from fluidlab.viz.studio import Studio

MINUTES = float(os.environ.get("SOAK_MINUTES", 60))
PROMPTS = ["a photo of a cat", "a photo of a red umbrella left of a dog", "three books", "", "a wug on a blick",
           "ein Hund", "a photo of a dog " * 60]
GROWTH = 1.0             # MB a minute: an hour of less is lost in what the allocator keeps
VARIANTS = sorted(path.parent.name for path in data_dir().glob("*/pipeline.json"))


@pytest.fixture(scope="module")
def studio():
    return Studio({name: FluidPipeline.from_pretrained(name) for name in VARIANTS}, num_images=1)


def some_event(explorer, chance: random.Random) -> None:
    """Move one control, as somebody would who tries everything."""
    name, control = chance.choice(list(explorer.controls.items()))
    if name == "prompt":
        control.value = chance.choice(PROMPTS)
    elif name in ("variant", "num_inference_steps"):
        control.value = chance.choice([option[1] if isinstance(option, tuple) else option
                                       for option in control.options])
    elif name == "num_denoising_steps":
        control.value = chance.randint(1, 8)
    else:
        control.box.value = chance.uniform(-1, 13) if name != "seed" else chance.randint(0, 999)


def test_memory_threads_and_files_stay_as_they_are(studio):
    """Growth of resident memory by a line through the later two thirds, one reading every two seconds."""
    explorer, chance = studio.explorer(PROMPTS[0], num_denoising_steps=4), random.Random(0)
    begin, events, refused, readings = time.monotonic(), 0, 0, []
    while (passed := time.monotonic() - begin) < 60 * MINUTES:
        some_event(explorer, chance)
        events += 1
        refused += 'role="alert"' in explorer.picture.widget.value
        if not readings or passed - 60 * readings[-1][0] >= 2:
            readings.append((passed / 60, held()))
    first, last = readings[len(readings) // 3][1], readings[-1][1]
    growth = slope([minute for minute, _ in readings], [reading.rss for _, reading in readings])
    print(f"\n{MINUTES:g} minutes, {events} events, {refused} of them refused in place: {growth:+.3f} MB a minute, "
          f"{readings[0][1]} at first, {first} after a third, {last} at the end")
    assert events > 10 * MINUTES and 0 < refused < events / 2
    assert growth < GROWTH
    assert (last.threads, last.python_threads, last.files) == (first.threads, first.python_threads, first.files)


def test_a_hundred_explorers_leave_no_threads_and_no_files(studio):
    """Made, moved and dropped, as a kernel that runs the cell again does."""
    readings = []
    for number in range(100):
        explorer = studio.explorer(PROMPTS[number % 3], num_denoising_steps=2)
        explorer.controls["seed"].box.value = number
        if number >= 10:
            readings.append(held())
    first, last = readings[0], readings[-1]
    print(f"\n100 explorers: {first} after 10, {last} after 100")
    assert (last.threads, last.python_threads, last.files) == (first.threads, first.python_threads, first.files)
