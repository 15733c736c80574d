"""Systems against each other on the cases that both have: the tests behind the tables."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, TypeVar

from nnunetv2_eccam.report.case_values import by_case, cases_of
from nnunetv2_eccam.report.metrics import Metric
from nnunetv2_eccam.report.read_spec import Benchmark
from nnunetv2_eccam.statistics import Comparison, compare, holm

if TYPE_CHECKING:
    from pandas import DataFrame

Key = TypeVar("Key")


@dataclass(frozen=True)
class Tested:
    """A system against another one.

    Attributes:
        comparison: of the two, over the cases that both have.
        adjusted: the p-value by Holm's procedure over its family; NaN where there is none.
    """

    comparison: Comparison
    adjusted: float


def reference_of(frame: DataFrame, metric: Metric, benchmark: Benchmark) -> str | None:
    """Choose the system that the others are compared with: the spec's, else the one with the best mean.

    Of systems that lack cases none is the best, unless all do.

    Args:
        frame: rows of one data set, subset and label.
        metric: by which the best is.
        benchmark: what was asked for.
    """
    present = list(dict.fromkeys(frame["system"]))
    if benchmark.reference is not None:
        return benchmark.reference if benchmark.reference in present else None
    complete = complete_systems(frame) or present
    means = by_case(frame, metric.column)[complete].mean()
    means = means[means.notna()]
    if not len(means):
        return None
    return str(means.idxmax() if metric.higher_is_better else means.idxmin())


def complete_systems(frame: DataFrame) -> list[str]:
    """Give the systems that have every case that any system has."""
    cases = cases_of(frame)
    everything = frozenset[str]().union(*cases.values())
    return [system for system, present in cases.items() if present == everything]


def against(frame: DataFrame, metric: Metric, reference: str, benchmark: Benchmark) -> dict[str, Tested]:
    """Compare each system with the reference; one family of tests.

    Args:
        frame: rows of one data set, subset and label.
        metric: what is compared.
        reference: a system of ``frame``.
        benchmark: what was asked for.

    Returns:
        by the other system's title, system minus reference.
    """
    table = by_case(frame, metric.column)
    others = [str(system) for system in table if system != reference]
    return _adjusted({other: _compared(table, other, reference, benchmark) for other in others})


def pairwise(frame: DataFrame, metric: Metric, benchmark: Benchmark) -> dict[tuple[str, str], Tested]:
    """Compare all pairs of systems; one family of tests.

    Returns:
        by both titles, in the order of the spec, first minus second.
    """
    table = by_case(frame, metric.column)
    pairs = combinations([str(system) for system in table], 2)
    return _adjusted({pair: _compared(table, *pair, benchmark) for pair in pairs})


def _adjusted(compared: Mapping[Key, Comparison]) -> dict[Key, Tested]:
    adjusted = holm([each.p_value for each in compared.values()])
    return {key: Tested(each, p) for (key, each), p in zip(compared.items(), adjusted, strict=True)}


def _compared(table: DataFrame, first: str, second: str, benchmark: Benchmark) -> Comparison:
    pairs = table[[first, second]].dropna()
    a, b = (tuple(float(value) for value in pairs[system]) for system in (first, second))
    return _cached(a, b, benchmark.confidence, benchmark.bootstrap, benchmark.seed)


@functools.lru_cache(maxsize=4096)
def _cached(
    a: tuple[float, ...], b: tuple[float, ...], confidence: float, n_bootstrap: int, seed: int
) -> Comparison:  # fmt: skip
    """Compare, once for each pair: tables share many of them."""
    return compare(a, b, confidence=confidence, n_bootstrap=n_bootstrap, seed=seed)
