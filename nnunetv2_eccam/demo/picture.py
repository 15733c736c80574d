"""The picture of the result: image, reference and prediction of some unseen cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nnunetv2_eccam.pictures import orientation, window
from nnunetv2_eccam.pictures.case_rows import CaseFiles, Row, Selection, rows_of_case
from nnunetv2_eccam.pictures.colours import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    OPACITY,
    REFERENCE,
    TRUE_POSITIVE,
    Grey,
    Labels,
    colour_errors,
)
from nnunetv2_eccam.pictures.panels import Look, write_picture

__all__ = [
    "FALSE_NEGATIVE",
    "FALSE_POSITIVE",
    "OPACITY",
    "REFERENCE",
    "TRUE_POSITIVE",
    "Slice",
    "colour_errors",
    "draw_picture",
    "load_slice",
]

PREDICTION = "prediction"
"""The name of the last column."""


class Slice(NamedTuple):
    """The slice of a case in which the reference is largest, turned for display."""

    row: Row

    @property
    def title(self) -> str:
        """The case and its Dice."""
        dice = self.row.dice[PREDICTION]
        return f"{self.row.case}: Dice {'undefined' if dice is None else f'{dice:.3f}'} in the volume"

    @property
    def image(self) -> Grey:
        """Grey values from 0 to 1, (rows, columns)."""
        return self.row.image

    @property
    def reference(self) -> Labels:
        """The true mask, same shape."""
        (reference, _) = self.row.masks
        return reference

    @property
    def prediction(self) -> Labels:
        """The predicted mask, same shape."""
        return self.row.predictions[PREDICTION]

    @property
    def aspect(self) -> float:
        """Height of a pixel over its width, both in mm."""
        return self.row.view.aspect

    @property
    def sides(self) -> tuple[str, str]:
        """Letters of the body's side at the left and at the top edge."""
        return self.row.view.sides


def load_slice(case: str, image: Path, reference: Path, prediction: Path) -> Slice:
    """Read a case and give the slice in which the reference is largest.

    Slices are taken and shown as ``nnUNetv2_eccam overlay`` does.

    Raises:
        UserError: a file is missing or the three are on different grids.
    """
    (row,) = rows_of_case(CaseFiles(case, image, reference, {PREDICTION: prediction}), Selection(merged=True))
    return Slice(row)


def draw_picture(slices: Sequence[Slice], target: Path) -> None:
    """Draw one row per slice - image, reference, prediction with its errors - into a PNG file."""
    rows = [each.row for each in slices]
    views = dict.fromkeys(f"{orientation.description(row.view)}." for row in rows)
    grey = window.description(Selection().window)
    notes = (*views, f"{grey}; DSC of the whole volume.")
    write_picture(rows, target, Look(style="errors", label_colours={1: REFERENCE}, notes=notes, dpi=200))
