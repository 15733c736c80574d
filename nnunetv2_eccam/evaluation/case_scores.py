"""All scores of one case: one row for each structure, and one for each of its slices."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from nibabel.orientations import io_orientation

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.evaluation.labels import Labels
from nnunetv2_eccam.volumes import Volume, check_same_grid, read_labels

Mask = npt.NDArray[np.bool_]
"""(z, y, x); true in the structure."""

Row = dict[str, Any]

EMPTY_REFERENCE = "empty reference"
EMPTY_PREDICTION = "empty prediction"
BOTH_EMPTY = "both empty"

HD95OfEmpty = Literal["undefined", "diagonal"]
"""What the Hausdorff distance of an empty prediction is: nothing, or the length of the image's diagonal."""


class Counts(NamedTuple):
    """Voxels of one structure in a volume, a slice, or all that is of one patient.

    Attributes:
        tp: in the reference and in the prediction.
        fp: in the prediction only.
        fn: in the reference only.
    """

    tp: int
    fp: int
    fn: int

    @property
    def dsc(self) -> float:
        """2 TP / (2 TP + FP + FN) (eq. 14); NaN where both are empty, as nnU-Net has it."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def sensitivity(self) -> float:
        """TP / (TP + FN) (eq. 15); NaN where the reference is empty."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def precision(self) -> float:
        """TP / (TP + FP) (eq. 16); NaN where the prediction is empty."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def note(self) -> str:
        """Which of the two is empty, or nothing."""
        reference, prediction = self.tp + self.fn, self.tp + self.fp
        if reference and prediction:
            return ""
        if reference:
            return EMPTY_PREDICTION
        return EMPTY_REFERENCE if prediction else BOTH_EMPTY

    def row(self) -> Row:
        """Give the fields that all score files share."""
        return {**self._asdict(), "dsc": self.dsc, "sensitivity": self.sensitivity, "precision": self.precision,
                "note": self.note}  # fmt: skip


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


@dataclass(frozen=True)
class Scoring:
    """How cases are scored.

    Attributes:
        labels: what is scored.
        nsd_tolerance: distance up to which surfaces count as the same: mm, or pixels of images without mm.
        slice_axis: axis of nnU-Net's arrays, (z, y, x), along which slices follow each other.
        with_slices: give rows for slices too.
        hd95_of_empty: of an empty prediction whose reference is not empty.
        compare_headers: refuse masks whose spacing, origin or orientation differ.
    """

    labels: Labels
    nsd_tolerance: float = 2.0
    slice_axis: int = 0
    with_slices: bool = True
    hd95_of_empty: HD95OfEmpty = "undefined"
    compare_headers: bool = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.nsd_tolerance) and self.nsd_tolerance >= 0):
            raise UserError(f"the surface Dice's tolerance is {self.nsd_tolerance}; give a distance from 0")


def score_case(case: str, reference_file: Path, prediction_file: Path, scoring: Scoring) -> tuple[list[Row], list[Row]]:
    """Score one case.

    Returns:
        Rows of ``score_files.VOLUME_COLUMNS``, and of ``score_files.SLICE_COLUMNS``. Slices count from 0 as the file
        stores them.

    Raises:
        UserError: a mask is damaged, holds undeclared labels, or is on another grid.
    """
    reference, prediction = (_read_mask(path, scoring.labels) for path in (reference_file, prediction_file))
    check_same_grid(
        reference, prediction, headers=scoring.compare_headers,
        advice="predict or resample on the reference's grid, or, if only the headers are wrong, give "
        "--ignore-geometry to compare voxel by voxel all the same, as nnU-Net does",
    )  # fmt: skip
    axis = _file_axis(reference, scoring)
    arrays = (reference.nnunet_array[0], prediction.nnunet_array[0])
    ignore = scoring.labels.ignore_label
    ignored = None if ignore is None or not (arrays[0] == ignore).any() else arrays[0] == ignore
    volume_rows: list[Row] = []
    slice_rows: list[Row] = []
    for name, values in scoring.labels.scored.items():
        true, predicted = (np.isin(array, values, kind="table") for array in arrays)
        masks: tuple[Mask, Mask] = (true, predicted) if ignored is None else (true & ~ignored, predicted & ~ignored)
        slices = counts_of_slices(*masks, axis)
        head = {"case": case, "label": name}
        counts = Counts(*(sum(each) for each in zip(*slices, strict=True)))
        ml = math.prod(reference.spacing) / 1000 if reference.in_mm and not reference.flat else math.nan
        row = {
            **head, **counts.row(), "nsd_tolerance": scoring.nsd_tolerance, "unit": "mm" if reference.in_mm else "px",
            "reference_ml": (counts.tp + counts.fn) * ml, "prediction_ml": (counts.tp + counts.fp) * ml,
        }  # fmt: skip
        volume_rows.append(row | _surface_scores(row["note"], masks, reference.nnunet_spacing, ignored, scoring))
        if scoring.with_slices:
            slice_rows += [{**head, "slice": number, **each.row()} for number, each in enumerate(slices) if any(each)]
    return volume_rows, slice_rows


def _read_mask(path: Path, labels: Labels) -> Volume:
    """Read a mask and see that it holds nothing but labels that are declared."""
    mask = read_labels(path)
    found, times = np.unique(mask.voxels, return_counts=True)
    strange = ~np.isin(found, sorted(labels.declared))
    if strange.any():
        values = found[strange].tolist()
        shown = ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")
        raise UserError(
            f"{path} has the label{'s' if len(values) > 1 else ''} {shown} in {times[strange].sum()} voxels, which "
            f"{labels.source} does not declare (it has {', '.join(map(str, sorted(labels.declared)))}); correct the "
            f"mask, or declare the label"
        )
    return mask


def _file_axis(volume: Volume, scoring: Scoring) -> int:
    """Give the slice axis of a file's array, (z, y, x), where nnU-Net's reader would turn the volume first."""
    if not scoring.labels.turned:
        return scoring.slice_axis
    return 2 - int(np.flatnonzero(io_orientation(volume.affine)[:, 0] == 2 - scoring.slice_axis)[0])


def counts_of_slices(reference: Mask, prediction: Mask, axis: int) -> list[Counts]:
    """Count in each slice along an axis; masks of the same shape, without voxels that are to be ignored."""
    others = tuple(each for each in range(reference.ndim) if each != axis)
    both, predicted, true = (
        np.count_nonzero(mask, axis=others) for mask in (reference & prediction, prediction, reference)
    )
    return [Counts(*each) for each in np.stack([both, predicted - both, true - both], axis=1).tolist()]


def _surface_scores(
    note: str, masks: tuple[Mask, Mask], spacing: tuple[float, float, float], ignored: Mask | None, scoring: Scoring
) -> Row:
    """Give HD95 and NSD, by the rule for empty masks, and the note with what there is to say of them."""
    if note:
        scores: Row = {"hd95": math.nan, "nsd": 0.0 if note in (EMPTY_PREDICTION, EMPTY_REFERENCE) else math.nan}
        if note == EMPTY_PREDICTION and scoring.hd95_of_empty == "diagonal":
            flat = 1 in masks[0].shape
            sides = [n * width for n, width in zip(masks[0].shape, spacing, strict=True) if n > 1 or not flat]
            scores |= {"hd95": float(np.linalg.norm(sides)), "note": f"{note}; hd95 is the image's diagonal"}
        return scores
    from nnunetv2_eccam.evaluation.surfaces import surface_distances

    distances = surface_distances(*masks, spacing, ignored)
    scores = {"hd95": distances.hausdorff(), "nsd": distances.surface_dice(scoring.nsd_tolerance)}
    if math.isnan(scores["hd95"]):
        scores["note"] = "no surface outside of the ignored voxels"
    return scores
