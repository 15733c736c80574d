"""Reading and writing NIfTI so that damage is noticed and output is reproducible.

SimpleITK reads a truncated or corrupted ``.nii`` or ``.nii.gz`` without a word and fills the rest with zeros or
whatever is in memory (SimpleITK 2.5, tried); nibabel notices, but leaves gzip's checksum behind the voxels unread.
So files are inflated here, to the last byte.
"""

import math
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from isal import isal_zlib  # inflates two to three times as fast as zlib
from numpy.typing import NDArray

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import written_whole

GZIP = 31
"""zlib's window bits for the gzip format."""

GZIP_MAGIC = b"\x1f\x8b"

QFORM = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
SFORM = ("srow_x", "srow_y", "srow_z")


def read_nifti(path: Path) -> tuple[Any, NDArray[Any]]:
    """Read a ``.nii.gz`` or ``.nii`` file, every byte of it.

    Returns:
        nibabel's header, and the voxels with its shape, in Fortran order, with slope and intercept applied.

    Raises:
        UserError: it is not NIfTI, damaged, or ends too early.
    """
    content = _content(path)
    header = _parsed_header(path, content)
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    start = max(int(header["vox_offset"]), int(header["sizeof_hdr"]))  # as SimpleITK's reader takes it
    count = math.prod(int(length) for length in shape)
    if len(content) < start + count * dtype.itemsize:
        raise UserError(f"{path} is truncated: its header promises {shape} voxels; download or copy it again")
    voxels = np.frombuffer(content, dtype, count, start).reshape(shape, order="F")
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    # As SimpleITK takes them: about 0 or not a number is no slope, and an intercept that is not a number is none.
    slope = slope if abs(slope) > np.finfo(float).eps and np.isfinite(slope) else 1.0
    intercept = intercept if np.isfinite(intercept) else 0.0
    return header, voxels if slope == 1 and intercept == 0 else voxels * slope + intercept


def _content(path: Path) -> bytes:
    """Read and inflate a file; each gzip member's CRC and length are checked at its end."""
    packed = path.read_bytes()
    compressed = path.name.lower().endswith(".gz")
    if compressed != packed.startswith(GZIP_MAGIC):
        what, ending = ("not ", ".nii") if compressed else ("", ".nii.gz")
        raise UserError(f"{path} is {what}compressed by gzip; name it {ending} if it is NIfTI, or copy it again")
    if not compressed:
        return packed
    members = []
    while packed.startswith(GZIP_MAGIC):  # what lies behind the last member is no part of the image, as gzip says too
        decompressor = isal_zlib.decompressobj(GZIP)
        try:
            members.append(decompressor.decompress(packed))
        except isal_zlib.IsalError as error:  # type: ignore[misc]  # its stubs declare an instance
            raise UserError(f"{path} is damaged ({error}); download or copy it again") from None
        if not decompressor.eof:
            raise UserError(f"{path} is truncated: it ends in the middle of its gzip stream; download or copy it again")
        packed = decompressor.unused_data.lstrip(b"\0")
    return b"".join(members)


def _parsed_header(path: Path, content: bytes) -> Any:
    second = content[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c")
    kind: Any = nibabel.Nifti2Header if second else nibabel.Nifti1Header
    try:
        header = kind(content[: 540 if second else 348], check=False)
        if bytes(header["magic"]).rstrip(b"\0")[:3] not in (b"n+1", b"n+2"):
            raise ValueError("no NIfTI magic")
        shape, dtype = header.get_data_shape(), header.get_data_dtype()
        if dtype.fields or dtype.kind not in "iuf" or min(shape, default=0) < 1:
            raise ValueError(f"voxels of type {dtype}, shape {shape}")
        if not 0 <= header["vox_offset"] < 2**31:
            raise ValueError(f"voxels from byte {header['vox_offset']}")
    except Exception as error:  # nibabel raises many kinds
        raise UserError(f"{path} is not a NIfTI image ({error}); replace it by the original") from None
    # Where a grid is not finite, SimpleITK takes an identity instead, without a word.
    grid = {"pixdim": header["pixdim"][: 1 + len(shape)]}
    grid |= {field: header[field] for field in QFORM if header["qform_code"] > 0}
    grid |= {field: header[field] for field in SFORM if header["sform_code"] > 0}
    for field, values in grid.items():
        if not np.isfinite(values).all():
            advice = "correct the header, or copy the original again"
            raise UserError(f"{path}: its header is not finite ({field} is {values.tolist()}); {advice}")
    return header


def new_header(affine_ras: NDArray[np.float64]) -> Any:
    """Make a NIfTI header with a grid's affine (voxel x, y, z to mm, RAS), in sform and qform alike."""
    header = nibabel.Nifti1Header()
    header.set_data_shape((1, 1, 1))
    header.set_qform(affine_ras, code=1)
    header.set_sform(affine_ras, code=1)
    header.set_xyzt_units("mm")
    return header


def write_nifti(target: Path, voxels: NDArray[Any], header: Any) -> None:
    """Write a ``.nii.gz`` file, whole or not at all, with the same bytes each time.

    Args:
        target: the file.
        voxels: ``(x, y, z)``; its dtype is the file's.
        header: where the grid is taken from; shape, dtype and scaling are set anew.
    """
    kind: Any = nibabel.Nifti1Image if header["sizeof_hdr"] == 348 else nibabel.Nifti2Image
    image = kind(voxels, None, header)
    image.header.set_data_dtype(voxels.dtype)
    image.header.set_slope_inter(1, 0)
    image.header["cal_min"] = image.header["cal_max"] = 0
    with written_whole(target) as partial:
        nibabel.save(image, partial)
