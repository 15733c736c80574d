"""Every case, label and system with its scores, worst first; and what is undefined, counted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nnunetv2_eccam.evaluation.case_scores import BOTH_EMPTY, EMPTY_PREDICTION, EMPTY_REFERENCE
from nnunetv2_eccam.report.case_values import Measured
from nnunetv2_eccam.report.collect import SUBSETS, Collected
from nnunetv2_eccam.report.formatting import count, number
from nnunetv2_eccam.report.metrics import METRICS, Metric
from nnunetv2_eccam.report.table import Cell, Column, Table, cell, text_column

if TYPE_CHECKING:
    from pandas import DataFrame

CaseKey = tuple[str, str, str, str]
"""Data set, subset, case, label."""

CASE_COLUMNS = (
    text_column("Case", heading=True), text_column("System"), text_column("Label"),
    *(Column(metric.header) for metric in METRICS.values()), Column("Reference [ml]"), Column("Prediction [ml]"),
    text_column("Note"), text_column("Data set"), text_column("Subset"), text_column("Fold"), Column("Trainings"),
)  # fmt: skip


def case_table(measured: Measured, pictures: Mapping[CaseKey, str]) -> Table:
    """Make the list of cases, worst first by the metric of the spec.

    Args:
        measured: the scores.
        pictures: the id of a case's picture on the page, where it has one.
    """
    ordered = worst_first(measured.cases, measured.benchmark.metric)
    rows = tuple(_case_row(row, pictures) for row in ordered.to_dict("records"))
    return Table(
        "cases", f"All cases, the worst {measured.benchmark.metric.title} first", CASE_COLUMNS, rows,
        ("Of several trainings, a case's values are their means, and its notes are joined.",),
    )  # fmt: skip


def worst_first(cases: DataFrame, metric: Metric) -> DataFrame:
    """Sort cases by a metric, the worst first and those without a value last; ties by names."""
    names = ["dataset", "subset", "case", "label", "system"]
    return cases.sort_values(
        [metric.column, *names], ascending=[metric.higher_is_better, *([True] * len(names))], na_position="last"
    )


def _case_row(row: Mapping[Any, Any], pictures: Mapping[CaseKey, str]) -> tuple[Cell, ...]:
    key = (str(row["dataset"]), str(row["subset"]), str(row["case"]), str(row["label"]))
    return (
        cell(key[2], link=pictures.get(key)), cell(str(row["system"])), cell(key[3]),
        *(cell(number(_times(row[metric.column], metric.factor))) for metric in METRICS.values()),
        cell(number(row["reference_ml"])), cell(number(row["prediction_ml"])), cell(str(row["note"])), cell(key[0]),
        cell(SUBSETS[key[1]]), cell(str(row["fold"])), cell(count(row["trainings"])),
    )  # fmt: skip


def _times(value: Any, factor: float) -> float:
    return float(value) * factor if value is not None else math.nan


def undefined_table(collected: Collected) -> Table | None:
    """Count the predictions with something undefined, by data set, subset, label and system; None where none has."""
    columns = (
        text_column("System", heading=True), text_column("Data set"), text_column("Subset"), text_column("Label"),
        Column("Predictions"), Column("Both empty"), Column("Reference empty"), Column("Prediction empty"),
        Column("DSC undefined"), Column("HD95 undefined"),
    )  # fmt: skip
    groups: dict[tuple[str, ...], Counter[str]] = {}
    for row in collected.volumes.to_dict("records"):
        found = groups.setdefault(tuple(str(row[name]) for name in ("system", "dataset", "subset", "label")), Counter())
        found["all"] += 1
        for note in (BOTH_EMPTY, EMPTY_REFERENCE, EMPTY_PREDICTION):
            found[note] += str(row["note"]).split(";")[0] == note
        found["dsc"] += not math.isfinite(row["dsc"])
        found["hd95"] += not math.isfinite(row["hd95"])
    names = ("all", BOTH_EMPTY, EMPTY_REFERENCE, EMPTY_PREDICTION, "dsc", "hd95")
    rows = [
        (cell(key[0]), cell(key[1]), cell(SUBSETS[key[2]]), cell(key[3]), *(cell(count(found[name])) for name in names))
        for key, found in groups.items() if any(found[name] for name in names[1:])
    ]  # fmt: skip
    if not rows:
        return None
    return Table(
        "undefined", "Empty masks and undefined values", columns, tuple(rows),
        ("Predictions: cases times repeats. The cases are in the list of cases, with a note.",),
    )  # fmt: skip
