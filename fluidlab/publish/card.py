"""The README.md of a saved pipeline: what it is, how to load it, how it was trained, whose pictures it holds.

Everything is read off the parts and the training's own record; what is not recorded is called unknown. Scores are no
business of this card: `fluidlab evaluate card` writes those of the shipped models from results.csv. The front matter is
the Hub's (https://huggingface.co/docs/hub/model-cards).
"""

from fluidlab.tokenizer import VAETokenizer, VQTokenizer

ATTRIBUTION = (
    "Tokenizers and text encoders of `fluidlab fit` learned from scenes made of emoji. All emojis designed by "
    "[OpenMoji](https://openmoji.org) - the open-source emoji and icon project. License: "
    "[CC BY-SA 4.0](https://creativecommons.org/licenses/by-sa/4.0/). Changes: scaled, moved, recoloured, put on "
    "backgrounds. These weights and the pictures that they draw are derived from the drawings and are shared under the "
    "same licence.")
UNKNOWN_LICENCE = ("The licence depends on the pictures that the parts were trained on, which is not recorded here: "
                   "state it before you share these weights.")


def pipeline_card(name: str, model, tokenizer, text_encoder, *, defaults: dict, training: dict | None) -> str:
    """The card as Markdown.

    Args:
        name: as `from_pretrained` will be given it.  model, tokenizer, text_encoder: of the pipeline.
        defaults: recommended settings.  training: of training.json, or None if nothing is recorded.
    """
    config, emoji = model.config, from_scenes(tokenizer, text_encoder)
    side = config.grid[0] * tokenizer.patch_size
    return "\n".join([
        *_front_matter(config, emoji), "",
        f"# {name.split('/')[-1]}", "",
        f"A text-to-image model in the manner of Fluid ([arXiv 2410.13863](https://arxiv.org/abs/2410.13863)), made "
        f"with fluidlab: {config.order} order, {config.head} head, {config.seq_len} {tokenizer.kind} tokens, "
        f"{model.count_parameters()['total']:,} parameters without tokenizer and text encoder.", "",
        "```python", "import fluidlab as fl", "", f'pipe = fl.FluidPipeline.from_pretrained("{name}")',
        'pipe("a red umbrella left of a dog", seed=0).images[0].save("umbrella.png")', "```", "",
        _settings(defaults), "",
        "`FluidPipeline` is a `diffusers.DiffusionPipeline`; load it by its own class, for diffusers imports no code "
        "that a folder names. All weights are safetensors.", "",
        "## Training", "", *_training(training), "",
        "## Limits", "",
        f"- It draws {side} x {side} pixels; larger pictures only by moving this canvas (`pipe.outpaint`).",
        *_words(text_encoder),
        "- Nothing keeps it from drawing what it should not, and nobody has looked for biases. It is for teaching and "
        "research.", "",
        "## Licence and attribution", "", ATTRIBUTION if emoji else UNKNOWN_LICENCE, ""])


def from_scenes(tokenizer, text_encoder) -> bool:
    """Whether a part was made by `fluidlab fit`, which learns from emoji scenes."""
    return isinstance(tokenizer, VAETokenizer | VQTokenizer) or getattr(text_encoder, "words", None) is not None


def _front_matter(config, emoji: bool) -> list[str]:
    tags = ("text-to-image", "fluid", "autoregressive", f"{config.order}-order", f"{config.head}-head")
    return ["---", "library_name: fluidlab", "pipeline_tag: text-to-image",
            f"license: {'cc-by-sa-4.0' if emoji else 'unknown'}", "tags:", *(f"- {tag}" for tag in tags), "---"]


def _settings(defaults: dict) -> str:
    if not defaults:
        return "No settings are recommended for it; those of `fluidlab.SampleConfig` are used."
    named = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in defaults.items())
    return f"Recommended, and used where a call says nothing else: {named}."


def _training(training: dict | None) -> list[str]:
    if training is None:
        return ["How it was trained is not recorded."]
    lines = ["As recorded beside the weights that this pipeline was made of:", ""]
    train = training.get("train", {})
    if "steps" in training and "batch_size" in train:
        lines.append(f"- {training['steps']:,} steps of {train['batch_size']} images, precision "
                     f"{train.get('precision', 'unknown')}, seed {train.get('seed', 'unknown')}.")
    source = training.get("data", {}).get("source")
    lines += [f"- Data: {', '.join(f'{key} {value}' for key, value in source.items())}."] if source else []
    if "command" in training:
        lines.append(f"- Command: `{training['command']}` (commit {training.get('commit', 'unknown')}, torch "
                     f"{training.get('torch', 'unknown')}).")
    return lines


def _words(text_encoder) -> list[str]:
    words = getattr(text_encoder, "words", None)
    return [] if words is None else [f"- Its text encoder was trained on {len(words)} words; others are named in a "
                                     f"warning and ignored."]
