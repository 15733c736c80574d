"""Records: energy, parameters, what several attempts add up to."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from nnunetv2_eccam.benchmark.energy import EnergyMeter
from nnunetv2_eccam.benchmark.records import (
    complete_training_record,
    count_parameters,
    machine_record,
    record_of,
    stamp,
    training_record,
)


class Nvml(types.ModuleType):
    """NVML of a machine whose GPUs use 50 J from one look at their counters to the next."""

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.asked, self.joules = [], 1000.0

    def nvmlInit(self):
        pass

    def nvmlDeviceGetHandleByIndex(self, index):
        self.asked.append(index)
        return index

    nvmlDeviceGetHandleByUUID = nvmlDeviceGetHandleByIndex

    def nvmlDeviceGetName(self, handle):
        return b"NVIDIA X"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        self.joules += 50
        return self.joules * 1000


def test_energy_is_the_difference_of_the_gpus_counters(monkeypatch):
    nvml = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    with EnergyMeter("3") as meter:
        pass
    assert (meter.joules, meter.name, nvml.asked) == (50, "NVIDIA X", [3])
    with EnergyMeter("GPU-1a2b") as meter:
        pass
    assert nvml.asked[-1] == "GPU-1a2b"


def test_no_gpu_and_no_nvml_are_no_energy_and_no_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    for gpus in ("", "0"):
        with EnergyMeter(gpus) as meter:
            pass
        assert meter.joules is None
    with pytest.raises(KeyError), EnergyMeter("0"):
        raise KeyError


def test_attempts_add_up_and_of_a_killed_one_the_energy_is_not_known():
    first = {"seconds": 10, "energy_joules": 5.0, "started": "a", "commands": ["train"]}
    last = {"seconds": 20, "energy_joules": 6.0, "started": "c", "finished": "d", "commands": ["train --c"], "cpu": "x"}
    record = record_of([first, last])
    assert (record["seconds"], record["energy_joules"], record["attempts"]) == (30, 11.0, 2)
    assert (record["started"], record["finished"], record["cpu"]) == ("a", "d", "x")
    assert record["commands"] == ["train", "train --c"]
    killed = {"started": "b", "commands": ["train --c"]}
    assert record_of([first, killed, last])["energy_joules"] is None, "half of it would be misleading"


def test_the_machine_and_the_versions_are_known():
    record = machine_record()
    assert record["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert all(record["versions"].values())
    assert record["cpu"]
    assert record["hostname"]


def test_parameters_are_counted_once_and_without_running_statistics(tmp_path):
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Linear(4, 5))
    network.add_module("again", network[0])  # as a decoder that holds its encoder
    torch.save({"network_weights": network.state_dict()}, tmp_path / "checkpoint_final.pth")
    assert count_parameters(tmp_path / "checkpoint_final.pth") == sum(p.numel() for p in network.parameters())
    (tmp_path / "no_checkpoint.pth").write_text("x")
    assert count_parameters(tmp_path / "no_checkpoint.pth") is None


def fold(folder: Path, seconds: float) -> Path:
    lines = [f"2026-01-02 03:04:05.0: {line}\n" for line in ("Epoch 0", f"Epoch time: {seconds} s")]
    (folder / "training_log_2026_1_2_03_04_05.txt").write_text("".join(lines))
    (folder / "checkpoint_final.pth").write_text("weights")
    return folder


def test_a_training_takes_as_long_as_its_commands_or_its_epochs_if_begun_by_hand(tmp_path):
    folder = fold(tmp_path, 12.0)
    record = complete_training_record(folder, {"seconds": 20.0, "energy_joules": 7.0})
    assert (record["train_seconds"], record["energy_joules"], record["epochs"]) == (20.0, 7.0, 1)
    record = complete_training_record(folder, {"seconds": 5.0, "energy_joules": 7.0})
    assert (record["train_seconds"], record["energy_joules"]) == (12.0, None)


def test_a_record_of_another_checkpoint_is_not_taken(tmp_path):
    folder = fold(tmp_path, 12.0)
    (folder / "eccam_benchmark").mkdir()
    kept = {"train_seconds": 99, "checkpoint": stamp(folder / "checkpoint_final.pth")}
    (folder / "eccam_benchmark" / "record.json").write_text(json.dumps(kept))
    assert training_record(folder)["train_seconds"] == 99
    (folder / "checkpoint_final.pth").write_text("other weights")
    assert training_record(folder)["train_seconds"] == 12.0
