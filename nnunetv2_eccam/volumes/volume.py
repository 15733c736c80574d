"""An image or a mask in memory, with its place in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from nibabel import aff2axcodes
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import NDArray

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.volumes.geometry import corner_distance


@dataclass(frozen=True)
class Volume:
    """An image or a mask.

    Attributes:
        path: its file.
        voxels: (x, y, z) or (x, y, z, channel) in the file's order of axes, scaled as the header says. An image of
            two axes has one slice, z = 1. A colour photograph has its colours as channels.
        affine: from voxel (x, y, z) to mm in RAS coordinates, 4x4. As SimpleITK, nnU-Net's reader, sees it; as
            nibabel sees it where SimpleITK refuses the file.
        oriented: the file says where the patient is; photographs and TIFF do not.
        in_mm: spacing and affine are in mm; else a voxel is 1 wide because nobody said how large it is.
        flat: the file has two axes.
        colour: the channels are a photograph's colours.
        header: nibabel's header of a NIfTI file, else None.
        simpleitk_error: why SimpleITK does not read this file, which nibabel and so nnU-Net's second reader do;
            empty for almost every file.
    """

    path: Path
    voxels: NDArray[Any]
    affine: NDArray[np.float64]
    oriented: bool = True
    in_mm: bool = True
    flat: bool = False
    colour: bool = False
    header: Any = None
    simpleitk_error: str = ""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along x, y, z."""
        x, y, z = self.voxels.shape[:3]
        return x, y, z

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Mm between voxels along x, y, z."""
        x, y, z = (float(length) for length in np.linalg.norm(self.affine[:3, :3], axis=0))
        return x, y, z

    @property
    def orientation(self) -> str:
        """The direction in which each axis runs, in nibabel's letters: RAS is right, anterior, superior."""
        return "".join(aff2axcodes(self.affine))

    @property
    def channels(self) -> list[NDArray[Any]]:
        """The channels, each (x, y, z); one for a volume of three axes."""
        if self.voxels.ndim == 3:
            return [self.voxels]
        return [self.voxels[..., index] for index in range(self.voxels.shape[3])]

    @property
    def nnunet_array(self) -> NDArray[Any]:
        """The voxels in the order of nnU-Net's arrays, (channel, z, y, x); a view.

        nnU-Net's readers whose names end in ``WithReorient`` turn the volume first: ask :meth:`to_ras` for that.
        """
        return np.moveaxis(self.voxels[..., None] if self.voxels.ndim == 3 else self.voxels, 3, 0).transpose(0, 3, 2, 1)

    @property
    def nnunet_spacing(self) -> tuple[float, float, float]:
        """Spacing as nnU-Net's readers give it, z, y, x; images of two axes have 999 times their pixels in z."""
        x, y, z = self.spacing
        return (999 * max(x, y), y, x) if self.flat else (z, y, x)

    def to_ras(self) -> Volume:
        """Turn the axes to right, anterior, superior, by exchanging and flipping them; voxels stay what they are."""
        turns = io_orientation(self.affine)
        affine = self.affine @ inv_ornt_aff(turns, self.shape)
        return replace(self, voxels=np.asarray(apply_orientation(self.voxels, turns)), affine=affine)


def check_same_grid(
    first: Volume, second: Volume, *, advice: str, headers: bool = True, spacing_tolerance: float = 0.01
) -> None:
    """See that two volumes are on one grid: the same shape and spacing, and nowhere half a voxel or more apart.

    Args:
        first: say, the image.
        second: say, its mask.
        advice: what to do about it; the end of the message.
        headers: compare spacing, origin and orientation too, not only the shapes.
        spacing_tolerance: by which part of the first's the spacings may differ.

    Raises:
        UserError: they are not; the message names both files.
    """
    problem = ""
    if first.shape != second.shape:
        problem = f"differ in shape: {by(first.shape)} and {by(second.shape)} voxels (x, y, z)"
    elif headers and first.oriented and second.oriented:
        apart = corner_distance(first.affine, second.affine, first.shape)
        spacings = f"{by(first.spacing)} and {by(second.spacing)} mm"
        if not apart < 0.5 * min(first.spacing):
            problem = (
                f"are on different grids: by their headers the same voxel is up to {apart:.4g} mm apart (spacing "
                f"{spacings}, orientation {first.orientation} and {second.orientation})"
            )
        elif not np.allclose(first.spacing, second.spacing, rtol=spacing_tolerance, atol=0):
            problem = f"differ in spacing: {spacings} (x, y, z)"
    if problem:
        raise UserError(f"{first.path} and {second.path} {problem}; {advice}")


def by(values: Sequence[float]) -> str:
    """Write sizes as people do: 512 x 512 x 40."""
    return " x ".join(f"{value:g}" for value in values)
