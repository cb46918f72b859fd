"""A short training on XLA's CPU devices or, with 0 of them, on plain PyTorch; prints a line of JSON."""

import argparse
import json
from pathlib import Path

import torch

from fluidlab.config import TrainConfig
from fluidlab.presets import preset
from fluidlab.train.parallel import World, build
from fluidlab.train.trainer import Trainer


class Noise:
    """Batches that depend on the step alone."""

    def __init__(self, config):
        self.config = config

    def batch(self, step, batch_size, seed=0, rows=None):
        g, c = torch.Generator().manual_seed(step), self.config
        shape = (batch_size, c.seq_len)
        tokens = (torch.randint(0, c.codebook_size, shape, generator=g) if c.token_kind == "discrete" else
                  torch.randn(*shape, c.token_dim, generator=g))
        features = torch.randn(batch_size, 6, c.text_dim, generator=g)
        return tokens, features, torch.rand(batch_size, 6, generator=g) < 0.8


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("devices", type=int)
    p.add_argument("order")
    p.add_argument("head")
    p.add_argument("--run", type=Path)
    p.add_argument("--stop", type=int, default=20)
    args = p.parse_args()
    torch.set_num_threads(1)
    if args.devices:
        from fluidlab.train.xla import start_xla
        world = start_xla()
    else:
        world = World()
    config = preset("nano", order=args.order, head=args.head, codebook_size=64)
    recipe = TrainConfig(steps=20, batch_size=8, lr=3e-3, warmup_steps=4, clip=0.05, ema_decay=0.9)
    trainer = Trainer(build(config, recipe, world), Noise(config), recipe, world=world)
    if args.run is not None:
        trainer.resume(args.run)
    losses = [trainer.step().loss for _ in range(trainer.done, args.stop)]
    if args.run is not None:
        trainer.save(args.run)
    facts = of_xla(trainer) if args.devices else {}                 # before the mean below makes more programs
    mean = sum(p.double().abs().sum().item() for p in trainer.averaged().cpu().parameters())
    print(json.dumps({"losses": losses, "mean": mean, **facts}))


def of_xla(trainer) -> dict:
    import torch_xla
    import torch_xla.debug.metrics as met
    total = trainer.model.count_parameters()["total"]
    split = sum(p.numel() for p in trainer.model.parameters()
                if "devices=" in (torch_xla._XLAC._get_xla_sharding_spec(p) or ""))
    compiled = met.metric_data("UncachedCompile") or met.metric_data("CompileTime")
    return {"devices": trainer.world.chips, "sharded": split / total, "compilations": compiled[0] if compiled else 0,
            "fallbacks": [name for name in met.counter_names() if name.startswith("aten::")]}


if __name__ == "__main__":
    main()
