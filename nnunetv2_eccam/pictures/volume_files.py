"""Images and masks as nnU-Net names them, read with the grid that nnU-Net's reader sees."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.volumes.geometry import corner_distance, simpleitk_affine

ENDINGS = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".png", ".tif", ".tiff", ".bmp")
"""File endings that are looked for, the first that exists."""


@dataclass(frozen=True)
class Volume:
    """An image or a mask.

    Attributes:
        path: its file.
        voxels: (x, y, z) in the file's order.
        affine: from voxel (x, y, z) to mm in RAS coordinates, 4x4.
        oriented: whether the file knows where the patient is; photographs do not.
    """

    path: Path
    voxels: npt.NDArray[Any]
    affine: npt.NDArray[np.float64]
    oriented: bool


def ending_of(path: Path) -> str | None:
    """Give the ending of a file that can be read, or None; macOS's ``._`` companions cannot."""
    return None if path.name.startswith(".") else next((each for each in ENDINGS if path.name.endswith(each)), None)


def find_mask(source: Path, case: str, whose: str) -> Path:
    """Find a case's mask: ``source`` itself where it is a file, else CASE with a known ending in that folder.

    Args:
        source: folder or file.
        case: the case's name.
        whose: the system's name, for the message.

    Raises:
        UserError: there is none.
    """
    return _find(source, (case,), f"{whose}: ")


def find_image(source: Path, case: str, channel: int = 0) -> Path:
    """Find a case's image, CASE_0000 for channel 0 or CASE as raw downloads name it.

    Raises:
        UserError: there is none.
    """
    return _find(source, (f"{case}_{channel:04d}", case), "image: ")


def _find(source: Path, stems: tuple[str, ...], what: str) -> Path:
    if source.is_file():
        return source
    if not source.is_dir():
        raise UserError(f"{what}{source} does not exist; give a folder, or the file of a single case")
    for stem in stems:
        for ending in ENDINGS:
            if (source / (stem + ending)).is_file():
                return source / (stem + ending)
    raise UserError(
        f"{what}{source / (stems[0] + ENDINGS[0])} is missing; looked for {' and '.join(stems)} with the endings "
        f"{', '.join(ENDINGS)}"
    )


def cases_of_images(source: Path, channel: int = 0) -> list[str]:
    """List the cases of a folder of images, or the one of an image's file, sorted.

    Raises:
        UserError: ``source`` does not exist, or is a file of another kind.
    """
    if not source.exists():
        raise UserError(f"{source} does not exist; --images is the folder of the images, or one image's file")
    if source.is_file() and ending_of(source) is None:
        raise UserError(f"{source} ends in none of {', '.join(ENDINGS)}")
    stems = _stems([source] if source.is_file() else source.iterdir())
    suffix = f"_{channel:04d}"
    named = sorted(stem.removesuffix(suffix) for stem in stems if stem.endswith(suffix))
    return named or sorted(stems)


def cases_of_masks(folder: Path) -> set[str]:
    """List the cases of a folder of masks."""
    return _stems(folder.iterdir()) if folder.is_dir() else set()


def _stems(paths: Iterable[Path]) -> set[str]:
    return {path.name.removesuffix(ending) for path in paths if (ending := ending_of(path)) is not None}


def read_image(path: Path, channel: int = 0) -> Volume:
    """Read an image; of a file with four axes, one channel; of a colour photograph, the mean of its colours.

    Raises:
        UserError: the file cannot be read, or has no such channel.
    """
    voxels, affine, oriented = _read(path)
    if voxels.ndim == 4:
        if channel >= voxels.shape[3]:
            raise UserError(f"{path} has {voxels.shape[3]} channels, counted from 0; there is no channel {channel}")
        voxels = voxels[..., channel]
    if voxels.ndim != 3 or not voxels.size:
        raise UserError(f"{path} has voxels of the shape {voxels.shape}; an image has three axes, and no empty one")
    return Volume(path, voxels, affine, oriented)


def read_labels(path: Path) -> Volume:
    """Read a mask as whole numbers of the smallest type that holds them.

    Raises:
        UserError: the file cannot be read, or holds anything but whole numbers from 0.
    """
    voxels, affine, oriented = _read(path)
    if voxels.ndim == 4 and voxels.shape[3] == 1:
        voxels = voxels[..., 0]
    if voxels.ndim != 3:
        raise UserError(f"{path} has {voxels.ndim} axes; a mask has three, and one label for each voxel")
    highest, lowest = (float(voxels.max()), float(voxels.min())) if voxels.size else (0.0, 0.0)
    if not (lowest >= 0 and highest < 2**31):
        raise UserError(f"{path} has values from {lowest:g} to {highest:g}; the labels of a mask are from 0")
    labels = voxels.astype(np.min_scalar_type(int(highest)))
    if voxels.dtype.kind == "f" and not np.array_equal(labels, voxels):
        raise UserError(f"{path} has values that are not whole numbers; it is an image or a probability, not a mask")
    return Volume(path, labels, affine, oriented)


def check_same_grid(image: Volume, mask: Volume) -> None:
    """See that two volumes are on one grid: of the same shape, and nowhere half a voxel or more apart.

    Raises:
        UserError: they are not.
    """
    advice = "predict or resample on the image's grid"
    first, second = image.voxels.shape, mask.voxels.shape
    if first != second:
        raise UserError(f"{image.path} and {mask.path} differ in shape: {first} and {second} voxels; {advice}")
    if not (image.oriented and mask.oriented):
        return
    distance = float(corner_distance(image.affine, mask.affine, first))
    if distance >= 0.5 * float(np.linalg.norm(image.affine[:3, :3], axis=0).min()):
        raise UserError(
            f"{image.path} and {mask.path} are on different grids: the same voxel is up to {distance:.4g} mm apart "
            f"(origin, spacing or orientation in their headers); {advice}"
        )


def _read(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64], bool]:
    """Read voxels, (x, y, z) or (x, y, z, channel), their affine, and whether it means anything.

    SimpleITK comes first, since it is nnU-Net's reader and with two transforms in a header chooses for nnU-Net.
    It refuses sheared grids, which nnU-Net can read by nibabel; so does this.
    """
    import SimpleITK as sitk

    if not path.is_file():
        raise UserError(f"{path} is missing")
    sitk.ProcessObject.GlobalWarningDisplayOff()
    try:
        image: Any = sitk.ReadImage(str(path))
    except RuntimeError as error:
        if ending_of(path) in (".nii.gz", ".nii"):
            return _read_by_nibabel(path)
        raise UserError(f"{path} cannot be read: {str(error).strip().splitlines()[-1]}") from None
    array = np.asarray(sitk.GetArrayFromImage(image))
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = array.mean(axis=-1)
    voxels = array.T
    if image.GetDimension() == 2:
        return voxels[..., None], np.diag([-image.GetSpacing()[0], -image.GetSpacing()[1], 1.0, 1.0]), False
    return voxels, simpleitk_affine(path), True


def _read_by_nibabel(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64], bool]:
    import nibabel

    try:
        image = nibabel.load(path)
        voxels = np.asanyarray(image.dataobj)
    except Exception as error:  # nibabel, zlib and the operating system raise what they like on a broken file
        raise UserError(f"{path} cannot be read: {error}") from error
    return voxels.reshape(voxels.shape + (1,) * (3 - voxels.ndim)), np.asarray(image.affine, np.float64), True
