"""Ranks of systems."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas


def rank_cases(table: pandas.DataFrame, *, higher_is_better: bool = True) -> pandas.DataFrame:
    """Rank the systems within each case: 1 is the best, and ties get the mean of their places.

    A case for which any system's value is not defined is left out for all of them: whether nothing is better or
    worse than a number depends on the metric (an empty prediction of an empty reference is right, of another one
    a failure). The number of rows tells how many cases are ranked.

    Args:
        table: one row for each case, one column for each system.
        higher_is_better: False for distances.

    Returns:
        Ranks, without the rows that are left out.
    """
    return table.astype(float).dropna().rank(axis=1, method="average", ascending=not higher_is_better)


def ranks(table: pandas.DataFrame, *, higher_is_better: bool = True) -> pandas.Series:
    """Give each system's mean rank over the cases, as ``rank_cases`` ranks them.

    Args:
        table: one row for each case, one column for each system.
        higher_is_better: False for distances.

    Returns:
        Mean rank of each system, from 1 to the number of systems; NaN where no case is defined for all.
    """
    return rank_cases(table, higher_is_better=higher_is_better).mean(axis=0)
