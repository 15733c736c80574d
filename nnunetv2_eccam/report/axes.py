"""Scales and axes of the drawings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nnunetv2_eccam.report.svg import TYPE, Drawing

MOST_TICKS = 6
"""About how many ticks an axis has."""


@dataclass(frozen=True)
class Scale:
    """From values to places in a drawing.

    Attributes:
        low: the value at ``start``.
        high: the value at ``end``; not ``low``.
        start: a place.
        end: a place, on either side.
        logarithmic: whether equal factors are equally long; then values are positive.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Give a value's place; what lies outside is put at the edge."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(max(value, low))
        part = min(max((value - low) / (high - low), 0.0), 1.0)
        return self.start + part * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """Round values between its ends."""
        return logarithmic_ticks(self.low, self.high) if self.logarithmic else linear_ticks(self.low, self.high)


def linear_ticks(low: float, high: float, most: int = MOST_TICKS) -> list[float]:
    """Give multiples of 1, 2 or 5 times a power of ten between two values."""
    step = _step(low, high, most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def logarithmic_ticks(low: float, high: float) -> list[float]:
    """Give 1, 2 and 5 times the powers of ten between two positive values; of a long way, the powers alone."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 1000 else (1,)
    return [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high * (1 + 1e-9)]


def _step(low: float, high: float, most: int) -> float:
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= rough * (1 - 1e-9))


def limits(values: Sequence[float], least: float | None = None, most: float | None = None) -> tuple[float, float]:
    """Give round limits that hold all values, and are apart.

    Args:
        values: finite ones.
        least: the lower limit is not below this, unless values are.
        most: likewise above.
    """
    low, high = min(values, default=0.0), max(values, default=1.0)
    if high - low < 1e-9:
        low, high = low - max(abs(low), 1) * 0.05, high + max(abs(high), 1) * 0.05
    below, above = low, high
    for _ in range(3):  # the wider limits may have larger steps
        step = _step(below, above, MOST_TICKS)
        below, above = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    if least is not None:
        below = min(max(below, least), low)
    if most is not None:
        above = max(min(above, most), high)
    return (below, above) if above > below else (below, below + step)


def logarithmic_limits(values: Sequence[float]) -> tuple[float, float]:
    """Give limits around positive values on a logarithmic scale, with a little room."""
    low, high = min(values), max(values)
    factor = max((high / low) ** 0.08, 1.15)
    return low / factor, high * factor


def tick_text(value: float) -> str:
    """Write a tick's value."""
    return f"{value:.6g}".replace("-", "\u2212")


def draw_axis_below(drawing: Drawing, scale: Scale, top: float, bottom: float, title: str) -> None:
    """Draw a horizontal axis with grid lines."""
    for tick in scale.ticks:
        x = scale(tick)
        drawing.line((x, top), (x, bottom), "grid")
        drawing.text((x, bottom + TYPE + 3), tick_text(tick), "tick", "middle")
    drawing.line((scale.start, bottom), (scale.end, bottom), "axis")
    drawing.text(((scale.start + scale.end) / 2, bottom + 2 * TYPE + 9), title, "label", "middle")


def draw_axis_left(drawing: Drawing, scale: Scale, left: float, right: float, title: str) -> None:
    """Draw a vertical axis with grid lines."""
    for tick in scale.ticks:
        y = scale(tick)
        drawing.line((left, y), (right, y), "grid")
        drawing.text((left - 6, y + TYPE / 3), tick_text(tick), "tick", "end")
    drawing.line((left, scale.start), (left, scale.end), "axis")
    drawing.text((left - 40, (scale.start + scale.end) / 2), title, "label", "middle", turned=True)
