"""The benchmark with nnU-Net's own commands, on the small data set, with a trainer of two iterations."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from nnunetv2_eccam.evaluation.score_files import SLICE_COLUMNS, VOLUME_COLUMNS, read_scores

TRAINERS = """
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

class TinyA(nnUNetTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 1, 2, 1

class TinyB(TinyA):
    pass
"""
NAME = "Dataset900_Labels"


def test_two_trainers_from_the_command_to_the_report(nnunet_base, small_dataset, tmp_path):
    small_dataset("labels")
    for part, ending in (("images", "_0000.nii.gz"), ("labels", ".nii.gz")):
        (tmp_path / "raw" / NAME / f"{part}Ts").mkdir(parents=True)
        shutil.copy(nnunet_base / "raw" / NAME / f"{part}Tr" / f"case_0{ending}",
                    tmp_path / "raw" / NAME / f"{part}Ts" / f"test_0{ending}")  # fmt: skip
    for name in ("results", "trainers", "preprocessed"):
        (tmp_path / name).mkdir()
    planned = nnunet_base / "preprocessed" / NAME
    shutil.copytree(planned, tmp_path / "preprocessed" / NAME)
    plans = json.loads((planned / "nnUNetPlans.json").read_text())
    architecture = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
    architecture["features_per_stage"] = [4, 6, 8, 10, 12, 14][: architecture["n_stages"]]
    plans["configurations"]["2d"]["batch_size"] = 2
    (tmp_path / "preprocessed" / NAME / "nnUNetPlans.json").write_text(json.dumps(plans))
    (tmp_path / "trainers" / "tiny_trainers.py").write_text(TRAINERS)
    environment = {
        **os.environ,
        **{f"nnUNet_{name}": str(tmp_path / name) for name in ("raw", "preprocessed", "results")},
        "nnUNet_extTrainer": str(tmp_path / "trainers"),
    }
    script = Path(sys.executable).with_name("nnUNetv2_eccam")

    def benchmark(*words: str) -> str:
        """Run the command and give its output."""
        fixed = ["-d", "900", "-c", "2d", "-f", "0", "--device", "cpu", "--work-dir", str(tmp_path / "work")]
        command = [str(script), "benchmark", *fixed, *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        logs = "".join(log.read_text()[-3000:] for log in (tmp_path / "work" / "jobs").rglob("log.txt"))
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{logs}"
        return done.stdout

    assert "4 jobs: 4 done" in benchmark("-tr", "TinyA", "TinyB", "--no-test", "--jobs", "2")
    for trainer in ("TinyA", "TinyB"):
        where = Path("repeat_0", NAME, "2d", trainer)
        model = tmp_path / "results" / NAME / f"{trainer}__nnUNetPlans__2d" / "fold_0"
        summary = json.loads((model / "validation" / "summary.json").read_text())
        scores = read_scores(tmp_path / "work" / "scores" / where / "fold_0_volume.csv", VOLUME_COLUMNS)
        expected = [case["metrics"][label]["FN"] for case in summary["metric_per_case"] for label in ("1", "2")]
        assert scores.fn.tolist() == expected
        assert len(read_scores(tmp_path / "work" / "scores" / where / "fold_0_slice.csv", SLICE_COLUMNS)) > 2
        record = json.loads((tmp_path / "work" / "records" / where / "fold_0.json").read_text())
        assert record["epochs"] == 1
        assert record["parameters"] > 1000
        assert 0 < record["train_seconds"] < 3600
        assert record["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    with_test = benchmark("-tr", "TinyA")
    assert "begun    train" not in with_test, "what is trained is not trained again"
    assert "4 jobs: 4 done" in with_test
    where = tmp_path / "work" / "scores" / "repeat_0" / NAME / "2d" / "TinyA"
    scores = read_scores(where / "test_volume.csv", VOLUME_COLUMNS)
    assert set(scores.case) == {"test_0"}
    assert (tmp_path / "work" / "report" / "index.html").is_file()
