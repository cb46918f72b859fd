"""Settings tried one by one with a generator whose images are true scenes at one setting and noise at the others."""

import pytest
import torch

from fluidlab.data.scenes import EmojiScenes
from fluidlab.evaluate.detector import Detector, DetectorConfig
from fluidlab.evaluate.sweep import (
    SWEEP_COLUMNS,
    best_setting,
    read_sweep,
    setting_name,
    settings_grid,
    sweep,
    write_sweep,
)

SCENES = EmojiScenes("test", seed=2)
GRID = settings_grid([1.0, 3.0], [0.5, 1.0])
GOOD = {"guidance_scale": 3.0, "temperature": 0.5, "num_inference_steps": None, "num_denoising_steps": 25}


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    config = DetectorConfig(classes=SCENES.classes, colors=SCENES.colors, width=16, coarse_width=24, coarse_depth=1)
    return Detector(config).eval().requires_grad_(False)


def drawing(calls):
    def draw(prompts, seeds, **setting):
        calls.append(setting)
        true = SCENES.batch(range(len(seeds)))[0].float() / 127.5 - 1
        return true if setting == GOOD else torch.zeros_like(true)
    return draw


def test_the_grid_holds_every_combination_once():
    assert len(GRID) == 4 and GOOD in GRID and len({setting_name(s) for s in GRID}) == 4
    assert setting_name(GOOD) == "g3-t0.5-sall-d25"
    with pytest.raises(ValueError, match="got 0 of temperatures"):
        settings_grid([1.0], [])


def test_the_best_setting_is_found_and_a_stopped_sweep_goes_on(detector, tmp_path):
    calls, rows = [], []
    options = dict(per_skill=2, frechet_images=12, reference_images=12, chunk=12, progress=False)
    found = sweep(drawing(calls), detector, tmp_path, GRID, on_row=rows.append, **options)
    assert found == rows and len(rows) == 4 and {row["images"] for row in rows} == {24}
    assert best_setting(rows, "frechet") == GOOD
    assert best_setting([dict(row, sceneval_overall=row["temperature"]) for row in rows])["temperature"] == 1.0
    drawn = len(calls)
    assert sweep(drawing(calls), detector, tmp_path, GRID, **options) == rows and len(calls) == drawn
    with pytest.raises(ValueError, match="'speed'"):
        best_setting(rows, "speed")
    with pytest.raises(ValueError, match="needs at least 1 row, got 0"):
        best_setting([])


def test_rows_travel_through_a_file_and_a_repeated_setting_is_replaced(tmp_path):
    path = tmp_path / "sweep.csv"
    row = {"model": "m", **GOOD, "images": 20, "sceneval_overall": 0.5, "sceneval_overall_low": 0.25,
           "sceneval_overall_high": 0.75, "frechet": 2.0, "torch": "2", "commit": "c", "command": "fluidlab x"}
    assert tuple(row) == SWEEP_COLUMNS
    write_sweep([row, dict(row, num_inference_steps=4)], path)
    assert read_sweep(path) == [row, dict(row, num_inference_steps=4)]
    write_sweep([dict(row, frechet=1.0)], path)
    assert [r["frechet"] for r in read_sweep(path)] == [1.0, 2.0]
    assert read_sweep(path, num_inference_steps=4) == [dict(row, num_inference_steps=4)]


def test_broken_files_are_refused_by_line(tmp_path):
    with pytest.raises(ValueError, match="`fluidlab evaluate sweep` writes it"):
        read_sweep(tmp_path / "sweep.csv")
    (tmp_path / "sweep.csv").write_text("model,value\nm,1\n")
    with pytest.raises(ValueError, match="must have the columns model, guidance_scale"):
        read_sweep(tmp_path / "sweep.csv")
    (tmp_path / "sweep.csv").write_text(",".join(SWEEP_COLUMNS) + "\n" + ",".join(["m", "much"] + ["1"] * 11) + "\n")
    with pytest.raises(ValueError, match="row 2 of the sweep holds guidance_scale 'much'"):
        read_sweep(tmp_path / "sweep.csv")
