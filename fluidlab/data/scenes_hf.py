"""Scenes as a Hugging Face data set. Apart from scenes.py because importing `datasets` takes a second."""

import datasets
from PIL import Image

COLUMNS = datasets.Features(
    {
        "image": datasets.Image(),
        "caption": datasets.Value("string"),
        "boxes": datasets.Sequence(datasets.Sequence(datasets.Value("int32"), length=4)),
        "classes": datasets.Sequence(datasets.Value("string")),
        "colors": datasets.Sequence(datasets.Value("string")),
        "skill": datasets.Value("string"),
        "heldout": datasets.Value("bool"),
    }
)


def to_hf_dataset(scenes, num_scenes: int) -> datasets.Dataset:
    """The first scenes of an EmojiScenes as a `datasets.Dataset`; "colors" is "" for the natural ones.

    Args:
        scenes: an EmojiScenes.
        num_scenes: 1 to len(scenes).

    Raises:
        ValueError: there are fewer scenes than asked for.
    """
    if isinstance(num_scenes, bool) or not isinstance(num_scenes, int) or not 1 <= num_scenes <= len(scenes):
        raise ValueError(f"num_scenes is {num_scenes!r}; allowed are 1 to {len(scenes)}.")
    rows = {name: [] for name in COLUMNS}
    for index in range(num_scenes):
        scene = scenes[index]
        rows["image"].append(Image.fromarray(scene["image"].permute(1, 2, 0).contiguous().numpy()))
        rows["boxes"].append([thing["box"] for thing in scene["objects"]])
        rows["classes"].append([thing["class"] for thing in scene["objects"]])
        rows["colors"].append([thing["color"] or "" for thing in scene["objects"]])
        for name in ("caption", "skill", "heldout"):
            rows[name].append(scene[name])
    return datasets.Dataset.from_dict(rows, features=COLUMNS)
