"""Where the files of a benchmark are: those of nnU-Net, and those of the work folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

OWN = "eccam_benchmark"
"""The folder beside a fold's checkpoints in which its trainings are noted, so that two benchmarks that share a
training do not train it twice."""


@dataclass(frozen=True)
class Folders:
    """The folders that all jobs of a benchmark share.

    Args:
        work: the work folder.
        raw: nnU-Net's.
        preprocessed: nnU-Net's.
        results: nnU-Net's, for the first repeat.
    """

    work: Path
    raw: Path
    preprocessed: Path
    results: Path

    def results_of(self, repeat: int) -> Path:
        """Give the results' folder of a repeat: the user's own, then one each in the work folder."""
        return self.results if repeat == 0 else self.work / f"repeat_{repeat}" / "nnUNet_results"

    def job(self, identifier: str) -> Path:
        """Give a job's folder."""
        return self.work / "jobs" / identifier


@dataclass(frozen=True)
class Place:
    """A system on a data set, in one repeat: where its files are.

    Args:
        folders: of the benchmark.
        repeat: from 0.
        dataset: ``DatasetXXX_Name``.
        trainer: its name.
        configuration: of nnU-Net's plans.
        plans: identifier of nnU-Net's plans.
        file_ending: of the data set's images and masks.
    """

    folders: Folders
    repeat: int
    dataset: str
    trainer: str
    configuration: str
    plans: str
    file_ending: str

    @property
    def results(self) -> Path:
        """nnU-Net's results of this repeat."""
        return self.folders.results_of(self.repeat)

    @property
    def model(self) -> Path:
        """The trained model."""
        return self.results / self.dataset / f"{self.trainer}__{self.plans}__{self.configuration}"

    def fold(self, fold: int) -> Path:
        """Give a trained fold."""
        return self.model / f"fold_{fold}"

    @property
    def preprocessed(self) -> Path:
        """The preprocessed data set."""
        return self.folders.preprocessed / self.dataset

    @property
    def plans_file(self) -> Path:
        """The data set's plans."""
        return self.preprocessed / f"{self.plans}.json"

    @property
    def dataset_json(self) -> Path:
        """The data set's description, as it was preprocessed."""
        return self.preprocessed / "dataset.json"

    @property
    def raw(self) -> Path:
        """The raw data set."""
        return self.folders.raw / self.dataset

    def _in_work(self, kind: str) -> Path:
        return self.folders.work / kind / f"repeat_{self.repeat}" / self.dataset / self.configuration / self.trainer

    @property
    def scores(self) -> Path:
        """Where score files go."""
        return self._in_work("scores")

    @property
    def records(self) -> Path:
        """Where it is written how each number came about."""
        return self._in_work("records")

    @property
    def test_predictions(self) -> Path:
        """Where the test images' predictions go."""
        return self._in_work("predictions") / "test"

    def job_name(self, kind: str, part: str) -> str:
        """Name a job, in letters that every file system takes.

        Args:
            kind: of the job.
            part: the fold, or ``test``.
        """
        words = (kind, self.dataset, self.configuration, self.trainer, f"repeat_{self.repeat}", part)
        return ".".join(re.sub(r"[^\w+-]", "-", word) for word in words)
