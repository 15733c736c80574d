"""Drawings of what systems reach: against their cost, and over alpha as in the paper's Fig. 5."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from nnunetv2_eccam.report.axes import (
    Scale,
    draw_axis_below,
    draw_axis_left,
    limits,
    logarithmic_limits,
)
from nnunetv2_eccam.report.case_values import Measured, summary_of
from nnunetv2_eccam.report.collect import SUBSETS, Collected
from nnunetv2_eccam.report.cost import MILLION, cost_of
from nnunetv2_eccam.report.formatting import number
from nnunetv2_eccam.report.metrics import Metric
from nnunetv2_eccam.report.read_spec import BenchmarkSystem
from nnunetv2_eccam.report.svg import TYPE, Drawing, Figure, series, shortened, text_width
from nnunetv2_eccam.report.table import slug
from nnunetv2_eccam.statistics import Summary
from nnunetv2_eccam.systems import RECIPES
from nnunetv2_eccam.systems.published import PUBLISHED

WIDTH, HEIGHT, TOP, BOTTOM, LEFT = 760.0, 320.0, 16.0, 40.0, 54.0
NAME_ROOM = 150.0
"""Most that a system's name takes beside its mark."""
SIDE_BY_SIDE = 6
"""Up to so many systems, two drawings stand beside each other."""
MOST_NAMES = 12
"""More systems have numbers instead of names, and no intervals, which would hide each other."""
LOGARITHMIC_FROM = 4.0
"""From what ratio between the largest and the smallest cost a scale is logarithmic."""

PUBLISHED_MARK = 6
"""Colour and shape of what the paper prints."""


class Place(NamedTuple):
    """A system in a drawing.

    Attributes:
        title: its name.
        mark: number of its colour and shape.
        x: what stands on the axis below.
        summary: of its values.
    """

    title: str
    mark: int
    x: float
    summary: Summary


def cost_figures(collected: Collected, measured: Measured) -> list[Figure]:
    """Draw, for each data set and label, the mean against hours of training and against parameters."""
    figures = []
    for dataset, subset in measured.blocks:
        costs = {title: cost_of(collected, dataset, title) for title in measured.benchmark.titles}
        axes = {
            "Hours per training": {title: cost.hours for title, cost in costs.items() if cost},
            "Parameters [M]": {title: cost.parameters / MILLION for title, cost in costs.items() if cost},
        }
        for label in measured.labels(dataset, subset):
            every = _places(measured, dataset, subset, label)
            known = {
                axis: [place._replace(x=values[place.title]) for place in every if values.get(place.title, 0) > 0]
                for axis, values in axes.items()
            }  # fmt: skip
            panels = {axis: places for axis, places in known.items() if len(places) > 1}
            if panels:
                figures.append(_cost_figure(measured, panels, (dataset, subset, label)))
    return figures


def _places(measured: Measured, dataset: str, subset: str, label: str) -> list[Place]:
    benchmark = measured.benchmark
    rows = measured.chosen(measured.cases, dataset, subset, label)
    places = []
    for title in dict.fromkeys(rows["system"]):
        summary = summary_of(rows[rows["system"] == title], benchmark.metric, benchmark)
        if math.isfinite(summary.mean):
            places.append(Place(str(title), benchmark.titles.index(title), math.nan, summary))
    return places


def _cost_figure(measured: Measured, panels: dict[str, list[Place]], where: tuple[str, str, str]) -> Figure:
    """Draw a panel for each cost: of few systems beside each other; of many below, with numbers and a legend."""
    metric, (dataset, subset, label) = measured.benchmark.metric, where
    beside = len(panels) > 1 and max(map(len, panels.values())) <= SIDE_BY_SIDE
    numbered = max(map(len, panels.values())) > MOST_NAMES
    title = f"{metric.title} against cost: {dataset}, {SUBSETS[subset]}, {label}"
    said = "; ".join(
        f"{axis}: " + ", ".join(f"{place.title} {number(place.x)}" for place in places)
        for axis, places in panels.items()
    )
    height = HEIGHT * (1 if beside else len(panels))
    drawing = Drawing(WIDTH, height, title, f"{said}.", slug("cost", dataset, subset, label))
    width = WIDTH / 2 if beside else WIDTH
    for order, (axis, places) in enumerate(panels.items()):
        left, top = (order * width, 0.0) if beside else (0.0, order * HEIGHT)
        names = [str(place.mark + 1) if numbered else place.title for place in places]
        _draw_costs(drawing, places, names, axis, metric, (left, top, width))
    interval = f" and {100 * measured.benchmark.confidence:g}% confidence interval"
    caption = f"{title}. Mean{'' if numbered else interval} over cases."
    titles = {place.mark: place.title for places in panels.values() for place in places}
    entries = tuple((mark, f"{mark + 1} {titles[mark]}") for mark in sorted(titles)) if numbered else ()
    return Figure(drawing.name, caption, drawing.markup(), entries)


def _draw_costs(
    drawing: Drawing, places: Sequence[Place], names: Sequence[str], axis: str, metric: Metric,
    corner: tuple[float, float, float],
) -> None:  # fmt: skip
    left, top, width = corner
    room = min(NAME_ROOM, max(map(text_width, names)) + 18)
    intervals = len(places) <= MOST_NAMES
    values = [place.x for place in places]
    if max(values) / min(values) > LOGARITHMIC_FROM:
        across = Scale(*logarithmic_limits(values), left + LEFT, left + width - room, logarithmic=True)
    else:
        margin = 0.08 * (max(values) - min(values))  # so that no mark stands on the axis
        bounds = limits([min(values) - margin, max(values) + margin])
        across = Scale(*bounds, left + LEFT, left + width - room)
    up = _upward(places, metric.factor, metric.unit, top, intervals=intervals)
    said = f"{axis} (logarithmic)" if across.logarithmic else axis
    draw_axis_below(drawing, across, up.end, up.start, said)
    draw_axis_left(drawing, up, across.start, across.end, metric.header)
    heights = _names_apart(places, across, up, metric.factor, room)
    for place, name, y in zip(places, names, heights, strict=True):
        x, at = across(place.x), up(place.summary.mean * metric.factor)
        _draw_mean(drawing, place, x, up, metric.factor, intervals)
        if abs(y - at) > TYPE / 2:
            drawing.line((x + 5, at), (x + 11, y), "leader")
        drawing.text((x + 13, y + 4), shortened(name, room - 14), "name")


def _upward(
    places: Sequence[Place], factor: float, unit: str, top: float, more: Sequence[float] = (), intervals: bool = True
) -> Scale:
    summaries = [place.summary for place in places]
    ends = [each.mean for each in summaries]
    ends += [value for each in summaries for value in (each.low, each.high)] if intervals else []
    finite = [value for value in [*(value * factor for value in ends), *more] if math.isfinite(value)]
    return Scale(*limits(finite, 0, 100 if unit == "%" else None), top + HEIGHT - BOTTOM, top + TOP)


def _draw_mean(drawing: Drawing, place: Place, x: float, up: Scale, factor: float, interval: bool = True) -> None:
    summary = place.summary
    if interval and math.isfinite(summary.low):
        drawing.line((x, up(summary.low * factor)), (x, up(summary.high * factor)), f"whisker {series(place.mark)}")
    title = f"{place.title}: {number(summary.mean * factor)}"
    drawing.marker((x, up(summary.mean * factor)), place.mark, "", title)


def _names_apart(places: Sequence[Place], across: Scale, up: Scale, factor: float, room: float) -> list[float]:
    """Give the height of each name, moved down where it would stand on another one."""
    heights: dict[int, float] = {}
    order = sorted(range(len(places)), key=lambda number: up(places[number].summary.mean * factor))
    for which in order:
        place = places[which]
        x, y = across(place.x), up(place.summary.mean * factor)
        for other in order:
            is_near = other in heights and abs(heights[other] - y) < TYPE + 1
            if is_near and abs(across(places[other].x) - x) < room + 6:
                y = heights[other] + TYPE + 1
        heights[which] = y
    return [heights[which] for which in range(len(places))]


def alpha_figures(measured: Measured) -> list[Figure]:
    """Draw the mean over alpha, where at least two of the paper's points of Fig. 5 were measured."""
    points = {system.title: system for system in measured.benchmark.systems if _is_point(system)}
    figures = []
    for dataset, subset in measured.blocks:
        for label in measured.labels(dataset, subset):
            lines: dict[str, list[Place]] = {}
            for place in _places(measured, dataset, subset, label):
                system = points.get(place.title)
                if system is not None and system.paper is not None and system.paper.alpha is not None:
                    recipe = "the paper's" if system.trainer.startswith(RECIPES["paper"]) else "nnU-Net's"
                    line = lines.setdefault(f"measured, per volume: {recipe} recipe, {system.configuration}", [])
                    line.append(place._replace(x=system.paper.alpha, mark=len(lines) - 1))
            drawn = {name: sorted(each, key=lambda place: place.x) for name, each in lines.items() if len(each) > 1}
            if drawn:
                figures.append(_alpha_figure(measured, drawn, (dataset, subset, label)))
    return figures


def _is_point(system: BenchmarkSystem) -> bool:
    return system.paper is not None and any(row.table == "Fig. 5" for row in system.paper.rows)


def _alpha_figure(measured: Measured, lines: dict[str, list[Place]], where: tuple[str, str, str]) -> Figure:
    metric, (dataset, subset, label) = measured.benchmark.metric, where
    places = [place for line in lines.values() for place in line]
    title = f"{metric.title} over alpha (Fig. 5): {dataset}, {SUBSETS[subset]}, {label}"
    said = ", ".join(f"{place.x:.1f}: {number(place.summary.mean * metric.factor)}" for place in places)
    drawing = Drawing(WIDTH, HEIGHT, title, f"{said}.", slug("alpha", dataset, subset, label))
    printed = _printed_points(measured, dataset)
    across = Scale(0.0, 1.0, LEFT, WIDTH - 16)
    up = _upward(places, metric.factor, metric.unit, 0.0, list(printed.values()))
    draw_axis_below(drawing, across, TOP, HEIGHT - BOTTOM, "alpha, the weight of Dice (eq. 17)")
    draw_axis_left(drawing, up, LEFT, across.end, metric.header)
    for line in lines.values():
        points = [(across(place.x), up(place.summary.mean * metric.factor)) for place in line]
        drawing.path(points, f"curve {series(line[0].mark)}")
        for place in line:
            _draw_mean(drawing, place, across(place.x), up, metric.factor)
    for alpha, value in printed.items():
        drawing.marker((across(alpha), up(value)), PUBLISHED_MARK, "published", f"published: {number(value)}")
    entries = [(line[0].mark, name) for name, line in lines.items()]
    entries += [(PUBLISHED_MARK, "published, per slice, on another split")] if printed else []
    caption = f"{title}. Mean and {100 * measured.benchmark.confidence:g}% confidence interval over cases."
    return Figure(drawing.name, caption, drawing.markup(), tuple(entries))


def _printed_points(measured: Measured, dataset: str) -> dict[float, float]:
    """Give the points that the paper's text states, by alpha, in percent; only Dice has any."""
    published = measured.benchmark.published.get(dataset)
    points = {}
    for row, scores in PUBLISHED["Fig. 5"].items():
        value = scores.get(published or "", {}).get("DSC")
        if value is not None and measured.benchmark.metric.column == "dsc":
            points[float(row.removeprefix("alpha = "))] = value
    return points
