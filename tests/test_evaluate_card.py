"""Model cards: made of records, so every number in them can be looked up."""

import json
import shutil

import pytest

from fluidlab.config import data_dir
from fluidlab.evaluate.card import card_markdown, model_card, settings_of, write_card
from fluidlab.evaluate.results import COLUMNS, append_results
from fluidlab.evaluate.sceneval import SKILLS

NAME = "random-diffusion-mini"
COMMAND = f"fluidlab evaluate images {NAME} --guidance-scale 2 --num-inference-steps 8 --out x"


def measured(**changes):
    values = {f"sceneval_{name}{end}": value for name in ("overall", *SKILLS, "seen", "heldout")
              for end, value in (("", 0.5), ("_low", 0.4), ("_high", 0.6))}
    values |= {"frechet": 1.25, "frechet_infinity": 1.0, "frechet_infinity_error": 0.1, "val_loss": 0.15}
    row = dict.fromkeys(COLUMNS, "") | {"order": "random", "head": "diffusion", "preset": "mini", "params": "3611920",
                                        "steps": "8000", "seed": "0", "command": COMMAND}
    return [{**row, **changes, "metric": name, "value": value} for name, value in values.items()]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / NAME).mkdir()
    shutil.copy(data_dir() / NAME / "training.json", tmp_path / NAME)
    return tmp_path / NAME


def test_a_card_holds_what_the_records_say(folder, tmp_path):
    append_results(measured(), tmp_path / "results.csv")
    card = write_card(folder, tmp_path / "results.csv")
    assert json.loads((folder / "card.json").read_text()) == card == model_card(folder, tmp_path / "results.csv")
    assert card["images"] == 1_024_000 and card["validation_loss"] == 0.15 and "CC BY-SA 4.0" in card["licence"]
    assert card["scores"]["sceneval_position"] == [0.5, 0.4, 0.6] and card["scores"]["frechet_infinity"] == [1.0, 0.1]
    assert card["measured_with"]["guidance_scale"] == 2.0 and card["measured_with"]["num_inference_steps"] == 8
    text = (folder / "README.md").read_text()
    assert text == card_markdown(card) and "| sceneval overall | 0.500 | 0.400 to 0.600 |" in text and COMMAND in text


def test_a_card_of_more_tokens_says_so(folder, tmp_path):
    facts = json.loads((folder / "training.json").read_text())
    facts["model"]["seq_len"] = 64
    (folder / "training.json").write_text(json.dumps(facts))
    append_results(measured(), tmp_path / "results.csv")
    card = model_card(folder, tmp_path / "results.csv")
    assert "128 x 128 pixels" in card["data"] and any("128 x 128 pixels: 64 tokens" in one for one in card["limits"])


def test_settings_that_a_command_does_not_name_are_the_defaults():
    assert settings_of("fluidlab evaluate images x")["temperature"] == 1.0
    assert settings_of("fluidlab evaluate images x --temperature 0.5") == {
        "guidance_scale": 3.0, "temperature": 0.5, "num_inference_steps": None, "num_denoising_steps": 25}


def test_scores_of_another_evaluation_stay_out(folder, tmp_path):
    append_results(measured(), tmp_path / "results.csv")
    again = [r for r in measured(command="fluidlab evaluate images x --guidance-scale=6 --frechet-images 500")
             if not r["metric"].startswith(("frechet_infinity", "val_loss"))]
    append_results(again, tmp_path / "results.csv")
    card = model_card(folder, tmp_path / "results.csv")
    assert card["measured_with"]["guidance_scale"] == 6.0 and "frechet_infinity" not in card["scores"]
    assert "frechet" in card["scores"] and card["validation_loss"] == 0.15


def test_a_model_without_records_is_refused(folder, tmp_path):
    append_results(measured(steps="7000"), tmp_path / "results.csv")
    with pytest.raises(ValueError, match=r"hold 0 rows of random \+ diffusion, mini, after 8000 steps"):
        model_card(folder, tmp_path / "results.csv")
    with pytest.raises(ValueError, match="no training.json, which a model card needs"):
        model_card(tmp_path, tmp_path / "results.csv")
