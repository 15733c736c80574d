"""What is checked of every case, and reported.

An error (UserError) is what would make training wrong; a warning is what a person should look at.
Arrays are ``(z, y, x)`` here: nnU-Net's order, the reverse of the NIfTI file's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunetv2_eccam.errors import UserError

from .geometry import Geometry, corner_distance

if TYPE_CHECKING:
    from numpy.typing import NDArray

AIR_HU = -300.0
"""Between lung and air (below) and fat, the lightest tissue (-150 to -50 HU)."""

LARGEST_OFFSET = 0.5
"""Image and label may differ by this part of a voxel, which rounding in a header can cause; more is an error."""


def check_image(path: Path, planes: NDArray[Any], modality: str) -> tuple[dict[str, Any], list[str]]:
    """Check an image's intensities.

    Args:
        path: named in messages.
        planes: ``(z, y, x)``; HU where the modality is CT.
        modality: a channel name of nnU-Net's; only ``CT`` has a scale that can be judged.

    Returns:
        ``intensity`` (minimum and maximum) and ``nonzero_size`` (x, y, z extent in voxels of what is not
        zero, to which nnU-Net crops), and warnings.

    Raises:
        UserError: a voxel is not finite, or all voxels are equal.
    """
    low, high = float(planes.min()), float(planes.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        count = int(np.count_nonzero(~np.isfinite(planes)))
        raise UserError(
            f"{path}: {count} voxels are NaN or infinite; replace them by a real intensity "
            f"(air in CT is -1024 HU), or leave the case out with --leave-out"
        )
    if low == high:
        raise UserError(
            f"{path}: all voxels have the value {low:g}, so it shows nothing; "
            f"download it again, or leave the case out with --leave-out"
        )
    warnings = []
    if modality == "CT" and (low > -50 or high < 100 or low < -33000 or high > 33000):
        warnings.append(f"intensities from {low:g} to {high:g} are not plausible Hounsfield units")
    return {"intensity": [low, high], "nonzero_size": _nonzero_size(planes)}, warnings


def _nonzero_size(planes: NDArray[Any]) -> list[int]:
    """Extent (x, y, z) of the box around all voxels that are not zero."""
    box = bounding_box(planes)
    return [int(planes.shape[2 - axis]) if box is None else box[axis][1] - box[axis][0] + 1 for axis in range(3)]


def bounding_box(planes: NDArray[Any]) -> list[list[int]] | None:
    """First and last index along x, y and z of what is not zero in ``(z, y, x)``; None if all is zero."""
    # From both ends inwards, since scans that fill their grid are decided by their first and last plane; and
    # each axis only where the ones before it are filled, since most of a label is empty.
    if planes.itemsize == 1:
        planes = planes.view(np.bool_)  # numpy stops at the first True of booleans only
    box: list[list[int]] = []
    for axis in (0, 1, 2):
        ends = _ends(planes, axis)
        if ends is None:
            return None
        box.insert(0, ends)
        planes = np.moveaxis(np.moveaxis(planes, axis, 0)[ends[0] : ends[1] + 1], 0, axis)
    return box


def _ends(planes: NDArray[Any], axis: int) -> list[int] | None:
    """First and last index along ``axis`` whose plane is not all zero."""
    across = np.moveaxis(planes, axis, 0)
    first = next((index for index in range(len(across)) if across[index].any()), None)
    if first is None:
        return None
    last = next(index for index in range(len(across) - 1, -1, -1) if across[index].any())
    return [first, last]


def check_label(path: Path, planes: NDArray[Any], declared: Mapping[int, str]) -> dict[str, Any]:
    """Check a label's values.

    Args:
        path: named in messages.
        planes: ``(z, y, x)``.
        declared: the values that may occur, and their names; 0 is the background.

    Returns:
        ``label_voxels`` (count by name, without the background) and ``label_box`` (first and last index
        along x, y, z).

    Raises:
        UserError: a value is not declared, or nothing is labelled.
    """
    box = bounding_box(planes)
    if box is None:
        raise UserError(
            f"{path}: nothing is labelled, all voxels are 0; download it again, or leave the case out with --leave-out"
        )
    (x0, x1), (y0, y1), (z0, z1) = box
    counts: dict[float, int] = {}
    for plane in planes[z0 : z1 + 1, y0 : y1 + 1, x0 : x1 + 1]:  # plane by plane: unique sorts a copy
        for value, count in _value_counts(plane):
            counts[value] = counts.get(value, 0) + count
    unknown = sorted(value for value in counts if value not in declared)
    if unknown:
        listed = ", ".join(f"{value:g} ({counts[value]} voxels)" for value in unknown[:5])
        raise UserError(
            f"{path}: label value {listed} is not one of {sorted(declared)}; is this the data set's own label file?"
        )
    voxels = {name: counts.get(value, 0) for value, name in sorted(declared.items()) if value != 0}
    return {"label_voxels": voxels, "label_box": box}


def _value_counts(plane: NDArray[Any]) -> list[tuple[float, int]]:
    if plane.dtype.kind == "u" and plane.dtype.itemsize == 1:
        counts = np.bincount(plane.ravel())  # several times faster than unique
        return [(float(value), int(counts[value])) for value in np.flatnonzero(counts)]
    values, numbers = np.unique(plane, return_counts=True)
    return [(float(value), int(number)) for value, number in zip(values, numbers, strict=True)]


def check_same_grid(image_path: Path, image: Geometry, label_path: Path, label: Geometry) -> None:
    """Check that a label lies on its image's voxels.

    nnU-Net stops at another size or spacing, but only prints a warning at another origin or direction.

    Raises:
        UserError: size, spacing, or position of any corner differs.
    """
    if image.size != label.size:
        raise UserError(
            f"{label_path} has {_by(label.size)} voxels, but its image {image_path.name} has "
            f"{_by(image.size)}; are they of the same case and version?"
        )
    if not np.allclose(image.spacing, label.spacing, rtol=1e-4):
        raise UserError(
            f"{label_path} has spacing {_by(label.spacing)} mm, but its image {image_path.name} has "
            f"{_by(image.spacing)} mm; correct the wrong header"
        )
    distance = corner_distance(image.affine_ras, label.affine_ras, image.size)
    if distance > LARGEST_OFFSET * min(image.spacing):
        raise UserError(
            f"{label_path} does not lie on its image {image_path.name}: by their headers the same voxel is up to "
            f"{distance:.4g} mm apart (orientations {image.orientation} and {label.orientation}); find out which "
            f"header is wrong and correct it, or leave the case out with --leave-out"
        )


def check_label_on_tissue(
    image: NDArray[Any], label: NDArray[Any], path: Path, box: list[list[int]], soft_tissue: bool
) -> tuple[dict[str, Any], list[str]]:
    """Check that a label in CT does not lie in air, as a flipped one may.

    Args:
        image: HU, ``(z, y, x)``.
        label: ``(z, y, x)``.
        path: the label's, named in messages.
        box: the label's first and last index along x, y, z.
        soft_tissue: all labels are soft tissue; then a label in air is an error, otherwise a warning.

    Raises:
        UserError: more than half of the labelled voxels are air, and must not be.
    """
    (x0, x1), (y0, y1), (z0, z1) = box
    inside = np.s_[z0 : z1 + 1, y0 : y1 + 1, x0 : x1 + 1]
    labelled = label[inside] != 0
    in_air = (image[inside] < AIR_HU) & labelled
    share = int(np.count_nonzero(in_air)) / int(np.count_nonzero(labelled))
    finding = {"label_in_air": round(share, 4)}
    if share <= 0.5:
        return finding, []
    message = f"{share:.0%} of the labelled voxels are air (below {AIR_HU:g} HU)"
    if soft_tissue:
        raise UserError(f"{path}: {message}, so the label does not fit its image: wrong case, or flipped")
    return finding, [message]


def _by(values: tuple[float, ...]) -> str:
    return " x ".join(f"{value:g}" for value in values)
