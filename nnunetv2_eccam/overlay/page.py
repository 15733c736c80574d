"""A page of panels, laid out by matplotlib: columns with a title, rows with a name, notes below, and its file."""

import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import written_whole
from nnunetv2_eccam.overlay.view import View

MM_PER_INCH = 25.4
PAGE_WIDTH_MM = 182.0
"""Both columns of a page of the IEEE's transactions, the paper's journal."""
NARROWEST_PANEL, WIDEST_PANEL = 0.5, 2.36
"""How wide a panel is, inches."""
TALLEST_PANEL, LOWEST_PANEL = 2.0, 0.55
"""How high a panel is at most, over its width; and at least, inches, since the names of its case and slice stand beside
it."""
ROW_NAMES = 0.36
"""Inches left of the panels."""

HEADER, FIGURES, LEGEND, NOTES = 8.0, 6.5, 7.0, 6.0
"""Sizes of type in points: names of columns, DSC and names of cases, legend, notes."""
LETTER = 0.62
"""Width of a letter over the size of the type, rather too wide than too narrow."""

OPPOSITE = {"R": "L", "A": "P", "S": "I"}
FORMATS: dict[str, dict[str, None]] = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".webp": {}}
"""Endings of pictures, and the metadata left out of each, so that the same input gives the same file."""


class Page:
    """A figure with panels.

    Args:
        titles: of the columns.
        ratios: height over width of what each row shows, both in mm.
        width_mm: the page's width at most.
        dpi: pixels per inch.

    Attributes:
        figure: matplotlib's.
        panels: (rows, columns) of axes.
        ratios: height over width of each row's panels.
        footer: axes of no height below the panels, for a legend.

    Raises:
        UserError: the page is too narrow for so many columns.
    """

    def __init__(self, titles: Sequence[str], ratios: Sequence[float], width_mm: float, dpi: int) -> None:
        panel = min((width_mm / MM_PER_INCH - ROW_NAMES) / len(titles), WIDEST_PANEL)
        if panel < NARROWEST_PANEL:
            needed = math.ceil((len(titles) * NARROWEST_PANEL + ROW_NAMES) * MM_PER_INCH)
            raise UserError(f"--width {width_mm:g} is too narrow for {len(titles)} columns; give {needed} mm or more")
        self.ratios = [max(min(ratio, TALLEST_PANEL), LOWEST_PANEL / panel) for ratio in ratios]
        size = (ROW_NAMES + len(titles) * panel, 2 + sum(self.ratios) * panel)  # high enough for all text; see finish
        layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
        self.figure = Figure(figsize=size, dpi=dpi, layout=layout)
        grid = self.figure.add_gridspec(len(self.ratios) + 1, len(titles), height_ratios=[*self.ratios, 1e-4])
        places = np.ndindex(len(self.ratios), len(titles))
        self.panels = np.reshape([self.figure.add_subplot(grid[place]) for place in places], (-1, len(titles)))
        for each in self.panels.flat:
            each.set(xticks=[], yticks=[], anchor="N")  # of a flat slice too, the figure stands right above
            each.spines[:].set_visible(False)
        for each, title in zip(self.panels[0], titles, strict=True):
            each.set_title(fitted(title, panel, HEADER), fontsize=HEADER, parse_math=False, pad=4)
        self.footer = self.figure.add_subplot(grid[-1, :])
        self.footer.set_axis_off()

    def begin_row(self, row: int, view: View, image: npt.NDArray[Any], case: str, number: int) -> npt.NDArray[Any]:
        """Show a slice in a row's first panel, with its name, directions and scale, and give the row's panels."""
        first, inches = self.panels[row, 0], float(self.figure.get_figwidth()) / self.panels.shape[1]
        name = [fitted(case, self.ratios[row] * inches, FIGURES), f"slice {number}" if view.numbered else ""]
        first.set_ylabel("\n".join(filter(None, name)), fontsize=FIGURES, labelpad=2, parse_math=False)
        show(first, view, image)
        mark_directions(first, view, image.shape, inches)
        return np.asarray(self.panels[row])

    def finish(self, notes: Sequence[str]) -> Figure:
        """Write sentences below, and give the page the height at which every panel has its proportions."""
        figure: Any = self.figure
        figure.supxlabel("\n".join(notes), fontsize=NOTES, color="0.25", wrap=True, parse_math=False)
        for _ in range(1 if figure.axes[-1] is self.footer else 2):  # a colour bar grows with the page
            figure.get_layout_engine().execute(figure)
            width, height = figure.get_size_inches()
            cells = [panel.get_position(original=True) for panel in self.panels[:, 0]]
            wanted = sum(cell.width * width * ratio for cell, ratio in zip(cells, self.ratios, strict=True))
            figure.set_figheight(height + wanted - sum(cell.height * height for cell in cells))
        return self.figure


def fitted(text: str, inches: float, points: float) -> str:
    """Break a text into lines that fit a width, within words where one is too long by itself."""
    letters = max(1, int(inches * 72 / (LETTER * points)))
    return "\n".join(textwrap.wrap(text, letters, break_on_hyphens=False)) or text


def show(panel: Axes, view: View, pixels: npt.NDArray[Any], **how: Any) -> None:
    """Show grey values or colours; matplotlib smooths where it has fewer pixels than the slice, and only there."""
    grey = {"cmap": "gray", "vmin": 0, "vmax": 1}
    panel.imshow(pixels, **(how or grey), interpolation="antialiased", aspect=view.aspect)


def write_above(panel: Axes, text: str) -> None:
    """Write a line of figures above a panel, below its column's title; a blank keeps the room."""
    panel.xaxis.set_label_position("top")
    panel.set_xlabel(text or " ", fontsize=FIGURES, labelpad=2, parse_math=False)


def outline(panel: Axes, mask: npt.NDArray[np.bool_], colour: Any, width: float) -> None:
    """Draw the border between a mask and the rest, also where the mask reaches the edge of the slice."""
    if not mask.any():
        return
    rows, columns = mask.shape
    limits = {"xlim": panel.get_xlim(), "ylim": panel.get_ylim()}
    x, y = np.arange(-1, columns + 1), np.arange(-1, rows + 1)
    panel.contour(x, y, np.pad(mask.astype(float), 1), levels=[0.5], colors=[colour], linewidths=width, zorder=2)
    panel.set(**limits)


def mark_directions(panel: Axes, view: View, shape: Sequence[int], inches: float) -> None:
    """Write the body's sides at the edges of a slice of a shape (rows, columns), and draw a bar that tells its scale.

    In a slice that is flat on the page, where it is so many inches wide, some would stand in the others' way.
    """
    height = inches * shape[0] * view.aspect / shape[1]
    edge = [withStroke(linewidth=1.5, foreground="black")]
    places = [(0, 0.5, "left", "center"), (1, 0.5, "right", "center"),
              (0.5, 1, "center", "top"), (0.5, 0, "center", "bottom")]  # fmt: skip
    letters = [letter for side in view.sides for letter in (side, OPPOSITE[side])]
    for letter, (x, y, across, along) in zip(letters, places[: 4 if height > LOWEST_PANEL / 2 else 2], strict=False):
        panel.annotate(
            letter, (x, y), (6 * (0.5 - x), 6 * (0.5 - y)), xycoords="axes fraction", textcoords="offset points",
            ha=across, va=along, color="white", fontsize=FIGURES, path_effects=edge,
        )  # fmt: skip
    if not view.in_mm or height < LOWEST_PANEL:
        return
    # 1, 2 or 5 times a power of ten millimetres, at most a quarter of the slice.
    lengths = [step * 10.0**power for power in range(-3, 4) for step in (1, 2, 5)]
    length = max((mm for mm in lengths if mm <= shape[1] * view.pixel_mm[1] / 4), default=lengths[0])
    bar = AnchoredSizeBar(
        panel.transData, length / view.pixel_mm[1], f"{length:g} mm", "lower left", pad=0.3, sep=2, frameon=False,
        color="white", label_top=True, fontproperties={"size": NOTES},
    )  # fmt: skip
    for part in (bar.size_bar.get_children()[0], bar.txt_label.get_children()[0]):
        part.set_path_effects(edge)
    panel.add_artist(bar)


def check_target(target: Path) -> None:
    """See that a picture can be written there.

    Raises:
        UserError: the ending is none of PNG, SVG and PDF, or the folder does not exist.
    """
    if target.suffix.lower() not in FORMATS:
        raise UserError(f"{target}: a picture's name ends in {', '.join(FORMATS)}, by which its format is chosen")
    if not target.parent.is_dir():
        raise UserError(f"{target.parent} is not a folder, so {target.name} cannot be written there; create it")
    if target.is_dir():
        raise UserError(f"{target} is a folder; give the name of a file")


def save_figure(draw: Callable[[], Figure], target: Path) -> None:
    """Draw a figure and write it, in the format of the target's ending, whole or not at all.

    matplotlib's defaults hold, whatever the user's own settings are (TeX would read names as its commands).
    """
    ending = target.suffix.lower()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        # Journals ask for fonts that are embedded as outlines; text in an SVG stays text, which can be edited.
        matplotlib.rcParams.update({"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "nnunetv2_eccam"})
        figure = draw()
        with written_whole(target) as partial:
            figure.savefig(partial, format=ending[1:], dpi=figure.dpi, metadata=FORMATS[ending] or None)
