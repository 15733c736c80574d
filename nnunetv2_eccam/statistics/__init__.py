"""Statistics of scores over cases: spread, intervals, paired comparisons, power.

The case is the unit that is independent of the others: folds, trainings and slices are not. So a case's scores by
several trainings are averaged before a test, and intervals resample whole cases, and trainings where there are
several. Values that are not defined (NaN) are left out and counted.
"""

from nnunetv2_eccam.statistics.comparison import Comparison, compare, holm, smallest_visible_difference
from nnunetv2_eccam.statistics.summary import Summary, summarise

__all__ = ["Comparison", "Summary", "compare", "holm", "smallest_visible_difference", "summarise"]
