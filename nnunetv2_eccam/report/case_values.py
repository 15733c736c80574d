"""One value for each case: what all statistics are computed of, since cases are what is independent."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nnunetv2_eccam.report.metrics import METRICS, SLICE_METRICS, Metric
from nnunetv2_eccam.statistics import Summary, summarise

if TYPE_CHECKING:
    from pandas import DataFrame

    from nnunetv2_eccam.report.collect import Collected
    from nnunetv2_eccam.report.read_spec import Benchmark

Values = npt.NDArray[np.float64]

GROUP = ["dataset", "subset", "label", "system"]
"""Of what a mean is taken."""


@dataclass(frozen=True)
class Measured:
    """One value for each case and, where slices were scored, for each slice.

    Attributes:
        benchmark: what was asked for.
        cases: of :func:`per_case`.
        slices: of :func:`per_slice`.
        slice_cases: of :func:`case_means`.
    """

    benchmark: Benchmark
    cases: DataFrame
    slices: DataFrame
    slice_cases: DataFrame

    @classmethod
    def of(cls, collected: Collected) -> Measured:
        """Average what was collected."""
        slices = per_slice(collected.slices)
        return cls(collected.benchmark, per_case(collected.volumes), slices, case_means(slices))

    @property
    def blocks(self) -> Iterator[tuple[str, str]]:
        """The data sets and subsets that have scores."""
        for dataset in self.benchmark.datasets:
            for subset in ("val", "test"):
                if len(self.chosen(self.cases, dataset, subset)):
                    yield dataset, subset

    def labels(self, dataset: str, subset: str) -> list[str]:
        """The labels that have scores, in the order of the score files, which is that of dataset.json."""
        return list(dict.fromkeys(self.chosen(self.cases, dataset, subset)["label"]))

    def chosen(self, frame: DataFrame, dataset: str, subset: str, label: str | None = None) -> DataFrame:
        """Give the rows of a data set and subset, and of a label; systems in the order of the spec."""
        rows = frame[(frame["dataset"] == dataset) & (frame["subset"] == subset)]
        rows = rows if label is None else rows[rows["label"] == label]
        place = {title: number for number, title in enumerate(self.benchmark.titles)}
        return rows.sort_values("system", key=lambda titles: titles.map(place), kind="stable")


def per_case(volumes: DataFrame) -> DataFrame:
    """Average each case's scores over repeats, and over folds where a case is in several.

    A value that is undefined in one repeat and defined in another is the mean of those that are defined.

    Args:
        volumes: of :class:`~nnunetv2_eccam.report.collect.Collected`.

    Returns:
        a row for each data set, subset, label, system and case, in the order in which they come: the metrics, the
        volumes in ml, ``fold`` and ``note`` (joined where they differ) and ``trainings``, how many were averaged.
    """
    numbers = [*METRICS, "reference_ml", "prediction_ml"]
    groups = volumes.astype(dict.fromkeys(numbers, float)).groupby([*GROUP, "case"], sort=False, dropna=False)
    frame = groups[numbers].mean()
    frame["fold"] = groups["fold"].agg(_joined)
    frame["note"] = groups["note"].agg(_joined)
    frame["trainings"] = groups.size()
    return frame.reset_index()


def per_slice(slices: DataFrame) -> DataFrame:
    """Average each slice's scores over repeats; only slices that hold the structure in the reference.

    Returns:
        a row for each data set, subset, label, system, case and slice: the metrics.
    """
    held = slices[(slices["tp"] + slices["fn"]) > 0]
    numbers = [metric.column for metric in SLICE_METRICS]
    typed = held.astype(dict.fromkeys(numbers, float))
    groups = typed.groupby([*GROUP, "case", "slice"], sort=False, dropna=False)
    return groups[numbers].mean().reset_index()


def case_means(slices: DataFrame) -> DataFrame:
    """Average slices over each case.

    Args:
        slices: of :func:`per_slice`.

    Returns:
        a row for each data set, subset, label, system and case, as of :func:`per_case`.
    """
    numbers = [metric.column for metric in SLICE_METRICS]
    return slices.groupby([*GROUP, "case"], sort=False)[numbers].mean().reset_index()


def by_case(frame: DataFrame, column: str) -> DataFrame:
    """Arrange one metric as cases by systems.

    Args:
        frame: rows of one data set, subset and label, of :func:`per_case` or :func:`case_means`.
        column: the metric.

    Returns:
        a row for each case, sorted by name, and a column for each system, in the order in which they come; NaN where
        the value is undefined or the system lacks the case (see :func:`has_case`).
    """
    order = list(dict.fromkeys(frame["system"]))
    return frame.pivot(index="case", columns="system", values=column).reindex(columns=order).astype(float)


def cases_of(frame: DataFrame) -> dict[str, frozenset[str]]:
    """Give each system's cases, whether their values are defined or not."""
    return {str(system): frozenset(rows["case"]) for system, rows in frame.groupby("system", sort=False)}


def summary_of(rows: DataFrame, metric: Metric, benchmark: Benchmark, per_slice: bool = False) -> Summary:
    """Summarise a metric of one system.

    Args:
        rows: of one data set, subset, label and system.
        metric: of which.
        benchmark: says the interval's confidence, its resamples and their seed.
        per_slice: the rows are slices, of which whole cases are resampled.
    """
    # One NaN for all: the cache finds equal values, and no two NaN are equal but the same one.
    values = tuple(float(value) if np.isfinite(value) else math.nan for value in values_of(rows, metric.column))
    cases = tuple(str(case) for case in rows["case"]) if per_slice else None
    return _cached(values, cases, benchmark.confidence, benchmark.bootstrap, benchmark.seed)


@functools.lru_cache(maxsize=4096)
def _cached(
    values: tuple[float, ...], cases: tuple[str, ...] | None, confidence: float, n_bootstrap: int, seed: int
) -> Summary:
    """Summarise, once for each system: tables and figures share many of them."""
    return summarise(values, cases, confidence=confidence, n_bootstrap=n_bootstrap, seed=seed)


def values_of(frame: DataFrame, column: str) -> Values:
    """Give a column as numbers."""
    return np.asarray(frame[column], np.float64)


def _joined(texts: Any) -> str:
    # Read back from a CSV, an empty field may be NaN.
    return "; ".join(dict.fromkeys(str(text) for text in texts if isinstance(text, str) and text))
