"""Mean, spread and confidence interval of one system's scores."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nnunetv2_eccam.statistics.bootstrap import interval_of_mean


class Summary(NamedTuple):
    """Scores of a system over cases.

    Attributes:
        mean: of the defined values; NaN if there are none.
        sd: sample standard deviation (n - 1); NaN for fewer than two values.
        low: lower end of the mean's confidence interval; NaN for fewer than two cases.
        high: its upper end.
        n_defined: values that the mean is over.
        n_all: values given, those that are not defined included.
    """

    mean: float
    sd: float
    low: float
    high: float
    n_defined: int
    n_all: int


def summarise(values: Sequence[float], confidence: float = 0.95, n_bootstrap: int = 10_000, seed: int = 0) -> Summary:
    """Summarise one value for each case.

    The order of the cases is of no matter: they are sorted first. If all defined values are the same, the SD is 0
    and the interval is that value. An interval of few cases is too narrow, since the bootstrap knows no more of the
    patients than these: of normal values, nominal 95% hold the true mean in 86% of samples of 5, in 91% of 10, in
    93% of 20 (400 samples of each).

    Args:
        values: one for each case, repeats averaged (``repeats.mean_of_repeats``). What is not finite is not defined.
        confidence: of the bootstrap interval (``bootstrap.interval_of_mean``).
        n_bootstrap: resamples.
        seed: of the resampling.
    """
    given = np.asarray(values, np.float64)
    defined = np.sort(given[np.isfinite(given)])
    low, high = interval_of_mean(defined, None, confidence, n_bootstrap, seed)
    return Summary(*_mean_and_sd(defined), low, high, len(defined), len(given))


def summarise_parts(
    values: Sequence[float], cases: Sequence[Hashable], confidence: float = 0.95, n_bootstrap: int = 10_000,
    seed: int = 0,
) -> Summary:  # fmt: skip
    """Summarise values of which several belong to one case, such as those of its slices.

    Mean and SD are over the parts, each with the same weight. The interval comes from resampling whole cases with
    all their parts, since the parts of a case resemble each other; resampling parts would make it too narrow.

    Args:
        values: one for each part.
        cases: of each part, its case.
        confidence: of the interval.
        n_bootstrap: resamples.
        seed: of the resampling.

    Returns:
        ``n_defined`` and ``n_all`` count parts.

    Raises:
        ValueError: the two are of different lengths.
    """
    given = np.asarray(values, np.float64)
    if len(given) != len(cases):
        raise ValueError(f"{len(given)} values belong to {len(cases)} cases; give one case for each value")
    parts: dict[Hashable, list[float]] = {}
    for value, case in zip(given, cases, strict=True):
        if math.isfinite(value):
            parts.setdefault(case, []).append(float(value))
    # Sorted by what they hold, so that neither the order of the parts nor the cases' names matter.
    groups = sorted(sorted(each) for each in parts.values())
    sums, counts = np.array([math.fsum(each) for each in groups]), np.array([float(len(each)) for each in groups])
    low, high = interval_of_mean(sums, counts, confidence, n_bootstrap, seed)
    defined = np.sort(given[np.isfinite(given)])
    return Summary(*_mean_and_sd(defined), low, high, len(defined), len(given))


def _mean_and_sd(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    if not len(values):
        return math.nan, math.nan
    if values[0] == values[-1]:  # sorted: all the same, so that no rounding makes a spread of it
        return float(values[0]), 0.0 if len(values) > 1 else math.nan
    return math.fsum(values) / len(values), float(np.std(values, ddof=1))
