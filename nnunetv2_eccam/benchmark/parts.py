"""What a benchmark is made of, a training or the prediction of a test set each, and where the files of each lie."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from nnunetv2_eccam.benchmark.spec import Entry, Spec

KEYS = ("repeat", "dataset", "system", "fold", "subset")
"""What every row of scores says of its origin. ``fold`` is text, empty for test sets; ``subset`` is val or test."""


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

    def model_folder(self, work_dir: Path) -> Path:
        """Give the trained fold's folder."""
        own = work_dir / f"repeat_{self.repeat}" / "nnUNet_results"
        results = own if self.repeat else known_folder("nnUNet_results")
        return results / self.dataset / self.system.model / self.stem

    def predictions(self, work_dir: Path) -> Path:
        """Give the folder of its predicted masks."""
        if self.fold is None:
            return self.folder(work_dir / "predictions") / "test"
        return self.model_folder(work_dir) / "validation"


def known_folder(variable: str) -> Path:
    """Give one of nnU-Net's folders, or, where its environment variable is not set, a path where nothing is."""
    return Path(os.environ.get(variable) or f"${variable}")


def parts_of(spec: Spec) -> Iterator[Part]:
    """List all parts: folds first, then, where they are asked for, test sets."""
    folds: tuple[int | None, ...] = (*spec.folds, *((None,) if spec.predict_test or spec.predict_unlabelled else ()))
    for dataset in spec.datasets:
        for system in spec.trainers:
            for repeat in range(spec.repeats):
                yield from (Part(repeat, dataset, system, fold) for fold in folds)
