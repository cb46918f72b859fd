"""The planner's bytes are those of a real training state, and what it advises fits."""

import pytest
import torch

from fluidlab.cli import main
from fluidlab.config import TrainConfig
from fluidlab.model.cost import activation_bytes, part_counts
from fluidlab.model.fluid import Fluid
from fluidlab.presets import preset
from fluidlab.train.plan import DEVICES, describe, fits, largest_that_fits, parse_bytes, plan, smallest_change
from fluidlab.train.trainer import Trainer


class OneBatch:
    """The same scenes at every step."""

    def __init__(self, config, text_tokens=17):
        N, generator = config.seq_len, torch.Generator().manual_seed(0)
        self.tokens = (torch.randint(config.codebook_size, (8, N), generator=generator)
                       if config.token_kind == "discrete" else torch.randn(8, N, config.token_dim, generator=generator))
        self.features = torch.randn(8, text_tokens, config.text_dim, generator=generator)

    def batch(self, step, batch_size, seed):
        return (self.tokens[:batch_size], self.features[:batch_size],
                torch.ones(batch_size, self.features.shape[1], dtype=torch.bool))


@pytest.mark.parametrize("head", ["softmax", "diffusion", "flow"])
def test_state_bytes_are_those_of_a_real_trainer(head):
    config = preset("nano", head=head)
    trainer = Trainer(Fluid(config), OneBatch(config), TrainConfig(steps=4, batch_size=2))
    trainer.step()
    found = plan(config, devices=1, batch_size=8)
    moments = [t for state in trainer.optimizer.state.values() for t in state.values() if t.ndim]
    assert found.parameters == sum(p.numel() for p in trainer.model.parameters())
    assert found.weights == sum(p.nbytes for p in trainer.model.parameters())
    assert found.optimizer == sum(t.nbytes for t in moments)
    assert found.ema == sum(t.nbytes for t in trainer.ema.weights.values())
    assert found.gathered == 0 and found.total == sum(list(describe(found).values())[:-1])


@pytest.mark.parametrize("shards", [2, 3, 4, 8])
def test_a_shard_is_the_largest_piece_of_every_parameter(shards):
    """FSDP2 cuts each parameter along its first dimension, and its first device gets the largest piece."""
    config = preset("nano", head="softmax", depth=3)
    pieces = sum(p.chunk(shards)[0].numel() for p in Fluid(config).parameters())
    assert plan(config, devices=shards, batch_size=shards).weights == 4 * pieces


@pytest.mark.parametrize(("order", "head"), [("random", "diffusion"), ("raster", "softmax"), ("random", "flow")])
def test_activation_bytes_are_near_what_a_real_forward_pass_keeps(order, head):
    config = preset("micro", order=order, head=head)
    model, (tokens, features, mask) = Fluid(config), OneBatch(config).batch(0, 8, 0)
    mine, kept = {t.untyped_storage().data_ptr() for t in (*model.parameters(), tokens, features, mask)}, {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in mine:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(tokens, features, mask, torch.Generator().manual_seed(0))
    real = sum(t.untyped_storage().nbytes() for t in kept.values()) / 8
    assert activation_bytes(config) == pytest.approx(real, rel=0.15)


def test_activations_grow_with_the_micro_batch_and_recomputing_keeps_fewer():
    config = preset("mini", depth=16)
    one, four = (plan(config, devices=1, batch_size=8, micro_batch=m, text_tokens=17) for m in (1, 4))
    assert four.activations == 4 * one.activations and (one.accumulation, four.accumulation) == (8, 2)
    again = plan(config, devices=1, batch_size=8, micro_batch=1, text_tokens=17, checkpointing=True)
    assert again.activations < 0.6 * one.activations and again.flops == one.flops


@pytest.mark.parametrize(("size", "devices", "batch_size", "memory", "change"), [
    ("369m", 1, 64, 16e9, "micro_batch"), ("10.5b", 32, 4096, 32e9, "micro_batch"),
    ("10.5b", 16, 4096, 16e9, "devices")])
def test_the_advice_fits_and_is_the_cheapest_of_its_kind(size, devices, batch_size, memory, change):
    found = plan(preset(size), devices=devices, batch_size=batch_size)
    assert not fits(found, memory)
    said, other = smallest_change(found, memory)
    assert change in said and fits(other, memory) and other.batch_size == batch_size
    if said.startswith("micro_batch"):
        larger = [m for m in range(other.micro_batch + 1, found.micro_batch) if found.micro_batch % m == 0]
        assert not any(fits(plan(preset(size), devices=devices, batch_size=batch_size, micro_batch=m), memory)
                       for m in larger[:1])


def test_what_nothing_helps_is_said():
    assert smallest_change(plan(preset("10.5b"), devices=1, batch_size=1), 16e9) is None


@pytest.mark.parametrize(("devices", "memory", "size"), [(1, 16e9, "369m"), (8, 16e9, "3.1b")])
def test_the_largest_that_fits_fits_on_the_same_devices_and_the_next_larger_does_not(devices, memory, size):
    configs = {name: preset(name) for name in ("369m", "1.1b", "3.1b", "10.5b")}
    name, found = largest_that_fits(configs, memory, devices=devices, batch_size=64)
    assert name == size and fits(found, memory) and (found.devices, found.batch_size) == (devices, 64)
    larger = [n for n in configs if part_counts(configs[n])["total"] > found.parameters]
    for other in larger:
        sparing = plan(configs[other], devices=devices, batch_size=64, micro_batch=1, checkpointing=True)
        assert not fits(sparing, memory)
    assert largest_that_fits({"369m": configs["369m"]}, 1e9, devices=1, batch_size=8) is None


def test_bytes_are_read_as_they_are_written():
    assert [parse_bytes(text) for text in ("32GB", "80GiB", " 1.5 TB", "16MiB")] == [32e9, 80 * 2 ** 30, 1.5e12,
                                                                                     16 * 2 ** 20]
    for text in ("32", "GB", "-1GB", "0GB", "32 pounds"):
        with pytest.raises(ValueError, match="must look like 32GB or 80GiB, got"):
            parse_bytes(text)


@pytest.mark.parametrize(("options", "said"), [
    ({"devices": 0}, "devices must be a whole number at least 1, got 0"),
    ({"shards": 3}, "devices must be a multiple of shards, got 4 devices and 3 shards"),
    ({"shards": 8}, "shards must be a whole number from 1 to 4, got 8"),
    ({"batch_size": 6}, "batch_size must be a multiple of the number of devices, got 6 and 4"),
    ({"micro_batch": 3}, "the 2 images of each device must be a multiple of micro_batch, got 3"),
    ({"precision": "fp16"}, "precision must be one of float32, bf16, got 'fp16'"),
])
def test_numbers_that_do_not_divide_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        plan(preset("nano"), **{"devices": 4, "batch_size": 8, **options})


def test_the_command_prints_a_plan_and_refuses_what_cannot_fit(capsys):
    line = ["plan", "--preset", "10.5b", "--devices", "32", "--batch-size", "4096"]
    assert main([*line, "--device", "v6e", "--micro-batch", "4", "--checkpointing"]) == 0
    said = capsys.readouterr().out
    assert "10,390,429,712 parameters" in said and "32 times a step" in said and "steps a day at 40%" in said
    assert main([*line, "--device-memory", "32GB"]) == 2
    said = capsys.readouterr()
    assert "it fits with micro_batch" in said.err and "activations" in said.out
    assert main([*line]) == 2
    assert f"plan needs --device (one of {', '.join(DEVICES)}) or --device-memory" in capsys.readouterr().err
    assert main([*line, "--device", "abacus"]) == 2
    assert "device must be one of v5e" in capsys.readouterr().err
