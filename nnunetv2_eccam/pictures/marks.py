"""Marks over an image: the letters of the body's sides, and a bar that tells its scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnunetv2_eccam.pictures import layout
from nnunetv2_eccam.pictures.orientation import OPPOSITE

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def write_sides(panel: Axes, sides: tuple[str, str], height: float) -> None:
    """Write the body's sides at the edges; at the upper and the lower one if there is room between (in inches)."""
    left, top = sides
    _write_over(panel, (0, 0.5), (3, 0), left, "left", "center")
    _write_over(panel, (1, 0.5), (-3, 0), OPPOSITE[left], "right", "center")
    if height > layout.LOWEST_ROW / 2:
        _write_over(panel, (0.5, 1), (0, -3), top, "center", "top")
        _write_over(panel, (0.5, 0), (0, 3), OPPOSITE[top], "center", "bottom")


def draw_scale(panel: Axes, width_mm: float, height: float) -> None:
    """Draw a bar of 1, 2 or 5 times a power of ten millimetres, at most a quarter of the panel.

    Args:
        panel: where.
        width_mm: width of what is shown there.
        height: its height on the page in inches; in a flat panel the bar would stand in the way of the letters.
    """
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import ScaledTranslation

    if height < layout.LOWEST_ROW:
        return
    lengths = [step * 10.0**power for power in range(-3, 4) for step in (1, 2, 5)]
    length = max((each for each in lengths if each <= width_mm / 4), default=lengths[0])
    inwards = ScaledTranslation(4 / layout.POINTS_PER_INCH, 4 / layout.POINTS_PER_INCH, panel.figure.dpi_scale_trans)
    limits = panel.get_xlim(), panel.get_ylim()
    panel.plot(
        (0, length / width_mm), (0, 0), transform=panel.transAxes + inwards, color="white", linewidth=1.2,
        solid_capstyle="butt", path_effects=[withStroke(linewidth=2.2, foreground="black")],
    )  # fmt: skip
    panel.set_xlim(limits[0])
    panel.set_ylim(limits[1])
    _write_over(panel, (0, 0), (4, 6), f"{length:g} mm", "left", "bottom", layout.NOTES)


def _write_over(
    panel: Axes, place: tuple[float, float], inwards: tuple[float, float], text: str, across: str, along: str,
    points: float = layout.FIGURES,
) -> None:  # fmt: skip
    """Write over an image, readable on black and on white.

    Args:
        panel: where.
        place: right and up from its lower left corner, from 0 to 1.
        inwards: from there in points.
        text: a few letters.
        across: horizontal alignment.
        along: vertical alignment.
        points: size of the type.
    """
    from matplotlib.patheffects import withStroke

    panel.annotate(
        text, place, inwards, xycoords="axes fraction", textcoords="offset points", ha=across, va=along, color="white",
        fontsize=points, path_effects=[withStroke(linewidth=1.5, foreground="black")],
    )  # fmt: skip
