"""Training steps a second: the plain loop that everybody writes first, and the package's."""

from collections.abc import Iterator

import torch
from torch import Tensor

from fluidlab.bench.clock import seconds_of
from fluidlab.bench.rows import Row
from fluidlab.config import TrainConfig
from fluidlab.model.cost import TEXT_TOKENS, training_flops
from fluidlab.model.fluid import Fluid
from fluidlab.presets import preset
from fluidlab.train.trainer import Trainer


class Batches:
    """Random tokens and texts in the shape of a cache, made once: what is timed is the step and not the data."""

    def __init__(self, model: Fluid, batch_size: int):
        g, c = torch.Generator().manual_seed(0), model.config
        shape = (batch_size, c.seq_len)
        self.tokens = (torch.randn(*shape, c.token_dim, generator=g) if c.token_kind == "continuous"
                       else torch.randint(c.codebook_size, shape, generator=g))
        self.features = torch.randn(batch_size, TEXT_TOKENS, c.text_dim, generator=g)
        self.mask = torch.ones(batch_size, TEXT_TOKENS, dtype=torch.bool)

    def batch(self, step: int, batch_size: int, seed: int, rows: range | None = None) -> tuple[Tensor, ...]:
        chosen = slice(None) if rows is None else slice(rows.start, rows.stop)
        return self.tokens[chosen], self.features[chosen], self.mask[chosen]


def plain_step(model: Fluid, optimizer: torch.optim.Optimizer, mean: dict[str, Tensor], batch: tuple) -> None:
    """Forward, backward, clip, AdamW and the running mean, in float32 and one parameter after the other."""
    optimizer.zero_grad()
    model(*batch).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    with torch.no_grad():
        for name, p in model.named_parameters():
            mean[name].mul_(0.999).add_(p, alpha=0.001)


def training_rows(order: str, head: str, batch: int, peaks: dict[str, float], repeats: int,
                  size: str = "mini") -> Iterator[Row]:
    """The plain loop, and the package's in float32 and in bf16; shares are of the peak of their own precision."""
    torch.manual_seed(0)
    model = Fluid(preset(size, order=order, head=head))
    data, optimizer = Batches(model, batch), torch.optim.AdamW(model.parameters(), lr=1e-3, foreach=False)
    mean = {name: p.detach().clone() for name, p in model.named_parameters()}
    calls = {"the plain loop, float32": lambda: plain_step(model, optimizer, mean, data.batch(0, batch, 0))}
    for precision in ("float32", "bf16"):
        torch.manual_seed(0)
        config = TrainConfig(steps=10 ** 6, batch_size=batch, precision=precision, validate_every=0, save_every=0)
        trainer = Trainer(Fluid(preset(size, order=order, head=head)), data, config)
        calls[f"fluidlab train, {precision}"] = trainer.step
    seconds = seconds_of(calls, repeats)
    flops = training_flops(model.config) * batch
    for name, taken in seconds.items():
        peak = peaks["bf16" if name.endswith("bf16") else "float32"]
        yield Row(f"training {order}-{head}", name, batch, model.config.seq_len, batch / taken,
                  seconds["the plain loop, float32"] / taken, flops / taken / peak)
