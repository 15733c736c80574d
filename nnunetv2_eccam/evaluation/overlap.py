"""True positives, false positives and false negatives, and the fractions made of them (eq. 14 to 16)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
"""(slices, rows, columns); true in the structure."""

EMPTY_REFERENCE = "empty reference"
EMPTY_PREDICTION = "empty prediction"
BOTH_EMPTY = "both empty"


class Counts(NamedTuple):
    """Voxels of one structure in a volume or a slice.

    Attributes:
        tp: in the reference and in the prediction.
        fp: in the prediction only.
        fn: in the reference only.
    """

    tp: int
    fp: int
    fn: int

    @property
    def dsc(self) -> float:
        """2 TP / (2 TP + FP + FN) (eq. 14); NaN where both are empty, as nnU-Net has it."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def sensitivity(self) -> float:
        """TP / (TP + FN) (eq. 15); NaN where the reference is empty."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def precision(self) -> float:
        """TP / (TP + FP) (eq. 16); NaN where the prediction is empty."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def note(self) -> str:
        """Which of the two is empty, or nothing."""
        reference, prediction = self.tp + self.fn, self.tp + self.fp
        if reference and prediction:
            return ""
        if reference:
            return EMPTY_PREDICTION
        return EMPTY_REFERENCE if prediction else BOTH_EMPTY

    def row(self) -> dict[str, Any]:
        """Give the fields that volumes' and slices' score files share."""
        return {**self._asdict(), "dsc": self.dsc, "sensitivity": self.sensitivity, "precision": self.precision,
                "note": self.note}  # fmt: skip


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def counts_of_slices(reference: Mask, prediction: Mask, axis: int) -> list[Counts]:
    """Count in each slice along an axis.

    Args:
        reference: true structure, without voxels that are to be ignored.
        prediction: the same of the prediction, of the same shape.
        axis: the one along which slices follow each other.
    """
    others = tuple(each for each in range(reference.ndim) if each != axis)
    tp = np.count_nonzero(reference & prediction, axis=others)
    fp = np.count_nonzero(prediction, axis=others) - tp
    fn = np.count_nonzero(reference, axis=others) - tp
    return [Counts(int(each[0]), int(each[1]), int(each[2])) for each in zip(tp, fp, fn, strict=True)]


def total(slices: list[Counts]) -> Counts:
    """Add slices up to their volume."""
    return Counts(sum(each.tp for each in slices), sum(each.fp for each in slices), sum(each.fn for each in slices))
