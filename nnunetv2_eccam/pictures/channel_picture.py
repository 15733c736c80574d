"""Channel weights as a table and as a picture: sorted bars, and how each channel's weight changes over the slices."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nnunetv2_eccam.files import saved
from nnunetv2_eccam.pictures.attention import ChannelWeights
from nnunetv2_eccam.pictures.attention_picture import BLUE, COLOURS, RED
from nnunetv2_eccam.pictures.figure_files import plain_settings, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap
    from matplotlib.image import AxesImage

PANEL_INCHES = 3.4
"""Width of one system's bars and strip."""


def write_channel_table(weights: ChannelWeights, target: Path) -> None:
    """Write channel weights as CSV: one row for each slice (or 3D tile), one column for each channel.

    Raises:
        UserError: the file cannot be written.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([weights.unit, *(f"channel_{number}" for number in range(weights.weights.shape[1]))])
    for row, values in zip(weights.rows, weights.weights, strict=True):
        table.writerow([row, *(f"{value:.6g}" for value in values)])
    with saved(target) as partial:
        partial.write_text(text.getvalue(), encoding="utf-8")


def write_channel_picture(systems: Mapping[str, ChannelWeights], case: str, target: Path, dpi: int = 200) -> None:
    """Draw channel weights into a PNG, SVG or PDF file, one column for each system.

    Above, a bar for each channel: its mean over the slices, from the largest to the smallest, with the range from
    the lowest to the highest slice in grey. Below, the channels in the same order, slice by slice.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with plain_settings():
        figure = Figure(figsize=(PANEL_INCHES * len(systems) + 0.9, 4.6), dpi=dpi, layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(2, len(systems), squeeze=False, sharex="col", height_ratios=(1, 1.3))
        for column, (title, weights) in enumerate(systems.items()):
            order = np.argsort(-weights.weights.mean(0), kind="stable")
            _draw_bars(panels[0, column], weights.weights[:, order])
            panels[0, column].set_title(f"{title}, {len(order)} channels", fontsize=9, parse_math=False)
            shown = _draw_strip(panels[1, column], weights, order)
            for panel in panels[:, column]:
                panel.tick_params(labelsize=7)
        panels[0, 0].set_ylabel("weight: mean, and range\nover the slices", fontsize=8)
        bar = figure.colorbar(shown, ax=list(panels[1]), aspect=12, pad=0.01)
        bar.set_label("weight", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        figure.suptitle(f"Channel weights, {case}", fontsize=9, parse_math=False)
        save_figure(figure, target, dpi)


def _draw_bars(panel: Axes, weights: npt.NDArray[np.float32]) -> None:
    places = np.arange(weights.shape[1])
    panel.bar(places, weights.mean(0), width=1.0 if len(places) > 64 else 0.9, color=(0.34, 0.71, 0.91))
    panel.vlines(places, weights.min(0), weights.max(0), color="0.25", linewidth=min(1.0, 60 / len(places)))
    panel.set_ylim(0, 1)


def _draw_strip(panel: Axes, weights: ChannelWeights, order: npt.NDArray[np.intp]) -> AxesImage:
    ordered = weights.weights[:, order]
    shown = panel.imshow(
        ordered, cmap=_colours(), vmin=0, vmax=1, aspect="auto", interpolation="nearest", origin="lower"
    )
    ticks = np.unique(np.linspace(0, len(weights.rows) - 1, min(6, len(weights.rows))).round().astype(int))
    panel.set_yticks(ticks, [weights.rows[tick] for tick in ticks])
    panel.set_ylabel(weights.unit if weights.unit == "slice" else "tile (centre: x y z)", fontsize=8)
    panel.set_xlabel("channel, by mean weight", fontsize=8)
    return shown


def _colours() -> ListedColormap:
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps[COLOURS](np.linspace(BLUE, RED, 256)))
