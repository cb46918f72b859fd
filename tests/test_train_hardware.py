"""What is found on machines that the tests do not have: a PCI bus of files, and a driver that says what it is told."""

from types import SimpleNamespace

import pytest
import torch

from fluidlab.train import hardware
from fluidlab.train.hardware import find_hardware
from fluidlab.train.plan import DEVICES


@pytest.fixture
def tpu(tmp_path, monkeypatch):
    """A machine with a network card and some TPU chips of a PCI number."""
    def plug(number, chips):
        for i, (vendor, device) in enumerate([("0x8086", "0x0063")] + [("0x1ae0", number)] * chips):
            (tmp_path / str(i)).mkdir()
            (tmp_path / str(i) / "vendor").write_text(vendor + "\n")
            (tmp_path / str(i) / "device").write_text(device + "\n")
        monkeypatch.setattr(hardware, "PCI", tmp_path)
        monkeypatch.setattr(hardware, "has_tpu", lambda: True)
        monkeypatch.setattr(hardware, "start_xla", lambda: SimpleNamespace(chips=chips))
    return plug


@pytest.fixture
def gpus(monkeypatch):
    def plug(name, count, memory, major):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_properties",
                            lambda i: SimpleNamespace(name=name, total_memory=memory, major=major))
    return plug


@pytest.mark.parametrize(("number", "chips", "model"), [("0x0063", 1, "v5e"), ("0x006f", 8, "v6e"),
                                                        ("0x0062", 4, "v5p")])
def test_a_tpu_is_known_by_its_number_and_driven_by_one_process(number, chips, model, tpu):
    tpu(number, chips)
    found = find_hardware()
    assert (found.kind, found.name, found.devices, found.model) == ("tpu", f"TPU {model}", chips, model)
    assert found.memory == DEVICES[model].memory and found.precision == "bf16"
    assert found.processes == 1 and found.at_once(4) == 4 * chips


def test_a_tpu_that_nobody_knows_is_taken_for_the_smallest_and_says_so(tpu):
    tpu("0xffff", 1)
    found = find_hardware()
    assert "not known here" in found.name and found.model is None
    assert found.memory == min(device.memory for device in DEVICES.values())


@pytest.mark.parametrize(("name", "memory", "major", "model", "precision"), [
    ("NVIDIA H100 80GB HBM3", 85_000_000_000, 9, "h100", "bf16"), ("Tesla T4", 15_600_000_000, 7, None, "float32")])
def test_gpus_have_a_process_each(name, memory, major, model, precision, gpus):
    gpus(name, 2, memory, major)
    found = find_hardware()
    assert (found.kind, found.name, found.devices, found.memory) == ("cuda", name, 2, float(memory))
    assert (found.model, found.precision) == (model, precision)
    assert found.processes == 2 and found.at_once(4) == 4


def test_without_an_accelerator_it_is_the_processor(monkeypatch):
    monkeypatch.setattr(hardware, "has_tpu", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = find_hardware()
    assert (found.kind, found.devices, found.processes, found.memory) == ("cpu", 1, 1, None)
    assert found.precision == "float32" and found.at_once(3) == 3
