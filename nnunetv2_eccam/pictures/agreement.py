"""The Dice similarity coefficient (DSC) of two masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def dice(
    reference: npt.NDArray[Any], prediction: npt.NDArray[Any], labels: Sequence[int] | None = None
) -> float | None:
    """Compute 2 TP / (2 TP + FP + FN) (eq. 14), the mean over labels.

    Args:
        reference: the true labels, any shape; 0 is background.
        prediction: the predicted labels, same shape.
        labels: which labels; None: those that either has.

    Returns:
        The mean over those labels that either has, from 0 to 1; None where neither has any.
    """
    somewhere = (reference != 0) | (prediction != 0)  # nearly all voxels are background: count few, and once
    true, predicted = (np.asarray(each[somewhere], np.int64) for each in (reference, prediction))
    length = int(max(true.max(initial=0), predicted.max(initial=0))) + 1
    volume = np.bincount(true, minlength=length) + np.bincount(predicted, minlength=length)
    common = np.bincount(true[true == predicted], minlength=length)
    counted = [
        label for label in (range(1, length) if labels is None else labels) if label < length and volume[label]
    ]
    if not counted:
        return None
    return float(np.mean([2 * common[label] / volume[label] for label in counted]))
