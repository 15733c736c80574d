"""Bootstrap confidence intervals of a mean over cases, by scipy."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

BATCH_VALUES = 5_000_000
"""How many resampled values are in memory at once."""


def interval_of_mean(
    weighted: npt.NDArray[np.float64], weights: npt.NDArray[np.float64] | None, confidence: float, n: int, seed: int
) -> tuple[float, float]:
    """Bootstrap the mean over cases, or the ratio of two sums over cases.

    The interval is the bias-corrected and accelerated one, BCa (B. Efron, Better bootstrap confidence intervals,
    JASA 82, 1987), of ``scipy.stats.bootstrap``; where that is not defined, since the resampled means do not
    vary as it needs, the percentile one. The same values and seed give the same interval.

    Args:
        weighted: for each case, its value, or the sum of its parts' values.
        weights: for each case, the number of its parts; None for the plain mean.
        confidence: e.g. 0.95.
        n: resamples.
        seed: of the resampling.

    Returns:
        Low and high; both NaN for fewer than two cases, and both the mean where all cases have the same.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence is between 0 and 1; got {confidence}")
    if n < 1:
        raise ValueError(f"the bootstrap needs at least one resample; got {n}")
    if len(weighted) < 2:
        return math.nan, math.nan
    means = weighted if weights is None else weighted / weights
    if np.all(means == means[0]):
        return float(means[0]), float(means[0])
    from scipy import stats

    samples = (weighted,) if weights is None else (weighted, weights)
    options: dict[str, Any] = {
        "paired": weights is not None, "vectorized": True, "confidence_level": confidence, "n_resamples": n,
        "batch": max(1, BATCH_VALUES // len(weighted)),
    }  # fmt: skip
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # BCa warns where it is not defined, and gives NaN
            found = stats.bootstrap(
                samples, _mean if weights is None else _ratio, method=method,
                random_state=np.random.default_rng(seed), **options,
            ).confidence_interval  # fmt: skip
        if math.isfinite(found.low) and math.isfinite(found.high):
            return float(found.low), float(found.high)
    return math.nan, math.nan


def _mean(values: npt.NDArray[np.float64], axis: int = -1) -> Any:
    return np.mean(values, axis=axis)


def _ratio(sums: npt.NDArray[np.float64], counts: npt.NDArray[np.float64], axis: int = -1) -> Any:
    return np.sum(sums, axis=axis) / np.sum(counts, axis=axis)
