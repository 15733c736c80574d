"""What systems attend to, beside each other: heat maps over slices, as Fig. 6."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from nnunetv2_eccam.overlay import colours
from nnunetv2_eccam.overlay.page import LEGEND, PAGE_WIDTH_MM, Page, outline, show, write_above
from nnunetv2_eccam.overlay.rows import Labels, area_scores, choose_slices
from nnunetv2_eccam.overlay.view import View
from nnunetv2_eccam.overlay.window import shown_voxels
from nnunetv2_eccam.volumes import Volume

COLOURS, BLUE, RED = "turbo", 0.1, 0.93
"""Blue to red, as Fig. 6, but with a lightness that does not jump: Mikhailov, "Turbo", Google AI blog, 2019. Its ends,
nearly black, are left out, since over an image they would only make it darker."""

OPACITY = 0.5
"""How much of a pixel is heat; the rest is the image beneath."""

RANGE = (1.0, 99.5)
"""The percentiles of a map that are blue and red; single voxels beyond, often at the image's border, saturate."""

CENTRAL = 0.8
"""Share of the slices among which some are chosen evenly, where nothing says which are of interest."""


class HeatRows:
    """Slices of one case, turned for display: (slices, rows, columns) from the top left.

    They are those of the ``numbers`` along the file's axis, from 0; else ``count`` of them, where the reference is
    largest, or evenly spread. Channel, window and ``is_ct`` are as
    :func:`~nnunetv2_eccam.overlay.window.shown_voxels` takes them.

    Attributes:
        view: how they are looked at.
        window: how intensities became grey or colours, in words.
        indices: of the slices in the view's stack.
        image: from 0 to 1, a photograph's with its colours as a last axis.
        reference: the true labels, or None.
        seen: where the image is not empty; the colours' range is taken there.
        heat: the slices of each map, by the column's title.
        meanings: what the values of each column say, by its title.

    Raises:
        UserError: there is no such slice or channel.
    """

    def __init__(
        self, image: Volume, view: View, channel: int | None = None, window: Sequence[str] | None = None,
        is_ct: bool = False, reference: Volume | None = None, numbers: Sequence[int] | None = None, count: int = 3,
    ) -> None:  # fmt: skip
        voxels, grey, self.window = shown_voxels(image, channel, window, is_ct)
        stack = None if reference is None else view.stack(reference.voxels)
        if numbers is not None:
            self.indices = view.indices(numbers)
        elif stack is not None and stack.any():
            self.indices = choose_slices(area_scores(stack, []), count)
        else:
            last = view.slices - 1
            ends = ((1 - CENTRAL) / 2, (1 + CENTRAL) / 2) if count > 1 else (0.5, 0.5)
            self.indices = sorted({round(last * float(at)) for at in np.linspace(*ends, count)})
        shown = view.stack(voxels)[self.indices]
        self.view, self.image = view, grey.scaled(shown)
        self.seen: npt.NDArray[np.bool_] = np.asarray(shown.any(-1) if shown.ndim == 4 else shown != 0)
        self.reference: Labels | None = None if stack is None else stack[self.indices].copy()
        self.heat: dict[str, npt.NDArray[np.float32]] = {}
        self.meanings: dict[str, str] = {}

    def add(self, title: str, meaning: str, voxels: npt.NDArray[np.float32]) -> None:
        """Keep the slices of a map, (x, y, z) in the file's voxels, as a column."""
        self.heat[title] = self.view.stack(voxels)[self.indices].copy()
        self.meanings[title] = meaning


def draw(rows: HeatRows, case: str, per_slice: bool = True, width_mm: float = PAGE_WIDTH_MM, dpi: int = 300) -> Figure:
    """Draw one row for each slice and one column for each map.

    Each picture has its own range of values, or each column, over the slices that are drawn.
    """
    heat_colours = ListedColormap(colormaps[COLOURS](np.linspace(BLUE, RED, 256)))
    view, reference, heat = rows.view, rows.reference, rows.heat
    titles = ["image", *([] if reference is None else ["reference"]), *heat]
    ratio = rows.image.shape[1] * view.aspect / rows.image.shape[2]
    page = Page(titles, [ratio] * len(rows.indices), width_mm, dpi)
    shared = {title: colour_range(values, rows.seen) for title, values in heat.items()}
    labels = [] if reference is None else [int(label) for label in np.unique(reference) if label]
    label_colours = {label: colours.LABELS[n % len(colours.LABELS)] for n, label in enumerate(labels)}
    for row, image in enumerate(rows.image):
        panels = page.begin_row(row, view, image, "", view.file_number(rows.indices[row]))
        write_above(panels[0], "")
        if reference is not None:
            write_above(panels[1], "")
            show(panels[1], view, colours.colour_labels(image, reference[row], label_colours))
        for panel, (title, values) in zip(panels[-len(heat) :], heat.items(), strict=True):
            low, high = colour_range(values[row], rows.seen[row]) if per_slice else shared[title]
            show(panel, view, image)
            show(panel, view, values[row], cmap=heat_colours, vmin=low, vmax=high, alpha=OPACITY)
            write_above(panel, range_text(low, high))
            if reference is not None:
                outline(panel, reference[row] > 0, "white", 0.6)
    drawn = page.panels[-1, -1].images[-1]
    bar = page.figure.colorbar(drawn, ax=list(page.panels.flat), location="bottom", shrink=0.3, aspect=30, pad=0.01)
    bar.ax.set_facecolor("0.5")  # as the colours look over middle grey
    bar.set_ticks([*drawn.get_clim()], labels=["low", "high"], fontsize=LEGEND)
    bar.ax.tick_params(length=0, pad=1)
    bar.outline.set_visible(False)
    whose = "Each picture" if per_slice else "Each column"
    same: dict[str, list[str]] = {}
    for title, meaning in rows.meanings.items():
        same.setdefault(meaning, []).append(title)
    return page.finish(
        [
            f"{case}. {rows.window}.",
            *(f"{', '.join(columns)}: {meaning}." for meaning, columns in same.items()),
            f"{whose} from blue to red has its own range, the numbers above it.",
            f"{view.description}.",
        ]
    )


def colour_range(heat: npt.NDArray[np.float32], seen: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Give the values of a map that are blue and red, taken where the image is not empty."""
    values = heat[seen & np.isfinite(heat)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, RANGE))
    if high <= low:
        low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low, low + 1.0)


def range_text(low: float, high: float) -> str:
    """Write a range to three digits of its larger end, so that next to nothing beside it is 0."""
    largest = max(abs(low), abs(high))
    digits = 2 - math.floor(math.log10(largest)) if largest > 0 else 0
    return " to ".join(f"{round(value, digits) + 0.0:.6g}" for value in (low, high))
