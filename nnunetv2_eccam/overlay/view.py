"""Volumes as radiologists look at them, whatever the order in which a file stores its voxels.

Axial slices are seen from the patient's feet, coronal ones from the front, sagittal ones from the patient's left:
the patient's right is at the left edge (of sagittal slices: the front), and the front or the head is at the top.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.orientations import apply_orientation, io_orientation

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.volumes import Volume

PLANES = ("sagittal", "coronal", "axial")
"""The plane of slices across each axis of the body: right, anterior, superior."""

CLEARLY_LARGER = 1.05
"""How much larger than both others the voxels along an axis must be for it to decide the slices."""

OBLIQUE_DEGREES = 1.0
"""From what angle between a voxel axis and the body's it is said that the grid is oblique."""

SEEN_FROM = {
    "axial": "seen from the feet: the patient's right (R) at the left edge, the front (A) at the top",
    "coronal": "seen from the front: the patient's right (R) at the left edge, the head (S) at the top",
    "sagittal": "seen from the patient's left: the front (A) at the left edge, the head (S) at the top",
}


@dataclass(frozen=True)
class View:
    """How the slices of one image's grid are shown.

    Attributes:
        path: the image's file, for messages.
        plane: axial, coronal or sagittal.
        pixel_mm: height and width of a pixel.
        sides: letters of the body's side at the left and at the top edge; empty where the file does not say where the
            patient is.
        oblique_degrees: the largest angle between a voxel axis and the axis of the body that it stands for.
        turns: nibabel's notation of the grid's orientation: for each axis of the file the body's, and its direction.
        slices: how many there are.
        numbered: the slices have numbers; the only one of a photograph has none.
        in_mm: the file says how large its pixels are.
    """

    path: Path
    plane: str
    pixel_mm: tuple[float, float]
    sides: str
    oblique_degrees: float
    turns: npt.NDArray[np.float64]
    slices: int
    numbered: bool
    in_mm: bool

    @property
    def aspect(self) -> float:
        """Height of a pixel over its width."""
        return self.pixel_mm[0] / self.pixel_mm[1]

    @property
    def description(self) -> str:
        """How these slices are looked at, for the legend."""
        if not self.sides:
            return "Shown as stored: the files do not say where the patient is"
        text = f"{self.plane.capitalize()} slices, {SEEN_FROM[self.plane]}"
        if self.oblique_degrees < OBLIQUE_DEGREES:
            return text
        return f"{text}; oblique by up to {self.oblique_degrees:.0f}°, the letters are the closest directions"

    def stack(self, voxels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Turn a volume on the image's grid into its slices, without copying.

        Args:
            voxels: in the file's order of axes, (x, y, z) or (x, y, z, channel).

        Returns:
            (slices, rows, columns) or (slices, rows, columns, channel): slices from left to right, from back to
            front or from the feet to the head; rows from the top and columns from the left as they are shown.
        """
        body = apply_orientation(voxels, self.turns)
        slices = np.moveaxis(body, PLANES.index(self.plane), 0)  # (slices, columns from the right, rows from below)
        return np.asarray(slices[:, ::-1, ::-1].swapaxes(1, 2))

    def file_number(self, index: int) -> int:
        """Give a slice's number along the file's axis, from 0, from its index in the stack (or the reverse)."""
        directions = dict(self.turns.tolist())
        return self.slices - 1 - index if directions[PLANES.index(self.plane)] < 0 else index

    def indices(self, numbers: Iterable[int]) -> list[int]:
        """Give the indices in the stack of slices by their numbers in the file.

        Raises:
            UserError: there is no slice of a number.
        """
        numbers = list(numbers)
        wrong = [str(number) for number in numbers if not 0 <= number < self.slices]
        if wrong:
            raise UserError(
                f"{self.path} has the {self.plane} slices 0 to {self.slices - 1}; there is no slice {', '.join(wrong)}"
            )
        return [self.file_number(number) for number in numbers]


def view_of(image: Volume, plane: str | None = None) -> View:
    """Decide how an image is shown.

    Oblique grids are shown along their own axes, each taken for the closest axis of the body. Files that do not know
    where the patient is (photographs) are shown as they are stored.

    Args:
        image: the image.
        plane: axial, coronal or sagittal. None: across the only axis with a single voxel, else across the axis
            whose voxels are clearly larger than along both others, else axial.
    """
    turns = np.asarray(io_orientation(image.affine), np.float64)
    body = image.to_ras()
    spacing, shape = body.spacing, body.shape
    cosine = float((np.diagonal(body.affine)[:3] / spacing).min())
    across = PLANES.index(plane) if plane is not None else _slice_axis(shape, spacing)
    across = across if image.oriented else 2
    left, top = (axis for axis in range(3) if axis != across)
    return View(
        path=image.path,
        plane=PLANES[across],
        pixel_mm=(spacing[top], spacing[left]),
        sides="RAS"[left] + "RAS"[top] if image.oriented else "",
        oblique_degrees=float(np.degrees(np.arccos(min(1.0, cosine)))) if image.oriented else 0.0,
        turns=turns,
        slices=shape[across],
        numbered=not image.flat,
        in_mm=image.in_mm,
    )


def _slice_axis(shape: Sequence[int], spacing: Sequence[float]) -> int:
    if list(shape).count(1) == 1:
        return list(shape).index(1)
    # Thin-sliced CT has the same, larger spacing along two axes: then none of them is where slices were taken.
    _, second, largest = sorted(range(3), key=lambda axis: spacing[axis])
    return largest if spacing[largest] > CLEARLY_LARGER * spacing[second] else 2
