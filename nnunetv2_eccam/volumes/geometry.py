"""Where an image's voxels are in the patient, as SimpleITK, nnU-Net's reader, sees it."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunetv2_eccam.errors import UserError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
"""DICOM and ITK count mm to the left and posterior, NIfTI to the right and anterior."""


def affine_ras(image: Any) -> NDArray[np.float64]:
    """Give the 4x4 matrix from voxel (x, y, z) to mm in RAS coordinates of an image or reader of SimpleITK's."""
    dimension = min(image.GetDimension(), 3)
    direction = np.reshape(image.GetDirection(), (image.GetDimension(),) * 2)[:dimension, :dimension]
    affine = np.eye(4)
    affine[:dimension, :dimension] = direction @ np.diag(image.GetSpacing()[:dimension])
    affine[:dimension, 3] = image.GetOrigin()[:dimension]
    affine[:3] = LPS_TO_RAS @ affine[:3]
    return affine


def simpleitk_affine(path: Path) -> NDArray[np.float64]:
    """Read the affine of a file by SimpleITK, from voxel (x, y, z) to mm in RAS coordinates, without its voxels.

    Raises:
        UserError: SimpleITK does not read the file; the message says why, without its name.
    """
    sitk.ProcessObject.GlobalWarningDisplayOff()
    reader: Any = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        if "orthonormal" in str(error):
            reason = "the axes in its header are not at right angles; correct the header or resample the image"
        raise UserError(f"SimpleITK, with which nnU-Net reads, refuses it: {reason}") from None
    return affine_ras(reader)


def corner_distance(first: NDArray[np.float64], second: NDArray[np.float64], size: tuple[int, ...]) -> float:
    """Give the largest distance in mm between two affines' positions of the same corner voxel of a grid."""
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, length - 1) for length in size))])
    return float(np.linalg.norm((corners @ (first - second).T)[:, :3], axis=1).max())
