"""Which slices are worth showing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Stack = npt.NDArray[Any]
"""Labels in the order (slices, rows, columns)."""
Scores = npt.NDArray[np.int64]
"""One whole number for each slice."""


def area_scores(masks: Sequence[Stack]) -> Scores:
    """Count the labelled pixels of each slice, summed over the masks: the reference alone, or all predictions."""
    return np.asarray(sum(np.count_nonzero(mask, axis=(1, 2)) for mask in masks), np.int64)


def disagreement_scores(reference: Stack | None, predictions: Sequence[Stack]) -> Scores:
    """Count the pixels of each slice on which the systems are wrong, or differ from each other.

    With a reference, a pixel counts once for each system that gives it another label; without, it counts once
    when not all systems give it the same.
    """
    if reference is not None:
        return np.asarray(sum(np.count_nonzero(each != reference, axis=(1, 2)) for each in predictions), np.int64)
    differ = np.zeros(predictions[0].shape, bool)
    for each in predictions[1:]:
        differ |= each != predictions[0]
    return np.asarray(np.count_nonzero(differ, axis=(1, 2)), np.int64)


def choose_slices(scores: Scores, count: int) -> list[int]:
    """Choose the slices with the highest scores, not all side by side.

    Neighbours look alike, so the chosen slices are at least 1/(2 count) of the structure's length apart, where
    its length is the number of slices with a score. If too few have one, those around the best (where none has
    any: around the middle) fill up.

    Args:
        scores: for each slice.
        count: how many to choose; all, if there are fewer.

    Returns:
        Indices of slices, from low to high; of equal scores the one closest to the middle of them.
    """
    scored = np.flatnonzero(scores > 0)
    best = scored[scores[scored] == scores.max()] if scored.size else np.arange(len(scores))
    middle = float(best.mean() if scored.size else (len(scores) - 1) / 2)
    order = sorted(range(len(scores)), key=lambda index: (-int(scores[index]), abs(index - middle), index))
    gap = max(1, (len(scored) // count + 1) // 2)
    chosen: list[int] = []
    for index in order:
        if len(chosen) < count and scores[index] > 0 and all(abs(index - other) >= gap for other in chosen):
            chosen.append(index)
    chosen += [index for index in order if index not in chosen][: max(0, count - len(chosen))]
    return sorted(chosen)
