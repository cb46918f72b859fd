"""GenEval end to end: draw four pictures of each prompt, judge each picture, keep one line about it.

Both halves can be stopped and go on, and both keep the published layout: `00000/metadata.jsonl` with the prompt,
`00000/samples/0000.png` and so on, and `results.jsonl` with a line a picture. So the published evaluator can judge our
pictures, ours can judge anybody's, and the score files can be compared line by line. This file is given a function that
draws and a judge that looks; it knows no model. What to notice: every picture has a seed of its own, so pictures that
are drawn after an interruption are those that would have been drawn without it.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from fluidlab.config import check_range
from fluidlab.evaluate.geneval_judge import Judge, open_picture
from fluidlab.evaluate.geneval_prompts import parse_prompt
from fluidlab.evaluate.geneval_rules import PUBLISHED, Found, Rules, faults, kept
from fluidlab.evaluate.moments import to_bytes
from fluidlab.evaluate.resume import digest_of, keep_plan
from fluidlab.whole import whole_file

Draw = Callable[[list[str], list[int]], Tensor]  # prompts and seeds to images (B, 3, H, W) in [-1, 1]
IMAGES_PER_PROMPT = 4
RESULTS = "results.jsonl"


def draw_images(draw: Draw, prompts: list[dict], folder: str | Path, *, images_per_prompt: int = IMAGES_PER_PROMPT,
                seed: int = 0, batch_size: int = 16, facts: dict | None = None, progress: bool = True) -> Path:
    """Draw every prompt so many times into the published layout; pictures that are there already stay.

    Args:
        prompts: as `geneval_prompts` gives them; prompt n goes to folder n.
        facts: JSON of everything else that the pictures depend on; kept in plan.json and compared when going on.

    Raises:
        ValueError: the folder holds pictures of another plan, or a number is out of range.
    """
    for name, value in (("images_per_prompt", images_per_prompt), ("batch_size", batch_size)):
        check_range(name, value, 1, kind=int)
    check_range("seed", seed, 0, kind=int)
    folder = Path(folder)
    keep_plan({"prompts": digest_of(prompts), "images_per_prompt": images_per_prompt, "seed": seed, **(facts or {})},
              folder / "plan.json")
    for index, prompt in enumerate(prompts):
        place = folder / f"{index:05d}"
        (place / "samples").mkdir(parents=True, exist_ok=True)
        _replace(place / "metadata.jsonl", lambda path, prompt=prompt: path.write_text(json.dumps(prompt), "utf-8"))
    every = [(index, k) for index in range(len(prompts)) for k in range(images_per_prompt)]
    missing = [(index, k) for index, k in every if not _sample(folder, index, k).exists()]
    with tqdm(total=len(every), initial=len(every) - len(missing), desc="draw", unit="image",
              disable=not progress) as bar:
        for start in range(0, len(missing), batch_size):
            now = missing[start:start + batch_size]
            seeds = [seed * 1_000_003 + index * images_per_prompt + k for index, k in now]
            images = to_bytes(draw([prompts[index]["prompt"] for index, _ in now], seeds))     # (B, 3, H, W)
            for (index, k), image in zip(now, images.permute(0, 2, 3, 1).cpu().numpy(), strict=True):
                _replace(_sample(folder, index, k), partial(Image.fromarray(image).save, format="PNG"))
            bar.update(len(now))
    return folder


def _sample(folder: Path, index: int, k: int) -> Path:
    return folder / f"{index:05d}" / "samples" / f"{k:04d}.png"


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """A picture that is there is whole."""
    with whole_file(path) as beside:
        write(beside)


def find_images(folder: str | Path) -> list[tuple[Path, dict]]:
    """Every picture of a folder in the published layout with its prompt, in the order of the prompts.

    Raises:
        ValueError: there is none, or a folder of pictures lacks its prompt.
    """
    folder, found = Path(folder), []
    for place in sorted(path for path in folder.glob("*") if path.name.isdigit() and path.is_dir()):
        said = place / "metadata.jsonl"
        if not said.is_file():
            raise ValueError(f"{place} holds no metadata.jsonl, so nobody knows what its pictures should show.")
        prompt = parse_prompt(said.read_text(encoding="utf-8"), str(said))
        samples = [path for path in (place / "samples").glob("*.png") if path.stem.isdigit()]
        found += [(path, prompt) for path in sorted(samples)]
    if not found:
        raise ValueError(f"{folder} holds no picture as 00000/samples/0000.png beside 00000/metadata.jsonl.")
    return found


def judge_images(judge: Judge, folder: str | Path, *, results: str | Path | None = None, rules: Rules = PUBLISHED,
                 progress: bool = True) -> list[dict]:
    """Judge every picture of a folder that is in the published layout, and write a line about each.

    Args:
        results: the score file; None = results.jsonl in the folder. Lines that it has are kept, and its plan, which
            stands beside it, must be of the same judge and the same rules.

    Returns:
        The lines as dictionaries, in the order of the pictures: filename, tag, prompt, correct, reason, metadata and
        details (class to boxes with their scores), the last two as JSON in a string, as published.

    Raises:
        ValueError: no picture, or the score file is of another judge.
    """
    pictures = find_images(folder)
    results = Path(results or Path(folder) / RESULTS)
    keep_plan({**judge.facts(), "rules": vars(rules)}, results.with_suffix(".plan.json"))
    known = {_key(record["filename"]): record for record in _whole_lines(results)}
    records = []
    with results.open("a", encoding="utf-8") as out:
        for path, prompt in tqdm(pictures, desc="judge", unit="image", disable=not progress):
            record = known.get(_key(path.as_posix()))
            if record is None:
                record = judge_image(judge, path, prompt, rules)
                out.write(json.dumps(record) + "\n")
                out.flush()
            records.append(record)
    return records


def judge_image(judge: Judge, path: Path, prompt: dict, rules: Rules = PUBLISHED) -> dict:
    """One picture: look, hold against the prompt, and say it in the published format."""
    image = open_picture(path)
    objects = kept(judge.find(image, min(rules.threshold, rules.counting_threshold)), prompt["tag"], rules)
    said = faults(prompt, objects, partial(judge.colors, image), rules.margin)
    return {"filename": path.as_posix(), "tag": prompt["tag"], "prompt": prompt["prompt"], "correct": not said,
            "reason": "\n".join(said), "metadata": json.dumps(prompt), "details": json.dumps(details_of(objects))}


def details_of(objects: dict[str, list[Found]]) -> dict[str, list[list[float]]]:
    """Class to [left, top, right, bottom, score] of each object that counted, the surest first."""
    return {name: [[*thing.box, thing.score] for thing in things] for name, things in objects.items()}


def _key(filename: str) -> tuple[str, ...]:
    """Prompt and sample, whatever folder the pictures stood in when they were judged: 00000/samples/0000.png."""
    return Path(filename).parts[-3:]


def _whole_lines(path: Path) -> list[dict]:
    """The records of a score file; a last line that was cut by an interruption is taken away from the file."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[:text.rfind("\n") + 1]
    if whole != text:
        _replace(path, lambda beside: beside.write_text(whole, encoding="utf-8"))
    return [json.loads(line) for line in whole.splitlines()]
