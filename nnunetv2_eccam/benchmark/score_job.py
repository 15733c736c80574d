"""Scoring of a fold's validation cases, or of a test set."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunetv2_eccam.benchmark.job import Command, Job, stamp
from nnunetv2_eccam.benchmark.records import training_record, write_record
from nnunetv2_eccam.benchmark.spec import Evaluation
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json


@dataclass(frozen=True)
class ScoreJob(Job):
    """Scoring of one fold, or of the test set.

    Args:
        fold: of nnU-Net's splits; None: the test set.
        cases: of the test set.
        evaluation: how.
    """

    fold: int | None = None
    cases: tuple[str, ...] = ()
    evaluation: Evaluation = field(default_factory=Evaluation)

    kind = "score"

    @property
    def needs(self) -> tuple[str, ...]:
        """The training, or the prediction."""
        return (self.place.job_name("predict" if self.fold is None else "train", self.part),)

    @property
    def _predictions(self) -> Path:
        place = self.place
        return place.test_predictions if self.fold is None else place.fold(self.fold) / "validation"

    @property
    def _references(self) -> Path:
        place = self.place
        return place.raw / "labelsTs" if self.fold is None else place.preprocessed / "gt_segmentations"

    def _units(self) -> tuple[str, ...]:
        return ("slice", "volume") if self.evaluation.slices else ("volume",)

    def _file(self, unit: str) -> Path:
        return self.place.scores / f"{self.part}_{unit}.csv"

    def inputs(self) -> dict[str, Any]:
        """Give the predictions and the options."""
        evaluation = self.evaluation
        options: dict[str, Any] = {"nsd_tolerance_mm": evaluation.nsd_tolerance_mm, "empty": evaluation.empty}
        if evaluation.ignore_geometry:  # only then, so that scores from before this option are still good
            options["ignore_geometry"] = True
        if self.fold is None:
            before = self.place.folders.job(self.needs[0]) / "done.json"
            return {**options, "cases": list(self.cases), "predictions": stamp(before)}
        return {**options, "predictions": stamp(self._predictions / "summary.json")}

    def missing(self) -> str | None:
        """Say which score file is missing, or that predictions or options have changed since."""
        for unit in self._units():
            if not self._file(unit).is_file():
                return f"{self._file(unit)} is missing"
        if not self.is_noted("done"):
            return f"{self._file('volume')} is of other predictions or options, or was not finished"
        return None

    def commands(self) -> Sequence[Command]:
        """Score with this package's evaluation."""
        place, evaluation = self.place, self.evaluation
        return (
            ("nnUNetv2_eccam", "evaluate", str(self._references), str(self._predictions),
             "-djfile", str(place.dataset_json), "-pfile", str(place.plans_file), "-o", str(self.folder / "scores"),
             "-np", str(self.resources.cpus), "--nsd-tolerance", f"{evaluation.nsd_tolerance_mm:g}",
             "--hd95-of-empty", evaluation.empty, *(() if evaluation.slices else ("--no-slices",)),
             *(("--ignore-geometry",) if evaluation.ignore_geometry else ()),
             "--cases", *self._cases()),
        )  # fmt: skip

    def _cases(self) -> Sequence[str]:
        if self.fold is None:
            return self.cases
        try:
            splits = read_json(self.place.preprocessed / "splits_final.json")
        except UserError:  # nnU-Net has not made them yet: these commands are only shown
            return (f"CASES_OF_FOLD_{self.fold}",)
        return [str(case) for case in splits[self.fold]["val"]]

    def finish(self, record: Mapping[str, Any]) -> None:
        """Put the score files in their places, and the training's record."""
        del record  # how long scoring took concerns nobody
        self.place.scores.mkdir(parents=True, exist_ok=True)
        for unit in self._units():
            os.replace(self.folder / "scores" / f"scores_{unit}.csv", self._file(unit))
        if self.fold is not None:
            training = training_record(self.place.fold(self.fold))
            write_record(self.place.records / f"{self.part}.json", training)
