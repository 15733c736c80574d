"""A CT series of DICOM files, read in the order of the slices' positions and checked to be complete.

Nothing is resampled: a series whose slices are tilted, missing, doubled or unevenly spaced is not a regular
grid, and is refused with the files' names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunetv2_eccam.errors import UserError

from .geometry import LPS_TO_RAS

if TYPE_CHECKING:
    from numpy.typing import NDArray

POSITION, ORIENTATION, PIXEL_SPACING = "0020|0032", "0020|0037", "0028|0030"
INSTANCE, SERIES, PATIENT, MODALITY, TILT = "0020|0013", "0020|000e", "0010|0020", "0008|0060", "0018|1120"

LARGEST_SHIFT = 0.5
"""Slices may be shifted against each other, over the whole series, by this part of a pixel."""


@dataclass(frozen=True)
class Slice:
    """One DICOM file: ``pixels`` are HU, ``(row, column)``; positions and spacing in mm, LPS."""

    path: Path
    series: str
    patient: str
    instance: int | None
    position: NDArray[np.float64]
    orientation: NDArray[np.float64]
    spacing: tuple[float, float]
    tilt: float
    pixels: NDArray[Any]


@dataclass(frozen=True)
class Series:
    """A regular grid of slices.

    Attributes:
        voxels: HU, ``(x, y, z)``: column, row, and slice in the order of positions along the normal of the
            slices, which for axial slices runs to the head.
        affine_ras: from voxel x, y, z to mm in RAS coordinates.
        descending: whether instance numbers fall in that order; None where they do not tell.
        patient: DICOM's PatientID.
        warnings: what is worth a look.
    """

    voxels: NDArray[Any]
    affine_ras: NDArray[np.float64]
    descending: bool | None
    patient: str
    warnings: tuple[str, ...]


def is_dicom(path: Path) -> bool:
    """Whether a file has DICOM's mark, four letters behind 128 free bytes; names tell nothing."""
    if not path.is_file():  # a pipe would block
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def patient_of(path: Path) -> str:
    """Read a DICOM file's PatientID without its pixels; empty where there is none."""
    import SimpleITK as sitk

    reader: Any = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return ""
    return str(reader.GetMetaData(PATIENT)).strip() if reader.HasMetaDataKey(PATIENT) else ""


def read_series(case: str, paths: Sequence[Path]) -> Series:
    """Read the files of one patient, which must be one series of slices.

    Args:
        case: named in messages.
        paths: the files, in any order and of any names.

    Raises:
        UserError: a file cannot be read, there are several series, or the slices are no regular grid.
    """
    found = [_slice(path) for path in paths]
    slices = [entry for entry in found if entry is not None]
    if len(slices) < 2:
        raise UserError(f"{case}: only {len(slices)} CT slice(s) in {_folders(paths)}; complete the download")
    _check_one_series(case, slices)
    for field in ("orientation", "spacing"):
        for entry in slices[1:]:
            if not np.allclose(getattr(entry, field), getattr(slices[0], field), atol=1e-4):
                raise UserError(
                    f"{case}: {entry.path} has another {field} than {slices[0].path}, so they are no "
                    f"volume; leave the case out with --leave-out {case}"
                )
    for entry in slices[1:]:
        if entry.pixels.shape != slices[0].pixels.shape:
            raise UserError(
                f"{case}: {entry.path} has {entry.pixels.shape[1]} x {entry.pixels.shape[0]} pixels, "
                f"{slices[0].path} {slices[0].pixels.shape[1]} x {slices[0].pixels.shape[0]}; "
                f"leave the case out with --leave-out {case}"
            )
    row, column = slices[0].orientation[:3], slices[0].orientation[3:]
    normal = np.asarray(np.cross(row, column), dtype=np.float64)
    slices.sort(key=lambda entry: (float(entry.position @ normal), str(entry.path)))
    _check_spacing(case, slices, np.array([entry.position @ normal for entry in slices]))
    _check_tilt(case, slices, normal)
    return _stacked(slices, len(found) - len(slices), row, column)


def _slice(path: Path) -> Slice | None:
    """Read one file; None if it is DICOM but no CT slice, such as a report or a segmentation object."""
    import SimpleITK as sitk

    reader: Any = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    sitk.ProcessObject.GlobalWarningDisplayOff()
    try:
        image = reader.Execute()
        tags = {key: str(image.GetMetaData(key)).strip() for key in image.GetMetaDataKeys()}
    except RuntimeError:
        raise UserError(f"{path} is DICOM but cannot be read, it may be truncated; download it again") from None
    if tags.get(MODALITY, "CT") != "CT":
        return None
    try:
        row_spacing, column_spacing = _numbers(tags[PIXEL_SPACING], 2)
        position, orientation = _numbers(tags[POSITION], 3), _numbers(tags[ORIENTATION], 6)
    except (KeyError, ValueError):
        raise UserError(
            f"{path} does not say where it is in the patient (position, orientation or pixel spacing "
            f"is missing), so it cannot be stacked; download it again"
        ) from None
    instance = tags.get(INSTANCE, "")
    return Slice(
        path,
        tags.get(SERIES, ""),
        tags.get(PATIENT, ""),
        int(instance) if instance.isdecimal() else None,
        np.array(position),
        np.array(orientation),
        (column_spacing, row_spacing),
        _numbers(tags[TILT], 1)[0] if tags.get(TILT) else 0.0,
        _halved(sitk.GetArrayFromImage(image).reshape(image.GetSize()[1], image.GetSize()[0])),
    )


def _halved(pixels: NDArray[Any]) -> NDArray[Any]:
    """Keep whole HU in 16 bits: GDCM gives 32 wherever slope and intercept could need them."""
    bounds = np.iinfo(np.int16)
    fits = pixels.dtype.kind in "iu" and bounds.min <= pixels.min() and pixels.max() <= bounds.max
    return pixels.astype(np.int16) if fits else pixels


def _numbers(text: str, count: int) -> list[float]:
    values = [float(part) for part in text.split("\\")]
    if len(values) != count:
        raise ValueError(text)
    return values


def _folders(paths: Sequence[Path]) -> str:
    return ", ".join(sorted({str(path.parent) for path in paths})[:2]) or "its folder"


def _check_one_series(case: str, slices: Sequence[Slice]) -> None:
    by_series: dict[str, list[Path]] = {}
    for entry in slices:
        by_series.setdefault(entry.series, []).append(entry.path)
    if len(by_series) > 1:
        listed = "; ".join(f"{len(paths)} files in {paths[0].parent}" for _, paths in sorted(by_series.items())[:3])
        raise UserError(
            f"{case}: {len(by_series)} series have this number ({listed}); keep the one that the label "
            f"belongs to and move the others away"
        )


def _check_spacing(case: str, slices: Sequence[Slice], heights: NDArray[np.float64]) -> None:
    """Check that neighbours along the normal are equally far apart.

    Args:
        case: named in messages.
        slices: in the order of their heights.
        heights: mm along the normal.

    Raises:
        UserError: two slices are at the same place, one is missing, or the distances differ.
    """
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    for index, gap in enumerate(gaps):
        lower, upper = slices[index], slices[index + 1]
        if gap < 0.01 * max(usual, 0.1):
            raise UserError(
                f"{case}: {lower.path} and {upper.path} are at the same place "
                f"({heights[index]:.2f} mm): a duplicated slice; delete one of them"
            )
    for index, gap in enumerate(gaps):
        if abs(gap - usual) <= 0.02 * usual + 0.01:
            continue
        lower, upper = slices[index], slices[index + 1]
        steps = gap / usual
        where = f"between {lower.path.name} (at {heights[index]:.2f} mm) and {upper.path.name}"
        if steps > 1.5 and abs(steps - round(steps)) < 0.05:
            raise UserError(
                f"{case}: {round(steps) - 1} slice(s) missing {where} in {lower.path.parent}; complete "
                f"the download, or leave the case out with --leave-out {case}"
            )
        raise UserError(
            f"{case}: unevenly spaced slices in {lower.path.parent}: {gap:.3f} mm {where}, elsewhere "
            f"{usual:.3f} mm; resample it yourself, or leave the case out with --leave-out {case}"
        )


def _check_tilt(case: str, slices: Sequence[Slice], normal: NDArray[np.float64]) -> None:
    """Check that the slices lie straight above each other.

    Raises:
        UserError: they are shifted by more than :data:`LARGEST_SHIFT` of a pixel: a tilted gantry, or a
            table that moved.
    """
    offsets = np.array([entry.position - slices[0].position for entry in slices])
    along = offsets @ normal
    shifts = np.linalg.norm(offsets - np.outer(along, normal), axis=1)
    worst = int(np.argmax(shifts))
    if shifts[worst] > LARGEST_SHIFT * min(slices[0].spacing):
        angle = np.degrees(np.arctan2(shifts[worst], abs(along[worst])))
        raise UserError(
            f"{case}: the slices in {slices[0].path.parent} are not straight above each other: "
            f"{slices[worst].path.name} is shifted by {shifts[worst]:.2f} mm (gantry tilt of {angle:.1f} degrees); "
            f"resample it yourself, or leave the case out with --leave-out {case}"
        )


def _stacked(slices: Sequence[Slice], ignored: int, row: NDArray[np.float64], column: NDArray[np.float64]) -> Series:
    steps = (slices[-1].position - slices[0].position) / (len(slices) - 1)
    lps = np.column_stack([row * slices[0].spacing[0], column * slices[0].spacing[1], steps])
    affine = np.eye(4)
    affine[:3, :3] = LPS_TO_RAS @ lps
    affine[:3, 3] = LPS_TO_RAS @ slices[0].position
    instances = [entry.instance for entry in slices if entry.instance is not None]
    warnings = [f"{ignored} DICOM files are no CT slices and were ignored"] if ignored else []
    changes = set(np.sign(np.diff(instances)).tolist()) if len(instances) == len(slices) else set()
    descending = {(1,): False, (-1,): True}.get(tuple(changes)) if len(changes) == 1 else None
    if descending is None:
        warnings.append("instance numbers are missing or not in the order of the slices")
    if abs(slices[0].tilt) > 0.01:
        warnings.append(f"DICOM gives a gantry tilt of {slices[0].tilt:g} degrees, but the slices lie straight")
    # Written in Fortran order, so that the slices stay contiguous: x is a row's column.
    voxels = np.stack([entry.pixels for entry in slices]).transpose(2, 1, 0)
    return Series(voxels, affine, descending, slices[0].patient, tuple(warnings))
