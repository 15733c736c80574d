"""Draw rows of slices as a grid: the image, the reference and each system's result beside each other (Fig. 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.pictures import colours, layout
from nnunetv2_eccam.pictures.case_rows import Row
from nnunetv2_eccam.pictures.colours import Colour, Labels
from nnunetv2_eccam.pictures.figure_files import FORMATS, plain_settings, save_figure
from nnunetv2_eccam.pictures.layout import Layout
from nnunetv2_eccam.pictures.marks import draw_scale, write_sides

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Style = Literal["contour", "fill", "errors"]

REFERENCE_LINE, PREDICTION_LINE, LABEL_LINE = 1.2, 0.7, 0.9
"""Widths of contours in points: where reference and prediction run along each other, the reference is seen on both
sides; of several labels one mask's contours are drawn alone."""


@dataclass(frozen=True)
class Look:
    """How a picture is drawn.

    Attributes:
        style: ``contour`` or ``fill`` for labels, ``errors`` for hits, false alarms and misses.
        label_colours: the colour of each label that is drawn, in the legend's order.
        label_names: what the legend calls them.
        notes: sentences below the legend.
        width_mm: the picture's width at most.
        dpi: pixels per inch, of the images in SVG and PDF too.
    """

    style: Style = "contour"
    label_colours: Mapping[int, Colour] = field(default_factory=lambda: {1: colours.LABELS[0]})
    label_names: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    width_mm: float = layout.PAGE_WIDTH_MM
    dpi: int = 300


def write_picture(rows: Sequence[Row], target: Path, look: Look) -> None:
    """Draw rows and write them as PNG, SVG or PDF, by the ending of ``target``, whole or not at all.

    Raises:
        UserError: the ending is another, or the file cannot be written.
    """
    check_target(target)
    with plain_settings():
        save_figure(draw(rows, look), target, look.dpi)


def check_target(target: Path) -> str:
    """See that a picture can be written there, and give its ending in small letters.

    Raises:
        UserError: the ending is none of PNG, SVG and PDF, or the folder does not exist.
    """
    ending = target.suffix.lower()
    if ending not in FORMATS:
        raise UserError(f"{target}: a picture's name ends in {', '.join(FORMATS)}, by which its format is chosen")
    if not target.parent.is_dir():
        raise UserError(f"{target.parent} is not a folder, so {target.name} cannot be written there; create it")
    if target.is_dir():
        raise UserError(f"{target} is a folder; give the name of a file")
    return ending


def draw(rows: Sequence[Row], look: Look) -> Figure:
    """Draw rows as a grid.

    Args:
        rows: at least one; all with the same systems, and all or none with a reference.
        look: how.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    headers = ["image", *([] if rows[0].reference is None else ["reference"]), *rows[0].predictions]
    figures = any(row.dice for row in rows)
    legend = _legend(rows, look)
    ratios = [_ratio(row) for row in rows]
    page = layout.lay_out(ratios, headers, figures, [name for name, _ in legend], look.notes, look.width_mm)
    figure = Figure(figsize=(page.width, page.height), dpi=look.dpi)
    FigureCanvasAgg(figure)
    for row, boxes in zip(rows, page.panels, strict=True):
        _draw_row(figure, page, row, boxes, look)
    _write_around(figure, page, legend)
    return figure


def _ratio(row: Row) -> float:
    """Give the height of what is shown over its width, both in mm."""
    return float(row.image.shape[0] * row.view.aspect / row.image.shape[1])


def _draw_row(figure: Figure, page: Layout, row: Row, boxes: Sequence[layout.Box], look: Look) -> None:
    panels = []
    for box in boxes:
        place = (
            box.left / page.width, 1 - (box.top + box.height) / page.height,
            box.width / page.width, box.height / page.height,
        )  # fmt: skip
        panels.append(figure.add_axes(place))
    _show(panels[0], row, row.image)
    if row.view.sides[0]:
        height = min(boxes[0].height, boxes[0].width * _ratio(row))
        write_sides(panels[0], row.view.sides, height)
        draw_scale(panels[0], row.image.shape[1] * row.view.pixel_mm[1], height)
    if row.reference is not None:
        _draw_labels(panels[1], row, row.reference, look, is_reference=True)
    first = len(panels) - len(row.predictions)
    for panel, box, (name, prediction) in zip(panels[first:], boxes[first:], row.predictions.items(), strict=True):
        if look.style == "errors" and row.reference is not None:
            _show(panel, row, colours.colour_errors(row.image, row.reference, prediction))
        else:
            _draw_labels(panel, row, prediction, look, is_reference=False)
        if name in row.dice:
            value = row.dice[name]
            text = "DSC undefined" if value is None else f"DSC {value:.3f}"
            _write(figure, page, text, box.left + box.width / 2, box.top - layout.GAP, layout.FIGURES, va="baseline")
    middle = boxes[0].top + boxes[0].height / 2
    text = f"{layout.fitted(row.case, boxes[0].height, layout.FIGURES)}\nslice {row.number}"
    _write(figure, page, text, layout.MARGIN + layout.LABEL_STRIP / 2, middle, layout.FIGURES, rotation=90)


def _draw_labels(panel: Axes, row: Row, labels: Labels, look: Look, is_reference: bool) -> None:
    drawn, is_single = _colours_of(row, look, is_reference), len(look.label_colours) == 1
    if look.style != "contour":
        opacity = colours.FILL_OPACITY if look.style == "fill" else colours.OPACITY
        _show(panel, row, colours.colour_labels(row.image, labels, drawn, opacity))
        return
    _show(panel, row, row.image)
    if is_single and not is_reference and row.reference is not None:
        for label, colour in _colours_of(row, look, True).items():
            _outline(panel, row.reference == label, colour, REFERENCE_LINE)
    width = (REFERENCE_LINE if is_reference else PREDICTION_LINE) if is_single else LABEL_LINE
    for label, colour in drawn.items():
        _outline(panel, labels == label, colour, width)


def _colours_of(row: Row, look: Look, is_reference: bool) -> Mapping[int, Colour]:
    """Colour a single label by whose it is, several by which they are."""
    if len(look.label_colours) == 1 and row.reference is not None and look.style != "fill":
        return dict.fromkeys(look.label_colours, colours.REFERENCE if is_reference else colours.PREDICTION)
    return look.label_colours


def _show(panel: Axes, row: Row, pixels: npt.NDArray[Any]) -> None:
    """Show grey values or RGB; matplotlib smooths where it has fewer pixels than the slice, and only there."""
    panel.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="antialiased", aspect=row.view.aspect)
    panel.set_anchor("N")  # of a flat slice too, the DSC stands right above
    panel.set_axis_off()


def _outline(panel: Axes, mask: npt.NDArray[np.bool_], colour: Colour, width: float) -> None:
    """Draw the border between a mask and the rest, also where the mask reaches the edge of the slice."""
    if not mask.any():
        return
    rows, columns = mask.shape
    limits = panel.get_xlim(), panel.get_ylim()
    padded = np.pad(mask.astype(np.float64), 1)
    x, y = np.arange(-1, columns + 1), np.arange(-1, rows + 1)
    panel.contour(x, y, padded, levels=[0.5], colors=[colour], linewidths=width, zorder=2)
    panel.set_xlim(limits[0])
    panel.set_ylim(limits[1])


def _write_around(figure: Figure, page: Layout, legend: Sequence[tuple[str, Colour]]) -> None:
    for header, box in zip(page.headers, page.panels[0], strict=True):
        middle = box.left + box.width / 2
        _write(figure, page, header, middle, page.header_bottom, layout.HEADER, va="baseline", linespacing=1.1)
    for number, line in enumerate(page.notes):
        below = page.notes_top + layout.lines(number, layout.NOTES)
        _write(figure, page, line, page.width / 2, below, layout.NOTES, va="top", color="0.25")
    if not legend:
        return
    from matplotlib.patches import Patch

    # matplotlib leaves entries out whose name begins with an underscore, unless they are named afterwards.
    shown = figure.legend(
        handles=[Patch(color=colour, label="entry") for _, colour in legend], loc="upper center", borderaxespad=0,
        bbox_to_anchor=(0.5, 1 - page.legend_top / page.height), ncols=page.legend_columns, frameon=False,
        fontsize=layout.LEGEND, handlelength=1.2, handleheight=0.7, columnspacing=1.6, borderpad=0,
        labelspacing=layout.LINE - 1,
    )  # fmt: skip
    for text, (name, _) in zip(shown.get_texts(), legend, strict=True):
        text.set_parse_math(False)
        text.set_text(name)


def _write(figure: Figure, page: Layout, text: str, x: float, y: float, points: float, **how: Any) -> None:
    """Write a text as it is - a $ is a $ - at inches from the top left corner."""
    place = {"ha": "center", "va": "center", **how}
    figure.text(x / page.width, 1 - y / page.height, text, fontsize=points, parse_math=False, **place)


def _legend(rows: Sequence[Row], look: Look) -> list[tuple[str, Colour]]:
    has_reference, has_systems = rows[0].reference is not None, bool(rows[0].predictions)
    if look.style == "errors":
        errors = [
            ("found (true positive)", colours.TRUE_POSITIVE), ("too much (false positive)", colours.FALSE_POSITIVE),
            ("missed (false negative)", colours.FALSE_NEGATIVE),
        ]  # fmt: skip
        return [("reference", colours.REFERENCE), *(errors if has_systems else [])]
    names = [(look.label_names.get(label, f"label {label}"), colour) for label, colour in look.label_colours.items()]
    if look.style == "contour" and len(names) == 1 and has_reference:
        ((name, _),) = names
        prediction = [(f"prediction: {name}", colours.PREDICTION)] if has_systems else []
        return [(f"reference: {name}", colours.REFERENCE), *prediction]
    return names
