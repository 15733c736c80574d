"""All scores of one case: one row for each structure, and one for each of its slices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.evaluation.masks import LabelMask, check_same_grid, read_mask
from nnunetv2_eccam.evaluation.overlap import EMPTY_PREDICTION, EMPTY_REFERENCE, Mask, counts_of_slices, total
from nnunetv2_eccam.evaluation.structures import Structure, Structures

Row = dict[str, Any]

HD95OfEmpty = Literal["undefined", "diagonal"]
"""What the Hausdorff distance of an empty prediction is: nothing, or the length of the image's diagonal."""


@dataclass(frozen=True)
class Scoring:
    """How cases are scored.

    Attributes:
        structures: what is scored.
        nsd_tolerance_mm: distance up to which surfaces count as the same.
        slice_axis: axis of nnU-Net's arrays, (z, y, x), along which slices follow each other.
        with_slices: give rows for slices too.
        hd95_of_empty: of an empty prediction whose reference is not empty.
        compare_headers: refuse masks whose spacing, origin or orientation differ.
    """

    structures: Structures
    nsd_tolerance_mm: float = 2.0
    slice_axis: int = 0
    with_slices: bool = True
    hd95_of_empty: HD95OfEmpty = "undefined"
    compare_headers: bool = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.nsd_tolerance_mm) and self.nsd_tolerance_mm >= 0):
            raise UserError(f"the surface Dice's tolerance is {self.nsd_tolerance_mm} mm; give a distance from 0")
        if self.slice_axis not in (0, 1, 2):
            raise UserError(f"there is no axis {self.slice_axis} to slice along; they are 0, 1 and 2, for z, y and x")
        if self.hd95_of_empty not in ("undefined", "diagonal"):
            raise UserError(f"the HD95 of an empty prediction is undefined or diagonal, not {self.hd95_of_empty!r}")


def score_case(
    case: str, reference_file: Path, prediction_file: Path, reader: Any, scoring: Scoring
) -> tuple[list[Row], list[Row]]:
    """Score one case.

    Args:
        case: its name.
        reference_file: true mask.
        prediction_file: predicted mask.
        reader: nnU-Net's, as ``masks.choose_reader`` gives it.
        scoring: what is scored, and how.

    Returns:
        Rows of ``score_files.VOLUME_COLUMNS``, and of ``score_files.SLICE_COLUMNS``.

    Raises:
        UserError: a mask cannot be read, holds undeclared labels, or is on another grid.
    """
    reference = read_mask(reference_file, reader, scoring.structures)
    prediction = read_mask(prediction_file, reader, scoring.structures)
    check_same_grid(reference, prediction, headers=scoring.compare_headers)
    ignore = scoring.structures.ignore_label
    ignored = None if ignore is None else reference.labels == ignore
    if ignored is not None and not ignored.any():
        ignored = None
    volume_rows: list[Row] = []
    slice_rows: list[Row] = []
    for structure in scoring.structures.scored:
        masks = _masks(structure, reference, prediction, ignored)
        slices = counts_of_slices(*masks, scoring.slice_axis)
        head = {"case": case, "label": structure.name}
        counts = total(slices)
        row = {**head, **counts.row(), "nsd_tolerance_mm": scoring.nsd_tolerance_mm}
        ml = math.nan if reference.flat else math.prod(reference.spacing) / 1000
        row |= {"reference_ml": (counts.tp + counts.fn) * ml, "prediction_ml": (counts.tp + counts.fp) * ml}
        volume_rows.append(row | _surface_scores(row["note"], masks, reference, ignored, scoring))
        if scoring.with_slices:
            numbers = range(len(slices))
            places = reversed(numbers) if reference.turned[scoring.slice_axis] else numbers
            rows = [{**head, "slice": place, **each.row()} for place, each in zip(places, slices, strict=True)
                    if any(each)]  # fmt: skip
            slice_rows += sorted(rows, key=lambda each: int(each["slice"]))
    return volume_rows, slice_rows


def _masks(
    structure: Structure, reference: LabelMask, prediction: LabelMask, ignored: Mask | None
) -> tuple[Mask, Mask]:
    """Give a structure's voxels in both, without those that are ignored, as nnU-Net counts."""
    highest = int(max(reference.labels.max(), prediction.labels.max()))
    belongs = np.zeros(highest + 1, bool)
    belongs[[label for label in structure.labels if label <= highest]] = True
    masks: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]] = (belongs[reference.labels], belongs[prediction.labels])
    return masks if ignored is None else (masks[0] & ~ignored, masks[1] & ~ignored)


def _surface_scores(
    note: str, masks: tuple[Mask, Mask], reference: LabelMask, ignored: Mask | None, scoring: Scoring
) -> Row:
    """Give HD95 and NSD, by the rule for empty masks, and the note with what there is to say of them."""
    if note:
        scores: Row = {"hd95_mm": math.nan, "nsd": 0.0 if note in (EMPTY_PREDICTION, EMPTY_REFERENCE) else math.nan}
        if note == EMPTY_PREDICTION and scoring.hd95_of_empty == "diagonal":
            sides = np.multiply(masks[0].shape, reference.spacing)
            used = sides[[length > 1 for length in masks[0].shape]] if 1 in masks[0].shape else sides
            scores |= {"hd95_mm": float(np.linalg.norm(used)), "note": f"{note}; hd95_mm is the image's diagonal"}
        return scores
    from nnunetv2_eccam.evaluation.surfaces import surface_distances

    distances = surface_distances(*masks, reference.spacing, ignored)
    scores = {"hd95_mm": distances.hausdorff(), "nsd": distances.surface_dice(scoring.nsd_tolerance_mm)}
    if math.isnan(scores["hd95_mm"]):
        scores["note"] = "no surface outside of the ignored voxels"
    return scores
