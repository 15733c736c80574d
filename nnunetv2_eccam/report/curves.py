"""Drawing of the trainings: loss and pseudo Dice of each epoch, the mean over folds and repeats."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nnunetv2_eccam.report.axes import Scale, draw_axis_below, draw_axis_left, limits
from nnunetv2_eccam.report.case_values import Values
from nnunetv2_eccam.report.collect import Collected
from nnunetv2_eccam.report.svg import COLOURS, Drawing, Figure, series
from nnunetv2_eccam.report.table import slug
from nnunetv2_eccam.report.training_logs import Epoch

WIDTH, HEIGHT, TOP, BOTTOM, GAP, LEFT = 760.0, 300.0, 24.0, 40.0, 70.0, 54.0
MOST_POINTS = 120
"""Longer trainings are drawn as means of equally many epochs."""
MARKS = 5
"""How many marks of its shape a line has."""
SINGLE_TRAININGS = 15
"""Up to so many trainings in a drawing, each is there as a thin line behind the means."""


def curve_figures(collected: Collected) -> list[Figure]:
    """Draw the trainings of each data set, at most seven systems at a time."""
    figures = []
    for dataset in collected.benchmark.datasets:
        trainings = _trainings(collected, dataset)
        titles = [title for title in collected.benchmark.titles if title in trainings]
        groups = [titles[start : start + COLOURS] for start in range(0, len(titles), COLOURS)]
        shared = _limits([each for runs in trainings.values() for each in runs])
        for number, group in enumerate(groups):
            part = f" ({number + 1} of {len(groups)})" if len(groups) > 1 else ""
            name = slug("curves", dataset, str(number))
            figures.append(_figure(name, f"{dataset}{part}", {title: trainings[title] for title in group}, shared))
    return figures


def _trainings(collected: Collected, dataset: str) -> dict[str, list[list[Epoch]]]:
    found: dict[str, list[list[Epoch]]] = {}
    for part, epochs in collected.epochs.items():
        if part.dataset == dataset:
            found.setdefault(part.system.title, []).append(epochs)
    return found


def _limits(trainings: Sequence[Sequence[Epoch]]) -> tuple[tuple[float, float], tuple[float, float], int]:
    """Give the limits of loss and pseudo Dice, in percent, and the longest training's epochs."""
    losses = [value for run in trainings for each in run for value in (each.train_loss, each.val_loss)]
    dice = [100 * each.pseudo_dice for run in trainings for each in run]
    return (
        limits([value for value in losses if math.isfinite(value)]),
        limits([value for value in dice if math.isfinite(value)], 0, 100),
        max((len(run) for run in trainings), default=1),
    )


def _figure(
    name: str, where: str, trainings: dict[str, list[list[Epoch]]],
    shared: tuple[tuple[float, float], tuple[float, float], int],
) -> Figure:  # fmt: skip
    (loss_limits, dice_limits, longest) = shared
    last = {title: _last_dice(runs) for title, runs in trainings.items()}
    said = ", ".join(f"{title} {value:.1f}" for title, value in last.items() if math.isfinite(value))
    title = f"Training on {where}: loss and pseudo Dice per epoch"
    drawing = Drawing(WIDTH, HEIGHT, title, f"Pseudo Dice of the last epoch in %: {said}.", name)
    panel = (WIDTH - 2 * LEFT - 16 - (GAP - LEFT)) / 2
    lefts = (LEFT, WIDTH - 16 - panel)
    scales = []
    for left, bounds, label in zip(lefts, (loss_limits, dice_limits), ("Loss", "Pseudo Dice [%]"), strict=True):
        across = Scale(0.0, float(max(longest - 1, 1)), left, left + panel)
        up = Scale(*bounds, HEIGHT - BOTTOM, TOP)
        draw_axis_below(drawing, across, TOP, HEIGHT - BOTTOM, "Epoch")
        draw_axis_left(drawing, up, left, left + panel, label)
        scales.append((across, up))
    single = sum(len(runs) for runs in trainings.values()) <= SINGLE_TRAININGS
    for index, runs in enumerate(trainings.values()):
        for field, (across, up), kind, factor in (
            ("train_loss", scales[0], "curve", 1.0), ("val_loss", scales[0], "curve dashed", 1.0),
            ("pseudo_dice", scales[1], "curve", 100.0),
        ):  # fmt: skip
            values = [np.array([getattr(epoch, field) for epoch in run], np.float64) * factor for run in runs]
            if single and len(runs) > 1:
                drawing.paths((_points(each, across, up) for each in values), f"thin {series(index)}")
            points = _points(_mean(values), across, up)
            drawing.path(points, f"{kind} {series(index)}")
            if "dashed" not in kind:
                _draw_marks(drawing, points, index)
    caption = (
        f"{title}. Lines: means over folds and repeats, as long as all have that epoch"
        f"{', thin ones single trainings' if single else ''}; left solid: training, dashed: validation patches; right: "
        "nnU-Net's Dice on validation patches, mean of the labels, which is no Dice of volumes."
    )
    if longest > MOST_POINTS:
        caption += f" Points are means of {-(-longest // MOST_POINTS)} epochs."
    return Figure(name, caption, drawing.markup(), tuple(enumerate(trainings)))


def _last_dice(runs: Sequence[Sequence[Epoch]]) -> float:
    return 100 * float(np.mean([run[-1].pseudo_dice for run in runs]))


def _mean(values: Sequence[Values]) -> Values:
    """Average trainings epoch by epoch, as far as all of them go."""
    length = min(map(len, values))
    return np.asarray(np.mean([each[:length] for each in values], axis=0), np.float64)


def _points(values: Values, across: Scale, up: Scale) -> list[tuple[float, float]]:
    """Give the points of a line, of a long one the means of equally many epochs."""
    step = -(-round(across.high + 1) // MOST_POINTS)
    chunks = [(start, values[start : start + step]) for start in range(0, len(values), step)]
    means = ((start + (len(chunk) - 1) / 2, float(np.mean(chunk))) for start, chunk in chunks)
    return [(across(epoch), up(value)) for epoch, value in means if math.isfinite(value)]


def _draw_marks(drawing: Drawing, points: Sequence[tuple[float, float]], index: int) -> None:
    """Mark a line here and there, each at other epochs than the others."""
    if not points:
        return
    step = max(1, len(points) // MARKS)
    for place in range((index * step) // COLOURS, len(points), step):
        drawing.marker(points[place], index, "")
