"""Everything that a benchmark has measured so far, read from its work folder and nnU-Net's: where each file lies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pandas import DataFrame, concat

from nnunetv2_eccam.benchmark.spec import Entry, Spec, read_spec_of
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.evaluation.score_files import SLICE_COLUMNS, VOLUME_COLUMNS, read_scores
from nnunetv2_eccam.files import nnunet_folder, read_json
from nnunetv2_eccam.report.training_logs import Epoch, read_epochs

KEYS = ("repeat", "dataset", "system", "fold", "subset")
"""What every row says of where it is from. ``fold`` is text, empty for test sets; ``subset`` is val or test."""

SUBSETS = {"val": "validation", "test": "test"}
"""Subsets, and what the report calls them."""


class Part(NamedTuple):
    """What one training gives, or the prediction of a test set.

    Attributes:
        repeat: from 0.
        dataset: folder name.
        system: trainer, plans and configuration.
        fold: number, or None for the test set, which is predicted by the folds together.
    """

    repeat: int
    dataset: str
    system: Entry
    fold: int | None

    @property
    def stem(self) -> str:
        """What its files begin with."""
        return "test" if self.fold is None else f"fold_{self.fold}"

    @property
    def keys(self) -> dict[str, Any]:
        """The columns :data:`KEYS`."""
        fold, subset = ("", "test") if self.fold is None else (str(self.fold), "val")
        return dict(zip(KEYS, (self.repeat, self.dataset, self.system.title, fold, subset), strict=True))

    def folder(self, parent: Path) -> Path:
        """Give its folder in WORK/scores, WORK/records or WORK/predictions."""
        return parent / f"repeat_{self.repeat}" / self.dataset / self.system.folder

    def model_folder(self, work_dir: Path) -> Path | None:
        """Give the trained fold's folder, or None where nnU-Net's folder is not known."""
        base = nnunet_folder_or_none("nnUNet_results")
        if self.repeat > 0:
            base = work_dir / f"repeat_{self.repeat}" / "nnUNet_results"
        return None if base is None else base / self.dataset / self.system.model / self.stem

    def predictions(self, work_dir: Path) -> Path | None:
        """Give the folder of its predicted masks, or None where nnU-Net's folder is not known."""
        if self.fold is None:
            return self.folder(work_dir / "predictions") / "test"
        model = self.model_folder(work_dir)
        return None if model is None else model / "validation"


@dataclass(frozen=True)
class Collected:
    """What a benchmark has measured so far.

    Attributes:
        spec: what was asked for.
        work_dir: its work folder.
        volumes: a row for each case and label: :data:`KEYS`, then the columns of ``*_volume.csv``.
        slices: a row for each slice, likewise.
        records: each part's record, as it was written.
        epochs: each trained fold's epochs, where it has a checkpoint.
    """

    spec: Spec
    work_dir: Path
    volumes: DataFrame
    slices: DataFrame
    records: dict[Part, dict[str, Any]] = field(default_factory=dict)
    epochs: dict[Part, list[Epoch]] = field(default_factory=dict)


def nnunet_folder_or_none(variable: str) -> Path | None:
    """Give one of nnU-Net's folders, or None where its environment variable is not set."""
    try:
        return nnunet_folder(variable)
    except UserError:
        return None


def parts_of(spec: Spec) -> Iterator[Part]:
    """List all parts: folds first, then, where they are asked for, test sets."""
    folds: tuple[int | None, ...] = (*spec.folds, *((None,) if spec.predict_test or spec.predict_unlabelled else ()))
    for dataset in spec.datasets:
        for system in spec.trainers:
            for repeat in range(spec.repeats):
                yield from (Part(repeat, dataset, system, fold) for fold in folds)


def collect(work_dir: Path) -> Collected:
    """Read all scores, records and epochs of a benchmark.

    Raises:
        UserError: this is not a benchmark's work folder, or a file is there but cannot be read.
    """
    spec = read_spec_of(work_dir)
    volumes, slices = _scores(work_dir, spec, "volume", VOLUME_COLUMNS), _scores(work_dir, spec, "slice", SLICE_COLUMNS)
    collected = Collected(spec, work_dir, volumes, slices)
    for part in parts_of(spec):
        record = part.folder(work_dir / "records") / f"{part.stem}.json"
        if record.is_file():
            collected.records[part] = read_json(record)
            if not isinstance(collected.records[part], dict):
                raise UserError(f"{record} is not a record; delete it and run nnUNetv2_eccam benchmark again")
        folder = part.model_folder(work_dir) if part.fold is not None else None
        if folder is not None and (epochs := read_epochs(folder)):
            collected.epochs[part] = epochs
    return collected


def _scores(work_dir: Path, spec: Spec, unit: str, columns: tuple[str, ...]) -> DataFrame:
    found = [DataFrame(columns=[*KEYS, *columns])]
    for part in parts_of(spec):
        path = part.folder(work_dir / "scores") / f"{part.stem}_{unit}.csv"
        if path.is_file() and (unit == "volume" or spec.evaluation.slices):
            found.append(read_scores(path, columns).assign(**part.keys))
    return concat(found[1:] or found, ignore_index=True)[[*KEYS, *columns]]
