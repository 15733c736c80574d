"""A CT series of DICOM files, read by SimpleITK in the order of the slices' positions and checked to be complete.

SimpleITK stacks whatever files it is given. Nothing is resampled here: a series whose slices are tilted, missing,
doubled or unevenly spaced is not a regular grid, and is refused with the files' names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.volumes import Volume
from nnunetv2_eccam.volumes.geometry import LPS_TO_RAS

from .cases import smallest_type

POSITION, ORIENTATION, PIXEL_SPACING = "0020|0032", "0020|0037", "0028|0030"
INSTANCE, SERIES, PATIENT, MODALITY, TILT = "0020|0013", "0020|000e", "0010|0020", "0008|0060", "0018|1120"
SLOPE, INTERCEPT = "0028|1053", "0028|1052"

LARGEST_SHIFT = 0.5
"""Slices may be shifted against each other, over the whole series, by this part of a pixel."""


@dataclass(frozen=True)
class Slice:
    """One DICOM file without its pixels; positions and spacing in mm, LPS.

    Attributes:
        grid: what all slices of a volume have in common, by name: numbers of pixels, spacing (column, row),
            orientation (row's direction, then column's), and the type that rescaled values need.
    """

    path: Path
    tags: dict[str, str]
    position: NDArray[np.float64]
    grid: dict[str, tuple[float, ...]]


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its mark behind 128 free bytes or, without these, by what GDCM reads in it."""
    if not path.is_file():  # a pipe would block
        return False
    with path.open("rb") as file:
        head = file.read(132)
    # Without the preamble, a file begins with an element of the groups 2 or 8.
    return head[128:] == b"DICM" or (head[:2] in (b"\x02\0", b"\x08\0") and _header(path) is not None)


def patient_of(path: Path) -> str:
    """Read a DICOM file's PatientID without its pixels; empty where there is none."""
    reader = _header(path)
    return "" if reader is None else _tag(reader, PATIENT)


def _header(path: Path) -> Any:
    """Give SimpleITK's reader of a file, with the header read; None if GDCM does not read it."""
    sitk.ProcessObject.GlobalWarningDisplayOff()
    reader: Any = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    return reader


def _tag(reader: Any, tag: str) -> str:
    return str(reader.GetMetaData(tag)).strip() if reader.HasMetaDataKey(tag) else ""


def read_series(case: str, paths: Sequence[Path]) -> tuple[Volume, bool | None, list[str]]:
    """Read the files of one patient, in any order and of any names, which must be one series of slices.

    Returns:
        HU, ``(x, y, z)``: column, row, and slice in the order of positions along the normal of the slices, which for
        axial slices runs to the head; whether instance numbers fall in that order, None where they do not tell; and
        what is worth a look.

    Raises:
        UserError: a file cannot be read, there are several series, or the slices are no regular grid.
    """
    slices = [entry for path in paths if (entry := _slice(path)) is not None]
    ignored = len(paths) - len(slices)
    if len(slices) < 2:
        folders = ", ".join(sorted({str(path.parent) for path in paths})[:2]) or "its folder"
        raise UserError(f"{case}: only {len(slices)} CT slice(s) in {folders}; complete the download")
    _check_one_grid(case, slices)
    orientation = slices[0].grid["orientation"]
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    normal = np.asarray(np.cross(row, column), dtype=np.float64)
    slices.sort(key=lambda entry: (float(entry.position @ normal), str(entry.path)))
    _check_spacing(case, slices, normal)
    _check_tilt(case, slices, normal)
    steps = (slices[-1].position - slices[0].position) / (len(slices) - 1)
    spacing = slices[0].grid["spacing"]
    affine = np.eye(4)
    affine[:3, :3] = LPS_TO_RAS @ np.column_stack([row * spacing[0], column * spacing[1], steps])
    affine[:3, 3] = LPS_TO_RAS @ slices[0].position
    instances = [int(number) for entry in slices if (number := entry.tags[INSTANCE]).isdecimal()]
    changes = set(np.sign(np.diff(instances)).tolist()) if len(instances) == len(slices) else set()
    descending = -1 in changes if changes in ({1}, {-1}) else None
    warnings = [f"{ignored} DICOM files are no CT slices and were ignored"] if ignored else []
    if descending is None:
        warnings.append("instance numbers are missing or not in the order of the slices")
    tilt = slices[0].tags[TILT]
    if tilt.strip("+-.0"):
        warnings.append(f"DICOM gives a gantry tilt of {tilt} degrees, but the slices lie straight")
    return Volume(slices[0].path.parent, _voxels(slices), affine), descending, warnings


def _slice(path: Path) -> Slice | None:
    """Read one file's header; None if it is DICOM but no CT slice, such as a report or a segmentation object."""
    reader = _header(path)
    if reader is None:
        raise _unreadable(path)
    tags = {tag: _tag(reader, tag) for tag in (INSTANCE, SERIES, MODALITY, TILT, SLOPE, INTERCEPT)}
    if (tags[MODALITY] or "CT") != "CT":
        return None
    try:
        row_spacing, column_spacing = _numbers(_tag(reader, PIXEL_SPACING), 2)
        position, orientation = _numbers(_tag(reader, POSITION), 3), _numbers(_tag(reader, ORIENTATION), 6)
    except ValueError:
        raise UserError(
            f"{path} does not say where it is in the patient (position, orientation or pixel spacing "
            f"is missing), so it cannot be stacked; download it again"
        ) from None
    if not (tags[SLOPE] and tags[INTERCEPT]):
        raise UserError(
            f"{path} has no rescale slope or no rescale intercept, so its values cannot be turned into Hounsfield "
            f"units; download it again"
        )
    grid = {
        "number of pixels": tuple(float(length) for length in reader.GetSize()[:2]),
        "spacing": (column_spacing, row_spacing),
        "orientation": tuple(orientation),
        "type of values": (float(reader.GetPixelID()),),
    }
    return Slice(path, tags, np.array(position), grid)


def _numbers(text: str, count: int) -> list[float]:
    values = [float(part) for part in text.split("\\")]
    if len(values) != count or not np.isfinite(values).all():
        raise ValueError(text)
    return values


def _voxels(slices: Sequence[Slice]) -> NDArray[Any]:
    """Read the pixels, rescaled to HU, ``(x, y, z)``."""
    planes = []
    for entry in slices:
        try:
            planes.append(sitk.GetArrayFromImage(sitk.ReadImage(str(entry.path), imageIO="GDCMImageIO"))[0])
        except RuntimeError:
            raise _unreadable(entry.path) from None
    return smallest_type(np.stack(planes).transpose(2, 1, 0))


def _unreadable(path: Path) -> UserError:
    return UserError(f"{path} is DICOM but cannot be read, it may be truncated; download it again")


def _check_one_grid(case: str, slices: Sequence[Slice]) -> None:
    by_series: dict[str, list[Path]] = {}
    for entry in slices:
        by_series.setdefault(entry.tags[SERIES], []).append(entry.path)
    if len(by_series) > 1:
        listed = "; ".join(f"{len(paths)} files in {paths[0].parent}" for _, paths in sorted(by_series.items())[:3])
        raise UserError(
            f"{case}: {len(by_series)} series have this number ({listed}); keep the one that the label "
            f"belongs to and move the others away"
        )
    first = slices[0]
    for entry in slices[1:]:
        for name, values in first.grid.items():
            if not np.allclose(entry.grid[name], values, atol=1e-4):
                raise UserError(f"{case}: {entry.path} has another {name} than {first.path}, so they are no volume")


def _check_spacing(case: str, slices: Sequence[Slice], normal: NDArray[np.float64]) -> None:
    """Check that neighbours are equally far apart, by their heights in mm along the normal.

    Raises:
        UserError: two slices are at the same place, one is missing, or the distances differ.
    """
    heights = np.array([entry.position @ normal for entry in slices])
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    for lower, upper, gap, height in zip(slices, slices[1:], gaps, heights, strict=False):
        if gap < 0.01 * max(usual, 0.1):
            problem = f"{lower.path} and {upper.path} are at the same place ({height:.2f} mm): a duplicated slice"
            raise UserError(f"{case}: {problem}; delete one of them")
        where = f"between {lower.path.name} (at {height:.2f} mm) and {upper.path.name}"
        steps = gap / usual
        if steps > 1.5 and abs(steps - round(steps)) < 0.05:
            problem = f"{round(steps) - 1} slice(s) missing {where} in {lower.path.parent}"
            raise UserError(f"{case}: {problem}; complete the download")
        if abs(gap - usual) > 0.02 * usual + 0.01:
            problem = f"unevenly spaced slices in {lower.path.parent}: {gap:.3f} mm {where}, elsewhere {usual:.3f} mm"
            raise UserError(f"{case}: {problem}; resample it yourself")


def _check_tilt(case: str, slices: Sequence[Slice], normal: NDArray[np.float64]) -> None:
    """Check that the slices lie straight above each other, to :data:`LARGEST_SHIFT` of a pixel.

    Raises:
        UserError: they do not: a tilted gantry, or a table that moved.
    """
    offsets = np.array([entry.position - slices[0].position for entry in slices])
    along = offsets @ normal
    shifts = np.linalg.norm(offsets - np.outer(along, normal), axis=1)
    worst = int(np.argmax(shifts))
    if shifts[worst] > LARGEST_SHIFT * min(slices[0].grid["spacing"]):
        angle = np.degrees(np.arctan2(shifts[worst], abs(along[worst])))
        raise UserError(
            f"{case}: the slices in {slices[0].path.parent} are not straight above each other: "
            f"{slices[worst].path.name} is shifted by {shifts[worst]:.2f} mm (gantry tilt of {angle:.1f} degrees); "
            f"resample it yourself"
        )
