"""P values adjusted for the number of tests."""

from __future__ import annotations

import math
from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values of a family of tests by Holm's step-down procedure.

    The smallest of m p values is multiplied by m, the next by m - 1, and so on; none becomes smaller than the one
    before it, nor larger than 1. Rejecting where the adjusted value is at most alpha keeps the probability of any
    false rejection in the family at alpha, whatever the dependence between the tests (S. Holm, A simple
    sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979).

    Args:
        p_values: one for each test. A test that could not be made (NaN) stays NaN and does not count.

    Returns:
        Adjusted p values in the same order.

    Raises:
        ValueError: a p value is not from 0 to 1.
    """
    wrong = [p for p in p_values if not (math.isnan(p) or 0 <= p <= 1)]
    if wrong:
        raise ValueError(f"p values are from 0 to 1; got {wrong[0]}")
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    adjusted = [math.nan] * len(p_values)
    highest = 0.0
    for place, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - place) * float(p_values[index])))
        adjusted[index] = highest
    return adjusted
