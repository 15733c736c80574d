"""Channel weights as a table and as a picture: sorted bars, and how each channel's weight changes over the slices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nnunetv2_eccam.attention.maps import ChannelWeights
from nnunetv2_eccam.attention.picture import heat_colours
from nnunetv2_eccam.files import saved
from nnunetv2_eccam.overlay.page import plain_settings, save_figure

PANEL_INCHES = 3.4
"""Width of one system's bars and strip."""


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
        figure = Figure(figsize=(PANEL_INCHES * len(systems) + 0.9, 4.6), dpi=dpi, layout="constrained")
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
