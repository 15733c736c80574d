"""The slices of a case that are drawn: chosen, turned, windowed and cut out. The rest of the volumes is let go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects

from nnunetv2_eccam.overlay.cases import CaseFiles, Overlay
from nnunetv2_eccam.overlay.view import View, view_of
from nnunetv2_eccam.overlay.window import shown_voxels
from nnunetv2_eccam.volumes import check_same_grid, read_image, read_labels

Labels = npt.NDArray[Any]
"""Whole numbers, 0 is background."""


@dataclass(frozen=True)
class Row:
    """One slice of one case, turned for display: (rows, columns) from the top left.

    Attributes:
        case: the case's name.
        number: the slice's number along the file's axis, from 0.
        view: how it is looked at.
        window: how intensities became grey or colours, in words.
        image: grey values from 0 to 1, or colours, (rows, columns, 3).
        reference: the true labels, or None.
        predictions: the labels of each system, by its name.
        dice: each system's DSC of the whole volume; None where it is not defined, since both masks are empty. Without
            a reference there is no entry.
    """

    case: str
    number: int
    view: View
    window: str
    image: npt.NDArray[np.float32]
    reference: Labels | None
    predictions: Mapping[str, Labels]
    dice: Mapping[str, float | None]

    @property
    def slice_name(self) -> str:
        """``axial slice 12``; of a photograph nothing."""
        return f"{self.view.plane} slice {self.number}" if self.view.numbered else ""


def rows_of_case(files: CaseFiles, options: Overlay, is_ct: bool = False) -> list[Row]:
    """Read a case and give the slices that are shown of it, in the order of the body or of the numbers asked for.

    Raises:
        UserError: a file is missing, damaged or on another grid, or a number is not that of a slice.
    """
    image = read_image(files.image)
    voxels, window, description = shown_voxels(image, options.channel, options.window, is_ct)
    view = view_of(image, options.plane)

    def labels_of(path: Path) -> Labels:
        mask = read_labels(path)
        check_same_grid(image, mask, advice="predict or resample on the image's grid")
        return view.stack(_selected(mask.voxels, options))

    reference = None if files.reference is None else labels_of(files.reference)
    predictions = {name: labels_of(path) for name, path in files.systems.items()}
    if isinstance(options.slices, str):
        score = area_scores if options.slices == "area" else disagreement_scores
        chosen = choose_slices(score(reference, list(predictions.values())), options.per_case)
    else:
        chosen = view.indices(options.slices)
    labels = (1,) if options.merged else options.labels
    figures = {} if reference is None else {name: dice(reference, each, labels) for name, each in predictions.items()}
    shown, rows = view.stack(voxels), []
    for index in chosen:
        masks = [stack[index] for stack in (reference, *predictions.values()) if stack is not None]
        cut = crop_window(masks, view.pixel_mm, options.crop_mm)
        # Copies, since views would keep the whole volumes in memory.
        true = None if reference is None else reference[index][cut].copy()
        predicted = {name: stack[index][cut].copy() for name, stack in predictions.items()}
        picture = window.scaled(shown[index][cut])
        rows.append(Row(files.case, view.file_number(index), view, description, picture, true, predicted, figures))
    return rows


def crop_window(masks: Sequence[Labels], pixel_mm: Sequence[float], margin_mm: float | None) -> tuple[slice, ...]:
    """Give the rows and columns of a slice that have labels in any mask, with a margin; without labels, all of them."""
    somewhere = np.any([mask > 0 for mask in masks], axis=0)
    if margin_mm is None or not somewhere.any():
        return (slice(None), slice(None))
    margins = [int(np.ceil(margin_mm / mm)) for mm in pixel_mm]
    (box,) = find_objects(somewhere.astype(np.uint8))
    return tuple(slice(max(0, part.start - n), part.stop + n) for part, n in zip(box, margins, strict=True))


def dice(reference: Labels, prediction: Labels, labels: Sequence[int] | None = None) -> float | None:
    """Compute 2 TP / (2 TP + FP + FN) (eq. 14) of masks of one shape, from 0 to 1.

    It is the mean over those of the ``labels`` (None: all) that either mask has; None where neither has any.
    """
    somewhere = (reference != 0) | (prediction != 0)  # nearly all voxels are background: count few
    true, predicted = reference[somewhere], prediction[somewhere]
    there = set(np.unique(true).tolist()) | set(np.unique(predicted).tolist())
    counted = (there - {0}) if labels is None else there & set(labels)
    masks = [(true == label, predicted == label) for label in counted]
    return float(np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in masks])) if masks else None


def area_scores(reference: Labels | None, predictions: Sequence[Labels]) -> npt.NDArray[np.int64]:
    """Count the labelled pixels of each slice: of the reference, or without one of all predictions."""
    masks = predictions if reference is None else [reference]
    return np.asarray(sum(np.count_nonzero(mask, axis=(1, 2)) for mask in masks), np.int64)


def disagreement_scores(reference: Labels | None, predictions: Sequence[Labels]) -> npt.NDArray[np.int64]:
    """Count the pixels of each slice that a system gets wrong (once for each), or without a reference, that differ."""
    if reference is not None:
        return np.asarray(sum(np.count_nonzero(each != reference, axis=(1, 2)) for each in predictions), np.int64)
    differ = np.any([each != predictions[0] for each in predictions[1:]], axis=0)
    return np.asarray(np.count_nonzero(differ, axis=(1, 2)), np.int64)


def choose_slices(scores: npt.NDArray[Any], count: int) -> list[int]:
    """Choose the slices with the highest scores, not all side by side.

    Neighbours look alike, so the chosen slices are at least 1/(2 count) of the structure's length apart, where
    its length is the number of slices with a score. If too few have one, those around the best (where none has
    any: around the middle) fill up. Of equal scores the one closest to the middle of them is taken.

    Returns:
        ``count`` indices of slices, or all, from low to high.
    """
    middle = float(np.flatnonzero(scores == scores.max()).mean())
    order = sorted(range(len(scores)), key=lambda index: (-int(scores[index]), abs(index - middle), index))
    gap = max(1, (int(np.count_nonzero(scores)) // count + 1) // 2)
    chosen: list[int] = []
    for index in order:
        if len(chosen) < count and scores[index] > 0 and all(abs(index - other) >= gap for other in chosen):
            chosen.append(index)
    chosen += [index for index in order if index not in chosen][: max(0, count - len(chosen))]
    return sorted(chosen)


def _selected(voxels: Labels, options: Overlay) -> Labels:
    """Keep the labels that are drawn."""
    if options.labels is not None:
        voxels = voxels * np.isin(voxels, options.labels)
    return (voxels > 0).astype(np.uint8) if options.merged else voxels
