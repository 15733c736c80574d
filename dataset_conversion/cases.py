"""One case: what is checked of it, and its files in the data set.

An error (UserError) is what would make training wrong; a warning is what a person should look at. Arrays are
``(x, y, z)``, as in the file.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import written_whole
from nnunetv2_eccam.volumes import Volume, check_same_grid
from nnunetv2_eccam.volumes.geometry import corner_distance, simpleitk_affine
from nnunetv2_eccam.volumes.nifti import new_header, write_nifti
from nnunetv2_eccam.volumes.volume import by

from .labels import relabelled
from .model import Case, CaseResult, Conversion, Scan

ENDING = ".nii.gz"
SERIES = "DICOM series"
"""A series' name among the sources; its files may be named anything."""

AIR_HU = -300.0
"""Between lung and air (below) and fat, the lightest tissue (-150 to -50 HU)."""

INT16 = np.iinfo(np.int16)


def convert_case(case: Case, plan: Conversion, folder: Path | None) -> CaseResult:
    """Check one case and publish it in a data set's folder; None only checks.

    Raises:
        UserError: a file is damaged or the case is wrong.
    """
    scan, channels = plan.read(case), tuple(plan.channel_names.values())
    image, label = scan.image, scan.label
    for volume in [image] if label is None else [image, label]:
        if volume.simpleitk_error and volume.header["sizeof_hdr"] == 348:  # NIfTI-2 is stored as NIfTI-1 instead
            raise UserError(f"{volume.path}: {volume.simpleitk_error}")
    volumes = _channels(image, channels)
    checks: dict[str, Any] = {
        "size": list(image.shape),
        "spacing": list(image.spacing),
        "orientation": image.orientation,
        **scan.checks,
    }
    warnings, ends = list(scan.warnings), []
    for voxels, channel in zip(volumes, channels, strict=True):
        low, high = float(voxels.min()), float(voxels.max())
        ends += [low, high]
        if low == high:
            advice = "so it shows nothing; download or copy it again"
            raise UserError(f"{image.path}: all voxels have the value {low:g}, {advice}")
        if channel == "CT" and (low > -50 or high < 100 or low < -33000 or high > 33000):  # the one known scale
            warnings.append(f"intensities from {low:g} to {high:g} are not plausible Hounsfield units")
    checks["intensity"] = [min(ends), max(ends)]
    if label is not None:
        advice = "are they of the same case and version? Find out which header is wrong and correct it"
        check_same_grid(image, label, advice=advice, spacing_tolerance=1e-4)
        box, checks["label_voxels"] = check_label(label.path, label.voxels, plan.card.labels)
        checks["label_box"] = [[axis.start, axis.stop - 1] for axis in box]  # first and last index along x, y, z
        if channels[0] == "CT":
            share = float(np.mean(volumes[0][box][label.voxels[box] != 0] < AIR_HU))
            checks["label_in_air"] = round(share, 4)
            if share > 0.5:
                message = f"{share:.0%} of the labelled voxels are air (below {AIR_HU:g} HU)"
                if plan.card.soft_tissue:
                    raise UserError(
                        f"{label.path}: {message}, so the label does not fit its image: wrong case, or flipped"
                    )
                warnings.append(message)
    published = _publish(case, scan, folder, volumes, plan, checks)
    return {
        "case": case.case,
        "subset": case.subset,
        "labelled": case.label is not None,
        **checks,
        "warnings": warnings,
        "files": published,
        "sources": source_checksums(case),
    }


def _channels(image: Volume, channels: tuple[str, ...]) -> list[NDArray[Any]]:
    found = image.channels
    if len(found) == len(channels) and not image.flat and (image.voxels.ndim == 4) == (len(channels) > 1):
        return found
    raise UserError(
        f"{image.path} has {2 if image.flat else image.voxels.ndim} dimensions ({by(image.voxels.shape)}), but "
        f"{len(channels)} modality/modalities are declared ({', '.join(channels)}); replace the image by "
        f"the original, or correct 'modality' in a Decathlon task's dataset.json"
    )


def header_warnings(volume: Volume) -> list[str]:
    """Say where nibabel (sform first) sees another grid in a header, as stored, than SimpleITK, nnU-Net's reader."""
    if volume.header is None:
        return []
    distance = corner_distance(volume.header.get_best_affine(), volume.affine, volume.shape)
    if distance <= 0.5 * min(volume.spacing):
        return []
    return [
        f"the header's orientation (qform, sform) is read in different ways: SimpleITK, nnU-Net's reader, sees "
        f"{volume.orientation}, nibabel a place up to {distance:.4g} mm away"
    ]


def bounding_box(voxels: NDArray[Any]) -> tuple[slice, ...] | None:
    """Give the smallest part of an array outside which all is zero; None if all is zero."""
    found = find_objects((voxels != 0).T.view(np.int8))  # which goes along the last axis, as the file does along x
    return tuple(reversed(found[0])) if found else None


def check_label(
    path: Path, voxels: NDArray[Any], declared: Mapping[int, str]
) -> tuple[tuple[slice, ...], dict[str, int]]:
    """Check that a label, ``(x, y, z)``, has declared values only.

    Returns:
        Its bounding box, and the count of voxels by name, without the background.

    Raises:
        UserError: a value is not declared, or nothing is labelled.
    """
    box = bounding_box(voxels)
    if box is None:
        raise UserError(f"{path}: nothing is labelled, all voxels are 0; download or copy it again")
    counts = dict(zip(*(found.tolist() for found in np.unique(voxels[box], return_counts=True)), strict=True))
    unknown = [value for value in counts if value and value not in declared]
    if unknown:
        listed = ", ".join(f"{value} ({counts[value]} voxels)" for value in unknown[:5])
        raise UserError(
            f"{path}: label value {listed} is not one of {', '.join(map(str, sorted(declared)))}; is this the data "
            f"set's own label file?"
        )
    return box, {name: counts.get(value, 0) for value, name in sorted(declared.items()) if value}


def smallest_type(voxels: NDArray[Any]) -> NDArray[Any]:
    """Cast to int16 where that loses nothing, as in every CT of whole HU, else to float32."""
    low, high = float(voxels.min()), float(voxels.max())
    fits = INT16.min <= low and high <= INT16.max
    whole = voxels.dtype.kind in "iu" or (
        fits and all(np.array_equal(plane, np.rint(plane)) for plane in np.moveaxis(voxels, -1, 0))
    )
    return voxels.astype(np.int16 if fits and whole else np.float32, copy=False)


def _publish(
    case: Case,
    scan: Scan,
    folder: Path | None,
    volumes: list[NDArray[Any]],
    plan: Conversion,
    checks: dict[str, Any],
) -> dict[str, str]:
    """Write or link the case's files; give for each what was done to it.

    ``checks`` gets the spacing that nnU-Net's reader sees: NIfTI keeps it in 32 bits only, which can decide along
    which axis of an isotropic volume nnU-Net slices.
    """
    done, label_done = scan.done
    if not done and (len(volumes) > 1 or not _can_be_linked(scan.image)):
        done = "channel of a 4D image" if len(volumes) > 1 else "stored anew"
    published = {}
    for index, volume in enumerate(volumes):
        name = f"images{case.subset}/{case.case}_{index:04d}{ENDING}"
        published[name] = done or "unchanged"
        if folder is not None and not done:
            link_or_copy(case.images[0], folder / name)
        elif folder is not None:
            checks["spacing"] = _write(folder / name, smallest_type(volume), scan.image.affine)
    if scan.label is not None and case.label is not None:
        name = f"labels{case.subset}/{case.case}{ENDING}"
        linked = not label_done and not plan.mapping and _can_be_linked(scan.label, is_label=True)
        said = [label_done] if label_done else []
        published[name] = "unchanged" if linked else ", ".join([*said, f"labels {plan.options.labels}"])
        if folder is not None and linked:
            link_or_copy(case.label, folder / name)
        elif folder is not None:
            _write(folder / name, relabelled(scan.label.voxels, plan.mapping), scan.image.affine)
    return published


def _can_be_linked(volume: Volume, is_label: bool = False) -> bool:
    """Whether SimpleITK and every other reader find in the file what was read from it."""
    header = volume.header
    if header is None or volume.simpleitk_error or not volume.path.name.endswith(ENDING):
        return False
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if is_label:  # as a float or scaled, 1 may be 1.00000006 there
        return header.get_data_dtype().kind in "iu" and slope in (0, 1) and intercept == 0
    return bool(np.isfinite(intercept))  # nibabel refuses what SimpleITK takes for 0


def _write(target: Path, voxels: NDArray[Any], affine: NDArray[np.float64]) -> list[float]:
    """Write a volume, and give the spacing (mm, x, y, z) that SimpleITK sees in it.

    Raises:
        UserError: SimpleITK sees another grid.
    """
    write_nifti(target, voxels, new_header(affine))
    seen = simpleitk_affine(target)
    distance = corner_distance(seen, affine, voxels.shape)
    spacing = [float(length) for length in np.linalg.norm(seen[:3, :3], axis=0)]
    if distance > 0.01 * min(spacing):
        raise UserError(f"{target.name}: SimpleITK sees its grid {distance:.4g} mm away from where it was written")
    return spacing


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name by a hard link, or copy it where that is not possible.

    A link costs neither time nor space; it is the same file, so whoever changes one in place changes both.
    It is not possible on another file system, on some network shares, and for another user's files where
    the system protects them.
    """
    target.unlink(missing_ok=True)  # of an interrupted run
    try:
        os.link(source.resolve(), target)
    except OSError:
        with written_whole(target) as partial:
            shutil.copyfile(source, partial)


def source_checksums(case: Case) -> dict[str, str]:
    """Give the SHA-256 of a case's sources, by file and folder, which tells KiTS19's equally named files apart.

    The files of a series have one, whatever they are called and in whatever order.
    """
    sums = {}
    for path in case.sources:
        with path.open("rb") as file:
            sums["/".join(path.parts[-2:])] = hashlib.file_digest(file, "sha256").hexdigest()
    if len(case.images) == 1:
        return sums
    label = {} if case.label is None else dict([sums.popitem()])
    return {SERIES: hashlib.sha256("\n".join(sorted(sums.values())).encode()).hexdigest(), **label}
