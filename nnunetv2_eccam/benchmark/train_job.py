"""Training of one fold, with nnU-Net's own validation of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_eccam.benchmark.attempts import Attempts
from nnunetv2_eccam.benchmark.job import Command, Job
from nnunetv2_eccam.benchmark.places import OWN
from nnunetv2_eccam.benchmark.records import complete_training_record
from nnunetv2_eccam.demo.progress import TrainingProgress, epochs_of
from nnunetv2_eccam.files import read_json, write_json


@dataclass(frozen=True)
class TrainJob(Job):
    """Training of one fold.

    Args:
        fold: of nnU-Net's splits.
    """

    fold: int = 0

    kind = "train"

    @property
    def target(self) -> Path:
        """The trained fold."""
        return self.place.fold(self.fold)

    @property
    def attempts(self) -> Attempts:
        """The attempts at it, beside its checkpoints: another benchmark may be training it."""
        return Attempts(self.target / OWN)

    @property
    def validation(self) -> Path:
        """nnU-Net's predictions of the fold's validation cases."""
        return self.target / "validation"

    @property
    def _checkpoint(self) -> Path:
        return self.target / "checkpoint_final.pth"

    def cases(self) -> list[str]:
        """Read the fold's validation cases."""
        splits = read_json(self.place.preprocessed / "splits_final.json")
        return [str(case) for case in splits[self.fold]["val"]]

    def missing(self) -> str | None:
        """Say whether the training, its validation or some predictions are missing."""
        if not self._checkpoint.is_file():
            return f"{self._checkpoint} is missing"
        if not (self.validation / "summary.json").is_file():
            return f"{self.validation / 'summary.json'} is missing"
        for case in self.cases():
            file = self.validation / f"{case}{self.place.file_ending}"
            if not file.is_file():
                return f"{file} is missing"
        return None

    def commands(self) -> Sequence[Command]:
        """Train, go on with a training, or validate one that is finished."""
        place = self.place
        gpus = ("-num_gpus", str(self.resources.gpus)) if self.resources.gpus > 1 else ()
        more: tuple[str, ...] = ()
        if self._checkpoint.is_file():
            more = ("--val",)
        elif any(file.is_file() for file in self.kept()):
            more = ("--c",)
        return (
            ("nnUNetv2_train", place.dataset, place.configuration, str(self.fold), "-tr", place.trainer,
             "-p", place.plans, "-device", self.resources.device, *gpus, *more),
        )  # fmt: skip

    def settings(self) -> Mapping[str, str]:
        """Augment in the training's own process on a CPU, where there is no GPU to be kept busy meanwhile."""
        on_cpu = {"nnUNet_n_proc_DA": "0"} if self.resources.device == "cpu" else {}
        return {**super().settings(), **on_cpu}

    def prepare(self) -> None:
        """Make the results' folder of a further repeat."""
        self.place.results.mkdir(parents=True, exist_ok=True)

    def kept(self) -> Iterable[Path]:
        """Give the checkpoints."""
        return (self.target / f"checkpoint_{kind}.pth" for kind in ("final", "latest", "best"))

    def progress(self) -> TrainingProgress:
        """Give what makes sense of nnU-Net's training log."""
        return TrainingProgress(epochs_of(self.place.trainer))

    def finish(self, record: Mapping[str, Any]) -> None:
        """Leave the record beside the checkpoints, where every benchmark that uses the training finds it."""
        write_json(self.target / OWN / "record.json", complete_training_record(self.target, record))
