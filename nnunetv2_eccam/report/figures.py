"""The report's figures, drawn by matplotlib and seaborn as SVG: cases, and the trainings' curves."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunetv2_eccam.report.collect import Collected
from nnunetv2_eccam.report.measured import Measured, Where
from nnunetv2_eccam.report.metrics import METRICS, Metric
from nnunetv2_eccam.report.table import slug
from nnunetv2_eccam.report.training_logs import Epoch

WIDTH = 8.5
"""Inches; text has 9 points, so that the figure can be read at half the width of a page."""
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "nnunetv2_eccam", "text.parse_math": False, "font.size": 9,
         "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3}  # fmt: skip
LONGEST_NAME = 34
PAIRED_CASES, PAIRED_SYSTEMS = 60, 4
"""Up to so many cases and systems, lines join what is of one case."""
MOST_POINTS = 150
"""Longer trainings are drawn as means of equally many epochs."""


@dataclass(frozen=True)
class Figure:
    """A drawing.

    Attributes:
        name: of its file, and its id on the page.
        caption: what it shows.
        svg: the drawing, a file of its own.
    """

    name: str
    caption: str
    svg: str


def _figure(
    name: str, caption: str, height: float, columns: int, draw: Callable[[Any], None], **options: Any
) -> Figure:
    """Draw a figure of some columns; the same values give the same bytes."""
    import matplotlib
    import matplotlib.figure

    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure((WIDTH, height), layout="constrained")
        draw(figure.subplots(1, columns, squeeze=False, **options)[0])
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Title": caption})
    return Figure(name, caption, text.getvalue())


def _colours(titles: Sequence[str]) -> dict[str, Any]:
    """Give each system its colour, the same in all figures."""
    import seaborn

    palette = seaborn.color_palette("colorblind" if len(titles) <= 10 else "husl", len(titles))
    return dict(zip(titles, palette, strict=True))


def _short(title: str) -> str:
    return title if len(title) <= LONGEST_NAME else title[: LONGEST_NAME - 1] + "\u2026"


def case_figures(measured: Measured, dataset: str, subset: str) -> Iterator[Figure]:
    """Draw the values of single cases, and their differences from the reference: by the spec's metric and surfaces."""
    for where in measured.labels(dataset, subset):
        for metric in dict.fromkeys((measured.metric, METRICS["hd95"], METRICS["nsd"])):
            values = measured.means(where, metric)
            if values.notna().to_numpy().any():
                yield _case_figure(measured, where, metric, values)


def _case_figure(measured: Measured, where: Where, metric: Metric, values: Any) -> Figure:
    import seaborn

    titles = [str(title) for title in values]
    reference, colours = measured.reference(where), _colours(measured.spec.titles)
    tests = measured.against(where, metric)
    unit = measured.unit(metric, where.dataset)
    is_joined = len(values) <= PAIRED_CASES and len(titles) <= PAIRED_SYSTEMS
    # Equal values do not hide each other: moved by an irrational step, not by chance.
    heights = 0.3 * ((np.arange(len(values)) * 0.618034) % 1 - 0.5)

    def draw(axes: Any) -> None:
        left = axes[0]
        seaborn.boxplot(data=values, orient="h", ax=left, palette=[colours[each] for each in titles], fliersize=0,
                        width=0.6, boxprops={"alpha": 0.35}, showmeans=True,
                        meanprops={"marker": "D", "markerfacecolor": "white", "markeredgecolor": "black"})  # fmt: skip
        for row, title in enumerate(titles):
            # Undefined values are left out: matplotlib cannot place a system that has no others on an axis of names.
            known = values[title].notna().to_numpy()
            left.scatter(values[title][known], (row + heights)[known], s=9, color=colours[title], linewidth=0, zorder=3)
        if is_joined:
            for case, height in zip(values.to_numpy(), heights, strict=True):
                left.plot(case, np.arange(len(titles)) + height, color="grey", alpha=0.25, linewidth=0.6, zorder=1)
        left.set(xlabel=f"{metric.title} [{unit}]", ylabel="", yticks=range(len(titles)))
        left.set_yticklabels([_short(title) for title in titles])
        if len(axes) > 1:
            right = axes[1]
            right.axvline(0, color="black", linewidth=0.8)
            for row, title in enumerate(titles):
                if title in tests:
                    found = tests[title].comparison
                    difference = values[title] - values[reference]
                    known = difference.notna().to_numpy()
                    right.scatter(difference[known], (row + heights)[known], s=9, color=colours[title], linewidth=0,
                                  alpha=0.7)  # fmt: skip
                    right.plot([found.low, found.high], [row, row], color="black", linewidth=1.6)
                    right.plot(found.mean_difference, row, "D", color="white", markeredgecolor="black")
            right.set(xlabel=f"minus {_short(str(reference))}")

    kind = "patient" if "patient" in measured.levels else "case"
    joined = f"; lines join what is of one {kind}" if is_joined else ""
    caption = (
        f"{metric.title} per {kind}: {where}. Left: quartiles, median, whiskers of 1.5 times their distance, mean "
        f"(diamond), and every value{joined}."
    )
    if tests:
        caption += f" Right: each {kind}'s difference from {reference}, its mean (diamond) and confidence interval."
    name = slug("values", where.dataset, where.subset, where.label, metric.column)
    return _figure(name, caption, 1 + 0.5 * len(titles), 2 if tests else 1, draw, sharey=True)


def curve_figures(collected: Collected) -> Iterator[Figure]:
    """Draw loss and pseudo Dice over steps (epochs where a log does not tell) of each data set's trainings."""
    colours = _colours(collected.spec.titles)
    for dataset in collected.spec.datasets:
        runs: dict[str, list[list[Epoch]]] = {}
        for part, epochs in collected.epochs.items():
            if part.dataset == dataset:
                runs.setdefault(part.system.title, []).append(epochs)
        in_steps = all(epoch.steps for logs in runs.values() for log in logs for epoch in log)

        def draw(axes: Any, runs: Any = runs, in_steps: bool = in_steps) -> None:
            for title in [each for each in collected.spec.titles if each in runs]:
                for axis, name, style in ((axes[0], "train_loss", "-"), (axes[0], "val_loss", ":"),
                                          (axes[1], "pseudo_dice", "-")):  # fmt: skip
                    lines = [_line(log, name, in_steps) for log in runs[title]]
                    for x, y in lines if len(lines) > 1 and name == "pseudo_dice" else ():
                        axis.plot(x, y, color=colours[title], alpha=0.2, linewidth=0.6)
                    shortest = min((x for x, _ in lines), key=len)
                    mean = np.mean([y[: len(shortest)] for _, y in lines], axis=0)
                    label = _short(title) if name == "pseudo_dice" else None
                    axis.plot(shortest, mean, style, color=colours[title], label=label, linewidth=1.4)
            axes[0].set(ylabel="Loss")
            axes[1].set(ylabel="Pseudo Dice [%]")
            for axis in axes:
                axis.set(xlabel="Step" if in_steps else "Epoch")
            axes[0].figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=3)

        if runs:
            caption = (
                f"Training on {dataset}. Lines: means over folds and repeats, as long as all have that epoch, thin "
                "ones single trainings. Left solid: training, dotted: validation patches; right: nnU-Net's Dice on "
                "validation patches, mean of the labels, which is no Dice of volumes."
            )
            yield _figure(slug("curves", dataset), caption, 3.4 + 0.2 * math.ceil(len(runs) / 3), 2, draw)


def _line(log: Sequence[Epoch], name: str, in_steps: bool) -> tuple[Any, Any]:
    """Give a training's line; of a long one the means of equally many epochs."""
    import pandas

    y = np.array([getattr(epoch, name) for epoch in log]) * (100 if name == "pseudo_dice" else 1)
    x = np.array([(epoch.epoch + 1) * (epoch.steps if in_steps else 1) for epoch in log])
    means = pandas.DataFrame({"x": x, "y": y}).groupby(np.arange(len(log)) // -(-len(log) // MOST_POINTS)).mean()
    return means["x"].to_numpy(), means["y"].to_numpy()
