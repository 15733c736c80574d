"""Volumes that are written anew: the smallest type that keeps every value, and a file that nnU-Net can read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunetv2_eccam.errors import UserError

from .geometry import Geometry, corner_distance, simpleitk_geometry
from .nifti import new_header, write_nifti

if TYPE_CHECKING:
    from numpy.typing import NDArray

INT16 = np.iinfo(np.int16)


def smallest_type(voxels: NDArray[Any]) -> NDArray[Any]:
    """Cast to int16 where that loses nothing, as in every CT of whole HU, else to float32."""
    low, high = float(voxels.min()), float(voxels.max())
    fits = INT16.min <= low and high <= INT16.max
    whole = voxels.dtype.kind in "iu" or (
        fits and all(np.array_equal(plane, np.rint(plane)) for plane in np.moveaxis(voxels, -1, 0))
    )
    return voxels.astype(np.int16 if fits and whole else np.float32, copy=False)


def publish_volume(target: Path, voxels: NDArray[Any], affine_ras: NDArray[np.float64]) -> Geometry:
    """Write a volume and make sure that nnU-Net's reader sees the same grid.

    Args:
        target: the ``.nii.gz`` file.
        voxels: ``(x, y, z)``.
        affine_ras: from voxel x, y, z to mm in RAS coordinates.

    Returns:
        The grid as nnU-Net's reader sees it: NIfTI keeps spacings in 32 bits only, which can decide along
        which axis of an isotropic volume nnU-Net slices.

    Raises:
        UserError: SimpleITK cannot read what was written, or sees another grid.
    """
    write_nifti(target, voxels, new_header(affine_ras))
    seen = simpleitk_geometry(target)
    distance = corner_distance(seen.affine_ras, np.asarray(affine_ras), voxels.shape)
    if seen.size != voxels.shape or distance > 0.01 * min(seen.spacing):
        raise UserError(f"{target.name}: SimpleITK sees its grid {distance:.4g} mm away from where it was written")
    return seen
