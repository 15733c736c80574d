"""Means over cases, with bootstrap confidence intervals that know of the trainings' own chance.

Scores come as ``(cases, trainings)``. With one training the interval is that of ``scipy.stats.bootstrap`` over cases.
With several, each resample draws cases and, for every fold, trainings, both with replacement: the cases of a fold are
predicted by the same trainings, so a lucky training lifts all of them at once, which resampling cases alone does not
see. Crossed resampling: A. B. Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1, 2007.
"""

import math
import warnings
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pandas import DataFrame
from scipy import stats

Array = npt.NDArray[np.float64]

BATCH_VALUES = 5_000_000
"""How many resampled values are in memory at once."""


Interval = tuple[float, float, float]
"""Lower and upper end of a mean's confidence interval, and the mean's standard error; NaN for fewer than two cases."""

UNKNOWN: Interval = (math.nan, math.nan, math.nan)


def interval_of_mean(
    systems: Sequence[Array], cases: Sequence[Hashable], folds: Sequence[Hashable], confidence: float, n: int, seed: int
) -> Interval:
    """Bootstrap a mean, or the difference of two systems' means, over cases.

    The interval is the bias-corrected and accelerated one, BCa (B. Efron, Better bootstrap confidence intervals,
    JASA 82, 1987), where each system has one training and BCa is defined; else the percentile one. The same values
    and seed give the same interval.

    Args:
        systems: one or two arrays ``(values, trainings)``. The second one is subtracted. NaN: this training has no
            such value; every value is there by some training.
        cases: of each value, its case: all values of a case are drawn together.
        folds: of each value: cases of one fold were predicted by the same trainings.
        confidence: e.g. 0.95.
        n: resamples.
        seed: of the resampling.

    Raises:
        ValueError: the confidence is not between 0 and 1, or there is no resample.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence is between 0 and 1; got {confidence}")
    if n < 1:
        raise ValueError(f"the bootstrap needs at least one resample; got {n}")
    units: dict[tuple[Hashable, Hashable], int] = {}
    unit = np.array([units.setdefault(key, len(units)) for key in zip(folds, cases, strict=True)], np.intp)
    if len(units) < 2:
        return UNKNOWN
    counts = np.bincount(unit).astype(np.float64)
    if all(values.shape[1] == 1 for values in systems):
        values = systems[0][:, 0] - (systems[1][:, 0] if len(systems) > 1 else 0.0)
        return _over_cases(np.bincount(unit, values).astype(np.float64), counts, confidence, n, seed)
    fold_of_unit = np.array([str(fold) for fold, _ in units])
    summed = [_sums_by_fold(values, unit, fold_of_unit) for values in systems]
    rng = np.random.default_rng(seed)
    step = max(1, BATCH_VALUES // len(counts))
    means = np.concatenate([_resample(summed, counts, min(step, n - start), rng) for start in range(0, n, step)])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high), float(means.std())


Fold = tuple[npt.NDArray[np.intp], Array]
"""The cases of a fold, and their ``(cases, trainings)``."""


def _sums_by_fold(values: Array, unit: npt.NDArray[np.intp], fold_of_unit: npt.NDArray[np.str_]) -> list[Fold]:
    """Add up each case's values, fold by fold, since each has trainings of its own."""
    found: list[Fold] = []
    for fold in np.unique(fold_of_unit):
        inside = fold_of_unit[unit] == fold
        sums = DataFrame(_spread(values[inside])).groupby(unit[inside]).sum()
        found.append((sums.index.to_numpy(), sums.to_numpy()))
    return found


def _resample(systems: Sequence[list[Fold]], counts: Array, n: int, rng: np.random.Generator) -> Array:
    """Give ``n`` means, or differences of means, of cases and trainings drawn with replacement."""
    cases = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=n).astype(np.float64)
    means = []
    for folds in systems:
        total = np.zeros(n)
        for members, sums in folds:
            trainings = sums.shape[1]
            drawn = rng.multinomial(trainings, np.full(trainings, 1 / trainings), size=n) / trainings
            total += ((cases[:, members] @ sums) * drawn).sum(axis=1)
        means.append(total / (cases @ counts))
    return np.asarray(means[0] - means[1] if len(means) > 1 else means[0], np.float64)


def _spread(values: Array) -> Array:
    """Prepare one fold's ``(values, trainings)``: no gaps, and deviations of the size that resampling needs.

    R trainings drawn from R have a mean whose variance is (R - 1) / R of what it should be, half of it for two. So
    each training's deviation from the mean of a value is enlarged by sqrt(R / (R - 1)) (J. N. K. Rao and C. F. J. Wu,
    Resampling inference with complex survey data, JASA 83, 1988).
    """
    kept = values[:, np.isfinite(values).any(axis=0)]
    means = np.nanmean(kept, axis=1, keepdims=True)
    trainings = kept.shape[1]
    scale = math.sqrt(trainings / (trainings - 1)) if trainings > 1 else 1.0
    return np.asarray(np.where(np.isfinite(kept), means + scale * (kept - means), means), np.float64)


def _over_cases(sums: Array, counts: Array, confidence: float, n: int, seed: int) -> Interval:
    """Bootstrap the ratio of two sums over cases by scipy; both ends are the mean where all cases have the same."""
    means = sums / counts
    if np.all(means == means[0]):
        return float(means[0]), float(means[0]), 0.0
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # BCa warns where it is not defined, and gives NaN
            found = stats.bootstrap(
                (sums, counts), lambda s, c, axis=-1: np.sum(s, axis=axis) / np.sum(c, axis=axis), paired=True,
                vectorized=True, confidence_level=confidence, n_resamples=n, method=method,
                batch=max(1, BATCH_VALUES // len(sums)), random_state=np.random.default_rng(seed),
            )  # fmt: skip
        low, high = (float(end) for end in found.confidence_interval)
        if math.isfinite(low) and math.isfinite(high):
            return low, high, float(found.standard_error)
    return UNKNOWN


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


def summarise(
    values: Any, cases: Sequence[Hashable] | None = None, folds: Sequence[Hashable] | None = None, *,
    confidence: float = 0.95, n_bootstrap: int = 10_000, seed: int = 0,
) -> Summary:  # fmt: skip
    """Summarise one value for each case, or for each of its parts, such as its slices.

    Mean and SD are over the values, each averaged over trainings. The interval resamples whole cases with all their
    parts, since the parts of a case resemble each other, and the trainings, where there are several
    (:func:`interval_of_mean`). An interval of few cases is too narrow, since the bootstrap knows no more of the
    patients than these: of normal values, nominal 95% hold the true mean in 86% of samples of 5, in 91% of 10, in
    93% of 20 (400 samples of each).

    Args:
        values: ``(values,)``, or ``(values, trainings)``. What is not finite is not defined.
        cases: of each value, its case; by default each is a case of its own.
        folds: of each value, the fold whose trainings predicted it; by default all are of one.
        confidence: of the interval.
        n_bootstrap: its resamples.
        seed: of the resampling.

    Raises:
        ValueError: the lists are of different lengths.
    """
    given = by_training(values)
    names = range(len(given)) if cases is None else cases
    shared: Sequence[Hashable] = [""] * len(given) if folds is None else folds
    if not len(given) == len(names) == len(shared):
        raise ValueError(f"{len(given)} values belong to {len(names)} cases and {len(shared)} folds; give one of each")
    defined: npt.NDArray[np.bool_] = np.asarray(np.isfinite(given).any(axis=1))
    kept = given[defined]
    means = np.nanmean(kept, axis=1) if len(kept) else np.zeros(0)
    kept_cases, kept_folds = ([each[number] for number in np.flatnonzero(defined).tolist()] for each in (names, shared))
    low, high, _ = interval_of_mean([kept], kept_cases, kept_folds, confidence, n_bootstrap, seed)
    return Summary(*mean_and_sd(means), low, high, len(means), len(given))


def by_training(values: Any) -> npt.NDArray[np.float64]:
    """Give values as ``(values, trainings)``, NaN where they are not defined."""
    given = np.asarray(values, np.float64)
    given = given[:, None] if given.ndim == 1 else given
    return np.where(np.isfinite(given), given, math.nan)


def mean_and_sd(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Give mean and sample SD; NaN where there are too few values for one."""
    if not len(values):
        return math.nan, math.nan
    if np.all(values == values[0]):  # so that no rounding makes a spread of it
        return float(values[0]), 0.0 if len(values) > 1 else math.nan
    return math.fsum(values) / len(values), float(np.std(values, ddof=1))
