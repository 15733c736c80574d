"""Drawing of the values of single cases: a row for each system, with box, mean and every case as a dot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2_eccam.report.axes import Scale, draw_axis_below, limits
from nnunetv2_eccam.report.case_values import Measured, Values, by_case
from nnunetv2_eccam.report.collect import SUBSETS
from nnunetv2_eccam.report.formatting import number
from nnunetv2_eccam.report.metrics import METRICS, Metric
from nnunetv2_eccam.report.svg import Drawing, Figure, series, shortened, text_width
from nnunetv2_eccam.report.table import slug

if TYPE_CHECKING:
    from pandas import DataFrame

WIDTH, TOP, BOTTOM = 760.0, 8.0, 40.0
ROW, HIGHEST = 46.0, 980.0
"""Height of a row, and of all together at most, so that a drawing fits on a printed page."""
WIDEST_NAME = 210.0
BOX, JITTER = 0.28, 0.11
"""Of a row: height of a box, and how far dots are moved up or down so that equal values do not hide each other."""
PAIRED_SYSTEMS, PAIRED_CASES = 4, 60
"""Up to so many systems and cases, lines join what is of one case."""


def distribution_figures(measured: Measured, dataset: str, subset: str) -> list[Figure]:
    """Draw each label's values: the metric of the spec, and the surface's two."""
    metrics = dict.fromkeys([measured.benchmark.metric, METRICS["hd95"], METRICS["nsd"]])
    figures = []
    for label in measured.labels(dataset, subset):
        rows = measured.chosen(measured.cases, dataset, subset, label)
        for metric in metrics:
            table = by_case(rows, metric.column) * metric.factor
            if table.notna().any(axis=None):
                figures.append(_figure(measured, table, metric, (dataset, subset, label)))
    return figures


def _figure(measured: Measured, table: DataFrame, metric: Metric, where: tuple[str, str, str]) -> Figure:
    dataset, subset, label = where
    titles = [str(title) for title in table]
    name = slug("distribution", dataset, subset, label, metric.column)
    title = f"{metric.title} per case: {dataset}, {SUBSETS[subset]}, {label}"
    medians = ", ".join(f"{each} {number(float(table[each].median()))}" for each in titles if table[each].notna().any())
    row = min(ROW, HIGHEST / len(titles))
    height = TOP + BOTTOM + row * len(titles)
    drawing = Drawing(WIDTH, height, title, f"Medians in {metric.unit}: {medians}.", name)
    left = min(max(map(text_width, titles)), WIDEST_NAME) + 14
    finite = table.to_numpy(float)[np.isfinite(table.to_numpy(float))]
    low, high = limits(finite.tolist(), 0, 100 if metric.unit == "%" else None)
    scale = Scale(low, high, left, WIDTH - 16)
    draw_axis_below(drawing, scale, TOP, height - BOTTOM, f"{metric.title} [{metric.unit}]")
    dots = {each: _dot_row(TOP + row * place, row, len(table)) for place, each in enumerate(titles)}
    paired = 1 < len(titles) <= PAIRED_SYSTEMS and len(table) <= PAIRED_CASES
    if paired:
        _draw_pairs(drawing, table, scale, dots)
    for place, each in enumerate(titles):
        drawing.text((left - 8, TOP + row * (place + 0.5) + 4), shortened(each, left - 14), "name", "end")
        values = np.asarray(table[each], np.float64)
        _draw_row(drawing, values, [str(case) for case in table.index], dots[each], scale,
                  measured.benchmark.titles.index(each), TOP + row * place, row)  # fmt: skip
    caption = (
        f"{title}. Box: quartiles and median, whiskers to the last case within 1.5 times their distance; diamond: "
        f"mean; dots: cases" + ("; lines join the dots of one case." if paired else ".")
    )
    return Figure(name, caption, drawing.markup())


def _dot_row(top: float, row: float, cases: int) -> list[float]:
    """Give the height of each case's dot in a row: beneath the box, spread by an irrational step, not by chance."""
    middle = top + row * 0.72
    return [middle + row * JITTER * (2 * ((case * 0.618034) % 1) - 1) for case in range(cases)]


def _draw_pairs(drawing: Drawing, table: DataFrame, scale: Scale, dots: dict[str, list[float]]) -> None:
    lines = []
    for place in range(len(table)):
        values = {str(each): float(table[each].iloc[place]) for each in table}
        lines.append([(scale(value), dots[each][place]) for each, value in values.items() if np.isfinite(value)])
    drawing.paths(lines, "pair")


def _draw_row(
    drawing: Drawing, values: Values, cases: Sequence[str], dots: Sequence[float], scale: Scale, index: int,
    top: float, row: float,
) -> None:  # fmt: skip
    defined = np.isfinite(values)
    if not defined.any():
        drawing.text((scale.start + 8, top + row * 0.5 + 4), "no defined value", "tick")
        return
    kind = series(index)
    drawing.dots(((scale(value), y) for value, y in zip(values, dots, strict=True) if np.isfinite(value)), kind)
    low, middle, high = (float(value) for value in np.quantile(values[defined], (0.25, 0.5, 0.75)))
    reach = 1.5 * (high - low)
    inside = values[defined & (values >= low - reach) & (values <= high + reach)]
    y, half = top + row * 0.3, row * BOX / 2
    drawing.line((scale(float(inside.min())), y), (scale(low), y), f"whisker {kind}")
    drawing.line((scale(high), y), (scale(float(inside.max())), y), f"whisker {kind}")
    drawing.rectangle((scale(low), y - half), scale(high) - scale(low), 2 * half, f"box {kind}")
    drawing.line((scale(middle), y - half), (scale(middle), y + half), f"median {kind}")
    drawing.marker((scale(float(values[defined].mean())), y), 3, "mean", f"mean {number(values[defined].mean())}")
    # Only what is far out says which case it is: the list of cases says it of all.
    outside = defined & ((values < low - reach) | (values > high + reach))
    for place in np.flatnonzero(outside).tolist():
        title = f"{cases[place]}: {number(float(values[place]))}"
        drawing.marker((scale(float(values[place])), dots[place]), 0, f"outlier {kind}", title)
