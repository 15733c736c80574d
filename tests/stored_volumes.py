"""Volumes in all the orders in which a file can store them, and what a radiologist sees of them, voxel by voxel."""

import itertools
import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from conversion_phantoms import save

ORIENTATIONS = [
    (axes, turned) for axes in itertools.permutations(range(3)) for turned in itertools.product((False, True), repeat=3)
]
"""All 48: the body's axis that each of the file's axes runs along, and whether it runs the other way."""


def stored(body, spacing, axes, turned):
    """Store a volume whose axes are right, anterior, superior in another order; voxel by voxel.

    Returns the voxels in the file's order and the affine that says so.
    """
    voxels = np.empty([body.shape[axis] for axis in axes], body.dtype)
    affine = np.eye(4)
    affine[:3, :3] = 0
    for file_axis, axis in enumerate(axes):
        affine[axis, file_axis] = -spacing[axis] if turned[file_axis] else spacing[axis]
        affine[axis, 3] = (body.shape[axis] - 1) * spacing[axis] if turned[file_axis] else 0
    for place in np.ndindex(*voxels.shape):
        at = [0, 0, 0]
        for file_axis, axis in enumerate(axes):
            last = body.shape[axis] - 1
            at[axis] = last - place[file_axis] if turned[file_axis] else place[file_axis]
        voxels[place] = body[tuple(at)]
    return voxels, affine


def shown(body, plane):
    """What a radiologist sees of a volume whose axes are right, anterior, superior: (slices, rows, columns)."""
    x, y, z = (length - 1 for length in body.shape)
    if plane == "axial":  # columns from the right to the left, rows from the front to the back
        return np.array([[[body[x - c, y - r, k] for c in range(x + 1)] for r in range(y + 1)] for k in range(z + 1)])
    if plane == "coronal":  # rows from the head to the feet
        return np.array([[[body[x - c, k, z - r] for c in range(x + 1)] for r in range(z + 1)] for k in range(y + 1)])
    return np.array([[[body[k, y - c, z - r] for c in range(y + 1)] for r in range(z + 1)] for k in range(x + 1)])


def write_simpleitk(path: Path, array: np.ndarray, spacing=(1.0, 1.0, 3.0), compress=False, **grid) -> None:
    """Write an array whose axes are z, y, x; the grid may have an ``origin`` and a ``direction``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    for name, value in grid.items():
        getattr(image, f"Set{name.title()}")(value)
    sitk.WriteImage(image, str(path), compress)


def write_scored_case(folder: Path, shift: int = 0) -> None:
    """Write Dataset002_Heart with one test case below ``raw``, and ``predictions`` of it, shifted along x."""
    mask = np.zeros((12, 12, 6), np.uint8)
    mask[3:9, 3:9, 1:5] = 1
    raw = folder / "raw" / "Dataset002_Heart"
    save(raw / "imagesTs/la_1_0000.nii.gz", mask * 100.0, np.eye(4))
    save(raw / "labelsTs/la_1.nii.gz", mask, np.eye(4))
    save(folder / "predictions/la_1.nii.gz", np.roll(mask, shift, 0), np.eye(4))
    labels = {"background": 0, "atrium": 1}
    description = {"labels": labels, "channel_names": {"0": "MRI"}, "file_ending": ".nii.gz", "numTraining": 0}
    (raw / "dataset.json").write_text(json.dumps(description))
