"""Reading and writing NIfTI so that damage is noticed and output is reproducible.

SimpleITK reads a truncated or corrupted ``.nii`` or ``.nii.gz`` without a word and fills the rest with zeros or
whatever is in memory (SimpleITK 2.5, tried); nibabel notices, but leaves gzip's checksum behind the voxels unread.
So files are inflated here, in one pass to the last byte.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from isal import isal_zlib  # inflates two to three times as fast as zlib

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import written_whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

READ_BYTES = 1 << 20
INFLATE_BYTES = 1 << 22
"""Bounds the memory beside the voxels: an empty label inflates a thousandfold."""

GZIP = 31
"""zlib's window bits for the gzip format; zlib writes no file name and the time 0."""

GZIP_MAGIC = b"\x1f\x8b"

LEVEL = 1
"""Compression: level 6 takes five times as long and saves 2 % of a CT and 7 % of an MRI (tried on one of each)."""

LARGEST_RATIO = 1032
"""Deflate cannot compress more than this."""


def sha256_of(path: Path) -> str:
    """Give the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_nifti(path: Path) -> tuple[Any, NDArray[Any]]:
    """Read a ``.nii.gz`` or ``.nii`` file, every byte of it.

    Returns:
        nibabel's header, and the voxels with its shape, in Fortran order, with slope and intercept applied.

    Raises:
        UserError: it is not NIfTI, damaged, or ends too early.
    """
    content = _inflated(path)
    head = b""
    while len(head) < 540 and (block := next(content, b"")):  # which is a NIfTI-2 header
        head += block
    header = _parsed_header(path, head)
    voxels = _voxels(path, header, head, content)
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    # As SimpleITK takes them: about 0 or not a number is no slope, and an intercept that is not a number is none.
    slope = slope if abs(slope) > np.finfo(float).eps and np.isfinite(slope) else 1.0
    intercept = intercept if np.isfinite(intercept) else 0.0
    return header, voxels if slope == 1 and intercept == 0 else voxels * slope + intercept


def _inflated(path: Path) -> Iterator[bytes]:
    """Yield a file's content in pieces; each gzip member's CRC and length are checked at its end."""
    compressed = path.name.lower().endswith(".gz")
    decompressor = isal_zlib.decompressobj(GZIP)
    try:
        with path.open("rb") as file:
            if compressed != (file.read(2) == GZIP_MAGIC):
                what, ending = ("not ", ".nii") if compressed else ("", ".nii.gz")
                raise UserError(
                    f"{path} is {what}compressed by gzip; name it {ending} if it is NIfTI, or copy it again"
                )
            file.seek(0)
            while block := file.read(READ_BYTES):
                if not compressed:
                    yield block
                while block and compressed:
                    if decompressor.eof:
                        block = block.lstrip(b"\0")
                        if not block or not GZIP_MAGIC.startswith(block[:2]):
                            break  # what lies behind the last member is no part of the image; gzip ignores it too
                        decompressor = isal_zlib.decompressobj(GZIP)
                    if piece := decompressor.decompress(block, INFLATE_BYTES):
                        yield piece
                    block = decompressor.unused_data if decompressor.eof else decompressor.unconsumed_tail
    except isal_zlib.IsalError as error:  # type: ignore[misc]  # its stubs declare an instance
        raise UserError(f"{path} is damaged ({error}); download or copy it again") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    if compressed and not decompressor.eof:
        raise UserError(f"{path} is truncated: it ends in the middle of its gzip stream; download or copy it again")


def _parsed_header(path: Path, head: bytes) -> Any:
    import nibabel

    second = head[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c")
    kind: Any = nibabel.Nifti2Header if second else nibabel.Nifti1Header
    try:
        header = kind(head[: 540 if second else 348], check=False)
        if bytes(header["magic"]).rstrip(b"\0")[:3] not in (b"n+1", b"n+2"):
            raise ValueError("no NIfTI magic")
        shape, dtype = header.get_data_shape(), header.get_data_dtype()
        if dtype.fields or dtype.kind not in "iuf" or min(shape, default=0) < 1:
            raise ValueError(f"voxels of type {dtype}, shape {shape}")
        if not 0 <= header["vox_offset"] < 2**31:
            raise ValueError(f"voxels from byte {header['vox_offset']}")
    except Exception as error:  # nibabel raises many kinds
        raise UserError(f"{path} is not a NIfTI image ({error}); replace it by the original") from None
    _check_finite(path, header)
    return header


def _check_finite(path: Path, header: Any) -> None:
    """Refuse a header whose grid is not finite; SimpleITK takes an identity instead, without a word.

    Raises:
        UserError: a number of spacing, origin or orientation that counts is NaN or infinite.
    """
    fields = ["pixdim"]
    if header["qform_code"] > 0:
        fields += ["quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"]
    if header["sform_code"] > 0:
        fields += ["srow_x", "srow_y", "srow_z"]
    for field in fields:
        values = np.atleast_1d(header[field])[: 1 + len(header.get_data_shape()) if field == "pixdim" else None]
        if not np.isfinite(values).all():
            raise UserError(
                f"{path}: its header is not finite ({field} is {' '.join(f'{value:g}' for value in values)}); "
                f"correct the header, or copy the original again"
            )


def _voxels(path: Path, header: Any, head: bytes, inflated: Iterator[bytes]) -> NDArray[Any]:
    """Collect the voxels; ``head`` is what has been inflated already."""
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    start = max(int(header["vox_offset"]), int(header["sizeof_hdr"]))  # as SimpleITK's reader takes it
    total = start + math.prod(int(length) for length in shape) * dtype.itemsize
    if total > (path.stat().st_size + 1) * LARGEST_RATIO:
        raise UserError(
            f"{path} is truncated: its header promises {shape} voxels, more than it can hold; download or copy it again"
        )
    content = np.empty(total, dtype=np.uint8)
    filled = 0
    for block in itertools.chain([head], inflated):  # to the very end, where the CRC is
        part = block[: total - filled]
        content[filled : filled + len(part)] = np.frombuffer(part, dtype=np.uint8)
        filled += len(part)
    if filled < total:
        raise UserError(f"{path} is truncated: its header promises {shape} voxels; download or copy it again")
    voxels: NDArray[Any] = content[start:].view(dtype).reshape(shape, order="F")
    return voxels


def new_header(affine_ras: NDArray[np.float64]) -> Any:
    """Make a NIfTI header with a grid's affine (voxel x, y, z to mm, RAS), in sform and qform alike."""
    import nibabel

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
    header = header.as_byteswapped("<") if header.endianness == ">" else header.copy()
    header.set_data_shape(voxels.shape)
    header.set_data_dtype(voxels.dtype)
    header.set_slope_inter(1, 0)
    header["magic"] = b"n+1" if header["sizeof_hdr"] == 348 else header["magic"]
    header["vox_offset"] = int(header["sizeof_hdr"]) + 4
    header["cal_min"] = header["cal_max"] = 0
    compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP)
    little_endian = voxels.dtype.newbyteorder("<")
    with written_whole(target) as partial, partial.open("wb") as file:
        file.write(compressor.compress(header.binaryblock + bytes(4)))  # four zeros: no extensions
        for index in range(voxels.shape[2]):
            plane = voxels[:, :, index].astype(little_endian, copy=False)
            file.write(compressor.compress(plane.tobytes(order="F")))
        file.write(compressor.flush())
