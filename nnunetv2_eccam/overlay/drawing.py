"""Draw rows of slices as a grid: the image, the reference and each system's result beside each other (Fig. 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.overlay import colours
from nnunetv2_eccam.overlay.colours import Colour
from nnunetv2_eccam.overlay.page import (
    LEGEND,
    LETTER,
    Page,
    new_page,
    outline,
    plain_settings,
    save_figure,
    show,
    write_above,
)
from nnunetv2_eccam.overlay.rows import Labels, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nnunetv2_eccam.overlay.overlay import Overlay

REFERENCE_LINE, PREDICTION_LINE, LABEL_LINE = 1.2, 0.7, 0.9
"""Widths of contours in points: where reference and prediction run along each other, the reference is seen on both
sides; of several labels one mask's contours are drawn alone."""

ENTRY_ROOM = 6
"""What a legend's entry takes beside its text, in letters."""


def write_rows(rows: Sequence[Row], options: Overlay, names: Mapping[int, str], target: Path) -> None:
    """Draw rows, all with the same systems, and write them as PNG, SVG or PDF, whole or not at all.

    Raises:
        UserError: there are more labels than colours, or the file cannot be written.
    """
    with plain_settings():
        save_figure(draw(rows, options, names), target)


def draw(rows: Sequence[Row], options: Overlay, names: Mapping[int, str]) -> Figure:
    """Draw rows as a grid, see :func:`write_rows`."""
    titles = ["image", *([] if rows[0].reference is None else ["reference"]), *rows[0].predictions]
    ratios = [row.image.shape[0] * row.view.aspect / row.image.shape[1] for row in rows]
    page = new_page(titles, ratios, options.width_mm, options.dpi)
    shown = _label_colours(rows, options)
    has_figures = any(row.dice for row in rows)
    for place, row in enumerate(rows):
        panels = page.begin_row(place, row.view, row.image, row.case, row.number)
        if row.reference is not None:
            _draw_labels(panels[1], row, row.reference, options, shown, is_reference=True)
        first = len(panels) - len(row.predictions)
        for panel, prediction in zip(panels[first:], row.predictions.values(), strict=True):
            if options.style == "errors" and row.reference is not None:
                show(panel, row.view, colours.colour_errors(row.image, row.reference, prediction))
            else:
                _draw_labels(panel, row, prediction, options, shown, is_reference=False)
        if has_figures:
            figures = [""] * first
            for name in row.predictions:
                value = row.dice.get(name)
                figures.append("DSC undefined" if value is None else f"DSC {value:.3f}")
            for panel, text in zip(panels, figures, strict=True):
                write_above(panel, text)
    _draw_legend(page, _legend(rows, options, shown, names))
    return page.finish(_notes(rows, options, names))


def _label_colours(rows: Sequence[Row], options: Overlay) -> dict[int, Colour]:
    """Give each label a colour by its place among those asked for, and leave out those that no slice shows."""
    if options.merged:
        return {1: colours.REFERENCE}
    shown = _shown_labels(rows)
    labels = options.labels or shown or [1]
    if len(labels) > len(colours.LABELS):
        raise UserError(
            f"there are {len(labels)} labels and {len(colours.LABELS)} colours that can be told apart; choose with "
            f"--label among {', '.join(map(str, labels))}"
        )
    named = dict(zip(labels, colours.LABELS, strict=False))
    return {label: colour for label, colour in named.items() if label in shown} or named


def _shown_labels(rows: Sequence[Row]) -> list[int]:
    masks = [np.unique(mask).tolist() for row in rows for mask in row.masks]
    return sorted({int(label) for labels in masks for label in labels} - {0})


def _draw_labels(
    panel: Axes, row: Row, labels: Labels, options: Overlay, shown: Mapping[int, Colour], is_reference: bool
) -> None:
    # A single label is coloured by whose it is, several by which they are.
    single = len(shown) == 1
    by_whose = single and row.reference is not None and options.style != "fill"
    own = dict.fromkeys(shown, colours.REFERENCE if is_reference else colours.PREDICTION) if by_whose else shown
    if options.style != "contour":
        opacity = colours.FILL_OPACITY if options.style == "fill" else colours.OPACITY
        show(panel, row.view, colours.colour_labels(row.image, labels, own, opacity))
        return
    show(panel, row.view, row.image)
    if by_whose and not is_reference and row.reference is not None:
        for label in shown:
            outline(panel, row.reference == label, colours.REFERENCE, REFERENCE_LINE)
    width = (REFERENCE_LINE if is_reference else PREDICTION_LINE) if single else LABEL_LINE
    for label, colour in own.items():
        outline(panel, labels == label, colour, width)


def _legend(
    rows: Sequence[Row], options: Overlay, shown: Mapping[int, Colour], names: Mapping[int, str]
) -> list[tuple[str, Colour]]:
    has_reference, has_systems = rows[0].reference is not None, bool(rows[0].predictions)
    if options.style == "errors":
        errors = [
            ("found (true positive)", colours.TRUE_POSITIVE), ("too much (false positive)", colours.FALSE_POSITIVE),
            ("missed (false negative)", colours.FALSE_NEGATIVE),
        ]  # fmt: skip
        return [("reference", colours.REFERENCE), *(errors if has_systems else [])]
    entries = [(names.get(label, f"label {label}"), colour) for label, colour in shown.items()]
    if options.style == "contour" and len(entries) == 1 and has_reference:
        ((name, _),) = entries
        prediction = [(f"prediction: {name}", colours.PREDICTION)] if has_systems else []
        return [(f"reference: {name}", colours.REFERENCE), *prediction]
    return entries


def _draw_legend(page: Page, entries: Sequence[tuple[str, Colour]]) -> None:
    from matplotlib.patches import Patch

    letters = page.figure.get_figwidth() * 72 / (LETTER * LEGEND)
    in_one_line = sum(len(name) + ENTRY_ROOM for name, _ in entries) <= letters
    # matplotlib leaves entries out whose name begins with an underscore, unless they are named afterwards.
    shown = page.footer.legend(
        handles=[Patch(color=colour, label="entry") for _, colour in entries], loc="upper center", borderaxespad=0.3,
        bbox_to_anchor=(0.5, 0), ncols=len(entries) if in_one_line else 3,
        frameon=False, fontsize=LEGEND, handlelength=1.2, handleheight=0.7, columnspacing=1.6, borderpad=0,
    )  # fmt: skip
    for text, (name, _) in zip(shown.get_texts(), entries, strict=True):
        text.set_parse_math(False)
        text.set_text(name)


def _notes(rows: Sequence[Row], options: Overlay, names: Mapping[int, str]) -> list[str]:
    """Say below the picture what its reader has to know to read it."""
    numbers = "; slice numbers count from 0" if rows[0].view.numbered else ""
    views = dict.fromkeys(f"{row.view.description}{numbers}." for row in rows)
    sentences = list(dict.fromkeys(row.window.description for row in rows))
    if any(row.dice for row in rows):
        several = not options.merged and len(options.labels or _shown_labels(rows)) > 1
        whole = f"whole {'volume' if rows[0].view.numbered else 'image'}"
        sentences.append(
            f"DSC of the {whole if options.dice_of == 'volume' else 'slice'}{', mean of the labels' if several else ''}"
        )
    if options.merged:
        called = [names.get(label, f"label {label}") for label in options.labels or sorted(names)]
        sentences.append(f"drawn: {' and '.join(called)}" if called else "all labels taken as one")
    return [*views, "; ".join(sentences) + "."]
