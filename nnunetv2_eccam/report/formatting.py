"""Numbers as text. Page, CSV, Markdown and LaTeX all take their text from here, so that they agree."""

from __future__ import annotations

import math
from typing import Final

UNDEFINED: Final = "\u2013"
"""What stands on the page where a number is undefined; in the CSV the field is empty."""

_DIGITS: Final = 2


def number(value: float | int | None, digits: int = _DIGITS, signed: bool = False) -> str:
    """Write a number with a fixed count of decimals; empty where it is undefined.

    Args:
        value: the number; None and NaN are undefined.
        digits: after the point.
        signed: with a sign in front of positive numbers too.
    """
    if value is None or not math.isfinite(value):
        return ""
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    # What rounds to zero has no sign.
    return text.lstrip("+-") if float(text) == 0 else text


def p_value(value: float | None) -> str:
    """Write a p-value with two significant digits; empty where there is none."""
    return "" if value is None or not math.isfinite(value) else f"{value:#.2g}".removesuffix(".")


def count(value: float | int | None) -> str:
    """Write a whole number; empty where it is undefined."""
    return number(value, 0)


def shown(text: str) -> str:
    """Give a text as it is shown to a reader, who takes an empty place for an oversight."""
    return text or UNDEFINED
