"""What systems attend to, beside each other: heat maps over slices, as Fig. 6, and channel weights.

Of channel weights there is a table too, and the picture has sorted bars and how each weight changes over the slices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nnunetv2_eccam.attention.maps import ChannelWeights
from nnunetv2_eccam.files import saved
from nnunetv2_eccam.overlay import colours
from nnunetv2_eccam.overlay.page import (
    LEGEND,
    PAGE_WIDTH_MM,
    new_page,
    outline,
    plain_settings,
    save_figure,
    show,
    write_above,
)
from nnunetv2_eccam.overlay.rows import Labels, area_scores, choose_slices
from nnunetv2_eccam.overlay.view import View
from nnunetv2_eccam.overlay.window import AsStored, Choice, shown_voxels
from nnunetv2_eccam.volumes import Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

COLOURS, BLUE, RED = "turbo", 0.1, 0.93
"""Blue to red, as Fig. 6, but with a lightness that does not jump: Mikhailov, "Turbo", Google AI blog, 2019. Its ends,
nearly black, are left out, since over an image they would only make it darker."""

OPACITY = 0.5
"""How much of a pixel is heat; the rest is the image beneath."""

RANGE = (1.0, 99.5)
"""The percentiles of a map that are blue and red; single voxels beyond, often at the image's border, saturate."""

WEIGHTS_INCHES = 3.4
"""Width of one system's channel weights."""

CENTRAL = 0.8
"""Share of the slices among which some are chosen evenly, where nothing says which are of interest."""


@dataclass
class HeatRows:
    """Slices of one case, turned for display: (slices, rows, columns) from the top left.

    Attributes:
        view: how they are looked at.
        window: how intensities became grey or colours.
        indices: of the slices in the view's stack.
        image: from 0 to 1, a photograph's with its colours as a last axis.
        reference: the true labels, or None.
        mark: row and column of the point from which maps are seen, in the only slice, or None.
        seen: where the image is not empty; the colours' range is taken there.
        heat: the slices of each map, by the column's title.
        meanings: what the values of each column say, by its title.
    """

    view: View
    window: Choice
    indices: list[int]
    image: npt.NDArray[np.float32]
    reference: Labels | None
    mark: tuple[int, int] | None
    seen: npt.NDArray[np.bool_]
    heat: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    meanings: dict[str, str] = field(default_factory=dict)

    @property
    def numbers(self) -> list[int]:
        """The slices' numbers along the file's axis, from 0."""
        return [self.view.file_number(index) for index in self.indices]

    def add(self, title: str, meaning: str, voxels: npt.NDArray[np.float32]) -> None:
        """Keep the slices of a map, (x, y, z) in the file's voxels, as a column."""
        self.heat[title] = self.view.stack(voxels)[self.indices].copy()
        self.meanings[title] = meaning


def rows_of_image(
    image: Volume,
    view: View,
    window: Choice | None,
    channel: int | None = None,
    reference: Volume | None = None,
    point: Sequence[int] | None = None,
    numbers: Sequence[int] | None = None,
    count: int = 3,
) -> HeatRows:
    """Choose the slices that are drawn and cut them out.

    They are those of the ``numbers`` along the file's axis, from 0; else that of the point, a voxel (x, y, z) of the
    file; else ``count`` of them, where the reference is largest, or evenly spread. Without a window, a photograph's
    colours are shown as stored.

    Raises:
        UserError: there is no such slice or channel.
    """
    voxels = shown_voxels(image, channel)
    stack = None if reference is None else view.stack(reference.voxels)
    place = None
    if point is not None:
        marked = np.zeros(image.shape, bool)
        marked[tuple(point)] = True
        place = [int(at) for at in np.argwhere(view.stack(marked))[0]]
    if numbers is not None:
        indices = view.indices(numbers)
    elif place is not None:
        indices = [place[0]]
    elif stack is not None and stack.any():
        indices = choose_slices(area_scores(stack, []), count)
    else:
        margin = (1 - CENTRAL) / 2 * (view.slices - 1)
        spread = np.linspace(margin, view.slices - 1 - margin, count) if count > 1 else [(view.slices - 1) / 2]
        indices = sorted({round(float(at)) for at in spread})
    choice = window or AsStored()
    shown = view.stack(voxels)[indices]
    return HeatRows(
        view=view,
        window=choice,
        indices=indices,
        image=choice.window(voxels).scaled(shown),
        reference=None if stack is None else stack[indices].copy(),
        mark=(place[1], place[2]) if place is not None and indices == [place[0]] else None,
        seen=np.asarray((shown != 0).any(-1) if shown.ndim == 4 else shown != 0),
    )


def write_heat_maps(
    rows: HeatRows, case: str, target: Path, per_slice: bool = True, width_mm: float = PAGE_WIDTH_MM, dpi: int = 300
) -> None:
    """Draw one row for each slice and one column for each map, into a PNG, SVG or PDF file, whole or not at all.

    Each picture has its own range of values, or each column, over the slices that are drawn.

    Raises:
        UserError: the file cannot be written.
    """
    with plain_settings():
        save_figure(_draw(rows, case, per_slice, width_mm, dpi), target)


def _draw(rows: HeatRows, case: str, per_slice: bool, width_mm: float, dpi: int) -> Figure:
    titles = ["image", *([] if rows.reference is None else ["reference"]), *rows.heat]
    ratio = rows.image.shape[1] * rows.view.aspect / rows.image.shape[2]
    page = new_page(titles, [ratio] * len(rows.indices), width_mm, dpi)
    shared = {title: colour_range(heat, rows.seen) for title, heat in rows.heat.items()}
    for row, image in enumerate(rows.image):
        panels = page.begin_row(row, rows.view, image, "", rows.numbers[row])
        for panel in panels:
            write_above(panel, "")
        for panel in panels[1:]:
            show(panel, rows.view, image)
        if rows.reference is not None:
            labels = [int(label) for label in np.unique(rows.reference) if label]
            shown = {label: colours.LABELS[n % len(colours.LABELS)] for n, label in enumerate(labels)}
            show(panels[1], rows.view, colours.colour_labels(image, rows.reference[row], shown))
        for panel, (title, heat) in zip(panels[-len(rows.heat) :], rows.heat.items(), strict=True):
            low, high = colour_range(heat[row], rows.seen[row]) if per_slice else shared[title]
            drawn = panel.imshow(
                heat[row], cmap=heat_colours(), vmin=low, vmax=high, alpha=OPACITY, aspect=rows.view.aspect,
                interpolation="antialiased",
            )  # fmt: skip
            write_above(panel, range_text(low, high))
            if rows.reference is not None:
                outline(panel, rows.reference[row] > 0, "white", 0.6)
        if rows.mark is not None:
            for panel in panels:
                _mark(panel, rows.mark)
    bar = page.figure.colorbar(drawn, ax=list(page.panels.flat), location="bottom", shrink=0.3, aspect=30, pad=0.01)
    bar.ax.set_facecolor("0.5")  # as the colours look over middle grey
    bar.set_ticks([*bar.mappable.get_clim()], labels=["low", "high"], fontsize=LEGEND)
    bar.ax.tick_params(length=0, pad=1)
    bar.outline.set_visible(False)
    whose = "Each picture" if per_slice else "Each column"
    return page.finish(
        [
            f"{case}. {rows.window.description}.",
            *_meanings(rows.meanings),
            f"{whose} from blue to red has its own range, the numbers above it.",
            f"{rows.view.description}.",
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


def heat_colours() -> ListedColormap:
    """Give the colours from the lowest value to the highest."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps[COLOURS](np.linspace(BLUE, RED, 256)))


def _meanings(meanings: Mapping[str, str]) -> list[str]:
    """Say what the values of each column are; columns with one meaning share a sentence."""
    by_meaning: dict[str, list[str]] = {}
    for title, meaning in meanings.items():
        by_meaning.setdefault(meaning, []).append(title)
    return [f"{', '.join(columns)}: {meaning}." for meaning, columns in by_meaning.items()]


def _mark(panel: Axes, place: tuple[int, int]) -> None:
    row, column = place
    panel.plot(column, row, "+", color="black", markersize=7, markeredgewidth=2.2)
    panel.plot(column, row, "+", color="white", markersize=6, markeredgewidth=1.0)


def write_channel_table(weights: ChannelWeights, target: Path) -> None:
    """Write channel weights as CSV: one row for each slice (or 3D tile), one column for each channel.

    Raises:
        UserError: the file cannot be written.
    """
    import pandas as pd

    columns = [f"channel_{number}" for number in range(weights.weights.shape[1])]
    table = pd.DataFrame(weights.weights, index=list(weights.rows), columns=columns)
    with saved(target) as partial:
        table.to_csv(partial, index_label=weights.unit, float_format="%.6g", lineterminator="\n")


def write_channel_picture(systems: Mapping[str, ChannelWeights], case: str, target: Path, dpi: int = 200) -> None:
    """Draw channel weights into a PNG, SVG or PDF file, one column for each system.

    Above, a bar for each channel: its mean over the slices, from the largest to the smallest, with the range from
    the lowest to the highest slice in grey. Below, the channels in the same order, slice by slice.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    with plain_settings():
        figure = Figure(figsize=(WEIGHTS_INCHES * len(systems) + 0.9, 4.6), dpi=dpi, layout="constrained")
        panels = figure.subplots(2, len(systems), squeeze=False, sharex="col", height_ratios=(1, 1.3))
        for (bars, strip), (title, found) in zip(panels.T, systems.items(), strict=True):
            weights = found.weights[:, np.argsort(-found.weights.mean(0), kind="stable")]
            places = np.arange(weights.shape[1])
            bars.bar(places, weights.mean(0), width=1.0 if len(places) > 64 else 0.9, color=(0.34, 0.71, 0.91))
            bars.vlines(places, weights.min(0), weights.max(0), color="0.25", linewidth=min(1.0, 60 / len(places)))
            bars.set_ylim(0, 1)
            bars.set_title(f"{title}, {len(places)} channels", fontsize=9, parse_math=False)
            shown = strip.imshow(
                weights, cmap=heat_colours(), vmin=0, vmax=1, aspect="auto", interpolation="nearest", origin="lower"
            )
            ticks = np.unique(np.linspace(0, len(weights) - 1, min(6, len(weights))).round().astype(int))
            strip.set_yticks(ticks, [found.rows[tick] for tick in ticks])
            strip.set_ylabel(found.unit if found.unit == "slice" else "tile (centre: x y z)", fontsize=8)
            strip.set_xlabel("channel, by mean weight", fontsize=8)
            for panel in (bars, strip):
                panel.tick_params(labelsize=7)
        panels[0, 0].set_ylabel("weight: mean, and range\nover the slices", fontsize=8)
        bar = figure.colorbar(shown, ax=list(panels[1]), aspect=12, pad=0.01)
        bar.set_label("weight", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        figure.suptitle(f"Channel weights, {case}", fontsize=9, parse_math=False)
        save_figure(figure, target)
