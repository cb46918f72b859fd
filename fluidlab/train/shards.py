"""Who holds what, and when: one real training step of a sharded model, looked at after every operation.

Nothing here is reckoned: rows and bytes are those of the tensors that a process holds, and memory is the sum over all
storages that are alive. FSDP2 is known by what it does. While a unit is gathered, its parameters are plain tensors;
once its gradients have been added up over all processes, its shards have one.

What to notice: memory is seen from Python, after an operation and not within it, and without the allocator's reserve.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.module_tracker import ModuleTracker
from torch.utils.weak import WeakIdKeyDictionary

from fluidlab.train.checkpoint import MOMENTS
from fluidlab.train.parallel import World
from fluidlab.train.trainer import Trainer

KINDS = ("weights", "optimizer", "ema", "gradients", "gathered", "messages", "activations")
PHASES = ("forward", "backward", "update")
SENDS = {"_allgather_base_": "gather", "_reduce_scatter_base_": "reduce", "allreduce_": "sum"}     # of c10d


def look_at_step(trainer: Trainer) -> dict:
    """Take two steps and watch the second, when AdamW has its moments; all processes must call it.

    Returns:
        JSON facts. "parameters" and "held": what each process holds between steps, by rank. "units": when this process
        had which unit whole, in operations since the step began, and when its gradients were reduced. "bytes": kind ->
        bytes of this process after each operation. "phases": name -> [first, last + 1]. "messages": what it sent or
        received, with the bytes of the whole.
    """
    trainer.step()
    facts = holdings(trainer)
    with Watch(trainer) as watch:
        loss = trainer.step().loss
    return {**facts, **watch.report(), "loss": loss}


def holdings(trainer: Trainer) -> dict:
    """Rows and bytes of every parameter, and bytes of each part of the state, for every process."""
    world, named = trainer.world, dict(trainer.model.named_parameters())
    owner = {name: unit for unit, names in unit_parameters(trainer.model).items() for name in names}
    rows = by_rank(world, [len(local(p)) for p in named.values()])                     # (processes, parameters)
    held = by_rank(world, [local(p).nbytes for p in named.values()])
    moments = [trainer.optimizer.state[p][m] for p in named.values() for m in MOMENTS]
    parts = by_rank(world, [sum(local(t).nbytes for t in tensors)
                            for tensors in (named.values(), moments, trainer.ema.tensors().values())])
    shards = world.size if world.mesh is None else world.mesh.size(-1)
    parameters = [{"name": name, "unit": owner[name], "shape": list(p.shape), "bytes": p.numel() * p.element_size(),
                   "rows": spans(rows[:, i].tolist(), shards), "held": held[:, i].tolist()}
                  for i, (name, p) in enumerate(named.items())]
    return {"processes": world.size, "shards": shards, "parameters": parameters,
            "held": dict(zip(("weights", "optimizer", "ema"), parts.T.tolist(), strict=True))}


def unit_parameters(model: nn.Module) -> dict[str, list[str]]:
    """Unit -> the parameters that are gathered with it; a model that is not sharded is one unit, "model"."""
    from torch.distributed.fsdp import FSDPModule
    units = [name for name, module in model.named_modules() if isinstance(module, FSDPModule)] or ["model"]
    found = {unit: [] for unit in units}
    for name, _ in model.named_parameters():
        found[max((u for u in units if name.startswith(f"{u}.")), key=len, default="model")].append(name)
    return found


def by_rank(world: World, mine: list[int]) -> Tensor:
    """The numbers of every process, (processes, numbers)."""
    mine = torch.tensor(mine)
    if world.size == 1:
        return mine[None]
    all_of_them = [torch.empty_like(mine) for _ in range(world.size)]
    dist.all_gather(all_of_them, mine, group=world.side)
    return torch.stack(all_of_them)


@torch.no_grad()
def local(t: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return t.to_local() if hasattr(t, "to_local") else t


def spans(counts: list[int], shards: int) -> list[list[int]]:
    """Counts of rows by rank as [first, last + 1]; each copy of the state begins at row 0 again."""
    spans = []
    for rank, count in enumerate(counts):
        first = 0 if rank % shards == 0 else spans[-1][1]
        spans.append([first, first + count])
    return spans


class Watch(TorchDispatchMode):
    """Looks at the memory of this process after every operation inside `with`."""

    def __init__(self, trainer: Trainer):
        super().__init__()
        self.model, self.shards, self.tracker = trainer.model, dict(trainer.model.named_parameters()), ModuleTracker()
        self.names = {} if trainer.world.mesh is None else unit_parameters(trainer.model)
        self.kinds = WeakIdKeyDictionary()                                             # storage -> its kind
        moments = [trainer.optimizer.state[p][m] for p in self.shards.values() for m in MOMENTS]
        for kind, tensors in (("weights", self.shards.values()), ("optimizer", moments),
                              ("ema", trainer.ema.tensors().values())):
            self._call(kind, tensors)
        self.bytes, self.whole, self.backward = {kind: [] for kind in KINDS}, {name: [] for name in self.names}, []
        self.reduced, self.messages = {}, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.namespace == "c10d":
            self._send(func._opname, [t for t in tree_leaves(args) if isinstance(t, Tensor)])
        if not func.is_view and func.namespace != "profiler":
            self._call("activations", [t for t in tree_leaves(out) if isinstance(t, Tensor)], unless=KINDS)
            self._look()
        return out

    def _send(self, name: str, buffers: list[Tensor]) -> None:
        if name in SENDS:
            size = max(t.nbytes for t in buffers)
            self.messages.append({"kind": SENDS[name], "at": len(self.backward), "bytes": size})
            self._call("messages", buffers, unless=("weights", "gradients", "gathered"))

    def _call(self, kind: str, tensors, unless: tuple[str, ...] = ()) -> None:
        """Give storages a kind, unless they have one of these."""
        for t in tensors:
            storage = local(t).untyped_storage()
            if self.kinds.get(storage) not in unless:
                self.kinds[storage] = kind

    def _look(self) -> None:
        for name, names in self.names.items():
            now = [self.model.get_parameter(n) for n in names]
            whole = not hasattr(now[0], "to_local")
            self.whole[name].append(whole)
            if whole:
                self._call("gathered", [*now, *(p.grad for p in now if p.grad is not None)])
            if self.shards[names[0]].grad is not None:
                self.reduced.setdefault(name, len(self.backward))
        self._call("gradients", [p.grad for p in self.shards.values() if p.grad is not None])
        total = dict.fromkeys(KINDS, 0)
        for storage, kind in self.kinds.items():
            total[kind] += storage.nbytes()
        for kind, size in total.items():
            self.bytes[kind].append(size)
        self.backward.append(self.tracker.is_bw)

    def report(self) -> dict:
        """What was seen, as in `look_at_step`."""
        count = len(self.backward)
        first, last = self.backward.index(True), count - self.backward[::-1].index(True)
        units = [{"name": name, "bytes": sum(self.shards[n].numel() * self.shards[n].element_size() for n in names),
                  "gathered": _runs(self.whole[name]), "reduced": self.reduced[name]}
                 for name, names in self.names.items()]
        return {"units": units, "bytes": self.bytes, "messages": self.messages,
                "phases": dict(zip(PHASES, ([0, first], [first, last], [last, count]), strict=True))}


def _runs(flags: list[bool]) -> list[list[int]]:
    """[first, last + 1] of every stretch of True."""
    edges = [i for i, (a, b) in enumerate(zip([False, *flags], [*flags, False], strict=True)) if a != b]
    return [list(pair) for pair in zip(edges[::2], edges[1::2], strict=True)]
