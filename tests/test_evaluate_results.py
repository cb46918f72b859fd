import shlex

import pytest

from fluidlab.evaluate.results import COLUMNS, append_results, provenance, read_results


def row(**changes):
    base = dict(order="random", head="flow", preset="nano", params=5, steps=10, seed=0, metric="val_loss", value=1.5,
                torch="2.13.0", commit="abc", command="fluidlab train")
    return {**base, **changes}


def test_rows_come_back_and_a_repeated_measurement_replaces_the_old_one(tmp_path):
    path = tmp_path / "results.csv"
    append_results([row(), row(metric="train_loss", value=2)], path)
    append_results([row(value=1.25, commit="def"), row(seed=1)], path)
    assert [r["value"] for r in read_results(path, metric="val_loss")] == ["1.25", "1.5"]
    append_results([row(value=1.0, command="fluidlab train --threads 1")], path)
    assert [r["value"] for r in read_results(path, metric="val_loss")] == ["1.5", "1.0"]      # the newest stand last
    assert read_results(path, seed=1) == [{k: str(v) for k, v in row(seed=1).items()}]
    assert tuple(read_results(path)[0]) == COLUMNS
    assert [p.name for p in tmp_path.iterdir()] == ["results.csv"]


def test_wrong_rows_and_files_are_refused_and_nothing_is_lost(tmp_path):
    path = tmp_path / "results.csv"
    append_results([row()], path)
    before = path.read_text()
    with pytest.raises(ValueError, match="a row of results must have order, .* got order$|must have order.*got"):
        append_results([{"order": "random"}], path)
    assert path.read_text() == before
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="results.csv must have the columns order, .* got a, b"):
        append_results([row()], path)
    with pytest.raises(ValueError, match="missing.csv is not in"):
        read_results(tmp_path / "missing.csv")


def test_provenance_names_version_commit_and_a_command_that_can_be_typed_again(monkeypatch):
    facts = provenance()
    monkeypatch.setattr("sys.argv", ["fluidlab", "sample", "a cat", "--out", "it's.png"])
    assert shlex.split(provenance()["command"])[2:] == ["a cat", "--out", "it's.png"]
    assert set(facts) == {"torch", "commit", "command"} and facts["torch"][0].isdigit()
    assert facts["commit"] == "unknown" or len(facts["commit"]) >= 7
