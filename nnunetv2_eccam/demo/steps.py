"""The steps of the demonstration: the commands of the main job, in their order."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_eccam.demo.progress import PredictionProgress, Progress, TrainingProgress, epochs_of
from nnunetv2_eccam.demo.results import SUFFIX
from nnunetv2_eccam.errors import UserError

CONFIGURATIONS = {
    "2d": None,
    "2d_eccam_trial": "trial",
    "2d_unet_trial": "trial",
    "2d_eccam": "practical",
    "2d_eccam_paper": "paper_cardiac",
}
"""The configurations that can be trained, and the override that adds each to the plans."""

PLANS = "nnUNetPlans"
FOLD = "0"


@dataclass(frozen=True)
class Job:
    """What is demonstrated, on which data, and where.

    Attributes:
        work: the work folder, absolute.
        download: the download's folder.
        dataset_id: nnU-Net's number for the data set.
        name: its name behind that number.
        configuration: the configuration to train.
        trainer: the trainer's class name.
        device: ``cpu``, ``cuda`` or ``mps``.
        hold_out: how many labelled cases are kept from training.
        seed: which cases these are.
    """

    work: Path
    download: Path
    dataset_id: int
    name: str
    configuration: str
    trainer: str
    device: str
    hold_out: int
    seed: int

    @property
    def dataset(self) -> str:
        """The data set's folder name."""
        return f"Dataset{self.dataset_id:03d}_{self.name}"

    @property
    def raw(self) -> Path:
        """The data set in nnU-Net's raw format."""
        return self.work / "nnUNet_raw" / self.dataset

    @property
    def preprocessed(self) -> Path:
        """The preprocessed data set, with its plans."""
        return self.work / "nnUNet_preprocessed" / self.dataset

    @property
    def model(self) -> Path:
        """The trained model's folder."""
        return self.work / "nnUNet_results" / self.dataset / f"{self.trainer}__{PLANS}__{self.configuration}"

    @property
    def predictions(self) -> Path:
        """Where the unseen cases' predictions go."""
        return self.work / "predictions"

    def base_folders(self) -> dict[str, Path]:
        """Give nnU-Net's three base folders by their environment variables."""
        return {name: self.work / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}

    def variables(self) -> dict[str, str]:
        """Give the environment variables that hold for all commands."""
        variables = {name: str(folder) for name, folder in self.base_folders().items()}
        # Each worker process imports torch anew: for a few small cases, many of them do not pay.
        variables["nnUNet_def_n_proc"] = str(min(2, os.cpu_count() or 1))
        variables["nnUNet_compile"] = "f"  # compiling takes longer than a few short epochs
        return variables


@dataclass(frozen=True)
class Step:
    """One command of the job.

    Attributes:
        name: one word, for the log file and the table of seconds.
        command: the command's name and arguments.
        settings: environment variables that hold for this command only.
        clears: what is removed before the step begins anew.
        resume: gives further arguments when the step was begun before; None where it cannot go on.
        progress: makes what understands the command's output.
    """

    name: str
    command: tuple[str, ...]
    settings: dict[str, str] = field(default_factory=dict)
    clears: tuple[Path, ...] = ()
    resume: Callable[[], tuple[str, ...]] | None = None
    progress: Callable[[], Progress] = Progress


def steps_of(job: Job) -> list[Step]:
    """List the steps of a job."""
    steps = [_convert(job), _preprocess(job)]
    if override := CONFIGURATIONS[job.configuration]:
        steps.append(Step("plans", ("nnUNetv2_eccam", "plans", str(job.dataset_id), override)))
    return [*steps, _train(job), _predict(job), _evaluate(job)]


def _convert(job: Job) -> Step:
    return Step(
        "convert",
        ("nnUNetv2_eccam", "convert", "msd-heart", str(job.download), "--id", str(job.dataset_id),
         "--name", job.name, "--hold-out", str(job.hold_out), "--seed", str(job.seed)),
        clears=(job.raw,),
    )


def _preprocess(job: Job) -> Step:
    return Step(
        "preprocess",
        ("nnUNetv2_plan_and_preprocess", "-d", str(job.dataset_id), "-c", "2d", "-np", "2", "-npfp", "2",
         "--verify_dataset_integrity"),
        clears=(job.preprocessed,),
    )


def _train(job: Job) -> Step:
    fold = job.model / f"fold_{FOLD}"

    def resume() -> tuple[str, ...]:
        # nnU-Net itself takes the furthest of these. Of a short training only the best is written.
        checkpoints = [fold / f"checkpoint_{kind}.pth" for kind in ("final", "latest", "best")]
        return ("--c",) if any(checkpoint.is_file() for checkpoint in checkpoints) else ()

    return Step(
        "train",
        ("nnUNetv2_train", str(job.dataset_id), job.configuration, FOLD, "-tr", job.trainer,
         "-device", job.device),
        # On a CPU that the network keeps busy, augmenting in the same process is faster. For this command
        # only: nnU-Net's planning takes the same variable for a number of threads, which cannot be 0.
        settings={"nnUNet_n_proc_DA": "0"} if job.device == "cpu" else {},
        clears=(job.model,),
        resume=resume,
        progress=lambda: TrainingProgress(epochs_of(job.trainer)),
    )


def _predict(job: Job) -> Step:
    return Step(
        "predict",
        ("nnUNetv2_predict", "-i", str(job.raw / "imagesTs"), "-o", str(job.predictions),
         "-d", str(job.dataset_id), "-c", job.configuration, "-tr", job.trainer, "-f", FOLD,
         "-device", job.device, "-npp", "1", "-nps", "1"),
        clears=(job.predictions,),
        progress=lambda: PredictionProgress(job.hold_out),
    )


def _evaluate(job: Job) -> Step:
    return Step(
        "evaluate",
        ("nnUNetv2_evaluate_folder", str(job.raw / "labelsTs"), str(job.predictions),
         "-djfile", str(job.raw / "dataset.json"), "-pfile", str(job.preprocessed / f"{PLANS}.json"),
         "-np", "2"),
    )


def count_labelled(download: Path) -> int:
    """Check that a folder is laid out as an MSD download, and count its labelled cases.

    Raises:
        UserError: it is missing, laid out otherwise, or has no labelled case.
    """
    if not download.is_dir():
        raise UserError(f"{download} is not a folder; --data names an unpacked download, as Task02_Heart")
    missing = [name for name in ("dataset.json", "imagesTr", "labelsTr") if not (download / name).exists()]
    if missing:
        raise UserError(
            f"{download} is not laid out as an MSD download: {', '.join(missing)} missing; "
            "--data names the folder that holds dataset.json, imagesTr and labelsTr"
        )
    labelled = _cases(download / "labelsTr") & _cases(download / "imagesTr")
    if not labelled:
        raise UserError(f"{download} has no labelled case: no NIfTI file is in both imagesTr and labelsTr")
    return len(labelled)


def _cases(folder: Path) -> set[str]:
    names = (path.name for path in folder.iterdir())
    return {name for name in names if name.endswith(SUFFIX) and not name.startswith(".")}
