"""Sampling settings tried one by one: which guidance scale and temperature suit which variant and which metric.

The paper tunes both per metric, and so must anyone who compares models: a setting that flatters one variant can ruin
another. What to notice: the best setting for SceneEval need not be the best for the Frechet distance, because guidance
buys agreement with the prompt and pays with variety. A setting is chosen on other seeds than a model is reported with,
or the best of twenty noisy numbers would be reported as if it were a measurement.
"""

import itertools
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from fluidlab.config import check_choice, data_dir
from fluidlab.evaluate.detector import Detector
from fluidlab.evaluate.report import Draw, evaluate_generator, reference_features
from fluidlab.evaluate.results import read_table, write_table

SETTINGS = ("guidance_scale", "temperature", "num_inference_steps", "num_denoising_steps")
DEFAULT_STEPS = {"num_inference_steps": None, "num_denoising_steps": 25}   # where guidance and temperature are chosen
SWEEP_METRICS = ("sceneval_overall", "frechet")   # more is better; less is better
SWEEP_COLUMNS = ("model", *SETTINGS, "images", "sceneval_overall", "sceneval_overall_low", "sceneval_overall_high",
                 "frechet", "torch", "commit", "command")
SWEEP_SEED = 7  # of the drawings: not the one that models are reported with


def settings_grid(guidance_scales: list[float], temperatures: list[float],
                  num_inference_steps: list[int | None] = (None,),
                  num_denoising_steps: list[int] = (25,)) -> list[dict]:
    """Every combination, as keyword arguments of a pipeline.

    Raises:
        ValueError: a list is empty.
    """
    axes = {"guidance_scales": guidance_scales, "temperatures": temperatures,
            "num_inference_steps": num_inference_steps, "num_denoising_steps": num_denoising_steps}
    for name, values in axes.items():
        if len(values) == 0:
            raise ValueError(f"a sweep needs at least 1 value of each setting, got 0 of {name}.")
    return [dict(zip(SETTINGS, values, strict=True)) for values in itertools.product(*axes.values())]


def setting_name(setting: dict) -> str:
    """Its folder: "g3-t0.7-s16-d25"; without a number of steps "sall", one token a step."""
    steps = setting["num_inference_steps"]
    return (f"g{setting['guidance_scale']:g}-t{setting['temperature']:g}-s{'all' if steps is None else steps}"
            f"-d{setting['num_denoising_steps']}")


def sweep(draw: Callable[..., Tensor], detector: Detector, folder: str | Path, grid: list[dict], *, per_skill: int = 20,
          frechet_images: int = 500, reference_images: int = 10_000, facts: dict | None = None, chunk: int = 100,
          on_row: Callable[[dict], None] | None = None, progress: bool = True) -> list[dict]:
    """SceneEval (one image a prompt) and the Frechet distance at every setting of a grid.

    Args:
        draw: (prompts, seeds, **setting) to images (B, 3, S, S) in [-1, 1].
        folder: where verdicts are kept, one folder a setting; run it again to go on.
        grid: of `settings_grid`.  per_skill, frechet_images: few, since a sweep is for comparing its own rows. All rows
            have as many images, so the Frechet distance has the same bias in all of them.
        facts: as for `report.look`.  on_row: called with each row as soon as it is there.

    Returns:
        One dictionary a setting: the setting, images, sceneval_overall with its interval, frechet, and the command,
        commit and torch version that made it.
    """
    reference, rows = reference_features(detector, reference_images), []
    for setting in grid:
        def draw_so(prompts: list[str], seeds: list[int], setting=setting) -> Tensor:
            return draw(prompts, seeds, **setting)
        so: Draw = draw_so
        report = evaluate_generator(so, detector, Path(folder) / setting_name(setting), per_skill=per_skill,
                                    images_per_prompt=1, frechet_images=frechet_images, reference=reference,
                                    seed=SWEEP_SEED, facts={**(facts or {}), **setting}, chunk=chunk, progress=progress)
        overall = report.sceneval.overall
        rows.append({**setting, "images": report.num_images, "sceneval_overall": overall.value,
                     "sceneval_overall_low": overall.low, "sceneval_overall_high": overall.high,
                     "frechet": report.frechet, **report.made_by})
        if on_row is not None:
            on_row(rows[-1])
    return rows


def best_setting(rows: list[dict], metric: str = "sceneval_overall") -> dict:
    """The setting of the best row: the highest SceneEval, or the lowest Frechet distance.

    Raises:
        ValueError: an unknown metric, no row, or rows of different numbers of images.
    """
    check_choice("metric", metric, SWEEP_METRICS)
    if not rows:
        raise ValueError(f"the best setting of a sweep needs at least 1 row, got 0 for {metric}.")
    counts = sorted({row["images"] for row in rows})
    if len(counts) > 1:
        raise ValueError(f"settings compare at one number of images, since a Frechet distance shrinks with it, got "
                         f"{counts[0]} to {counts[-1]}.")
    best = (min if metric == "frechet" else max)(rows, key=lambda row: float(row[metric]))
    return {name: best[name] for name in SETTINGS}


def read_sweep(path: str | Path | None = None, **where) -> list[dict]:
    """Rows of a sweep's CSV, numbers as numbers; by default the shipped one's.

    Raises:
        ValueError: the file is missing, has other columns, or a row has something that is no number.
    """
    rows = read_table(Path(path or data_dir() / "sweep.csv"), SWEEP_COLUMNS, "`fluidlab evaluate sweep`")
    return [row for row in (_numbers(line, row) for line, row in enumerate(rows, start=2))
            if all(row[key] == value for key, value in where.items())]


def write_sweep(rows: list[dict], path: str | Path) -> None:
    """Write rows with `SWEEP_COLUMNS`; a setting of a model that is in the file already is replaced."""
    path = Path(path)
    kept = {_what(row): row for row in (read_sweep(path) if path.is_file() else [])}
    kept.update({_what(row): row for row in rows})
    rounded = ({key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()}
               for row in kept.values())
    write_table(rounded, SWEEP_COLUMNS, path)


def _what(row: dict) -> tuple:
    return tuple(row[key] for key in ("model", *SETTINGS))


def _numbers(line: int, row: dict) -> dict:
    """A row of text with its numbers as numbers; an empty number of steps is None."""
    whole = ("num_inference_steps", "num_denoising_steps", "images")
    found = dict(row)
    for key in SWEEP_COLUMNS[1:-3]:
        try:
            empty = key == "num_inference_steps" and row[key] == ""
            found[key] = None if empty else int(row[key]) if key in whole else float(row[key])
        except (TypeError, ValueError):
            raise ValueError(f"row {line} of the sweep holds {key} {row[key]!r}, which must be a number.") from None
    return found
