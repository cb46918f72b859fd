"""A model card: what a shipped model learned from, how long, how well it does, where it fails, whose pictures it holds.

Steps, sizes and commands come from the training's own record, losses and scores from results.csv with the settings that
they were measured at; what the data set is and where such models fail is written here (Mitchell et al. 2019, arXiv
1810.03993). The cards are of models of EmojiScenes.
"""

import json
import math
import shlex
from pathlib import Path

from fluidlab.evaluate.results import read_results
from fluidlab.evaluate.sceneval import SKILLS
from fluidlab.whole import write_json, write_text

LIMITS = (
    "It knows 58 classes, 8 colours and the wordings of EmojiScenes; other words are named in a warning and ignored.",
    "It draws {side} x {side} pixels: {tokens} tokens.",
    "Large single objects (40 to 48 pixels) are rougher than small ones.",
    "It was trained for a course on two CPU cores; it is no measure of what the method can do.",
)
LICENCE = ("The weights were trained on scenes made of OpenMoji's drawings (openmoji.org) and are shared under "
           "CC BY-SA 4.0, as those are.")
SAMPLING = ("guidance_scale", "temperature", "num_inference_steps", "num_denoising_steps")
PIPELINE_DEFAULTS = {"guidance_scale": 3.0, "temperature": 1.0, "num_inference_steps": None, "num_denoising_steps": 25}


def model_card(folder: str | Path, results: str | Path | None = None) -> dict:
    """The card of a shipped or exported model as JSON.

    Args:
        folder: with training.json, as `fluidlab export` writes it.
        results: a results.csv with its losses and scores; default: the shipped one.

    Raises:
        ValueError: the folder has no training.json, or the results have no row of this model.
    """
    folder = Path(folder)
    if not (folder / "training.json").is_file():
        raise ValueError(f"{folder} holds no training.json, which a model card needs; `fluidlab export` writes one.")
    facts = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    of = {"order": facts["model"]["order"], "head": facts["model"]["head"], "preset": facts["preset"],
          "steps": str(facts["steps"]), "seed": str(facts["train"]["seed"])}
    rows = {row["metric"]: row for row in read_results(results, **of)}
    if not rows:
        raise ValueError(f"the results hold 0 rows of {of['order']} + {of['head']}, {of['preset']}, after "
                         f"{of['steps']} steps.")
    if "sceneval_overall" in rows:  # of one evaluation: another command drew other images
        scored = rows["sceneval_overall"]["command"]
        rows = {metric: row for metric, row in rows.items()
                if row["command"] == scored or not metric.startswith(("sceneval", "frechet"))}
    tokens = facts["model"]["seq_len"]
    side = 16 * math.isqrt(tokens)
    card = {"model": folder.name, "order": of["order"], "head": of["head"], "preset": of["preset"],
            "parameters": int(next(iter(rows.values()))["params"]),
            "data": f"EmojiScenes, split train, {side} x {side} pixels: scenes of OpenMoji's drawings with captions",
            "steps": facts["steps"], "images": facts["images"], "batch_size": facts["train"]["batch_size"],
            "train": facts["command"], "commit": facts["commit"], "torch": facts["torch"],
            "validation_loss": float(rows["val_loss"]["value"]) if "val_loss" in rows else None,
            "validation_loss_unit": "nats a token" if of["head"] == "softmax" else "squared error",
            "scores": {}, "limits": [limit.format(side=side, tokens=tokens) for limit in LIMITS], "licence": LICENCE}
    if "sceneval_overall" in rows:
        card["measured_with"] = {"command": rows["sceneval_overall"]["command"],
                                 **settings_of(rows["sceneval_overall"]["command"])}
        for name in ("overall", *SKILLS, "seen", "heldout"):
            card["scores"][f"sceneval_{name}"] = [float(rows[f"sceneval_{name}{end}"]["value"])
                                                  for end in ("", "_low", "_high")]
        card["scores"]["frechet"] = float(rows["frechet"]["value"])
        if "frechet_infinity" in rows:
            card["scores"]["frechet_infinity"] = [float(rows[f"frechet_infinity{end}"]["value"])
                                                  for end in ("", "_error")]
    return card


def settings_of(command: str) -> dict:
    """The sampling settings of a `fluidlab evaluate images` line; those that it does not name are the defaults."""
    words, found = shlex.split(command), dict(PIPELINE_DEFAULTS)
    for name in SAMPLING:
        flag = "--" + name.replace("_", "-")
        given = [after for word, after in zip(words, [*words[1:], ""], strict=True) if word == flag]
        given += [word.removeprefix(f"{flag}=") for word in words if word.startswith(f"{flag}=")]
        for text in given[-1:]:
            found[name] = int(text) if name.endswith("steps") else float(text)
    return found


def card_markdown(card: dict) -> str:
    """The same card for people, with the scores as a table."""
    lines = [f"# {card['model']}", "",
             f"{card['order'].capitalize()} order, {card['head']} head, preset {card['preset']}, "
             f"{card['parameters']:,} parameters.", "",
             f"- Learned from: {card['data']}; {card['images']:,} images in {card['steps']:,} steps of "
             f"{card['batch_size']}.", f"- Command: `{card['train']}` (commit {card['commit']}, torch {card['torch']})"]
    if card["validation_loss"] is not None:
        lines.append(f"- Validation loss: {card['validation_loss']:.4f} {card['validation_loss_unit']}.")
    if card["scores"]:
        settings = ", ".join(f"{name.replace('_', ' ')} {card['measured_with'][name]}" for name in SAMPLING
                             if card["measured_with"][name] is not None)
        lines += ["", f"Drawn with {settings}; `{card['measured_with']['command']}`:", "",
                  "| measure | value | 95 % interval |", "|---|---|---|"]
        for name, value in card["scores"].items():
            if name.startswith("sceneval"):
                lines.append(f"| {name.replace('_', ' ')} | {value[0]:.3f} | {value[1]:.3f} to {value[2]:.3f} |")
            elif isinstance(value, list):
                lines.append(f"| Frechet distance without bias | {value[0]:.3f} | standard error {value[1]:.3f} |")
            else:
                lines.append(f"| Frechet distance (of the judge's features) | {value:.3f} | |")
    lines += ["", "Limits:", "", *(f"- {limit}" for limit in card["limits"]), "", card["licence"], ""]
    return "\n".join(lines)


def write_card(folder: str | Path, results: str | Path | None = None) -> dict:
    """Write card.json and README.md into the model's folder; see `model_card`."""
    folder, card = Path(folder), model_card(folder, results)
    write_json(folder / "card.json", card)
    write_text(folder / "README.md", card_markdown(card))
    return card
