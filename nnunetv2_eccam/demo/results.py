"""Dice, sensitivity and precision of each unseen case, from nnU-Net's summary.json."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json, written_whole

SUFFIX = ".nii.gz"


class Result(NamedTuple):
    """One case, counted in voxels of its whole volume.

    Attributes:
        case: the case's name.
        dice: 2 TP / (2 TP + FP + FN) (eq. 14); NaN where neither reference nor prediction has the structure.
        sensitivity: TP / (TP + FN) (eq. 15); NaN where the reference is empty.
        precision: TP / (TP + FP) (eq. 16); NaN where the prediction is empty.
    """

    case: str
    dice: float
    sensitivity: float
    precision: float


def result_of(case: str, true_positives: int, false_positives: int, false_negatives: int) -> Result:
    """Compute one case's figures from its voxel counts."""
    tp, fp, fn = true_positives, false_positives, false_negatives
    return Result(case, _ratio(2 * tp, 2 * tp + fp + fn), _ratio(tp, tp + fn), _ratio(tp, tp + fp))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def read_results(summary: Path) -> list[Result]:
    """Read the cases of a ``summary.json`` of ``nnUNetv2_evaluate_folder``, in the order of their names.

    Raises:
        UserError: the file has no cases, or other than one label.
    """
    results = []
    for entry in read_json(summary).get("metric_per_case", []):
        if len(entry["metrics"]) != 1:
            raise UserError(f"{summary} has {len(entry['metrics'])} labels; the demonstration knows one")
        (counts,) = entry["metrics"].values()
        case = Path(entry["prediction_file"]).name.removesuffix(SUFFIX)
        results.append(result_of(case, counts["TP"], counts["FP"], counts["FN"]))
    if not results:
        raise UserError(f"{summary} has no cases")
    return sorted(results)


def mean_of(results: Sequence[Result]) -> Result:
    """Average the cases' figures, each over the cases in which it is defined."""

    def mean(values: Sequence[float]) -> float:
        defined = [value for value in values if not math.isnan(value)]
        return sum(defined) / len(defined) if defined else math.nan

    return Result("mean", mean([each.dice for each in results]), mean([each.sensitivity for each in results]),
                  mean([each.precision for each in results]))


def table(results: Sequence[Result]) -> str:
    """Lay the results and their mean out as a table; a figure that is not defined is a dash."""
    rows = [*results, mean_of(results)]
    width = max(len("unseen case"), *(len(row.case) for row in rows))
    rule = "-" * (width + 34)
    lines = [f"{'unseen case':<{width}}  {'Dice':>8}  {'sensitivity':>11}  {'precision':>9}", rule]
    for row in rows:
        figures = [f"{value:.3f}" if not math.isnan(value) else "-" for value in row[1:]]
        lines.append(f"{row.case:<{width}}  {figures[0]:>8}  {figures[1]:>11}  {figures[2]:>9}")
    lines.insert(-1, rule)
    return "\n".join(lines)


def write_csv(results: Sequence[Result], target: Path) -> None:
    """Write the results and their mean as CSV; a figure that is not defined is an empty field."""
    with written_whole(target) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Result._fields)
        for row in (*results, mean_of(results)):
            figures = [f"{value:.6f}" if not math.isnan(value) else "" for value in row[1:]]
            writer.writerow([row.case, *figures])
