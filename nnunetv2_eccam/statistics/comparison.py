"""Two systems on the same cases: difference, interval, test, effect size, and what difference could be seen at all."""

import math
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from nnunetv2_eccam.statistics.summary import by_training, interval_of_mean, mean_and_sd

DECIMALS = 12
"""Differences that are equal to so many decimals are ties: more is the rounding of the subtraction."""

EXACT_UP_TO = 500
"""Pairs up to which the null distribution is counted out; beyond, scipy's normal one is as good."""


class Comparison(NamedTuple):
    """System a against system b.

    Attributes:
        n_pairs: cases for which both are defined; the rest is over these.
        mean_difference: of a - b.
        low: lower end of its bootstrap confidence interval, over cases and, of several, trainings.
        high: its upper end.
        standard_error: of the mean difference, by the same bootstrap.
        p_value: two-sided, of Wilcoxon's signed-rank test.
        effect_size: matched-pairs rank-biserial correlation, from -1 (b is larger throughout) to 1 (a is).
        cohens_d_z: mean of the differences over their SD, a second effect size.
        n_higher: pairs in which a is larger.
        smallest_visible: difference that such a design sees with a probability of 80%
            (:func:`smallest_visible_difference`).
        n_all: pairs given.
    """

    n_pairs: int
    mean_difference: float
    low: float
    high: float
    standard_error: float
    p_value: float
    effect_size: float
    cohens_d_z: float
    n_higher: int
    smallest_visible: float
    n_all: int


def compare(
    a: Any, b: Any, folds: Sequence[Hashable] | None = None, *, confidence: float = 0.95, n_bootstrap: int = 10_000,
    seed: int = 0,
) -> Comparison:  # fmt: skip
    """Compare two systems' scores of the same cases.

    **Test.** Wilcoxon's signed-rank test (F. Wilcoxon, Biometrics Bulletin 1, 1945), two-sided, of each case's mean
    over trainings. Cases without a difference are ranked with the others and their ranks then left out (J. W. Pratt,
    JASA 54, 1959), the more conservative treatment. The null distribution, in which every difference has either sign
    with probability 1/2, is counted out, with ties and zeros as they are: ``scipy.stats.wilcoxon`` does that without
    them only (else by random signs, slowly), and its normal approximation calls four differences among sixteen zeros
    significant, which they cannot be. Above 500 pairs it is scipy's approximation. Fewer than six pairs cannot give p
    at most 0.05, however large the difference. The test takes the trainings as they are: their chance is in the
    interval.

    **Effect size.** The matched-pairs rank-biserial correlation is (W+ - W-) / (W+ + W-), where W+ and W- are the
    same test's sums of ranks of positive and negative differences (D. S. Kerby, Comprehensive Psychology 3, 2014).
    d_z is the mean difference in units of the differences' sample SD (J. Cohen, Statistical Power Analysis for the
    Behavioral Sciences, 2nd ed., 1988, 2.3.5).

    No pair gives NaN throughout. All differences zero: difference, interval and effect sizes 0, p = 1. One pair: no
    interval and no d_z (NaN), p = 1. Differences that are all the same but not zero: the interval of one training
    each is that difference, d_z is NaN.

    Args:
        a: ``(cases,)``, or ``(cases, trainings)``. What is not finite is not defined.
        b: the other system's, in the same order of cases; it may have more or fewer trainings.
        folds: of each case: cases of one fold were predicted by the same trainings. By default all are of one.
        confidence: of the interval.
        n_bootstrap: its resamples.
        seed: of the resampling.

    Raises:
        ValueError: a and b are of different lengths.
    """
    first, second = (by_training(values) for values in (a, b))
    if len(first) != len(second):
        raise ValueError(f"pairs need two lists of the same length; got {len(first)} and {len(second)}")
    paired: npt.NDArray[np.bool_] = np.asarray(np.isfinite(first).any(axis=1) & np.isfinite(second).any(axis=1))
    first, second = first[paired], second[paired]
    n = len(first)
    if not n:
        none = math.nan
        return Comparison(0, none, none, none, none, none, none, none, 0, none, len(paired))
    # Adding 0 turns -0 into 0.
    differences = np.round(np.nanmean(first, axis=1) - np.nanmean(second, axis=1), DECIMALS) + 0.0
    mean, sd = mean_and_sd(differences)
    in_fold = [""] * n if folds is None else [fold for fold, both in zip(folds, paired, strict=True) if both]
    # One training each: the rounded differences, so that equal ones are equal.
    single = first.shape[1] == second.shape[1] == 1
    interval = interval_of_mean(
        [differences[:, None]] if single else [first, second], range(n), in_fold, confidence, n_bootstrap, seed
    )
    d_z = 0.0 if mean == sd == 0 else mean / sd if sd else math.nan
    ranks = np.sign(differences) * stats.rankdata(np.abs(differences))
    effect_size = float(ranks.sum() / np.abs(ranks).sum()) if ranks.any() else 0.0
    return Comparison(
        n, mean, *interval, _wilcoxon(differences, ranks), effect_size, d_z, int(np.count_nonzero(differences > 0)),
        smallest_visible_difference(interval[2], n), len(paired),
    )  # fmt: skip


def _wilcoxon(differences: npt.NDArray[np.float64], ranks: npt.NDArray[np.float64]) -> float:
    """Give the two-sided p value: twice the probability of sums of ranks up to the smaller one, each sign as likely.

    Ranks are multiples of 1/2, so twice their sum is a whole number; one rank after the other is added to the
    distribution of the sums.

    Args:
        differences: of the pairs.
        ranks: of their sizes, each with its difference's sign, 0 where there is none.
    """
    if len(differences) > EXACT_UP_TO and differences.any():
        return float(stats.wilcoxon(differences, zero_method="pratt", method="asymptotic").pvalue)
    doubled = np.round(2 * ranks[ranks != 0]).astype(int)
    total, plus = int(np.abs(doubled).sum()), int(doubled[doubled > 0].sum())
    chances = np.zeros(total + 1)
    chances[0] = 1.0
    for rank in np.abs(doubled):
        chances *= 0.5
        chances[rank:] += chances[: len(chances) - rank].copy()
    return min(1.0, 2 * float(chances[: min(plus, total - plus) + 1].sum()))


def smallest_visible_difference(standard_error: float, n: int) -> float:
    """Give the true mean difference that a paired design finds significant (p at most 0.05) four times in five.

    That of the t test, whose statistic then has a noncentral t distribution, for 3/pi as many pairs, which is what
    Wilcoxon's test makes of normal differences (E. L. Lehmann, Nonparametrics, 1975, 2.4). The standard error is the
    observed one and holds the chance of the trainings where there are several: more of them lower it, as more cases do.

    Args:
        standard_error: of the mean difference.
        n: pairs.

    Returns:
        the difference, in the unit of the standard error; NaN for fewer than six pairs, which see nothing.
    """
    if n < 6 or not math.isfinite(standard_error):
        return math.nan
    pairs = n * 3 / math.pi
    critical = stats.t.ppf(0.975, pairs - 1)
    shift = special.nctdtrinc(pairs - 1, 0.2, critical)  # the other tail has a probability below 1e-6 here
    return float(shift) / math.sqrt(pairs) * standard_error * math.sqrt(n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values of a family of tests by Holm's step-down procedure (Scandinavian Journal of Statistics 6, 1979).

    Args:
        p_values: one for each test. A test that could not be made (NaN) stays NaN and does not count.

    Returns:
        Adjusted p values in the same order: rejecting where one is at most alpha keeps the probability of any false
        rejection in the family at alpha, whatever the dependence between the tests.
    """
    given = np.array(p_values, np.float64)
    made = ~np.isnan(given)
    order = np.flatnonzero(made)[np.argsort(given[made], kind="stable")]
    stepped = given[order] * np.arange(len(order), 0, -1)
    given[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return [float(value) for value in given]
