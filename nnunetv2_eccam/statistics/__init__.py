"""Statistics of scores over cases: spread, intervals, paired comparisons, ranks.

The case is the unit that is independent of the others: folds, repeats and slices are not. So repeats of a case
are averaged first (``mean_of_repeats``), and everything here then goes over cases. Values that are not defined
(NaN) are left out and counted.
"""

from nnunetv2_eccam.statistics.adjustment import holm
from nnunetv2_eccam.statistics.comparison import Comparison, compare
from nnunetv2_eccam.statistics.ranking import rank_cases, ranks
from nnunetv2_eccam.statistics.repeats import mean_of_repeats
from nnunetv2_eccam.statistics.summary import Summary, summarise, summarise_parts

__all__ = [
    "Comparison",
    "Summary",
    "compare",
    "holm",
    "mean_of_repeats",
    "rank_cases",
    "ranks",
    "summarise",
    "summarise_parts",
]
