"""Where an image's voxels are in the patient, as SimpleITK, nnU-Net's reader, sees it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunetv2_eccam.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
"""DICOM and ITK count mm to the left and posterior, NIfTI to the right and anterior."""


@dataclass(frozen=True)
class Geometry:
    """A voxel grid in the patient; every tuple is in the order x, y, z of the file.

    Attributes:
        size: voxels.
        spacing: mm.
        origin: centre of the first voxel, mm, in DICOM's LPS coordinates.
        direction: the 3x3 matrix of unit vectors of the axes (columns), row by row, LPS.
    """

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    @property
    def affine_ras(self) -> NDArray[np.float64]:
        """The 4x4 matrix from voxel (x, y, z) to mm in NIfTI's RAS coordinates."""
        affine = np.eye(4)
        affine[:3, :3] = LPS_TO_RAS @ np.reshape(self.direction, (3, 3)) @ np.diag(self.spacing)
        affine[:3, 3] = LPS_TO_RAS @ np.asarray(self.origin)
        return affine

    @property
    def orientation(self) -> str:
        """The direction in which each axis runs, in nibabel's letters: RAS is right, anterior, superior."""
        rotation = LPS_TO_RAS @ np.reshape(self.direction, (3, 3))
        letters = ""
        for axis in range(3):
            main = int(np.argmax(np.abs(rotation[:, axis])))
            letters += ("LR", "PA", "IS")[main][int(rotation[main, axis] > 0)]
        return letters


def corner_distance(first: NDArray[np.float64], second: NDArray[np.float64], size: tuple[int, ...]) -> float:
    """Give the largest distance in mm between two affines' positions of the same corner voxel of a grid."""
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, length - 1) for length in size))])
    return float(np.linalg.norm((corners @ (first - second).T)[:, :3], axis=1).max())


def simpleitk_geometry(path: Path) -> Geometry:
    """Read the grid of a NIfTI file by SimpleITK, without its voxels.

    Raises:
        UserError: SimpleITK, and so nnU-Net, cannot read the file.
    """
    import SimpleITK as sitk

    sitk.ProcessObject.GlobalWarningDisplayOff()
    reader: Any = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        if "orthonormal" in str(error):
            raise UserError(
                f"{path}: the axes in its header are not at right angles (sheared or tilted), so SimpleITK, "
                f"with which nnU-Net reads, refuses it; correct the header or resample the image, or leave "
                f"the case out with --leave-out"
            ) from None
        raise UserError(
            f"{path} cannot be read by SimpleITK, with which nnU-Net reads it: {str(error).strip().splitlines()[-1]}"
        ) from None
    dimension = reader.GetDimension()
    direction = np.reshape(reader.GetDirection(), (dimension, dimension))[:3, :3]
    return Geometry(
        size=tuple(int(length) for length in reader.GetSize()[:3]),
        spacing=tuple(float(length) for length in reader.GetSpacing()[:3]),
        origin=tuple(float(position) for position in reader.GetOrigin()[:3]),
        direction=tuple(float(entry) for entry in direction.ravel()),
    )


def header_warnings(header_affine: NDArray[np.float64], geometry: Geometry) -> list[str]:
    """Say where nibabel (sform first) sees another grid in a header than SimpleITK, nnU-Net's reader."""
    distance = corner_distance(np.asarray(header_affine), geometry.affine_ras, geometry.size)
    if distance <= 0.5 * min(geometry.spacing):
        return []
    return [
        f"the header's qform and sform differ by up to {distance:.4g} mm; SimpleITK, nnU-Net's reader, sees "
        f"{geometry.orientation}, and other programs may see another place or orientation"
    ]
