"""The report's figures, drawn by matplotlib and seaborn as SVG: cases, and the trainings' curves."""

import io
import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import matplotlib
import matplotlib.figure
import numpy as np
import pandas
import seaborn

from nnunetv2_eccam.report.measured import METRICS, Measured, Metric, Where
from nnunetv2_eccam.report.table import slug

WIDTH = 8.5
"""Inches; text has 9 points, so that the figure can be read at half the width of a page."""
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "nnunetv2_eccam", "text.parse_math": False, "font.size": 9,
         "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3}  # fmt: skip
LONGEST_LINE = 34
"""Letters of a title in one line."""
MOST_POINTS = 150
"""Longer trainings are drawn as means of equally many epochs."""


class Figure(NamedTuple):
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
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure((WIDTH, height), layout="constrained")
        draw(figure.subplots(1, columns, squeeze=False, **options)[0])
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Title": caption})
    return Figure(name, caption, text.getvalue())


def _colours(titles: Sequence[str]) -> dict[str, Any]:
    """Give each system its colour, the same in all figures."""
    palette = seaborn.color_palette("colorblind" if len(titles) <= 10 else "husl", len(titles))
    return dict(zip(titles, palette, strict=True))


def _broken(title: str) -> str:
    """Break a long title in lines, before the plans first."""
    parts = title.replace("__", "\n__").split("\n") if len(title) > LONGEST_LINE else [title]
    return "\n".join(line for part in parts for line in textwrap.wrap(part, LONGEST_LINE))


def case_figures(measured: Measured, dataset: str, subset: str) -> Iterator[Figure]:
    """Draw the values of single cases, and their differences from the reference: by the spec's metric and surfaces."""
    for number, where in enumerate(measured.labels(dataset, subset)):
        for metric in dict.fromkeys((measured.metric, METRICS["hd95"], METRICS["nsd"])):
            values = measured.means(where, metric)
            if values.notna().to_numpy().any():
                # The number tells labels apart that differ in their signs only.
                name = slug("values", dataset, subset, str(number + 1), where.label, metric.column)
                yield _case_figure(name, measured, where, metric, values)


def _case_figure(name: str, measured: Measured, where: Where, metric: Metric, values: Any) -> Figure:
    titles = [str(title) for title in values]
    reference, colours = measured.reference(where), _colours(measured.spec.titles)
    tests = measured.against(where, metric)
    unit = measured.unit(metric, where.dataset)
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
        left.set(xlabel=f"{metric.title} [{unit}]", ylabel="", yticks=range(len(titles)))
        left.set_yticklabels([_broken(title) for title in titles])
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
            right.set(xlabel=f"minus {_broken(str(reference))}")

    kind = "patient" if "patient" in measured.levels else "case"
    caption = (
        f"{metric.title} per {kind}: {where}. Left: quartiles, median, whiskers of 1.5 times their distance, mean "
        "(diamond), and every value."
    )
    if tests:
        caption += f" Right: each {kind}'s difference from {reference}, its mean (diamond) and confidence interval."
    return _figure(name, caption, 1 + 0.5 * len(titles), 2 if tests else 1, draw, sharey=True)


def curve_figures(measured: Measured) -> Iterator[Figure]:
    """Draw loss and pseudo Dice over steps (epochs where they are not known) of each data set's trainings."""
    colours = {_broken(title): colour for title, colour in _colours(measured.spec.titles).items()}
    for dataset in measured.spec.datasets:
        logs = [epochs.assign(system=_broken(part.system.title))
                for part, epochs in measured.epochs.items() if part.dataset == dataset]  # fmt: skip
        if not logs:
            continue
        frame = pandas.concat(logs, ignore_index=True)
        in_steps = bool((frame["steps"] > 0).all())
        together = -(-max(map(len, logs)) // MOST_POINTS)
        frame["x"] = (frame["epoch"] // together + 1) * together * (frame["steps"] if in_steps else 1)
        frame["pseudo_dice"] *= 100
        present = [title for title in colours if title in set(frame["system"])]

        def draw(axes: Any, frame: Any = frame, present: Any = present, in_steps: bool = in_steps) -> None:
            for axis, column, style in ((axes[0], "train_loss", "-"), (axes[0], "val_loss", ":"),
                                        (axes[1], "pseudo_dice", "-")):  # fmt: skip
                # A band from the lowest to the highest training.
                band = ("pi", 100) if column == "pseudo_dice" else None
                seaborn.lineplot(frame, x="x", y=column, hue="system", hue_order=present, palette=colours, ax=axis,
                                 linestyle=style, errorbar=band, legend=column == "pseudo_dice")  # fmt: skip
            axes[0].set(ylabel="Loss", xlabel="Step" if in_steps else "Epoch")
            axes[1].set(ylabel="Pseudo Dice [%]", xlabel="Step" if in_steps else "Epoch")
            shown = axes[1].get_legend_handles_labels()
            axes[1].get_legend().remove()
            axes[0].figure.legend(*shown, loc="outside lower center", ncols=3)

        caption = (
            f"Training on {dataset}. Lines: means over folds and repeats, and a band from the lowest to the highest. "
            "Left solid: training, dotted: validation patches; right: nnU-Net's Dice on validation patches, mean of "
            "the labels, which is no Dice of volumes."
        )
        yield _figure(slug("curves", dataset), caption, 3.4 + 0.3 * math.ceil(len(present) / 3), 2, draw)
