"""Short trainings on XLA's CPU devices or, with 0 of them, on plain PyTorch; prints what each was like as JSON.

A process of its own, because the number of devices is fixed when the first of them is touched; several trainings in
one, because starting takes longer than they do.
"""

import json
import re
import sys

import torch

from fluidlab.config import TrainConfig
from fluidlab.evaluate.loss import validator
from fluidlab.model.files import save_model
from fluidlab.presets import preset
from fluidlab.train.checkpoint import training_state
from fluidlab.train.loop import train
from fluidlab.train.parallel import World, build
from fluidlab.train.trainer import Trainer
from fluidlab.train.xla import start_xla

RECIPE = TrainConfig(steps=20, batch_size=8, lr=3e-3, warmup_steps=4, clip=0.05, ema_decay=0.9, validate_every=10)


class Noise:
    """Batches that depend on the step alone, and as many images to validate on as do not divide by its batches."""

    def __init__(self, config):
        self.config = config

    def __len__(self):
        return 22

    def batch(self, step, batch_size, seed=0, rows=None):
        g, c = torch.Generator().manual_seed(step), self.config
        shape = (batch_size, c.seq_len)
        tokens = (torch.randint(0, c.codebook_size, shape, generator=g) if c.token_kind == "discrete" else
                  torch.randn(*shape, c.token_dim, generator=g))
        features = torch.randn(batch_size, 6, c.text_dim, generator=g)
        batch = tokens, features, torch.rand(batch_size, 6, generator=g) < 0.8
        return batch if rows is None else tuple(t[rows.start:rows.stop] for t in batch)

    def gather(self, indices):
        return tuple(t[indices.start:indices.stop] for t in self.batch(10 ** 6, len(self)))


def story(devices: int, order: str, head: str, run: str | None = None, stop: int = 20, begin_with: str | None = None,
          **changes) -> dict:
    """Train up to a step, in a run's folder if one is given; losses, and what XLA did for them."""
    recipe, config = RECIPE.replace(**changes), preset("femto", order=order, head=head, codebook_size=64)
    world, data = start_xla(recipe.shards) if devices else World(), Noise(config)
    before = programs(devices)
    trainer = Trainer(build(config, recipe, world), data, recipe, validator(data, 22, batch_size=16), world)
    if begin_with is not None:
        if not devices:
            save_model(trainer.model, begin_with, weights={n: 2 * w for n, w in trainer.ema.tensors().items()})
        trainer.begin_with(begin_with)
    records, compiled, waiting = [], [programs(devices) - before], set()
    trainer.optimizer.register_step_pre_hook(lambda *_: waiting.update(recorded(trainer.model) if devices else ()))

    def on_record(record):
        records.append(record)
        compiled.append(programs(devices) - before - sum(compiled))
        trainer.stop_asked = record.step >= stop < recipe.steps
    try:
        train(trainer, run, resume=run is not None, progress=False, on_record=on_record)
    except KeyboardInterrupt:
        pass
    facts = {"compiled": compiled, "waiting": sorted(waiting), **of_xla(trainer)} if devices else {}
    return {"losses": [r.loss for r in records], "norms": [r.grad_norm for r in records],
            "val": [r.val_loss for r in records if r.val_loss is not None],
            "mean": sum(p.double().abs().sum().item() for p in trainer.averaged().cpu().parameters()), **facts}


def programs(devices: int) -> int:
    """How many XLA has compiled so far."""
    if not devices:
        return 0
    import torch_xla.debug.metrics as met
    return (met.metric_data("CompileTime") or [0])[0]


def recorded(model) -> set[str]:
    """Operations that are still to be carried out for the gradients."""
    import torch_xla
    text = torch_xla._XLAC._get_xla_tensors_text([p.grad for p in model.parameters()])
    return set(re.findall(r"\w+::(\w+)", text))


def of_xla(trainer) -> dict:
    """Which share of each part of the state the first device holds, and what XLA could not do."""
    import torch_xla
    import torch_xla.debug.metrics as met
    torch_xla.sync(wait=True)
    held, total = {}, {}
    for name, t in training_state(trainer.model, trainer.ema, trainer.optimizer).items():
        part, [shards] = name.split(".")[0], torch_xla._XLAC._get_local_shards([t.detach()])
        total[part] = total.get(part, 0) + t.numel()
        held[part] = held.get(part, 0) + shards[0][0].numel()
    return {"devices": trainer.world.chips, "parameters": total["model"],
            "held": {part: held[part] / total[part] for part in total},
            "fallbacks": [name for name in met.counter_names() if name.startswith("aten::")]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps([story(int(sys.argv[1]), **case) for case in json.loads(sys.argv[2])]))
