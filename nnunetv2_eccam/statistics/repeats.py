"""Repeated trainings of a system: their scores of a case become one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas


def mean_of_repeats(cases: pandas.Series, values: pandas.Series) -> pandas.Series:
    """Average all values of a case.

    Two trainings that predict one patient are not two patients: taken as such they would make intervals and
    p values too small.

    Args:
        cases: of each value, the case's name.
        values: scores; those that are not defined (NaN) are left out of the case's mean.

    Returns:
        One value for each case, indexed by its name, sorted; NaN where none is defined.
    """
    import pandas

    return pandas.Series(list(values), index=list(cases), dtype=float).groupby(level=0, sort=True).mean()
