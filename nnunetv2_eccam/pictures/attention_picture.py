"""Heat maps over slices, as Fig. 6: the image, the reference, and what each system attends to beside each other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nnunetv2_eccam.pictures import colours, layout
from nnunetv2_eccam.pictures.figure_files import plain_settings, save_figure
from nnunetv2_eccam.pictures.heat_rows import HeatRows
from nnunetv2_eccam.pictures.layout import Box, Layout
from nnunetv2_eccam.pictures.marks import draw_scale, write_sides
from nnunetv2_eccam.pictures.orientation import description

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS, BLUE, RED = "turbo", 0.1, 0.93
"""Blue to red, as Fig. 6, but with a lightness that does not jump: Mikhailov, "Turbo", Google AI blog, 2019. Its ends,
nearly black, are left out, since over an image they would only make it darker."""

OPACITY = 0.5
"""How much of a pixel is heat; the rest is the image beneath."""

RANGE = (1.0, 99.5)
"""The percentiles of a map that are blue and red; single voxels beyond, often at the image's border, saturate."""


DESCENDERS = 0.25
"""Share of a line's height that is below the letters' baseline."""


@dataclass(frozen=True)
class HeatLook:
    """How heat maps are drawn.

    Attributes:
        meanings: what the values of each column say, by its title.
        per_slice: whether each picture has its own range of values, or each column, over the slices that are drawn.
        notes: sentences below the colour bar.
        width_mm: the picture's width at most.
        dpi: pixels per inch.
    """

    meanings: Mapping[str, str]
    per_slice: bool = True
    notes: tuple[str, ...] = ()
    width_mm: float = layout.PAGE_WIDTH_MM
    dpi: int = 300


def write_heat_maps(rows: HeatRows, target: Path, look: HeatLook) -> None:
    """Draw heat maps into a PNG, SVG or PDF file, by the ending of ``target``, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    with plain_settings():
        save_figure(draw_heat_maps(rows, look), target, look.dpi)


def draw_heat_maps(rows: HeatRows, look: HeatLook) -> Figure:
    """Draw one row for each slice and one column for each map, with the range of values above each picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ranges = {title: _ranges(heat, rows.seen, look.per_slice) for title, heat in rows.heat.items()}
    whose = "Each picture" if look.per_slice else "Each column"
    notes = (
        *look.notes,
        *_meanings(rows.heat, look.meanings),
        f"{whose} from blue to red has its own range, the numbers above it.",
        f"{description(rows.view)}.",
    )
    headers = ["image", *([] if rows.reference is None else ["reference"]), *rows.heat]
    ratio = rows.grey.shape[1] * rows.view.aspect / rows.grey.shape[2]
    page = layout.lay_out([ratio] * len(rows.indices), headers, True, ["bar"], notes, look.width_mm)
    figure = Figure(figsize=(page.width, page.height), dpi=look.dpi)
    FigureCanvasAgg(figure)
    for row, boxes in enumerate(page.panels):
        _draw_row(figure, page, rows, row, boxes, ranges)
    for header, box in zip(page.headers, page.panels[0], strict=True):
        for number, line in enumerate(reversed(header.split("\n"))):
            above = page.header_bottom - (number + DESCENDERS) * layout.lines(1, layout.HEADER)
            _write(figure, page, line, box.left + box.width / 2, above, layout.HEADER, va="baseline")
    for number, line in enumerate(page.notes):
        _write(figure, page, line, page.width / 2, page.notes_top + layout.lines(number, layout.NOTES),
               layout.NOTES, va="top", color="0.25")  # fmt: skip
    _draw_bar(figure, page)
    return figure


def _ranges(heat: npt.NDArray[np.float32], seen: npt.NDArray[np.bool_], per_slice: bool) -> list[tuple[float, float]]:
    """Give the range of each slice, (slices, rows, columns), its own or that of all."""
    if per_slice:
        return [colour_range(one, where) for one, where in zip(heat, seen, strict=True)]
    return [colour_range(heat, seen)] * len(heat)


def colour_range(heat: npt.NDArray[np.float32], seen: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Give the values of a map that are blue and red.

    Args:
        heat: of any shape.
        seen: where the image is not empty, same shape.
    """
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


def heat_over(
    grey: npt.NDArray[np.float32], heat: npt.NDArray[np.float32], low: float, high: float
) -> npt.NDArray[np.float64]:
    """Lay a heat map over a slice.

    Args:
        grey: values from 0 to 1, (rows, columns).
        heat: same shape.
        low: the value that is blue.
        high: the value that is red.

    Returns:
        RGB from 0 to 1, (rows, columns, 3).
    """
    from matplotlib import colormaps

    shares = np.clip((heat - low) / (high - low), 0, 1)
    coloured = colormaps[COLOURS](BLUE + (RED - BLUE) * shares)[..., :3]
    return np.asarray((1 - OPACITY) * grey[..., None] + OPACITY * coloured, np.float64)


def _meanings(titles: Iterable[str], meanings: Mapping[str, str]) -> list[str]:
    """Say what the values of each column are; columns with one meaning share a sentence."""
    by_meaning: dict[str, list[str]] = {}
    for title in titles:
        by_meaning.setdefault(meanings.get(title, "values of the map"), []).append(title)
    return [f"{', '.join(columns)}: {meaning}." for meaning, columns in by_meaning.items()]


def _draw_row(
    figure: Figure, page: Layout, rows: HeatRows, row: int, boxes: Sequence[Box],
    ranges: Mapping[str, list[tuple[float, float]]],
) -> None:  # fmt: skip
    panels: list[Axes] = []
    for box in boxes:
        place = (
            box.left / page.width, 1 - (box.top + box.height) / page.height,
            box.width / page.width, box.height / page.height,
        )  # fmt: skip
        panels.append(figure.add_axes(place))
    grey = rows.grey[row]
    pictures: list[npt.NDArray[Any]] = [np.repeat(grey[..., None], 3, axis=2)]
    if rows.reference is not None:
        labels = [int(label) for label in np.unique(rows.reference) if label]
        shown = {label: colours.LABELS[n % len(colours.LABELS)] for n, label in enumerate(labels)}
        pictures.append(colours.colour_labels(grey, rows.reference[row], shown))
    for box, (title, heat) in zip(boxes[len(pictures) :], rows.heat.items(), strict=True):
        low, high = ranges[title][row]
        pictures.append(heat_over(grey, heat[row], low, high))
        _write(figure, page, range_text(low, high), box.left + box.width / 2, box.top - layout.GAP / 2,
               layout.FIGURES, va="bottom")  # fmt: skip
    for number, (panel, pixels) in enumerate(zip(panels, pictures, strict=True)):
        panel.imshow(pixels, interpolation="antialiased", aspect=rows.view.aspect)
        panel.set_axis_off()
        if rows.reference is not None and number > 1:
            _outline(panel, rows.reference[row] > 0)
        if rows.mark is not None:
            _mark(panel, rows.mark)
    if rows.view.sides[0]:
        write_sides(panels[0], rows.view.sides, boxes[0].height)
        draw_scale(panels[0], grey.shape[1] * rows.view.pixel_mm[1], boxes[0].height)
    middle = boxes[0].top + boxes[0].height / 2
    _write(figure, page, f"slice {rows.numbers[row]}", layout.MARGIN + layout.LABEL_STRIP / 2, middle,
           layout.FIGURES, rotation=90)  # fmt: skip


def _outline(panel: Axes, mask: npt.NDArray[np.bool_]) -> None:
    """Draw the reference's border in white, so that it is seen where the heat is."""
    if not mask.any():
        return
    limits = panel.get_xlim(), panel.get_ylim()
    x, y = np.arange(-1, mask.shape[1] + 1), np.arange(-1, mask.shape[0] + 1)
    panel.contour(x, y, np.pad(mask.astype(np.float64), 1), levels=[0.5], colors=["white"], linewidths=0.6)
    panel.set_xlim(limits[0])
    panel.set_ylim(limits[1])


def _mark(panel: Axes, place: tuple[int, int]) -> None:
    row, column = place
    panel.plot(column, row, "+", color="black", markersize=7, markeredgewidth=2.2)
    panel.plot(column, row, "+", color="white", markersize=6, markeredgewidth=1.0)


def _draw_bar(figure: Figure, page: Layout) -> None:
    """Draw the colour bar, as the colours look over middle grey."""
    from matplotlib import colormaps

    length, height = min(1.6, page.width / 3), 0.07
    centre = page.legend_top + layout.lines(1, layout.LEGEND) / 2
    place = (
        (page.width - length) / 2 / page.width, 1 - (centre + height / 2) / page.height,
        length / page.width, height / page.height,
    )  # fmt: skip
    bar = figure.add_axes(place)
    shown = (1 - OPACITY) * 0.5 + OPACITY * colormaps[COLOURS](np.linspace(BLUE, RED, 256))[None, :, :3]
    bar.imshow(shown, aspect="auto", interpolation="bilinear")
    bar.set_axis_off()
    for text, x, align in (("low", -1, "right"), ("high", 1, "left")):
        _write(figure, page, text, page.width / 2 + x * (length / 2 + 0.06), centre, layout.LEGEND, ha=align)


def _write(figure: Figure, page: Layout, text: str, x: float, y: float, points: float, **how: Any) -> None:
    """Write a text as it is - a $ is a $ - at inches from the top left corner."""
    place = {"ha": "center", "va": "center", "linespacing": 1.1, **how}
    figure.text(x / page.width, 1 - y / page.height, text, fontsize=points, parse_math=False, **place)
