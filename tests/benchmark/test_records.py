"""Records: energy, parameters, what several attempts add up to."""

import json
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from nnunetv2_eccam.benchmark import job, records


def nvml() -> types.ModuleType:
    """NVML of a machine whose GPUs use 50 J from one look at their counters to the next."""
    module = types.ModuleType("pynvml")
    counter = iter(range(1_000_000, 2_000_000, 50_000))
    module.asked = []
    module.nvmlInit = lambda: None
    module.nvmlDeviceGetHandleByIndex = module.nvmlDeviceGetHandleByUUID = lambda gpu: module.asked.append(gpu) or gpu
    module.nvmlDeviceGetName = lambda handle: b"NVIDIA X"
    module.nvmlDeviceGetTotalEnergyConsumption = lambda handle: next(counter)
    return module


def test_energy_is_that_of_the_gpus_counters(monkeypatch):
    module = nvml()
    monkeypatch.setitem(sys.modules, "pynvml", module)
    assert [records.gpu_energy("3"), records.gpu_energy("GPU-1a2b, 4")] == [("NVIDIA X", 1000), ("NVIDIA X", 2150)]
    assert module.asked == [3, "GPU-1a2b", 4]


def test_no_gpu_and_no_nvml_are_no_energy_and_no_error(monkeypatch):
    assert records.gpu_energy("") == (None, None)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert records.gpu_energy("0") == (None, None)


def test_attempts_add_up_and_of_a_killed_one_the_energy_is_not_known():
    first = records.begun({}, "train", "a") | {"seconds": 10, "energy_joules": 5.0}
    second = records.begun(first, "train --c", "b")
    assert (second["seconds"], second["energy_joules"], second["attempts"], second["started"]) == (10, None, 2, "a")
    assert second["commands"] == ["train", "train --c"]


def test_a_job_adds_its_energy_to_that_of_the_attempts_before_unless_one_was_killed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(job.signal, "signal", lambda *_: None)  # pytest keeps its own
    for before, joules in ((5.0, 55.0), (None, None)):
        (tmp_path / "x.begun.json").write_text(json.dumps({"seconds": 1e6, "energy_joules": before, "attempts": 1}))
        words = [
            "--log",
            str(tmp_path / "x.txt"),
            "--record",
            str(tmp_path / "x.json"),
            "--",
            "true",
            "-device",
            "cuda",
        ]
        assert job.main(words) == 0
        record = json.loads((tmp_path / "x.json").read_text())
        assert (record["energy_joules"], record["seconds"] >= 1e6, record["attempts"]) == (joules, True, 2)


def test_the_machine_and_the_versions_are_known():
    record = records.machine_record()
    assert record["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert all([*record["versions"].values(), record["cpu"], record["hostname"]])


def test_parameters_are_counted_once_and_without_running_statistics(tmp_path):
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Linear(4, 5))
    network.add_module("again", network[0])  # as a decoder that holds its encoder
    torch.save({"network_weights": network.state_dict()}, tmp_path / "checkpoint_final.pth")
    assert records.count_parameters(tmp_path / "checkpoint_final.pth") == sum(p.numel() for p in network.parameters())
    (tmp_path / "no_checkpoint.pth").write_text("x")
    assert records.count_parameters(tmp_path / "no_checkpoint.pth") is None


def fold(folder: Path, seconds: float) -> Path:
    """Make a fold of one epoch."""
    logged = {"train_losses": [0.5], "val_losses": [0.4], "mean_fg_dice": [0.3], "epoch_start_timestamps": [7.0]}
    torch.save({"logging": {**logged, "epoch_end_timestamps": [7.0 + seconds]}}, folder / "checkpoint_final.pth")
    return folder


@pytest.mark.parametrize(("measured", "seconds", "energy"), [(20.0, 20.0, 7.0), (5.0, 12.0, None)])
def test_a_training_takes_as_long_as_its_commands_or_its_epochs_if_begun_by_hand(tmp_path, measured, seconds, energy):
    record = records.training_record(fold(tmp_path, 12.0), {"seconds": measured, "energy_joules": 7.0})
    assert (record["train_seconds"], record["energy_joules"], record["epochs"]) == (seconds, energy, 1)


def test_a_record_of_another_checkpoint_is_not_taken(tmp_path):
    folder = fold(tmp_path, 12.0)
    (folder / "eccam_benchmark").mkdir()
    kept = {"train_seconds": 99, "checkpoint": records.stamp(folder / "checkpoint_final.pth")}
    (folder / "eccam_benchmark" / "record.json").write_text(json.dumps(kept))
    assert records.training_record(folder)["train_seconds"] == 99
    assert records.training_record(fold(folder, 13.0))["train_seconds"] == 13.0
