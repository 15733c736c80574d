"""A short training and a prediction of each system, by nnU-Net's own commands, on one data set."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nnunetv2_eccam.demo.journal import remove
from nnunetv2_eccam.demo.results import Result, mean_of, read_results
from nnunetv2_eccam.demo.runner import LAST_LINES, end, script, started
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json, write_json

DATASET = "Dataset002_Heart"
CONFIGURATION = "2d_systems"
OVERRIDE: dict[str, Any] = {
    "description": "Half of nnU-Net's widths and a small patch, the same for every system.",
    "configurations": {
        CONFIGURATION: {
            "inherits_from": "2d",
            "patch_size": [128, 128],
            "batch_size": 4,
            "arch_kwargs": {"n_stages": 5, "features_per_stage": [16, 32, 64, 128, 256]},
        }
    },
}


@dataclass(frozen=True)
class Trial:
    """Where the trial happens and how.

    Args:
        work: the work folder, absolute; what is finished in it is not done again.
        data: a download in the layout of MSD Task02_Heart.
        device: ``cpu`` or ``cuda``.
        hold_out: labelled cases that no training sees and on which Dice is taken.
        threads: CPU threads of each command.
    """

    work: Path
    data: Path
    device: str
    hold_out: int
    threads: int

    @property
    def preprocessed(self) -> Path:
        """The preprocessed data set, with its plans."""
        return self.work / "nnUNet_preprocessed" / DATASET

    @property
    def raw(self) -> Path:
        """The data set in nnU-Net's raw format."""
        return self.work / "nnUNet_raw" / DATASET

    def environment(self, training: bool = False) -> dict[str, str]:
        """Give the environment of a command."""
        folders = {name: str(self.work / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("nnUNet_")}
        settings = {"nnUNet_compile": "f", "nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": str(self.threads)}
        if training and self.device == "cpu":
            settings["nnUNet_n_proc_DA"] = "0"  # of no use to nnU-Net's planning, which fails with it
        return {**kept, **folders, **settings}

    def configuration(self) -> dict[str, Any]:
        """Give the configuration that all systems are trained in, as in the plans."""
        entry: dict[str, Any] = read_json(self.preprocessed / "nnUNetPlans.json")["configurations"][CONFIGURATION]
        return entry


def prepare(trial: Trial) -> None:
    """Convert, plan, preprocess, add the configuration; one validation case, so that validation stays short.

    Raises:
        UserError: a command failed.
    """
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "logs"):
        (trial.work / name).mkdir(parents=True, exist_ok=True)
    splits = trial.preprocessed / "splits_final.json"
    if splits.is_file():
        return
    override = trial.work / "systems.json"
    write_json(override, OVERRIDE)
    for words in (
        ("nnUNetv2_eccam", "convert", "msd-heart", str(trial.data), "--hold-out", str(trial.hold_out)),
        ("nnUNetv2_plan_and_preprocess", "-d", "2", "-c", "2d", "-np", "1", "-npfp", "1"),
        ("nnUNetv2_eccam", "plans", "2", str(override)),
    ):
        _run(words, trial, trial.work / "logs" / f"{words[0]}_{words[1]}.txt")
    cases = sorted(path.name.removesuffix(".nii.gz") for path in (trial.raw / "labelsTr").glob("*.nii.gz"))
    write_json(splits, [{"train": cases[:-1], "val": cases[-1:]}])


def run_trials(trial: Trial, trainers: Sequence[str], jobs: int) -> dict[str, str]:
    """Train and predict with each trainer, several at a time.

    Returns:
        what went wrong, by trainer; the others have a summary.
    """
    failed: dict[str, str] = {}
    running: set[subprocess.Popen[bytes]] = set()
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(_train_and_predict, trial, trainer, running): trainer for trainer in trainers}
        try:
            for future in tqdm(as_completed(futures), total=len(futures), desc="systems", file=sys.stderr):
                if error := future.exception():
                    failed[futures[future]] = str(error)
                    tqdm.write(f"{futures[future]}: {error}", file=sys.stderr)
        except KeyboardInterrupt:  # which reaches this thread alone, while the others wait for their commands
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                end(process)
            raise
    return failed


def result_of(trial: Trial, trainer: str) -> Result | None:
    """Give the mean over the held-out cases, or None where the trial of this trainer is not finished."""
    summary = _predictions(trial, trainer) / "summary.json"
    return mean_of(read_results(summary)) if summary.is_file() else None


def _predictions(trial: Trial, trainer: str) -> Path:
    return trial.work / "predictions" / trainer


def _train_and_predict(trial: Trial, trainer: str, running: set[subprocess.Popen[bytes]]) -> None:
    target = _predictions(trial, trainer)
    if (target / "summary.json").is_file():
        return
    remove(target)
    device = ("-device", trial.device)
    which = ("-d", "2", "-c", CONFIGURATION, "-tr", trainer, "-f", "0")
    for name, words in (
        ("train", ("nnUNetv2_train", "2", CONFIGURATION, "0", "-tr", trainer, *device, *_resume(trial, trainer))),
        ("predict", ("nnUNetv2_predict", "-i", str(trial.raw / "imagesTs"), "-o", str(target), *which, *device,
                     "--disable_tta", "-npp", "1", "-nps", "1")),
        ("evaluate", ("nnUNetv2_evaluate_folder", str(trial.raw / "labelsTs"), str(target),
                      "-djfile", str(trial.raw / "dataset.json"),
                      "-pfile", str(trial.preprocessed / "nnUNetPlans.json"), "-np", "1")),
    ):  # fmt: skip
        _run(words, trial, trial.work / "logs" / f"{trainer}_{name}.txt", running)


def _resume(trial: Trial, trainer: str) -> Iterator[str]:
    fold = trial.work / "nnUNet_results" / DATASET / f"{trainer}__nnUNetPlans__{CONFIGURATION}" / "fold_0"
    if any((fold / f"checkpoint_{kind}.pth").is_file() for kind in ("final", "latest", "best")):
        yield "--c"


def _run(words: Sequence[str], trial: Trial, log: Path, running: set[subprocess.Popen[bytes]] | None = None) -> None:
    """Run a command with its output in a file, and in ``running`` while it runs.

    Raises:
        UserError: it failed, with the last lines that it printed.
    """
    command = [str(script(words[0])), *words[1:]]
    environment = trial.environment(training=words[0] == "nnUNetv2_train")
    running = set() if running is None else running
    with log.open("wb") as file, started(command, environment, file) as process:
        running.add(process)
        code = process.wait()
        running.discard(process)
    if code != 0:
        last = "\n  ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:])
        raise UserError(f"{words[0]} failed (exit code {code}); all that it printed is in {log}\n  {last}")
