"""Prediction of a test set by the trained folds together."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_eccam.benchmark.job import Command, Job, stamp
from nnunetv2_eccam.benchmark.records import write_record
from nnunetv2_eccam.demo.journal import remove
from nnunetv2_eccam.demo.progress import PredictionProgress


@dataclass(frozen=True)
class PredictJob(Job):
    """Prediction of all images of ``imagesTs``.

    Args:
        folds: whose mean is the prediction.
        cases: that have labels.
    """

    folds: tuple[int, ...] = ()
    cases: tuple[str, ...] = ()

    kind = "predict"

    @property
    def needs(self) -> tuple[str, ...]:
        """The trainings of all folds."""
        return tuple(self.place.job_name("train", f"fold_{fold}") for fold in self.folds)

    @property
    def target(self) -> Path:
        """The folder of predictions."""
        return self.place.test_predictions

    def inputs(self) -> dict[str, Any]:
        """Give the checkpoints and the cases."""
        checkpoints = {str(fold): stamp(self.place.fold(fold) / "checkpoint_final.pth") for fold in self.folds}
        return {"checkpoints": checkpoints, "cases": list(self.cases)}

    def missing(self) -> str | None:
        """Say which prediction is missing, or that trainings or cases have changed since."""
        for case in self.cases:
            file = self.target / f"{case}{self.place.file_ending}"
            if not file.is_file():
                return f"{file} is missing"
        if not self.is_noted("done"):
            return f"{self.target} is of other folds, checkpoints or cases, or was not finished"
        return None

    def commands(self) -> Sequence[Command]:
        """Predict; what an attempt that was stopped has predicted is kept."""
        place, cores = self.place, str(min(3, max(1, self.resources.cpus)))
        return (
            ("nnUNetv2_predict", "-i", str(place.raw / "imagesTs"), "-o", str(self.target), "-d", place.dataset,
             "-c", place.configuration, "-tr", place.trainer, "-p", place.plans, "-f", *map(str, self.folds),
             "-device", self.resources.device, "-npp", cores, "-nps", cores, "--continue_prediction"),
        )  # fmt: skip

    def prepare(self) -> None:
        """Remove predictions of other checkpoints, and those that are cut off."""
        if not self.is_noted("begun"):
            remove(self.target)
        self.target.mkdir(parents=True, exist_ok=True)
        self.note("begun", self.inputs())
        for file in list(self.kept()):
            if not _is_whole(file):
                file.unlink()

    def kept(self) -> Iterable[Path]:
        """Give the predictions that are there."""
        return self.target.glob(f"*{self.place.file_ending}")

    def progress(self) -> PredictionProgress:
        """Count the cases."""
        return PredictionProgress(len(self.cases))

    def finish(self, record: Mapping[str, Any]) -> None:
        """Write the record."""
        write_record(self.place.records / "test.json", {"predict_seconds": record.get("seconds"), **record})


def _is_whole(file: Path) -> bool:
    """Say whether a prediction was written to its end, which only a compressed file can tell."""
    if file.suffix != ".gz":
        return False
    try:
        with gzip.open(file) as stream:
            while stream.read(1 << 22):
                pass
    except (OSError, EOFError, zlib.error):
        return False
    return True
