"""Masks as nnU-Net's own reader gives them, checked for labels and grids."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.evaluation.structures import Structures


@dataclass(frozen=True)
class LabelMask:
    """A reference or a prediction.

    Attributes:
        path: its file.
        labels: ``(z, y, x)``, in the order in which nnU-Net's reader gives the file.
        spacing: mm between voxels, z, y, x, from the file's header.
        affine: from the reader's voxel (x, y, z) to mm, 4x4; of files that do not know where they are, the spacing.
        flat: the file is an image of two axes, so its voxels have no volume.
        turned: for z, y, x: the reader turned this axis round, and the file counts from the other end.
    """

    path: Path
    labels: npt.NDArray[Any]
    spacing: tuple[float, float, float]
    affine: npt.NDArray[np.float64]
    flat: bool
    turned: tuple[bool, bool, bool]


def choose_reader(structures: Structures, example: Path) -> Any:
    """Let nnU-Net choose its reader for a data set, by trying it on one file.

    Raises:
        UserError: none of nnU-Net's readers reads the file.
    """
    import contextlib
    import io

    import SimpleITK as sitk
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    sitk.ProcessObject.GlobalWarningDisplayOff()
    try:
        # nnU-Net prints a traceback for each reader that fails, though the next one may do.
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            return determine_reader_writer_from_dataset_json(dict(structures.content), str(example), verbose=False)()
    except RuntimeError:
        raise UserError(f"{example} can be read by none of nnU-Net's readers") from None


def read_mask(path: Path, reader: Any, structures: Structures) -> LabelMask:
    """Read a mask and see that it holds nothing but labels that are declared.

    Raises:
        UserError: the file cannot be read, has several channels, or has other values.
    """
    import contextlib
    import io

    import SimpleITK as sitk

    sitk.ProcessObject.GlobalWarningDisplayOff()
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # remarks on files without spacing, for each file
            array, properties = reader.read_seg(str(path))
    except MemoryError:
        raise
    except Exception as error:  # SimpleITK, nibabel and nnU-Net's assertions raise what they like on a broken file
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise UserError(f"{path} cannot be read by nnU-Net's {type(reader).__name__}: {reason}") from error
    if array.ndim != 4 or len(array) != 1 or not array.size:
        raise UserError(f"{path} has an array of the shape {array.shape}; a mask is one volume with one label a voxel")
    z, y, x = (abs(float(mm)) for mm in properties["spacing"])
    stuff = properties.get("sitk_stuff", {})
    flat = len(stuff.get("spacing", (1, 1, 1))) == 2 or type(reader).__name__ == "NaturalImage2DIO"
    return LabelMask(
        path=path,
        labels=_declared_labels(path, array[0], structures),
        spacing=(z, y, x),
        affine=_affine(properties, (z, y, x)),
        flat=flat,
        turned=_turned_axes(properties),
    )


def _declared_labels(path: Path, values: npt.NDArray[Any], structures: Structures) -> npt.NDArray[Any]:
    declared, highest = structures.declared, max(structures.declared)
    known = (values >= 0) & (values <= highest)
    if known.all():
        labels = values.astype(np.min_scalar_type(highest))
        known = (labels == values) & np.isin(labels, sorted(declared))
        if known.all():
            return labels
    strange = np.unique(values[~known])
    shown = ", ".join(f"{value:g}" for value in strange[:5]) + (", ..." if len(strange) > 5 else "")
    raise UserError(
        f"{path} has the label{'s' if len(strange) > 1 else ''} {shown} in {np.count_nonzero(~known)} voxels, which "
        f"{structures.source} does not declare (it has {', '.join(map(str, sorted(declared)))}); "
        f"correct the mask, or declare the label"
    )


def _affine(properties: Mapping[str, Any], spacing: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """Give the affine of what the reader returned, from what it noted; its frame, LPS or RAS, is of no matter."""
    affine = np.diag([*spacing[::-1], 1.0])
    if "sitk_stuff" in properties:
        stuff = properties["sitk_stuff"]
        n = len(stuff["spacing"])
        if n == 3:
            affine[:n, :n] = np.reshape(stuff["direction"], (n, n)) @ np.diag(stuff["spacing"])
            affine[:n, 3] = stuff["origin"]
    elif "nibabel_stuff" in properties:
        stuff = properties["nibabel_stuff"]
        affine = np.asarray(stuff.get("reoriented_affine", stuff["original_affine"]), np.float64)
    return affine


def _turned_axes(properties: Mapping[str, Any]) -> tuple[bool, bool, bool]:
    """Tell which axes a reader that reorients to RAS has turned round; most of nnU-Net's readers do not."""
    from nibabel.orientations import axcodes2ornt, io_orientation

    if "reoriented_affine" in properties.get("nibabel_stuff", {}):
        orientation = io_orientation(properties["nibabel_stuff"]["original_affine"])
    elif "original_orientation" in properties.get("sitk_stuff", {}):
        orientation = axcodes2ornt(properties["sitk_stuff"]["original_orientation"])
    else:
        return (False, False, False)
    turned = {int(axis): direction < 0 for axis, direction in orientation}
    return (turned[2], turned[1], turned[0])


def check_same_grid(reference: LabelMask, prediction: LabelMask, *, headers: bool = True) -> None:
    """See that a prediction is on its reference's grid: of the same shape, and nowhere half a voxel or more apart.

    Args:
        reference: the true mask.
        prediction: the mask to be scored.
        headers: compare spacing, origin and orientation too, not only the shapes.

    Raises:
        UserError: it is not.
    """
    first, second = reference.labels.shape[::-1], prediction.labels.shape[::-1]
    if first != second:
        raise UserError(
            f"{reference.path} and {prediction.path} differ in shape: {first} and {second} voxels (x, y, z); "
            f"predict or resample on the reference's grid"
        )
    if not headers:
        return
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, length - 1) for length in first))])
    apart = float(np.linalg.norm((corners @ (reference.affine - prediction.affine).T)[:, :3], axis=1).max())
    spacings = np.abs(np.subtract(reference.spacing, prediction.spacing)) / reference.spacing
    if apart >= 0.5 * min(reference.spacing) or spacings.max() > 0.01:
        raise UserError(
            f"{reference.path} and {prediction.path} are on different grids: the same voxel is up to {apart:.4g} mm "
            f"apart (origin, spacing or orientation in their headers); predict or resample on the reference's grid, "
            f"or give --ignore-geometry to compare voxel by voxel all the same, as nnU-Net does"
        )
