"""How long a picture takes, technique by technique, from the plain definition to what the package does."""

from collections.abc import Iterator

import torch

from fluidlab.bench.clock import measured
from fluidlab.bench.naive import Techniques, generate_plainly
from fluidlab.bench.rows import Row
from fluidlab.model.fluid import Fluid
from fluidlab.model.heads.diffusion import CosineDiffusion
from fluidlab.presets import preset
from fluidlab.sample.generate import generate

TEXT_TOKENS, GUIDANCE = 12, 3.0
PAPERS_STEPS, FEW_STEPS, SOLVER = 100, 10, "dpm++"      # inside the diffusion head
WORDS = {"one_batch": "with and without text in one batch", "asked_only": "only the positions of this step",
         "text_once": "the text read once", "cache": "keys and values kept"}


def model_of(order: str, head: str, tokens: int, size: str = "mini") -> Fluid:
    """A model of seeded weights: how long it takes does not depend on what it has learned."""
    torch.manual_seed(0)
    return Fluid(preset(size, order=order, head=head, seq_len=tokens)).eval()


def text_of(model: Fluid, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    features = torch.randn(batch, TEXT_TOKENS, model.config.text_dim, generator=g)
    return features, torch.ones(batch, TEXT_TOKENS, dtype=torch.bool)


def ways(model: Fluid, num_steps: int | None, batch: int) -> dict[tuple[str, int], callable]:
    """(technique, batch) -> a call that draws, each with one technique more than the one before."""
    techniques = [name for name in WORDS if name != "cache" or model.order.causal]
    continuous = model.head.token_kind == "continuous"
    solver = SOLVER if continuous and isinstance(model.head.process, CosineDiffusion) else None

    def seeded():
        return torch.Generator().manual_seed(2)
    one, many = text_of(model, 1), text_of(model, batch)
    options = {"guidance_scale": GUIDANCE, "num_inference_steps": num_steps}
    found = {}
    for rung in Techniques.ladder(tuple(techniques)):
        last = [name for name in techniques if getattr(rung, name)][-1:]
        found[WORDS[last[0]] if last else "the plain definition", 1] = lambda rung=rung: generate_plainly(
            model, *one, generator=seeded(), techniques=rung, num_denoising_steps=PAPERS_STEPS, **options)
    if continuous:
        found["what z tells the head computed once", 1] = lambda: generate(
            model, *one, generator=seeded(), num_denoising_steps=PAPERS_STEPS, **options)
    few = {**options, **({"num_denoising_steps": FEW_STEPS, "solver": solver} if continuous else {})}
    last = f"{FEW_STEPS} steps of {solver or 'its solver'} in the head" if continuous else "both answers in one product"
    found[last, 1] = lambda: generate(model, *one, generator=seeded(), **few)
    if batch > 1:
        found[f"{batch} pictures at once", batch] = lambda: generate(model, *many, generator=seeded(), **few)
    return found


def sampling_rows(order: str, head: str, tokens: int, batch: int, peak: float, repeats: int) -> Iterator[Row]:
    """The ladder of one variant; random order takes as many steps as the paper's ratio, 64 for 256 tokens."""
    model = model_of(order, head, tokens)
    calls = ways(model, None if model.order.causal else max(1, tokens // 4), batch)
    names = {f"{technique} {size}": (technique, size) for technique, size in calls}
    found, slowest = measured({name: calls[key] for name, key in names.items()}, repeats), None
    for name, (technique, size) in names.items():
        seconds, flops = found[name]
        slowest = slowest or size / seconds
        yield Row(f"sampling {order}-{head}", technique, size, tokens, size / seconds, size / seconds / slowest,
                  flops / seconds / peak)
