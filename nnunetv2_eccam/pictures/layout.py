"""Where the parts of a grid of panels stand on the page, in inches from its top left corner.

Everything is placed by hand rather than by matplotlib's own layout, so that all panels of a row are of one size, a
panel's size follows from the millimetres that it shows, and text never moves a panel.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

MM_PER_INCH = 25.4
POINTS_PER_INCH = 72.0

PAGE_WIDTH_MM = 182.0
"""Both columns of a page of the IEEE's transactions, the paper's journal."""
PANEL_WIDTH_MM = 60.0
"""How wide a panel is at most; with few of them the picture is narrower than the page."""
TALLEST_PANEL = 2.0
"""How high a panel is at most, over its width."""
LOWEST_ROW = 0.55
"""How high a row is at least, in inches: the names of its case and slice stand beside it."""

MARGIN, GAP, LABEL_STRIP = 0.04, 0.04, 0.32
"""Around everything; between panels; left of the panels for the names of cases; inches."""

HEADER, FIGURES, LEGEND, NOTES = 8.0, 6.5, 7.0, 6.0
"""Sizes of type in points: names of columns, DSC and names of cases, legend, notes."""

LINE = 1.3
"""Distance of two lines of text over the size of the type."""
LETTER = 0.62
"""Width of a letter over the size of the type, rather too wide than too narrow."""
LEGEND_ROOM = 0.4
"""Inches that a legend's entry takes beside its text."""


@dataclass(frozen=True)
class Box:
    """A rectangle: left and top edge, width and height in inches, from the top left corner of the page."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Layout:
    """A page.

    Attributes:
        width: of the page, inches.
        height: of the page, inches.
        panels: one box for each row and column.
        headers: the text above each column, broken into lines that fit.
        header_bottom: where the lowest line of those stands.
        legend_top: where the legend begins.
        legend_columns: how many entries stand beside each other.
        notes_top: where the notes begin.
        notes: their lines.
    """

    width: float
    height: float
    panels: tuple[tuple[Box, ...], ...]
    headers: tuple[str, ...]
    header_bottom: float
    legend_top: float
    legend_columns: int
    notes_top: float
    notes: tuple[str, ...]


def lay_out(
    ratios: Sequence[float], headers: Sequence[str], figures: bool, legend: Sequence[str], notes: Sequence[str],
    width_mm: float = PAGE_WIDTH_MM,
) -> Layout:  # fmt: skip
    """Place the panels and the text around them.

    Args:
        ratios: for each row, height over width of what is shown, both in mm.
        headers: the name of each column.
        figures: whether there is a line of figures above each row.
        legend: the legend's entries.
        notes: sentences below the legend.
        width_mm: the page's width at most.
    """
    columns = len(headers)
    room = width_mm / MM_PER_INCH - LABEL_STRIP - 2 * MARGIN - (columns - 1) * GAP
    panel = min(room / columns, PANEL_WIDTH_MM / MM_PER_INCH)
    width = LABEL_STRIP + 2 * MARGIN + (columns - 1) * GAP + columns * panel
    broken = tuple(fitted(header, panel, HEADER) for header in headers)
    top = MARGIN + lines(max(text.count("\n") + 1 for text in broken), HEADER) - GAP  # no room below letters
    header_bottom = top
    panels = []
    for ratio in ratios:
        top += lines(1, FIGURES) + GAP if figures else GAP
        height = max(panel * min(ratio, TALLEST_PANEL), LOWEST_ROW)
        lefts = (MARGIN + LABEL_STRIP + column * (panel + GAP) for column in range(columns))
        panels.append(tuple(Box(left, top, panel, height) for left in lefts))
        top += height
    legend_top = top + 2 * GAP
    across = _legend_columns(legend, width - 2 * MARGIN)
    notes_top = legend_top + lines(-(-len(legend) // across), LEGEND) + GAP if legend else legend_top
    note_lines = tuple(line for note in notes for line in fitted(note, width - 2 * MARGIN, NOTES).split("\n"))
    return Layout(
        width=width, height=notes_top + lines(len(note_lines), NOTES) + MARGIN, panels=tuple(panels), headers=broken,
        header_bottom=header_bottom, legend_top=legend_top, legend_columns=across, notes_top=notes_top,
        notes=note_lines,
    )  # fmt: skip


def lines(count: int, points: float) -> float:
    """Give the height of lines of text in inches."""
    return count * points * LINE / POINTS_PER_INCH


def fitted(text: str, inches: float, points: float) -> str:
    """Break a text into lines that fit a width, within words where one is too long by itself."""
    letters = max(1, int(inches * POINTS_PER_INCH / (LETTER * points)))
    return "\n".join(textwrap.wrap(text, letters, break_on_hyphens=False)) or text


def _legend_columns(entries: Sequence[str], width: float) -> int:
    """Put all entries on one line if they fit, else on as few lines as do, filled evenly."""
    widths = [len(entry) * LETTER * LEGEND / POINTS_PER_INCH + LEGEND_ROOM for entry in entries]
    if sum(widths) <= width:
        return max(1, len(entries))
    most = max(1, int(width / max(widths)))
    return -(-len(entries) // -(-len(entries) // most))
