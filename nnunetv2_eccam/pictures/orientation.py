"""Volumes as radiologists look at them, whatever the order in which a file stores its voxels.

Axial slices are seen from the patient's feet, coronal ones from the front, sagittal ones from the patient's left:
the patient's right is at the left edge (of sagittal slices: the front), and the front or the head is at the top.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunetv2_eccam.errors import UserError

PLANES = ("sagittal", "coronal", "axial")
"""The plane of slices across each axis of the body: right, anterior, superior."""

OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}
"""Each side of the body and the opposite one."""

CLEARLY_LARGER = 1.05
"""How much larger than both others the voxels along an axis must be for it to decide the slices."""

OBLIQUE_DEGREES = 1.0
"""From what angle between a voxel axis and the body's it is said that the grid is oblique."""


@dataclass(frozen=True)
class View:
    """How the slices of one voxel grid are shown.

    Attributes:
        plane: axial, coronal or sagittal.
        pixel_mm: height and width of a pixel.
        sides: letters of the body's side at the left and at the top edge; two empty ones where the file does not
            say where the patient is.
        oblique_degrees: the largest angle between a voxel axis and the axis of the body that it stands for.
        file_axes: for right, anterior and superior, the file's axis that is closest.
        reversed_axes: for right, anterior and superior, whether the file's axis runs the other way.
        slices: how many there are.
    """

    plane: str
    pixel_mm: tuple[float, float]
    sides: tuple[str, str]
    oblique_degrees: float
    file_axes: tuple[int, int, int]
    reversed_axes: tuple[bool, bool, bool]
    slices: int

    @property
    def aspect(self) -> float:
        """Height of a pixel over its width."""
        return self.pixel_mm[0] / self.pixel_mm[1]

    def stack(self, voxels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Turn a volume into its slices, without copying.

        Args:
            voxels: in the file's order of axes, (x, y, z).

        Returns:
            (slices, rows, columns): slices from left to right, from back to front or from the feet to the head;
            rows from the top and columns from the left as they are shown.
        """
        body = voxels.transpose(self.file_axes)
        body = body[tuple(slice(None, None, -1 if turned else 1) for turned in self.reversed_axes)]
        slices = np.moveaxis(body, PLANES.index(self.plane), 0)  # (slices, columns from the right, rows from below)
        return np.asarray(slices[:, ::-1, ::-1].transpose(0, 2, 1))

    def file_number(self, index: int) -> int:
        """Give a slice's number along the file's axis, from 0, from its index in the stack (or the reverse)."""
        return self.slices - 1 - index if self.reversed_axes[PLANES.index(self.plane)] else index


def view_of(
    shape: tuple[int, ...], affine: npt.NDArray[np.float64], plane: str | None = None, oriented: bool = True
) -> View:
    """Decide how a grid is shown.

    Oblique grids are shown along their own axes, each taken for the closest axis of the body.

    Args:
        shape: voxels along the file's axes, (x, y, z).
        affine: from voxel (x, y, z) to mm in RAS coordinates, 4x4.
        plane: axial, coronal or sagittal. None: across the only axis with a single voxel, else across the axis
            whose voxels are clearly larger than along both others, else axial.
        oriented: False for files that do not know where the patient is (photographs): these are shown as they are
            stored.

    Raises:
        UserError: two axes of the grid fall together, so that it has no orientation.
    """
    from nibabel.orientations import io_orientation

    orientation = io_orientation(affine)
    if np.isnan(orientation).any():
        raise UserError("its header gives two axes the same direction, so that it has no orientation; correct it")
    file_axes = [int(axis) for axis in np.argsort(orientation[:, 0])]
    columns = np.asarray(affine, np.float64)[:3, :3][:, file_axes]
    spacing = np.linalg.norm(columns, axis=0)
    cosines = np.clip(np.abs(np.diagonal(columns)) / spacing, 0, 1)
    if not oriented:
        across = 2
    elif plane is not None:
        across = PLANES.index(plane)
    else:
        across = _slice_axis([shape[axis] for axis in file_axes], [float(mm) for mm in spacing])
    left, top = (axis for axis in range(3) if axis != across)
    return View(
        plane=PLANES[across],
        pixel_mm=(float(spacing[top]), float(spacing[left])),
        sides=("RAS"[left], "RAS"[top]) if oriented else ("", ""),
        oblique_degrees=float(np.degrees(np.arccos(cosines.min()))) if oriented else 0.0,
        file_axes=(file_axes[0], file_axes[1], file_axes[2]),
        reversed_axes=(
            bool(orientation[file_axes[0], 1] < 0),
            bool(orientation[file_axes[1], 1] < 0),
            bool(orientation[file_axes[2], 1] < 0),
        ),
        slices=int(shape[file_axes[across]]),
    )


def _slice_axis(shape: list[int], spacing: list[float]) -> int:
    single = [axis for axis in range(3) if shape[axis] == 1]
    if len(single) == 1:
        return single[0]
    # Thin-sliced CT has the same, larger spacing along two axes: then none of them is where slices were taken.
    *_, second, largest = sorted(range(3), key=lambda axis: spacing[axis])
    return largest if spacing[largest] > CLEARLY_LARGER * spacing[second] else 2


def description(view: View) -> str:
    """Say how slices of this view are looked at, for the legend."""
    if not view.sides[0]:
        return "Shown as stored: the files do not say where the patient is"
    from_where = {
        "axial": "seen from the feet: the patient's right (R) at the left edge, the front (A) at the top",
        "coronal": "seen from the front: the patient's right (R) at the left edge, the head (S) at the top",
        "sagittal": "seen from the patient's left: the front (A) at the left edge, the head (S) at the top",
    }
    text = f"{view.plane.capitalize()} slices, {from_where[view.plane]}"
    if view.oblique_degrees < OBLIQUE_DEGREES:
        return text
    return f"{text}; oblique by up to {view.oblique_degrees:.0f}°, the letters are the closest directions"
