"""What of the XLA engine can be tested without torch_xla: static shapes, refusals, the parts that are plain PyTorch.

The rest is in `tests/xla`, for `make test-xla`.
"""

import sys

import pytest
import torch
from caches import small_cache
from helpers import VARIANTS, batch
from torch import nn
from torch.nn import functional as F

from fluidlab.cli import main
from fluidlab.config import TrainConfig
from fluidlab.layers import Norm
from fluidlab.model.fluid import Fluid
from fluidlab.model.orders import RandomOrder
from fluidlab.presets import preset
from fluidlab.train.parallel import World, start
from fluidlab.train.trainer import Trainer
from fluidlab.train.xla import XLAWorld, has_tpu, layer_norm, recompute

RECIPE = TrainConfig(steps=4, batch_size=8)


class Meta(World):
    """A world without memory, where whatever needs a number of a tensor raises, but for the three that a step reads."""

    def read(self, x):
        assert x.shape == (3,)
        return [1.0, 1.0, 0.0]

    def optimizer_options(self):
        return {"foreach": False}


class Data:
    def __init__(self, config):
        with torch.device("meta"):
            self.model = Fluid(config)

    def batch(self, step, batch_size, seed=0, rows=None):
        return batch(self.model, B=batch_size if rows is None else len(rows))


def step_without_memory(order, head, **changes):
    recipe, config = RECIPE.replace(**changes), preset("femto", order=order, head=head)
    with torch.device("meta"):
        model = Fluid(config)
    trainer = Trainer(model, Data(config), recipe, world=Meta(device=torch.device("meta")))
    for state in trainer.optimizer.state.values():
        state["step"] = torch.tensor(0.0)                   # AdamW counts in Python where it is not captured
    return trainer.step()


@pytest.mark.parametrize("order, head", VARIANTS)
@pytest.mark.parametrize("changes", [{}, {"micro_batch": 4, "checkpointing": True}], ids=["whole", "in parts"])
def test_shapes_of_a_whole_step_are_static(order, head, changes):
    """Forward, backward, clipping, AdamW and running mean on the meta device: no x[mask], no nonzero, no .item()."""
    assert step_without_memory(order, head, **changes).step == 1


@pytest.mark.parametrize("spoil", [lambda x, hidden: x[hidden].sum() + x, lambda x, hidden: x * hidden.sum().item(),
                                   lambda x, hidden: x + len(hidden.nonzero())])
def test_shapes_that_depend_on_the_mask_would_be_caught(spoil, monkeypatch):
    inputs = RandomOrder.inputs
    monkeypatch.setattr(RandomOrder, "inputs", lambda self, x, hidden: spoil(inputs(self, x, hidden), hidden))
    with pytest.raises((RuntimeError, NotImplementedError)):
        step_without_memory("random", "diffusion")


def test_images_that_the_chips_do_not_divide_are_refused():
    assert XLAWorld(chips=4).micro_batches(RECIPE.replace(micro_batch=4)) == [range(0, 4), range(4, 8)]
    with pytest.raises(ValueError, match="computed at once must be a multiple of the number of chips, got 2 and 4"):
        XLAWorld(chips=4).micro_batches(RECIPE.replace(micro_batch=2))


@pytest.mark.parametrize("norm", [Norm(8), nn.LayerNorm(8, elementwise_affine=False)], ids=["affine", "plain"])
def test_layer_norm_is_layer_norm(norm):
    x = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0)) * 3 + 1
    if norm.weight is not None:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    results = []
    for function in (lambda x: layer_norm(norm, x), lambda x: F.layer_norm(x, (8,), norm.weight, norm.bias)):
        leaf = x.clone().requires_grad_()
        out = function(leaf)
        out.square().sum().backward()
        results.append((out, leaf.grad))
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_options_that_would_do_nothing_are_refused():
    with pytest.raises(ValueError, match="engine xla compiles every step by itself, got compile=True"):
        XLAWorld(chips=4).prepare(Fluid(preset("femto")), RECIPE.replace(compile=True))
    with pytest.raises(ValueError, match="the number of processes must be a multiple of shards, got 1 and 2"):
        start("cpu", shards=2)
    for device in ("xla", "xla:0", "abacus"):
        with pytest.raises(ValueError, match=f"device must be one of cpu.*, got '{device[:3]}"):
            start(device)


def test_recomputing_is_asked_of_every_block_of_the_backbone():
    model = XLAWorld(chips=4).prepare(Fluid(preset("femto")), RECIPE.replace(checkpointing=True))
    assert all(block.forward.func is recompute for block in model.backbone.blocks)


def test_the_command_refuses_what_the_engine_cannot_do(tmp_path, monkeypatch, capsys):
    """Each reaches the engine from the command line, in one sentence and before anything is computed."""
    line = ["train", "--cache", str(small_cache(tmp_path / "cache")), "--out", str(tmp_path / "run"), "--head",
            "softmax", "--engine", "xla"]
    assert main([*line, "--device", "cpu"]) == 2
    assert "engine xla finds its own device" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(line) == 2
    assert "from one process, got 2 processes: start one, without torchrun" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_the_engine_cannot_do_is_said(monkeypatch):
    with pytest.raises(ValueError, match="engine must be one of auto, fsdp, xla, got 'tpu'"):
        start(engine="tpu")
    with pytest.raises(ValueError, match=r"finds its own device \(PJRT_DEVICE names another\), got device 'cpu'"):
        start("cpu", engine="xla")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="drives all chips of one machine from one process, got 2 processes"):
        start(engine="xla")


@pytest.fixture
def torch_xla(tmp_path, monkeypatch):
    """Pretend that a torch_xla with these lines is installed."""
    def install(lines):
        (tmp_path / "torch_xla").mkdir()
        (tmp_path / "torch_xla" / "__init__.py").write_text("")
        (tmp_path / "torch_xla" / "runtime.py").write_text(lines)
        monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "torch_xla"]:
        monkeypatch.delitem(sys.modules, name)
    yield install
    for name in [name for name in sys.modules if name.split(".")[0] == "torch_xla"]:
        del sys.modules[name]


@pytest.mark.parametrize("lines, found", [("device_type = lambda: 'TPU'", True), ("device_type = lambda: 'CPU'", False),
                                          ("raise ImportError('undefined symbol')", False)])
def test_a_tpu_is_found_where_there_is_one(torch_xla, lines, found):
    torch_xla(lines)
    assert has_tpu() is found
    if not found:
        assert start().mesh is None, "without a TPU the engine is not chosen by itself"


def test_a_torch_xla_of_another_torch_is_named(torch_xla):
    torch_xla("raise ImportError('undefined symbol: _ZN5torch')")
    with pytest.raises(ValueError, match=r"needs a torch_xla made for torch 2\.\d+.*torch_xla"):
        start(engine="xla")
