"""A job of the benchmark: how nnU-Net's command goes on, which GPU it takes, what it leaves behind when it ends."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from stored_volumes import write_simpleitk
from tiny_benchmark import wait_until

from nnunetv2_eccam.benchmark import checks
from nnunetv2_eccam.benchmark.checks import GPUS
from nnunetv2_eccam.errors import UserError

if os.name != "posix":
    pytest.skip("jobs run on Linux and macOS", allow_module_level=True)

from nnunetv2_eccam.benchmark.job import keep_whole_predictions, training_options

SHOW_GPU = "import os, time; print('GPU', os.environ.get('CUDA_VISIBLE_DEVICES'), flush=True); time.sleep(3)"


def start(folder, name: str, code: str, *options: str, **variables: str) -> subprocess.Popen:
    """Start a job that runs Python code."""
    command = [sys.executable, "-m", "nnunetv2_eccam.benchmark.job", "--log", f"{name}.txt", "--record", f"{name}.json"]
    return subprocess.Popen(
        [*command, "--", sys.executable, "-c", code, *options], cwd=folder, env={**os.environ, **variables},
        stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def log(folder, name: str) -> str:
    file = folder / f"{name}.txt"
    return file.read_text() if file.exists() else ""


@pytest.mark.parametrize(
    ("files", "options"),
    [
        ([], ()),
        (["checkpoint_latest.pth", "checkpoint_best.pth"], ("--c",)),
        (["checkpoint_best.pth"], ("--c",)),
        (["checkpoint_final.pth", "checkpoint_best.pth"], ("--val",)),
        (["checkpoint_final.pth", "validation/summary.json"], None),
    ],
)
def test_a_training_goes_on_from_what_lies_in_its_folder(tmp_path, files, options):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        torch.save({}, tmp_path / name)
    assert training_options(tmp_path) == options


def test_a_checkpoint_that_was_cut_off_is_not_gone_on_from(tmp_path):
    for name in ("checkpoint_final.pth", "checkpoint_latest.pth"):
        torch.save({"network_weights": torch.zeros(100)}, tmp_path / name)
    whole = (tmp_path / "checkpoint_final.pth").read_bytes()
    (tmp_path / "checkpoint_final.pth").write_bytes(whole[: len(whole) // 2])
    assert training_options(tmp_path) == ("--c",)
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint_latest.pth"]


def test_predictions_are_kept_if_they_are_whole_and_of_the_same_models(tmp_path):
    model, folder = tmp_path / "summary.json", tmp_path / "test"
    model.write_text("1")
    keep_whole_predictions(folder, [model])
    write_simpleitk(folder / "whole.nii.gz", np.random.default_rng(0).random((3, 8, 9)))
    (folder / "half.nii.gz").write_bytes((folder / "whole.nii.gz").read_bytes()[:500])
    keep_whole_predictions(folder, [model])
    assert {file.name for file in folder.iterdir()} == {"whole.nii.gz", "made_from.json"}
    model.write_text("22")
    keep_whole_predictions(folder, [model])
    assert {file.name for file in folder.iterdir()} == {"made_from.json"}


def test_each_of_two_jobs_at_once_takes_a_gpu_of_its_own(tmp_path):
    jobs = [start(tmp_path, name, SHOW_GPU, "-device", "cuda", **{GPUS: "0;1"}) for name in ("a", "b")]
    assert [job.wait() for job in jobs] == [0, 0]
    assert {line for name in ("a", "b") for line in log(tmp_path, name).splitlines() if line.startswith("GPU")} == {
        "GPU 0", "GPU 1",
    }  # fmt: skip
    assert json.loads((tmp_path / "a.json").read_text())["device"] == "cuda"


@pytest.mark.parametrize(
    ("visible", "each", "jobs", "expected"),
    [
        ("", 1, None, ["0", "1", "2", "3"]),
        ("", 2, None, ["0,1", "2,3"]),
        ("5,GPU-7,2,6", 1, 2, ["5", "GPU-7"]),
        ("", 1, 6, ["0", "1", "2", "3", "0", "1"]),
    ],
)
def test_a_machines_gpus_are_dealt_out_to_the_jobs(monkeypatch, visible, each, jobs, expected):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert checks.gpus_of_jobs("cuda", each, jobs) == expected
    assert checks.gpus_of_jobs("cpu", 0, jobs) == []


def test_trainers_that_nnunet_does_not_find_are_named():
    checks.check_trainers(["nnUNetTrainerECCaM", "nnUNetTrainer_1epoch"])
    with pytest.raises(UserError, match="nnU-Net finds no trainer nnUNetTrainerNobody"):
        checks.check_trainers(["nnUNetTrainer", "nnUNetTrainerNobody"])


@pytest.mark.parametrize("system", ["DeepLabV3Plus", "SegFormer"])
def test_a_library_that_a_network_lacks_is_named_before_anything_is_trained(monkeypatch, system):
    trainer = f"nnUNetTrainerECCaM_{system}"
    checks.check_trainers([trainer])
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(UserError, match=r"needs segmentation-models-pytorch: pip install 'nnunetv2-eccam\[compared\]'"):
        checks.check_trainers(["nnUNetTrainerECCaM", trainer])


def test_a_device_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device that torch can use; run on the CPU with -device cpu"):
        checks.gpus_of_jobs("cuda", 1, None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(UserError, match=r"run.gpus is 2, but this machine has 1"):
        checks.gpus_of_jobs("cuda", 2, None)


def test_a_failed_command_shows_its_last_lines_and_the_next_attempt_adds_to_the_record(tmp_path):
    failing = start(tmp_path, "x", "print(*range(50), sep='\\n'); import sys; sys.exit('the reason')")
    assert failing.wait() == 1
    shown = failing.stderr.read().splitlines()
    assert shown[-1] == "  the reason"
    assert len(shown) == 21
    assert not (tmp_path / "x.json").exists()
    assert start(tmp_path, "x", "import time; time.sleep(0.2)").wait() == 0
    record = json.loads((tmp_path / "x.json").read_text())
    assert record["attempts"] == 2
    assert len(record["commands"]) == 2
    assert record["seconds"] >= 0.2
    assert record["predict_seconds"] == record["seconds"]


def is_running(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_signal_ends_the_command_and_its_workers_and_a_command_left_by_a_killed_job_is_waited_for(tmp_path):
    code = "import subprocess as s; p = s.Popen(['sleep', '600']); print('worker', p.pid, flush=True); p.wait()"
    job = start(tmp_path, "x", code)
    wait_until(lambda: "\nworker" in log(tmp_path, "x"))
    worker = int(log(tmp_path, "x").split()[-1])
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=60) == 128 + signal.SIGTERM
    wait_until(lambda: not is_running(worker), seconds=20)

    left = start(tmp_path, "y", "import time; print('begun', flush=True); time.sleep(3); print('done', flush=True)")
    wait_until(lambda: "\nbegun" in log(tmp_path, "y"))
    left.kill()
    second = start(tmp_path, "y", "print('second')")
    assert second.wait() == 0
    assert "waiting for its end" in second.stderr.read()
    text = log(tmp_path, "y")
    assert text.index("\ndone") < text.index("\nsecond")
