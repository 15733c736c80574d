"""Reading a volume of any format that nnU-Net reads, every byte of it, with its grid.

Which library reads what: NIfTI by :mod:`.nifti`, since SimpleITK does not notice damage; PNG, BMP and TIFF by what
nnU-Net's readers use, scikit-image and tifffile; all others by SimpleITK, which refuses truncated NRRD, MHA and MHD
(tried) but not GIPL.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from nibabel.orientations import io_orientation
from numpy.typing import NDArray

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json
from nnunetv2_eccam.volumes.geometry import affine_ras, simpleitk_affine
from nnunetv2_eccam.volumes.listing import ENDINGS, ending_of, present_file
from nnunetv2_eccam.volumes.nifti import read_nifti
from nnunetv2_eccam.volumes.volume import Volume, by

ROUNDING = 1e-4
"""A label may be this far from a whole number: scaled and resampled files store 1.00000006."""

GIPL_HEADER = 256


def read_volume(path: Path) -> Volume:
    """Read a file to its last byte, whatever its voxels mean.

    Args:
        path: its ending tells the format; capital letters do not matter.

    Returns:
        The volume, of three axes or four, as :class:`Volume` describes.

    Raises:
        UserError: the file is missing, no volume, damaged, truncated, or its header places it nowhere. The message
            is one line with the file and what to do.
    """
    present_file(path)
    ending = ending_of(path)
    if ending is None:
        raise UserError(f"{path} ends in none of {', '.join(ENDINGS)}; store the volume as one of these")
    if ending in (".nii.gz", ".nii"):
        volume = _read_nifti(path)
    elif ending in (".png", ".bmp", ".tif", ".tiff"):
        volume = _read_photograph(path, ending)
    else:
        volume = _read_by_simpleitk(path, ending)
    if volume.voxels.ndim not in (3, 4) or not volume.voxels.size:
        raise UserError(
            f"{path} has {volume.voxels.ndim} dimensions ({by(volume.voxels.shape)}); a volume has three, or four "
            f"with channels, and none is empty"
        )
    if not np.isfinite(volume.affine).all() or np.isnan(io_orientation(volume.affine)).any():
        raise UserError(
            f"{path}: its header gives no usable spacing, orientation or position (spacing {by(volume.spacing)}, "
            f"origin {by(volume.affine[:3, 3].tolist())}); correct the header, or copy the original again"
        )
    return volume


def read_image(path: Path) -> Volume:
    """Read an image; as :func:`read_volume`, and every voxel is a finite number.

    Raises:
        UserError: as :func:`read_volume`, or voxels are NaN or infinite.
    """
    volume = read_volume(path)
    if volume.voxels.dtype.kind == "f":
        ends = (volume.voxels.min(), volume.voxels.max())  # both see NaN, and need no array of their own
        if not np.isfinite(ends).all():
            count = int(np.count_nonzero(~np.isfinite(volume.voxels)))
            raise UserError(
                f"{path}: {count} of its {volume.voxels.size} voxels are NaN or infinite; replace them by a real "
                f"intensity (air in CT is -1024 HU)"
            )
    return volume


def read_labels(path: Path) -> Volume:
    """Read a mask as whole numbers of the smallest unsigned type that holds them.

    Floats within :data:`ROUNDING` of a whole number are taken for it.

    Raises:
        UserError: as :func:`read_volume`, or the file has channels, NaN, negative numbers or fractions.
    """
    volume = read_volume(path)
    voxels = volume.voxels
    if voxels.ndim == 4 and voxels.shape[3] == 1:
        voxels = voxels[..., 0]
    if voxels.ndim != 3:
        raise UserError(
            f"{path} has {'colours' if volume.colour else f'{voxels.ndim} dimensions'} ({by(voxels.shape)}); a mask "
            f"has one label for each voxel"
        )
    low, high = float(voxels.min()), float(voxels.max())
    if not math.isfinite(low + high):
        count = int(np.count_nonzero(~np.isfinite(voxels)))
        raise UserError(f"{path}: {count} of its {voxels.size} labels are NaN or infinite; write them as whole numbers")
    if low < -ROUNDING or high >= 2**31:
        raise UserError(f"{path} has values from {low!r} to {high!r}; the labels of a mask are whole numbers from 0")
    rounded = voxels if voxels.dtype.kind in "iu" else np.rint(voxels)
    if rounded is not voxels:
        wrong = np.abs(rounded - voxels) > ROUNDING
        if wrong.any():
            shown = ", ".join(repr(float(value)) for value in np.unique(voxels[wrong])[:3])
            raise UserError(
                f"{path}: {int(np.count_nonzero(wrong))} voxels are not whole numbers ({shown}, …); it is an image or "
                f"a probability, not a mask, or was resampled with interpolation"
            )
    labels = rounded.astype(np.min_scalar_type(max(round(high), 0)), copy=False)
    return replace(volume, voxels=labels)


def _read_nifti(path: Path) -> Volume:
    header, voxels = read_nifti(path)
    while voxels.ndim > 4 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    if voxels.ndim == 5 and voxels.shape[3] == 1:  # vectors: NIfTI keeps the fourth axis for time
        voxels = voxels[:, :, :, 0]
    flat = voxels.ndim < 3
    voxels = voxels.reshape(voxels.shape + (1,) * (3 - voxels.ndim), order="F")
    try:
        affine, refusal = simpleitk_affine(path), ""
    except UserError as error:
        affine, refusal = np.asarray(header.get_best_affine(), np.float64), str(error)
        if header["sizeof_hdr"] == 540:
            refusal = (
                "it is NIfTI-2, which SimpleITK, with which nnU-Net reads, does not read; store it as NIfTI-1, for "
                "instance by nibabel: nibabel.Nifti1Image(image.get_fdata(), image.affine)"
            )
    return Volume(path, voxels, affine, flat=flat, header=header, simpleitk_error=refusal)


def _read_by_simpleitk(path: Path, ending: str) -> Volume:
    sitk.ProcessObject.GlobalWarningDisplayOff()
    with _refused(path):
        image: Any = sitk.ReadImage(str(path))
    array = np.asarray(sitk.GetArrayFromImage(image))  # (z, y, x) or, with components, (z, y, x, channel)
    if ending == ".gipl" and path.stat().st_size < GIPL_HEADER + array.nbytes:
        raise UserError(f"{path} is truncated: its header promises {array.size} voxels; download or copy it again")
    channels = image.GetNumberOfComponentsPerPixel() > 1
    axes = array.ndim - channels
    voxels = array.transpose(*reversed(range(axes)), *range(axes, array.ndim))
    if axes == 2:
        voxels = voxels[:, :, None]
    return Volume(path, voxels, affine_ras(image), flat=axes == 2)


def _read_photograph(path: Path, ending: str) -> Volume:
    """Read PNG, BMP or TIFF, which do not say where the patient is; a TIFF of several pages is a volume."""
    voxels, colour = _tiff(path) if ending in (".tif", ".tiff") else _picture(path)
    flat = voxels.ndim - colour == 2
    # (row, column), (slice, row, column) and either with colours become (x, y, z) with colours.
    voxels = voxels[None] if flat else voxels
    voxels = voxels.transpose(2, 1, 0, *range(3, voxels.ndim))
    spacing = None if flat else _spacing_beside(path)
    x, y, z = (1.0, 1.0, 1.0) if spacing is None else spacing
    return Volume(
        path, voxels, np.diag([-x, -y, z, 1.0]), oriented=False, in_mm=spacing is not None, flat=flat, colour=colour
    )  # fmt: skip


def _picture(path: Path) -> tuple[NDArray[Any], bool]:
    from skimage.io import imread  # slow to import

    with _refused(path):
        pixels = np.asarray(imread(path))
    return pixels, pixels.ndim == 3


def _tiff(path: Path) -> tuple[NDArray[Any], bool]:
    import tifffile  # slow to import

    # Of a truncated file, tifffile gives the pages that are left, and says so by a message only.
    said = BufferingHandler(1000)
    logger = logging.getLogger("tifffile")
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(said)
    try:
        with _refused(path), tifffile.TiffFile(path) as file:
            pixels = np.asarray(file.asarray())
            colour = file.pages[0].samplesperpixel > 1
    finally:
        logger.removeHandler(said)
        logger.propagate = propagated
    for text in (record.getMessage().splitlines()[0] for record in said.buffer):
        if "invalid" in text or "failed" in text or "corrupt" in text:
            raise UserError(f"{path} is damaged ({text}); download or copy it again")
    return pixels, bool(colour)


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Say in one line why a library does not read a file; they raise what they like on a broken one."""
    try:
        yield
    except MemoryError:
        raise UserError(f"{path} is damaged, or needs more memory than there is") from None
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise UserError(f"{path} cannot be read ({reason}); download or copy it again") from None


def _spacing_beside(path: Path) -> tuple[float, float, float] | None:
    """Read mm along x, y, z from the JSON file that nnU-Net's TIFF reader keeps beside an image or mask.

    Raises:
        UserError: there is one, but it has no three positive numbers.
    """
    stem = path.name[: path.name.rindex(".")]
    image_stem = stem[:-5] if stem[-5:-4] == "_" and stem[-4:].isdecimal() else stem
    for name in dict.fromkeys((image_stem, stem)):
        file = path.with_name(name + ".json")
        if file.is_file():
            content = read_json(file)
            try:
                z, y, x = map(float, content["spacing"])
            except (KeyError, TypeError, ValueError):
                x = y = z = math.nan
            if not all(0 < mm < math.inf for mm in (x, y, z)):
                raise UserError(f"{file}: 'spacing' must be three positive numbers, mm along z, y, x; correct it")
            return x, y, z
    return None
