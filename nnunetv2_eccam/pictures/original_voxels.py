"""From the grid that the network sees back to the voxels of the image's file, and the other way for a point.

nnU-Net's reader gives an image as (z, y, x), some readers reoriented; nnU-Net then transposes the axes, crops to
what is not zero, and resamples. Here each step is undone, last first, as nnU-Net undoes it for its segmentations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import saved

Array = npt.NDArray[Any]

AS_STORED = np.array([[0, 1], [1, 1], [2, 1]], float)
"""nibabel's notation of an orientation: for each axis of the file the reader's axis, and 1 or -1 for its direction."""


@dataclass(frozen=True)
class OriginalVoxels:
    """The way between a file's voxels and the network's grid, of one case.

    Attributes:
        shape: voxels of the file, (x, y, z).
        reorientation: from the file's axes to the reader's, both (x, y, z), as :data:`AS_STORED`.
        transpose: for each axis of the network's grid, the reader's, (z, y, x).
        crop: for each axis of the network's grid, where what is not zero begins and ends, before resampling.
        grid: the network's grid.
        spacings: mm of the network's grid and of the cropped image, along the network's axes.
        resample: nnU-Net's function for logits: maps (K, *grid), new shape, spacing, new spacing.
    """

    shape: tuple[int, ...]
    reorientation: npt.NDArray[np.float64]
    transpose: tuple[int, ...]
    crop: tuple[tuple[int, int], ...]
    grid: tuple[int, ...]
    spacings: tuple[tuple[float, ...], tuple[float, ...]]
    resample: Callable[..., Any]

    @classmethod
    def of(
        cls, properties: Mapping[str, Any], plans: Any, configuration: Any, grid: Sequence[int], read: Sequence[int]
    ) -> OriginalVoxels:
        """Take the steps from what nnU-Net notes of them.

        Args:
            properties: what nnU-Net's reader and preprocessing noted.
            plans: nnU-Net's plans manager.
            configuration: nnU-Net's configuration manager.
            grid: of the preprocessed data, three axes.
            read: shape that the reader gave, (z, y, x).
        """
        reorientation = _reorientation(properties)
        shape = [0, 0, 0]
        for axis, (readers_axis, _) in enumerate(reorientation):
            shape[axis] = int(read[2 - int(readers_axis)])
        original = [float(properties["spacing"][axis]) for axis in plans.transpose_forward]
        here = [float(mm) for mm in configuration.spacing]
        # A 2D configuration leaves the distance of the slices as it is.
        here = here if len(here) == len(original) else [original[0], *here]
        return cls(
            shape=tuple(shape),
            reorientation=reorientation,
            transpose=tuple(int(axis) for axis in plans.transpose_forward),
            crop=tuple((int(low), int(high)) for low, high in properties["bbox_used_for_cropping"]),
            grid=tuple(int(n) for n in grid),
            spacings=(tuple(here), tuple(original)),
            resample=configuration.resampling_fn_probabilities,
        )

    def restore(self, maps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Bring maps to the file's voxels.

        Args:
            maps: ``(K, *grid)``.

        Returns:
            ``(K, x, y, z)``; zero outside of what nnU-Net cropped to.
        """
        cropped = [high - low for low, high in self.crop]
        resampled = self.resample(torch.from_numpy(maps), cropped, *self.spacings)
        whole = np.zeros((len(maps), *(self._reader_shape[axis] for axis in self.transpose)), np.float32)
        inside = (slice(None), *(slice(low, high) for low, high in self.crop))
        whole[inside] = np.asarray(resampled)
        readers = whole.transpose(0, *(int(axis) + 1 for axis in np.argsort(self.transpose)))
        return np.stack([self._to_file(each.T) for each in readers])

    def locate(self, voxel: Sequence[float]) -> tuple[float, ...]:
        """Give where a voxel of the file, (x, y, z), is in the network's grid.

        Raises:
            UserError: it is outside of what nnU-Net crops to, so that the network does not see it.
        """
        from nibabel.orientations import inv_ornt_aff

        to_file = inv_ornt_aff(self.reorientation, self.shape)
        readers = (np.linalg.inv(to_file) @ [*voxel, 1.0])[:3][::-1]
        place = []
        for axis, (low, high), n in zip(self.transpose, self.crop, self.grid, strict=True):
            at = readers[axis] - low
            if not -0.5 <= at < high - low - 0.5:
                raise UserError(
                    f"the point, voxel {' '.join(f'{at:g}' for at in voxel)}, is in the empty margin of the image that "
                    f"nnU-Net crops off, so the network does not see it; give one in the body"
                )
            place.append(float((at + 0.5) * n / (high - low) - 0.5))
        return tuple(place)

    def file_voxel(self, place: Sequence[float]) -> tuple[int, int, int]:
        """Give the voxel of the file, (x, y, z), that is closest to a place in the network's grid."""
        from nibabel.orientations import inv_ornt_aff

        readers = np.zeros(3)
        for axis, at, (low, high), n in zip(self.transpose, place, self.crop, self.grid, strict=True):
            readers[axis] = low + (at + 0.5) * (high - low) / n - 0.5
        x, y, z = (inv_ornt_aff(self.reorientation, self.shape) @ [*readers[::-1], 1.0])[:3]
        return int(np.floor(x + 0.5)), int(np.floor(y + 0.5)), int(np.floor(z + 0.5))

    @property
    def slicing_axis(self) -> int:
        """The file's axis, 0 for x, along which a 2D model goes slice by slice."""
        readers_axis = 2 - self.transpose[0]
        return int(np.flatnonzero(self.reorientation[:, 0] == readers_axis)[0])

    @property
    def _reader_shape(self) -> list[int]:
        """The shape that nnU-Net's reader gave, (z, y, x)."""
        shape = [0, 0, 0]
        for length, (readers_axis, _) in zip(self.shape, self.reorientation, strict=True):
            shape[2 - int(readers_axis)] = length
        return shape

    def _to_file(self, volume: Array) -> Array:
        from nibabel.orientations import apply_orientation, ornt_transform

        return np.asarray(apply_orientation(volume, ornt_transform(AS_STORED, self.reorientation)))


def _reorientation(properties: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """Find out how nnU-Net's reader turned the file, from what it noted for turning its segmentation back."""
    from nibabel.orientations import axcodes2ornt, io_orientation

    if "reoriented_affine" in properties.get("nibabel_stuff", {}):
        return np.asarray(io_orientation(properties["nibabel_stuff"]["original_affine"]), np.float64)
    if "original_orientation" in properties.get("sitk_stuff", {}):
        return np.asarray(axcodes2ornt(properties["sitk_stuff"]["original_orientation"]), np.float64)
    return AS_STORED


def write_nifti(
    target: Path, volume: npt.NDArray[np.float32], image: Path, affine: npt.NDArray[np.float64] | None = None
) -> None:
    """Write a volume that lines up with an image in any viewer, whole or not at all.

    Args:
        target: its name ends in .nii.gz.
        volume: (x, y, z), the image's voxels.
        image: the image's file. Of a NIfTI file the whole geometry is taken, both transforms with their codes.
        affine: from voxel to mm in RAS coordinates, 4x4, for other files.

    Raises:
        UserError: the file cannot be written.
    """
    import nibabel

    made = nibabel.Nifti1Image(volume.astype(np.float32, copy=False), affine)
    if image.name.endswith((".nii", ".nii.gz")):
        source = nibabel.load(image)
        made = nibabel.Nifti1Image(volume.reshape(source.shape[:3]).astype(np.float32, copy=False), source.affine)
        for name in (
            "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
            "srow_x", "srow_y", "srow_z", "xyzt_units",
        ):  # fmt: skip
            made.header[name] = source.header[name]
        made.header["pixdim"][:4] = source.header["pixdim"][:4]
    with saved(target) as partial:
        nibabel.save(made, partial)
