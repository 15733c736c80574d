"""Everything that was measured, as tables of one row each: scores, records, epochs; and what is not there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.evaluation.score_files import (
    SLICE_COLUMNS,
    VOLUME_COLUMNS,
    read_scores,
)
from nnunetv2_eccam.files import nnunet_folder, read_json
from nnunetv2_eccam.report.read_spec import Benchmark, BenchmarkSystem
from nnunetv2_eccam.report.training_logs import Epoch, read_training_logs

if TYPE_CHECKING:
    from pandas import DataFrame

KEYS = ("repeat", "dataset", "configuration", "trainer", "system", "fold", "subset")
"""What every row says of where it is from. ``fold`` is text, empty for test sets; ``subset`` is val or test."""

SUBSETS = {"val": "validation", "test": "test"}
"""Subsets, and what the report calls them."""


class Part(NamedTuple):
    """What one job gives: a fold of a training, or the prediction of a test set.

    Attributes:
        repeat: from 0.
        dataset: folder name.
        system: trainer and configuration.
        fold: number, or None for the test set, which is predicted by the folds together.
    """

    repeat: int
    dataset: str
    system: BenchmarkSystem
    fold: int | None

    @property
    def subset(self) -> str:
        """``val`` or ``test``."""
        return "test" if self.fold is None else "val"

    @property
    def keys(self) -> dict[str, Any]:
        """The columns :data:`KEYS`."""
        fold = "" if self.fold is None else str(self.fold)
        system = self.system
        values = (self.repeat, self.dataset, system.configuration, system.trainer, system.title, fold, self.subset)
        return dict(zip(KEYS, values, strict=True))

    @property
    def stem(self) -> str:
        """What its files begin with."""
        return "test" if self.fold is None else f"fold_{self.fold}"

    def folder(self, parent: Path) -> Path:
        """Give its folder in WORK/scores, WORK/records or WORK/predictions."""
        repeat = f"repeat_{self.repeat}"
        return parent / repeat / self.dataset / self.system.configuration / self.system.trainer

    def model_folder(self, benchmark: Benchmark) -> Path | None:
        """Give the trained fold's folder, or None where nnU-Net's folder is not known."""
        base = nnunet_folder_or_none("nnUNet_results")
        if self.repeat > 0:
            base = benchmark.work_dir / f"repeat_{self.repeat}" / "nnUNet_results"
        if base is None:
            return None
        model = f"{self.system.trainer}__{benchmark.plans}__{self.system.configuration}"
        return base / self.dataset / model / self.stem


@dataclass(frozen=True)
class Collected:
    """What a benchmark has measured so far.

    Attributes:
        benchmark: what was asked for.
        volumes: a row for each case and label: :data:`KEYS`, then the columns of ``*_volume.csv``.
        slices: a row for each slice, likewise.
        records: each part's record, as it was written.
        epochs: each trained fold's epochs, where its log was found.
        without_scores: parts that have not been scored.
        without_slices: parts of which only the slices' scores are missing.
    """

    benchmark: Benchmark
    volumes: DataFrame
    slices: DataFrame
    records: dict[Part, dict[str, Any]] = field(default_factory=dict)
    epochs: dict[Part, list[Epoch]] = field(default_factory=dict)
    without_scores: tuple[Part, ...] = ()
    without_slices: tuple[Part, ...] = ()


def nnunet_folder_or_none(variable: str) -> Path | None:
    """Give one of nnU-Net's folders, or None where its environment variable is not set."""
    try:
        return nnunet_folder(variable)
    except UserError:
        return None


def parts_of(benchmark: Benchmark) -> Iterator[Part]:
    """List all parts: folds first, then, where they are asked for, test sets."""
    folds: tuple[int | None, ...] = (*benchmark.folds, *((None,) if benchmark.predict_test else ()))
    for dataset in benchmark.datasets:
        for system in benchmark.systems:
            for repeat in range(benchmark.repeats):
                for fold in folds:
                    yield Part(repeat, dataset, system, fold)


def collect(benchmark: Benchmark) -> Collected:
    """Read all scores, records and training logs of a benchmark.

    Raises:
        UserError: a file is there but cannot be read.
    """
    volumes, slices = [], []
    records: dict[Part, dict[str, Any]] = {}
    epochs: dict[Part, list[Epoch]] = {}
    without_scores, without_slices = [], []
    for part in parts_of(benchmark):
        volume = _scores(part, benchmark, "volume")
        if volume is None:
            without_scores.append(part)
        else:
            volumes.append(volume)
        sliced = _scores(part, benchmark, "slice") if benchmark.slices else None
        if sliced is not None:
            slices.append(sliced)
        elif benchmark.slices and volume is not None:
            without_slices.append(part)
        record = part.folder(benchmark.work_dir / "records") / f"{part.stem}.json"
        if record.is_file():
            records[part] = _record(record)
        folder = part.model_folder(benchmark) if part.fold is not None else None
        if folder is not None and (found := read_training_logs(folder)):
            epochs[part] = found
    return Collected(
        benchmark, _joined(volumes, VOLUME_COLUMNS), _joined(slices, SLICE_COLUMNS), records, epochs,
        tuple(without_scores), tuple(without_slices),
    )  # fmt: skip


def _scores(part: Part, benchmark: Benchmark, unit: str) -> DataFrame | None:
    path = part.folder(benchmark.work_dir / "scores") / f"{part.stem}_{unit}.csv"
    if not path.is_file():
        return None
    frame: DataFrame = read_scores(path, VOLUME_COLUMNS if unit == "volume" else SLICE_COLUMNS)
    for position, (name, value) in enumerate(part.keys.items()):
        frame.insert(position, name, value)
    return frame


def _record(path: Path) -> dict[str, Any]:
    record = read_json(path)
    if not isinstance(record, dict):
        raise UserError(f"{path} is not a record; delete it and run nnUNetv2_eccam benchmark again")
    return record


def _joined(frames: list[DataFrame], columns: tuple[str, ...]) -> DataFrame:
    import pandas

    if not frames:
        return pandas.DataFrame(columns=[*KEYS, *columns])
    return pandas.concat(frames, ignore_index=True)
