"""Reading and writing ``.nii.gz`` so that damage is noticed and output is reproducible.

SimpleITK reads a truncated or corrupted ``.nii.gz`` without a word and fills the rest with whatever is in
memory (SimpleITK 2.5, tried); nibabel notices, but needs a second pass for the file's checksum. So files
are inflated here, in one pass that verifies gzip's CRC and takes the SHA-256 of the compressed bytes.
"""

from __future__ import annotations

import hashlib
import itertools
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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

LEVEL = 1
"""Compression: level 6 takes five times as long and saves 2 % of a CT and 7 % of an MRI (tried on one of each)."""

LARGEST_RATIO = 1032
"""Deflate cannot compress more than this."""


@dataclass(frozen=True)
class Nifti:
    """A NIfTI file.

    Attributes:
        header: nibabel's header.
        voxels: ``(x, y, z)`` or ``(x, y, z, channel)`` as in the file, in Fortran order, with slope and
            intercept applied.
        sha256: of the file's bytes.
    """

    header: Any
    voxels: NDArray[Any]
    sha256: str


def sha256_of(path: Path) -> str:
    """Give the SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def read_nifti(path: Path) -> Nifti:
    """Read a ``.nii.gz`` file, every byte of it.

    Raises:
        UserError: it is missing, not gzip, not NIfTI, damaged, or ends too early.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    with ThreadPoolExecutor(1) as other:  # hashing and inflating both let other threads run
        digest = other.submit(hashlib.sha256, content)
        inflated = _inflated(path, content)
        head = b""
        while len(head) < 544 and (block := next(inflated, b"")):  # 540 bytes are a NIfTI-2 header
            head += block
        header = _parsed_header(path, head)
        voxels = _voxels(path, header, head, inflated, len(content))
        checksum = digest.result().hexdigest()
    slope, intercept = header.get_slope_inter()
    if (slope is not None and slope != 1) or intercept:
        voxels = voxels * float(slope) + float(intercept or 0)
    return Nifti(header, voxels, checksum)


def read_both(image: Path, label: Path | None) -> tuple[Nifti, Nifti | None]:
    """Read an image and its label, if it has one, at the same time: zlib lets other threads run.

    Raises:
        UserError: as :func:`read_nifti`; the image's fault comes first.
    """
    if label is None:
        return read_nifti(image), None
    with ThreadPoolExecutor(1) as reader:
        label_read = reader.submit(read_nifti, label)
        return read_nifti(image), label_read.result()


def _inflated(path: Path, content: bytes) -> Iterator[bytes]:
    """Yield a gzip file's content in pieces; each member's CRC and length are checked at its end."""
    if not content:
        raise UserError(f"{path} is empty; download or copy it again")
    if not content.startswith(b"\x1f\x8b"):
        raise UserError(f"{path} is not a gzip-compressed NIfTI file; replace it by the original download")
    decompressor = isal_zlib.decompressobj(GZIP)
    for start in range(0, len(content), READ_BYTES):
        block = content[start : start + READ_BYTES]
        try:
            while block:
                if decompressor.eof:
                    decompressor = isal_zlib.decompressobj(GZIP)
                if piece := decompressor.decompress(block, INFLATE_BYTES):
                    yield piece
                block = decompressor.unused_data.lstrip(b"\0") if decompressor.eof else decompressor.unconsumed_tail
        except isal_zlib.IsalError as error:  # type: ignore[misc]  # its stubs declare an instance
            raise UserError(f"{path} is damaged ({error}); download or copy it again") from None
    if not decompressor.eof:
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
    except Exception as error:  # nibabel raises many kinds
        raise UserError(f"{path} is not a NIfTI image ({error}); replace it by the original download") from None
    return header


def _voxels(path: Path, header: Any, head: bytes, inflated: Iterator[bytes], size: int) -> NDArray[Any]:
    """Collect the voxels; ``head`` is what has been inflated already, ``size`` the file's in bytes."""
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    start = int(header["vox_offset"])
    total = start + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if total > (size + 1) * LARGEST_RATIO:
        raise UserError(
            f"{path}: its header promises {shape} voxels, more than the file can hold; download or copy it again"
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
