import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from helpers import batch, seeded, variant

from fluidlab.config import TrainConfig
from fluidlab.evaluate.loss import validation_loss, validator
from fluidlab.model.files import load_model
from fluidlab.model.fluid import Fluid
from fluidlab.presets import preset
from fluidlab.train.checkpoint import checkpoints
from fluidlab.train.loop import train
from fluidlab.train.optim import EMA, learning_rate, make_optimizer
from fluidlab.train.trainer import Trainer

CONFIG = TrainConfig(steps=12, batch_size=8, lr=1e-3, warmup_steps=3, save_every=4, validate_every=6, log_every=1)


class Memory:
    """A data set in memory with the two methods that training and validation use."""

    def __init__(self, model, size=32):
        self.tensors = batch(model, B=size)

    def __len__(self):
        return len(self.tensors[0])

    def gather(self, indices):
        return tuple(t[torch.as_tensor(list(indices))] for t in self.tensors)

    def batch(self, step, batch_size, seed=0, rows=None):
        g = torch.Generator().manual_seed(seed * 1000 + step)
        return self.gather(torch.randint(0, len(self), (batch_size,), generator=g)[rows or range(batch_size)])


def fresh(order="random", head="diffusion", config=CONFIG):
    torch.manual_seed(0)
    model = Fluid(preset("nano", order=order, head=head, codebook_size=64))
    data = Memory(model)
    return Trainer(model, data, config, validator(data, 16, batch_size=8))


@pytest.mark.parametrize("order, head", [("random", "diffusion"), ("raster", "softmax"), ("random", "flow")])
def test_a_resumed_run_has_the_losses_of_one_that_was_not_stopped(order, head, tmp_path):
    whole = train(fresh(order, head), progress=False)
    first = fresh(order, head)
    for _ in range(5):
        first.step()
    first.save(tmp_path)
    rest = train(fresh(order, head), tmp_path, resume=True, progress=False)
    assert [r.loss for r in rest] == [r.loss for r in whole[5:]]
    assert rest[-1].val_loss == whole[-1].val_loss and rest[-1].step == 12
    logged = [json.loads(s) for s in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in logged] == list(range(6, 13))


def test_only_complete_checkpoints_count_and_the_last_two_are_kept(tmp_path):
    train(fresh(), tmp_path, progress=False)
    assert [p.name for p in checkpoints(tmp_path)] == ["step-00000008", "step-00000012"]
    (tmp_path / "step-00000099.part").mkdir()
    (tmp_path / "step-00000098").mkdir()
    assert checkpoints(tmp_path)[-1].name == "step-00000012"
    assert fresh().resume(tmp_path) == 12
    averaged = load_model(tmp_path / "model")
    trainer = fresh()
    trainer.resume(tmp_path)
    assert all(torch.equal(p, trainer.ema.weights[n]) for n, p in averaged.named_parameters())


def test_a_folder_with_a_run_is_not_overwritten(tmp_path):
    train(fresh(), tmp_path, progress=False)
    with pytest.raises(ValueError, match="already holds a run at step-00000012: continue it with resume"):
        train(fresh(), tmp_path, progress=False)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    trainer = fresh()
    trainer.step()
    trainer.save(tmp_path)
    with pytest.raises(ValueError, match="the checkpoint step-00000001 is of another model"):
        fresh("random", "softmax").resume(tmp_path)


def test_a_loss_that_is_not_finite_stops_with_step_and_advice_and_leaves_the_weights():
    trainer = fresh()
    trainer.step()
    before = {n: p.clone() for n, p in trainer.model.named_parameters()}
    trainer.data.tensors[0].fill_(float("inf"))
    with pytest.raises(FloatingPointError, match=r"the loss of step 2 is nan at learning rate 6.67e-04: resume"):
        trainer.step()
    assert all(torch.equal(p, before[n]) for n, p in trainer.model.named_parameters())


def test_ctrl_c_saves_and_the_run_goes_on(tmp_path):
    """A real SIGINT to a real process in the middle of its steps."""
    code = textwrap.dedent(f"""
        import os, signal, sys
        sys.path.insert(0, {str(os.path.dirname(__file__))!r})
        import torch
        from test_train_loop import fresh
        from fluidlab.train.loop import train
        torch.set_num_threads(1)
        stop = lambda r: os.kill(os.getpid(), signal.SIGINT) if r.step == 7 else None
        train(fresh(), {str(tmp_path)!r}, on_record=stop)
    """)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode in (-signal.SIGINT, 1, 130) and "holds step 7; --resume continues" in (
        result.stdout + result.stderr)
    whole = train(fresh(), progress=False)
    rest = train(fresh(), tmp_path, resume=True, progress=False)
    assert [r.loss for r in rest] == [r.loss for r in whole[7:]]


@pytest.mark.parametrize("at", [4, 8])
def test_a_validation_that_a_stop_cut_off_is_made_up_for(at, tmp_path):
    """Ctrl-C while step 4, or the last one, is being validated: whoever resumes measures it, with the same weights."""
    config = CONFIG.replace(steps=8, validate_every=4)

    def trainer(stop=False):
        def validate(model):
            if stop and made.done == at:
                raise KeyboardInterrupt
            return validation_loss(model, made.data, 32)
        made = fresh(config=config)
        made.validate = validate
        return made

    whole = train(trainer(), tmp_path / "whole", progress=False)
    with pytest.raises(KeyboardInterrupt):
        train(trainer(stop=True), tmp_path / "cut", progress=False)
    train(trainer(), tmp_path / "cut", resume=True, progress=False)
    logs = [[json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
            for name in ("whole", "cut")]
    assert [(r["step"], r["loss"], r["val_loss"]) for r in logs[0]] == [(r["step"], r["loss"], r["val_loss"])
                                                                        for r in logs[1]]
    assert [r.step for r in whole if r.val_loss is not None] == [4, 8] and (tmp_path / "cut" / "model").is_dir()


def test_steps_depend_on_the_seed_and_nothing_else():
    a, b = fresh(), fresh()
    torch.manual_seed(99)
    assert [a.step().loss for _ in range(3)] == [b.step().loss for _ in range(3)]
    other = fresh(config=CONFIG.replace(seed=1))
    assert other.step().loss != fresh().step().loss


def test_the_schedule_warms_up_and_comes_down():
    config = TrainConfig(steps=100, warmup_steps=10, lr=1.0, final_lr=0.1)
    rates = [learning_rate(config, i) for i in range(101)]
    assert rates[0] == 0.1 and rates[9] == rates[10] == 1.0 and rates[100] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert learning_rate(config.replace(schedule="constant"), 99) == 1.0


def test_vectors_positions_and_tables_do_not_decay():
    model = variant("random", "softmax")
    names = {p: n for n, p in model.named_parameters()}
    decay, keep = ({names[p] for p in g["params"]} for g in make_optimizer(model, CONFIG).param_groups)
    assert {"head.table", "backbone.positions", "order.mask_token", "backbone.norm.weight"} <= keep
    assert "backbone.blocks.0.mlp.up.weight" in decay and len(decay) + len(keep) == len(names)


def test_the_running_mean_is_warmed_up():
    """The mean of a constant after a jump: with the warm-up it is near after 20 updates, at plain 0.9999 it is not."""
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    ema = EMA(model, 0.9999)
    torch.nn.init.ones_(model.weight)
    expected = 0.0
    for n in range(20):
        ema.update(model)
        expected += (1 - expected) * (1 - min(0.9999, (1 + n) / (10 + n)))
    assert ema.weights["weight"].item() == pytest.approx(expected, rel=1e-5) and expected > 0.99


def test_bf16_stays_close_to_float32():
    """After 5 steps the losses of both differ by less than 5e-2, the rounding of bf16 over a nano model's depth."""
    full, half = fresh(), fresh(config=CONFIG.replace(precision="bf16"))
    for _ in range(5):
        assert abs(full.step().loss - half.step().loss) < 5e-2
    assert all(p.dtype == torch.float32 for p in half.model.parameters())


def test_dropped_text_is_not_seen_by_the_model():
    """Three steps each: at the first the zero-initialised output hides every text."""
    def third_loss(dropout, shift):
        trainer = fresh(config=CONFIG.replace(text_dropout=dropout, lr=1e-2))
        tokens, features, mask = trainer.data.tensors
        trainer.data.tensors = (tokens, features + shift, mask)
        return [trainer.step().loss for _ in range(3)][-1]
    assert third_loss(1.0, 0.0) == third_loss(1.0, 1.0)
    assert third_loss(0.0, 0.0) != third_loss(0.0, 1.0)


@pytest.mark.parametrize("head", ["softmax", "diffusion", "flow"])
def test_validation_loss_repeats_exactly_and_does_not_train(head):
    model = variant("random", head)
    data = Memory(model)
    before = torch.get_rng_state()
    first = validation_loss(model, data, 32, batch_size=8)
    assert validation_loss(model, data, 32, batch_size=8) == first != validation_loss(model, data, 32, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    loss, is_target = model.token_losses(*data.gather(range(32)), seeded(0))
    assert validation_loss(model, data, 32, batch_size=32) == pytest.approx(loss[is_target].mean().item(), rel=1e-5)
    with pytest.raises(ValueError, match="num_images must be from 1 to 32, got 33"):
        validation_loss(model, data, 33)
