"""The slices of a case that are drawn: chosen, turned, windowed and cut out. The rest of the volumes is let go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.pictures.agreement import dice
from nnunetv2_eccam.pictures.colours import Labels
from nnunetv2_eccam.pictures.orientation import View, view_of
from nnunetv2_eccam.pictures.slices import area_scores, choose_slices, disagreement_scores
from nnunetv2_eccam.pictures.volume_files import check_same_grid, read_image, read_labels
from nnunetv2_eccam.pictures.window import Percentiles, Window

SlicesBy = Literal["area", "disagreement"] | tuple[int, ...]
DiceOf = Literal["volume", "slice", "none"]


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case.

    Attributes:
        case: its name.
        image: the image's file.
        reference: the true mask's, or None for an unlabelled case.
        systems: each system's name and its prediction's file.
    """

    case: str
    image: Path
    reference: Path | None
    systems: Mapping[str, Path]


@dataclass(frozen=True)
class Row:
    """One slice of one case, turned for display: (rows, columns) from the top left.

    Attributes:
        case: the case's name.
        number: the slice's number along the file's axis, from 0.
        view: how it is looked at.
        image: grey values from 0 to 1.
        reference: the true labels, or None.
        predictions: the labels of each system, by its name.
        dice: each system's DSC, of the slice or of the volume as was asked; None where it is not defined, since
            both masks are empty. Without a reference, or where none was asked for, there is no entry.
    """

    case: str
    number: int
    view: View
    image: npt.NDArray[np.float32]
    reference: Labels | None
    predictions: Mapping[str, Labels]
    dice: Mapping[str, float | None]

    @property
    def masks(self) -> list[Labels]:
        """The reference, if there is one, and the predictions."""
        return [*([] if self.reference is None else [self.reference]), *self.predictions.values()]


@dataclass(frozen=True)
class Selection:
    """What of a case is shown.

    Attributes:
        slices: ``area``: the largest reference (or, without one, predictions); ``disagreement``: most pixels in
            which a system differs from the reference (or, without one, from another system); or numbers along the
            file's axis, from 0.
        per_case: how many slices, unless they are numbered.
        plane: axial, coronal or sagittal; None: see :func:`~nnunetv2_eccam.pictures.orientation.view_of`.
        channel: of the image.
        window: how intensities become grey.
        labels: only these; None: all.
        merged: take all labels as one.
        dice_of: what the DSC is computed of.
        crop_mm: cut out what is at most so far from the labels; None: whole slices.
    """

    slices: SlicesBy = "area"
    per_case: int = 1
    plane: str | None = None
    channel: int = 0
    window: Window | Percentiles = field(default_factory=Percentiles)
    labels: tuple[int, ...] | None = None
    merged: bool = False
    dice_of: DiceOf = "volume"
    crop_mm: float | None = None


def rows_of_case(files: CaseFiles, selection: Selection) -> list[Row]:
    """Read a case and give the slices that are shown of it, in the order of the body or of the numbers asked for.

    Raises:
        UserError: a file is missing, cannot be read or is on another grid; a number is not that of a slice; or
            there is nothing to disagree.
    """
    image = read_image(files.image, selection.channel)
    try:
        view = view_of(image.voxels.shape, image.affine, selection.plane, image.oriented)
    except UserError as error:
        raise UserError(f"{files.image}: {error}") from None

    def labels_of(path: Path) -> Labels:
        mask = read_labels(path)
        check_same_grid(image, mask)
        return view.stack(_selected(mask.voxels, selection))

    reference = None if files.reference is None else labels_of(files.reference)
    predictions = {name: labels_of(path) for name, path in files.systems.items()}
    chosen = _indices(files.case, view, reference, list(predictions.values()), selection)
    window = selection.window.window(image.voxels) if isinstance(selection.window, Percentiles) else selection.window
    figures = _dice_of_each(reference, predictions, selection)
    rows = []
    for index in chosen:
        # Copies, since views would keep the whole volumes in memory.
        true = None if reference is None else reference[index].copy()
        predicted = {name: stack[index].copy() for name, stack in predictions.items()}
        row = Row(
            files.case, view.file_number(index), view, window.scaled(view.stack(image.voxels)[index]), true, predicted,
            _dice_of_each(true, predicted, selection) if selection.dice_of == "slice" else figures,
        )  # fmt: skip
        rows.append(row if selection.crop_mm is None else cropped(row, selection.crop_mm))
    return rows


def cropped(row: Row, margin_mm: float) -> Row:
    """Cut out the labels of a row - of all its masks together - with a margin; without labels, keep all of it."""
    somewhere = np.any([mask > 0 for mask in row.masks], axis=0)
    if not somewhere.any():
        return row
    window = []
    for axis in (0, 1):
        inside = np.flatnonzero(somewhere.any(axis=1 - axis))
        margin = int(np.ceil(margin_mm / row.view.pixel_mm[axis]))
        window.append(slice(max(0, int(inside[0]) - margin), int(inside[-1]) + 1 + margin))
    rows, columns = window
    return replace(
        row,
        image=row.image[rows, columns],
        reference=None if row.reference is None else row.reference[rows, columns],
        predictions={name: mask[rows, columns] for name, mask in row.predictions.items()},
    )


def _selected(voxels: Labels, selection: Selection) -> Labels:
    """Keep the labels that are drawn: looked up in a table, and along the memory, which x is the innermost axis of."""
    table: Labels = np.arange(int(voxels.max(initial=0)) + 1, dtype=voxels.dtype)
    if selection.labels is not None:
        table[~np.isin(table, selection.labels)] = 0
    if selection.merged:
        table = (table > 0).astype(np.uint8)
    elif selection.labels is None:
        return voxels
    return np.asarray(table[voxels.T].T)


def _indices(
    case: str, view: View, reference: Labels | None, predictions: Sequence[Labels], selection: Selection
) -> list[int]:
    if isinstance(selection.slices, tuple):
        wrong = [number for number in selection.slices if not 0 <= number < view.slices]
        if wrong:
            raise UserError(
                f"{case} has the {view.plane} slices 0 to {view.slices - 1}; there is no slice "
                f"{', '.join(map(str, wrong))}"
            )
        return [view.file_number(number) for number in selection.slices]
    if selection.slices == "area":
        scores = area_scores(predictions if reference is None else [reference])
    elif len(predictions) + (reference is not None) < 2:
        raise UserError("--slices disagreement needs two masks to compare: a reference and a system, or two systems")
    else:
        scores = disagreement_scores(reference, predictions)
    return choose_slices(scores, selection.per_case)


def _dice_of_each(
    reference: Labels | None, predictions: Mapping[str, Labels], selection: Selection
) -> dict[str, float | None]:
    if reference is None or selection.dice_of == "none":
        return {}
    labels: Any = (1,) if selection.merged else selection.labels
    return {name: dice(reference, prediction, labels) for name, prediction in predictions.items()}
