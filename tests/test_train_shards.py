"""What `fluidlab shards` reports is what the processes hold: compared with the tensors themselves, and the planner."""

import json

import pytest
import torch.distributed.fsdp  # noqa: F401  here, so that four forked processes need not import it each
from processes import in_processes
from test_cli_launch import cache  # noqa: F401
from test_train_parallel import NANO, RECIPE, Memory, trainer

from fluidlab.cli import main
from fluidlab.layers import whole
from fluidlab.model.fluid import Fluid
from fluidlab.presets import preset
from fluidlab.train.parallel import build
from fluidlab.train.plan import plan
from fluidlab.train.shards import KINDS, local, look_at_step, spans
from fluidlab.train.trainer import Trainer


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What each of two processes reports, after comparing the rows it told with the whole."""
    def work(world):
        made = trainer(world)
        facts = look_at_step(made)
        for told, p in zip(facts["parameters"], made.model.parameters(), strict=True):
            first, last = told["rows"][world.rank]
            assert local(p).equal(whole(p)[first:last]) and told["held"][world.rank] == local(p).nbytes
        return facts
    return in_processes(2, work, tmp_path_factory.mktemp("two"))


def test_every_row_is_held_by_one_process(two):
    assert (two[0]["processes"], two[0]["shards"]) == (2, 2)
    for p in two[0]["parameters"]:
        (zero, middle), (again, end) = p["rows"]
        assert (zero, middle, end) == (0, again, p["shape"][0]) and p["bytes"] == sum(p["held"])


def test_each_copy_of_the_state_begins_at_row_0():
    assert spans([3, 2, 3, 2], shards=2) == [[0, 3], [3, 5], [0, 3], [3, 5]]
    assert spans([2, 2, 1, 0], shards=4) == [[0, 2], [2, 4], [4, 5], [5, 5]]


def test_the_bytes_of_the_state_are_those_of_the_planner(two):
    found = plan(preset("nano", **NANO), devices=2, batch_size=8, precision="float32")
    for kind in ("weights", "optimizer", "ema"):
        assert two[0]["held"][kind][0] == getattr(found, kind)
        assert set(two[0]["bytes"][kind]) == {getattr(found, kind)}, "seen after every operation"
    _, last = two[0]["phases"]["backward"]
    assert two[0]["bytes"]["gradients"][last] == found.gradients and two[0]["bytes"]["gradients"][0] == 0
    most = max(map(sum, zip(two[0]["bytes"]["gathered"], two[0]["bytes"]["messages"], strict=True)))
    assert 0.8 * found.gathered < most <= found.gathered
    assert max(map(sum, zip(*two[0]["bytes"].values(), strict=True))) <= found.total


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_what_is_whole_at_once_is_what_the_planner_says(precision, tmp_path):
    """Of so many blocks that their order has a middle; sums are float32 in both precisions."""
    config = preset("nano", **NANO, depth=5)
    recipe = RECIPE.replace(precision=precision)

    def work(world):
        return look_at_step(Trainer(build(config, recipe, world), Memory(Fluid(config), 32), recipe, None, world))
    seen = in_processes(2, work, tmp_path)[0]["bytes"]
    found = plan(config, devices=2, batch_size=8, precision=precision)
    most = max(map(sum, zip(seen["gathered"], seen["messages"], strict=True)))
    assert most == pytest.approx(found.gathered, rel=0.02)
    assert max(map(sum, zip(*seen.values(), strict=True))) <= found.total


def test_a_unit_is_whole_only_while_it_is_needed(two):
    facts = two[0]
    (_, turn), (_, last) = facts["phases"]["forward"], facts["phases"]["backward"]
    parts = {unit["name"]: unit for unit in facts["units"]}
    assert set(parts) == {"aligner", "aligner.blocks.0", "order", "head", "backbone", "backbone.blocks.0",
                          "backbone.blocks.1"}
    for unit in facts["units"]:
        ways = [sum(start < turn for start, _ in unit["gathered"]), sum(start >= turn for start, _ in unit["gathered"])]
        assert ways == ([2, 2] if unit["name"] == "head" else [1, 1]), "a head embeds, and predicts"
        assert turn < unit["reduced"] <= last and unit["gathered"][-1][1] <= unit["reduced"]
    first, second = (parts[f"backbone.blocks.{i}"] for i in (0, 1))
    assert first["gathered"][0][1] < second["gathered"][0][0], "forward: one after the other"
    assert second["reduced"] < first["reduced"], "backward: the other way around"
    biggest, total = max(u["bytes"] for u in facts["units"]), sum(u["bytes"] for u in facts["units"])
    assert total == sum(p["bytes"] for p in facts["parameters"])
    assert biggest <= max(facts["bytes"]["gathered"]) < total
    assert facts["bytes"]["gathered"][0] == facts["bytes"]["gathered"][-1] == 0


def test_messages_are_every_gather_and_one_reduction_of_each_unit(two):
    units = two[0]["units"]
    size = {kind: sum(m["bytes"] for m in two[0]["messages"] if m["kind"] == kind) for kind in ("gather", "reduce")}
    assert size["gather"] == sum(u["bytes"] * len(u["gathered"]) for u in units)
    assert size["reduce"] == sum(u["bytes"] for u in units)


def test_all_processes_tell_the_same_and_looking_changes_nothing(two):
    made = trainer()
    made.step()
    want = made.step().loss
    for facts in two:
        assert facts["loss"] == pytest.approx(want, rel=1e-6)
        assert facts["parameters"] == two[0]["parameters"] and facts["held"] == two[0]["held"]


def test_alone_nothing_is_gathered_or_sent():
    facts = look_at_step(trainer(recipe=RECIPE))
    assert facts["units"] == facts["messages"] == [] and max(facts["bytes"]["gathered"]) == 0
    assert {len(values) for values in facts["bytes"].values()} == {facts["phases"]["update"][1]}
    assert facts["parameters"][0]["rows"] == [[0, facts["parameters"][0]["shape"][0]]]
    assert facts["bytes"]["activations"][facts["phases"]["forward"][1]] > 10 * facts["bytes"]["activations"][-1]


def test_the_command_writes_what_was_seen(cache, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "a" / "shards.json"
    assert main(["shards", "--cache", str(cache), "--batch-size", "4", "--device", "cpu", "--threads", "1", "--out",
                 str(out)]) == 0
    facts = json.loads(out.read_text())
    assert facts["preset"] == "nano" and tuple(facts["bytes"]) == KINDS and facts["processes"] == 1
    total = sum(p["bytes"] for p in facts["parameters"])
    assert f"process 0 holds {total:,} of {total:,} bytes of weights" in capsys.readouterr().out
    assert main(["shards", "--cache", str(cache), "--head", "linear", "--out", str(out)]) == 2
    assert "head must be one of softmax" in capsys.readouterr().err
