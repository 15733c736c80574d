"""From the grid that the network sees back to the voxels of the image's file, and the other way for a point.

nnU-Net takes an image as (z, y, x), turned to right, anterior, superior by some readers; it transposes the axes, crops
to what is not zero, and resamples. Here each step is undone, last first, as nnU-Net undoes it for its segmentations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nibabel.orientations import apply_orientation, inv_ornt_aff, ornt_transform

from nnunetv2_eccam.errors import UserError

AS_STORED = np.array([[0, 1], [1, 1], [2, 1]], float)
"""nibabel's notation of an orientation: for each axis of the file the reader's axis, and 1 or -1 for its direction."""


@dataclass(frozen=True)
class OriginalVoxels:
    """The way between a file's voxels and the network's grid, of one case.

    Attributes:
        shape: voxels of the file, (x, y, z).
        turns: from the file's axes to the reader's, both (x, y, z), as :data:`AS_STORED`.
        transpose: for each axis of the network's grid, the reader's, (z, y, x).
        crop: for each axis of the network's grid, where what is not zero begins and ends, before resampling.
        grid: the network's grid.
        spacings: mm of the network's grid and of the cropped image, along the network's axes.
        resample: nnU-Net's function for logits: maps (K, *grid), new shape, spacing, new spacing.
    """

    shape: tuple[int, int, int]
    turns: npt.NDArray[np.float64]
    transpose: tuple[int, ...]
    crop: tuple[tuple[int, int], ...]
    grid: tuple[int, ...]
    spacings: tuple[tuple[float, ...], tuple[float, ...]]
    resample: Callable[..., Any]

    @property
    def to_file(self) -> npt.NDArray[np.float64]:
        """The 4x4 matrix from a voxel of the network's grid to the file's voxel (x, y, z)."""
        to_reader = np.zeros((4, 4))
        to_reader[3, 3] = 1
        for axis, ((low, high), n) in enumerate(zip(self.crop, self.grid, strict=True)):
            step, reader_axis = (high - low) / n, 2 - self.transpose[axis]
            to_reader[reader_axis, axis] = step
            to_reader[reader_axis, 3] = low + (step - 1) / 2
        return np.asarray(inv_ornt_aff(self.turns, self.shape) @ to_reader)

    @property
    def slicing_axis(self) -> int:
        """The file's axis, 0 for x, along which a 2D model goes slice by slice."""
        return int(np.abs(self.to_file[:3, 0]).argmax())

    def file_voxel(self, place: Sequence[float]) -> tuple[int, int, int]:
        """Give the voxel of the file, (x, y, z), that is closest to a place in the network's grid."""
        x, y, z = np.floor(self.to_file @ [*place, 1.0] + 0.5)[:3]
        return int(x), int(y), int(z)

    def locate(self, voxel: Sequence[float]) -> tuple[float, ...]:
        """Give where a voxel of the file, (x, y, z), is in the network's grid.

        Raises:
            UserError: it is outside of what nnU-Net crops to, so that the network does not see it.
        """
        place = tuple(float(at) for at in np.linalg.solve(self.to_file, [*voxel, 1.0])[:3])
        if not all(-0.5 <= at < n - 0.5 for at, n in zip(place, self.grid, strict=True)):
            raise UserError(
                f"the point, voxel {' '.join(f'{at:g}' for at in voxel)}, is in the empty margin of the image that "
                f"nnU-Net crops off, so the network does not see it; give one in the body"
            )
        return place

    def restore(self, maps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Bring maps, (K, *grid), to the file's voxels.

        Returns:
            ``(K, x, y, z)``; zero outside of what nnU-Net cropped to.
        """
        cropped = [high - low for low, high in self.crop]
        resampled = self.resample(torch.from_numpy(maps), cropped, *self.spacings)
        back = ornt_transform(AS_STORED, self.turns)
        readers_shape = [self.shape[int(axis)] for axis in back[::-1, 0]]  # (z, y, x)
        whole = np.zeros((len(maps), *(readers_shape[axis] for axis in self.transpose)), np.float32)
        whole[(slice(None), *(slice(low, high) for low, high in self.crop))] = np.asarray(resampled)
        readers = whole.transpose(0, *(int(axis) + 1 for axis in np.argsort(self.transpose)))
        return np.stack([apply_orientation(each.T, back) for each in readers])
