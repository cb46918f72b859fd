import json
import os
import signal
from functools import partial

import pytest
import torch
import torch.distributed as dist
from helpers import VARIANTS, batch, seeded
from processes import in_processes
from test_train_loop import CONFIG, Memory

from fluidlab.evaluate.loss import validator
from fluidlab.layers import whole
from fluidlab.model.files import load_model
from fluidlab.model.fluid import Fluid
from fluidlab.presets import preset
from fluidlab.sample.generate import generate
from fluidlab.train.checkpoint import checkpoints, read_state
from fluidlab.train.loop import train
from fluidlab.train.parallel import World, build, units
from fluidlab.train.plan import plan
from fluidlab.train.trainer import Trainer

RECIPE = CONFIG.replace(steps=6, lr=1e-2, clip=0.05, ema_decay=0.9, warmup_steps=1)
NANO = dict(codebook_size=64)


def trainer(world=None, order="random", head="diffusion", recipe=RECIPE, images=16):
    """The same data and weights in every process; the loss of each micro-batch counts another number of tokens."""
    model = build(preset("nano", order=order, head=head, **NANO), recipe, world)
    data = Memory(Fluid(model.config), 32)
    return Trainer(model, data, recipe, validator(data, images, batch_size=4), world)


def story(world=None, **options):
    """Losses, gradient norms, validation loss and a sum over the running mean after some steps."""
    made = trainer(world, **options)
    records = [made.step() for _ in range(4)]
    mean = sum(whole(w).double().abs().sum().item() for w in made.ema.tensors().values())
    return [[r.loss for r in records], [r.grad_norm for r in records], made.validation(), mean]


def assert_same(got, want):
    """Losses to 1e-6. Norms to 1e-5: AdamW divides by small numbers, which magnifies what rounding left there."""
    for a, b, tolerance in zip(got, want, (1e-6, 1e-5, 1e-6, 1e-6), strict=True):
        assert a == pytest.approx(b, rel=tolerance)


@pytest.mark.parametrize("order, head", VARIANTS)
def test_two_processes_give_the_losses_of_one(order, head, tmp_path):
    """Masks of unequal count, clipping (far below the gradient's norm), running mean, validation: all to 1e-6."""
    options = dict(order=order, head=head)
    want = story(**options)
    assert min(want[1]) > 2 * RECIPE.clip
    for got in in_processes(2, lambda world: story(world, **options), tmp_path):
        assert_same(got, want)


@pytest.mark.parametrize("changes", [{}, {"shards": 2}, {"micro_batch": 1}, {"checkpointing": True}],
                         ids=["sharded", "two copies of two shards", "micro-batches", "recomputed"])
def test_four_processes_give_the_losses_of_one(changes, tmp_path):
    want, recipe = story(), RECIPE.replace(**changes)
    for got in in_processes(4, lambda world: story(world, recipe=recipe), tmp_path, shards=recipe.shards):
        assert_same(got, want)


@pytest.mark.parametrize("changes", [{"micro_batch": 2}, {"checkpointing": True}, {"micro_batch": 1,
                                                                                  "checkpointing": True}])
def test_alone_too_the_way_of_computing_does_not_change_the_losses(changes):
    assert_same(story(recipe=RECIPE.replace(**changes)), story())


@pytest.mark.parametrize("more", [{}, {"checkpointing": True}], ids=["kept", "recomputed"])
def test_compiled_blocks_give_the_losses_of_plain_ones(more, monkeypatch):
    """Traced by dynamo and differentiated by AOTAutograd; only the last stage, which writes C++, is left out."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager", fullgraph=True))
    assert_same(story(recipe=RECIPE.replace(compile=True, **more)), story())


def test_bf16_on_two_processes_stays_near_one(tmp_path):
    """Weights travel as bf16, so they are rounded before and not after the norms: 5e-3, as measured for FSDP2."""
    recipe = RECIPE.replace(precision="bf16")
    want = story(recipe=recipe)
    for got in in_processes(2, lambda world: story(world, recipe=recipe), tmp_path):
        assert got[0] == pytest.approx(want[0], rel=5e-3)


def test_each_process_holds_its_share_and_the_plan_says_how_many_bytes(tmp_path):
    """Weights, gradients, moments and running mean of rank 0, in bytes, equal what the planner predicts."""
    def work(world):
        made = trainer(world)
        made.world.last_micro_batch(made.model, True)
        loss, is_target = made._losses(0, made.micro_batches[0])
        (loss * is_target).sum().backward()
        local = lambda tensors: sum(t.to_local().numel() * t.element_size() for t in tensors)  # noqa: E731
        gradients = local(p.grad for p in made.model.parameters())
        made.optimizer.step()
        moments = [s[m] for s in made.optimizer.state.values() for m in ("exp_avg", "exp_avg_sq")]
        return [local(made.model.parameters()), gradients, local(moments), local(made.ema.tensors().values())]

    for size in (2, 4):
        found = plan(preset("nano", **NANO), devices=size, batch_size=8, precision="float32")
        got = in_processes(size, work, tmp_path / str(size))
        assert got[0] == [found.weights, found.gradients, found.optimizer, found.ema]
        assert sum(g[0] for g in got) == 4 * found.parameters


def test_weights_do_not_depend_on_the_number_of_processes(tmp_path):
    want = {name: p.tolist() for name, p in build(preset("nano", **NANO), RECIPE).named_parameters()}

    def work(world):
        model = build(preset("nano", **NANO), RECIPE, world)
        return {name: whole(p).tolist() for name, p in model.named_parameters()}

    for got in in_processes(2, work, tmp_path):
        assert got == want


def test_a_sharded_model_draws_what_a_whole_one_draws(tmp_path):
    model = build(preset("nano", **NANO), RECIPE)
    _, features, mask = batch(model, B=2)
    want = generate(model, features, mask, generator=seeded(1), num_denoising_steps=4)

    def work(world):
        sharded = build(preset("nano", **NANO), RECIPE, world)
        return generate(sharded, features, mask, generator=seeded(1), num_denoising_steps=4).tolist()

    for got in in_processes(2, work, tmp_path):
        assert torch.allclose(torch.tensor(got), want, atol=1e-5)


def test_a_run_goes_on_with_any_number_of_processes(tmp_path):
    """4 -> 2 -> 1 -> 4, two steps each, in one folder: the log is that of a run that one process did in one go."""
    recipe = RECIPE.replace(steps=8, log_every=1, validate_every=8)
    want = [r.loss for r in train(trainer(recipe=recipe), tmp_path / "whole", progress=False)]
    run = tmp_path / "run"

    def work(stop):
        def inner(world=None):
            made = trainer(world, recipe=recipe)
            made.resume(run)
            early = world is not None                                # several processes hear it with the next step
            ask = lambda r: setattr(made, "stop_asked", r.step >= stop - early)  # noqa: E731
            try:
                train(made, run, resume=True, progress=False, on_record=ask)
            except KeyboardInterrupt:
                pass
            return made.done
        return inner

    assert in_processes(4, work(2), tmp_path / "a") == [2] * 4
    assert in_processes(2, work(4), tmp_path / "b") == [4] * 2
    assert work(6)() == 6
    assert in_processes(4, work(99), tmp_path / "c") == [8] * 4
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in log] == list(range(1, 9))
    assert [r["loss"] for r in log] == pytest.approx(want, rel=1e-6)
    ours, theirs = load_model(run / "model"), load_model(tmp_path / "whole" / "model")
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert (a - b).abs().mean() < 1e-5 * b.abs().mean() + 1e-6


def test_all_processes_stop_at_the_same_step_when_one_is_asked(tmp_path):
    """Ctrl-C reaches one of two first: both finish the next step, and one checkpoint holds it."""
    def work(world):
        made = trainer(world, recipe=RECIPE.replace(steps=50))
        def on_record(record):
            if record.step == 3 and world.rank == 1:
                os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            train(made, tmp_path / "run", progress=False, on_record=on_record)
        return made.done

    done = in_processes(2, work, tmp_path)
    assert done[0] == done[1] in (3, 4) and read_state(checkpoints(tmp_path / "run")[-1])["step"] == done[0]


def test_a_lost_peer_ends_the_run_with_a_sentence(tmp_path):
    def work(world):
        made = trainer(world, recipe=RECIPE.replace(steps=1000))
        def on_record(record):
            if record.step == 2 and world.rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
        with pytest.raises(ConnectionError, match=r"process 0 of 2 lost another one after step [23]: start all"):
            train(made, progress=False, on_record=on_record)
        os._exit(7)          # there is nobody left to say goodbye to

    with pytest.raises(AssertionError, match=f"process 0 ended with {7 << 8}"):
        in_processes(2, work, tmp_path, timeout=20.0)


def test_processes_and_micro_batches_must_divide_the_batch():
    recipe = RECIPE.replace(batch_size=8)
    assert World(rank=1, size=2).micro_batches(recipe.replace(micro_batch=2)) == [range(4, 6), range(6, 8)]
    with pytest.raises(ValueError, match="multiple of 3 processes x micro_batch 2, got 8"):
        World(size=3).micro_batches(recipe)
    with pytest.raises(ValueError, match="multiple of 16 processes x micro_batch 1, got 8"):
        World(size=16).micro_batches(recipe)
    with pytest.raises(ValueError, match="multiple of micro_batch, got 8 and 3"):
        recipe.replace(micro_batch=3)


def test_shards_must_divide_the_processes(tmp_path):
    def work(world):
        raise AssertionError("never reached")
    with pytest.raises(AssertionError, match="must be a multiple of shards, got 2 and 3"):
        in_processes(2, work, tmp_path, shards=3)


def test_ten_billion_parameters_shard_without_memory():
    """A fake process group of 8 and the meta device: what each of 8 devices would hold of 10.5b, to the byte."""
    from torch.testing._internal.distributed.fake_pg import FakeStore
    config = preset("10.5b")
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=8)
    try:
        mesh = dist.device_mesh.init_device_mesh("cpu", (8,), mesh_dim_names=("shard",))
        with torch.device("meta"):
            model = Fluid(config)
        World(0, 8, torch.device("cpu"), mesh).prepare(model, RECIPE)
        held = sum(p.to_local().numel() for p in model.parameters())
    finally:
        dist.destroy_process_group()
    assert len(units(model)) == config.depth + config.aligner_depth + 4
    assert 4 * held == plan(config, devices=8, batch_size=8).weights
    assert held == pytest.approx(sum(p.numel() for p in model.parameters()) / 8, rel=1e-3)
