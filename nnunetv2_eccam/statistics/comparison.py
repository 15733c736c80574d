"""Two systems on the same cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nnunetv2_eccam.statistics.bootstrap import interval_of_mean

DECIMALS = 12
"""Differences that are equal to so many decimals are ties: more is the rounding of the subtraction."""

EXACT_UP_TO = 500
"""Pairs up to which the null distribution is counted out; then the normal one is as good."""


class Comparison(NamedTuple):
    """System a against system b.

    Attributes:
        n_pairs: cases for which both are defined; the rest is over these.
        mean_difference: of a - b.
        low: lower end of its bootstrap confidence interval over cases.
        high: its upper end.
        statistic: Wilcoxon's signed-rank statistic: the smaller sum of ranks.
        p_value: two-sided.
        effect_size: matched-pairs rank-biserial correlation, from -1 (b is larger throughout) to 1 (a is).
        cohens_d_z: mean of the differences over their SD, a second effect size.
        exact: whether the p value is counted out rather than from the normal distribution.
        n_zero: pairs without a difference.
        n_all: pairs given.
        smallest_p_value: the smallest that n pairs which differ can give, 2 / 2^n: above 0.05 for fewer than six,
            so that no difference, however large, is then significant at that level.
    """

    n_pairs: int
    mean_difference: float
    low: float
    high: float
    statistic: float
    p_value: float
    effect_size: float
    cohens_d_z: float
    exact: bool
    n_zero: int
    n_all: int
    smallest_p_value: float

    def can_reach(self, alpha: float = 0.05) -> bool:
        """Tell whether so few pairs could give a p value of at most ``alpha`` at all."""
        return self.smallest_p_value <= alpha


def compare(
    a: Sequence[float], b: Sequence[float], confidence: float = 0.95, n_bootstrap: int = 10_000, seed: int = 0
) -> Comparison:
    """Compare two systems' scores of the same cases.

    **Test.** Wilcoxon's signed-rank test (F. Wilcoxon, Individual comparisons by ranking methods, Biometrics
    Bulletin 1, 1945), two-sided. Cases without a difference are ranked with the others and their ranks then left
    out (J. W. Pratt, Remarks on zeros and ties in the Wilcoxon signed rank procedures, JASA 54, 1959), the more
    conservative treatment. The null distribution, in which every difference has either sign with probability 1/2,
    is counted out, with ties and zeros as they are: ``scipy.stats.wilcoxon`` does that without them only, and its
    normal approximation calls four differences among sixteen zeros significant, which they cannot be. Above 500
    pairs it is scipy's approximation.

    **Effect size.** The matched-pairs rank-biserial correlation is (W+ - W-) / (W+ + W-), where W+ and W- are the
    same test's sums of ranks of positive and negative differences (D. S. Kerby, The simple difference formula,
    Comprehensive Psychology 3, 2014). d_z is the mean difference in units of the differences' sample SD (J. Cohen,
    Statistical Power Analysis for the Behavioral Sciences, 2nd ed., 1988, 2.3.5).

    The order of the cases is of no matter, and swapping a and b turns every sign round and changes nothing else.
    No pair gives NaN throughout. All differences zero: difference, interval and effect sizes 0, p = 1. One pair:
    no interval and no d_z (NaN), p = 1. Differences that are all the same but not zero: the interval is that
    difference, d_z is NaN.

    Args:
        a: one value for each case, repeats averaged. What is not finite is not defined, and the pair left out.
        b: the other system's, in the same order of cases.
        confidence: of the interval.
        n_bootstrap: its resamples.
        seed: of the resampling.

    Raises:
        ValueError: a and b are of different lengths.
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"pairs need two lists of the same length; got {first.shape} and {second.shape}")
    paired = np.isfinite(first) & np.isfinite(second)
    differences = np.sort(np.round(first[paired] - second[paired], DECIMALS) + 0.0)
    n = len(differences)
    # One orientation for both orders of the systems, so that the same resamples are drawn.
    negated = np.sort(-differences + 0.0)
    turned = tuple(differences) < tuple(negated)
    oriented = negated if turned else differences
    mean = math.fsum(oriented) / n if n else math.nan
    low, high = interval_of_mean(oriented, None, confidence, n_bootstrap, seed)
    if turned:
        mean, low, high = -mean, -high, -low
    elif np.array_equal(differences, negated):  # both orders are the same values: so is their interval, about 0
        low, high = (low - high) / 2, (high - low) / 2
    statistic, p_value, exact = _wilcoxon(differences)
    return Comparison(
        n_pairs=n,
        mean_difference=mean + 0.0,
        low=low + 0.0,
        high=high + 0.0,
        statistic=statistic,
        p_value=p_value,
        effect_size=rank_biserial(differences),
        cohens_d_z=_d_z(differences, mean),
        exact=exact,
        n_zero=int(np.count_nonzero(differences == 0)),
        n_all=len(first),
        smallest_p_value=min(1.0, 2.0 ** (1 - int(np.count_nonzero(differences)))) if n else math.nan,
    )


def rank_biserial(differences: npt.NDArray[np.float64]) -> float:
    """Give the matched-pairs rank-biserial correlation: 0 without any difference, NaN without any pair."""
    if not len(differences):
        return math.nan
    from scipy.stats import rankdata

    placed = rankdata(np.abs(differences))
    plus, minus = float(placed[differences > 0].sum()), float(placed[differences < 0].sum())
    return (plus - minus) / (plus + minus) if plus + minus else 0.0


def _wilcoxon(differences: npt.NDArray[np.float64]) -> tuple[float, float, bool]:
    """Give the statistic, the two-sided p value and whether it is exact."""
    n = len(differences)
    if not n:
        return math.nan, math.nan, True
    from scipy import stats

    placed = stats.rankdata(np.abs(differences))
    plus, minus = float(placed[differences > 0].sum()), float(placed[differences < 0].sum())
    statistic = min(plus, minus)
    if n > EXACT_UP_TO and differences.any():
        found = stats.wilcoxon(differences, zero_method="pratt", method="asymptotic")
        return statistic, min(1.0, float(found.pvalue)), False
    return statistic, min(1.0, 2 * _probability_up_to(statistic, placed[differences != 0])), True


def _probability_up_to(statistic: float, placed: npt.NDArray[np.float64]) -> float:
    """Give the probability that the ranks with a positive sign sum to at most this, each sign being as likely.

    Ranks are multiples of 1/2, so twice their sum is a whole number; one rank after the other is added to the
    distribution of the sums.
    """
    doubled = [round(2 * rank) for rank in placed]
    chances = np.zeros(sum(doubled) + 1)
    chances[0] = 1.0
    for rank in doubled:
        chances *= 0.5
        chances[rank:] += chances[: len(chances) - rank].copy()
    return float(chances[: round(2 * statistic) + 1].sum())


def _d_z(differences: npt.NDArray[np.float64], mean: float) -> float:
    if not len(differences):
        return math.nan
    if not differences.any():
        return 0.0
    if differences[0] == differences[-1]:
        return math.nan
    return mean / float(np.std(differences, ddof=1))
