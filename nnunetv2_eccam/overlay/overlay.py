"""Rows of slices as a grid: the image, the reference and each system's result beside each other, as in Fig. 4."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.overlay import colours
from nnunetv2_eccam.overlay.cases import Overlay, find_files, is_computed_tomography, label_names
from nnunetv2_eccam.overlay.colours import Colour
from nnunetv2_eccam.overlay.page import LEGEND, LETTER, Page, check_target, outline, save_figure, show, write_above
from nnunetv2_eccam.overlay.rows import Labels, Row, rows_of_case

__all__ = ["Overlay", "draw", "write_overlay"]

REFERENCE_LINE, PREDICTION_LINE, LABEL_LINE = 1.2, 0.7, 0.9
"""Widths of contours in points: where reference and prediction run along each other, the reference is seen on both
sides; of several labels one mask's contours are drawn alone."""

ENTRY_ROOM = 6
"""What a legend's entry takes beside its text, in letters."""


def write_overlay(options: Overlay, target: Path) -> list[Row]:
    """Draw the picture and write it as PNG, SVG or PDF, by the ending of ``target``, whole or not at all.

    One case is in memory at a time, and of it only the slices that are drawn are kept.

    Returns:
        What was drawn, a row for each slice.

    Raises:
        UserError: a file is missing, damaged or does not fit the image; the options ask for what there is not; or
            the picture cannot be written.
    """
    check_target(target)
    options.check()
    files = find_files(options)
    is_ct = is_computed_tomography(options.images, options.channel or 0)
    names = label_names([*options.masks, options.images])
    rows = [row for each in files for row in rows_of_case(each, options, is_ct)]
    save_figure(lambda: draw(rows, options, names), target)
    return rows


def draw(rows: Sequence[Row], options: Overlay, names: Mapping[int, str]) -> Figure:
    """Draw rows, all with the same systems; ``names`` are those of labels.

    Raises:
        UserError: there are more labels than colours.
    """
    first = rows[0]
    titles = ["image", *([] if first.reference is None else ["reference"]), *first.predictions]
    ratios = [row.image.shape[0] * row.view.aspect / row.image.shape[1] for row in rows]
    shown = _label_colours(rows, options)
    page = Page(titles, ratios, options.width_mm, options.dpi)
    for place, row in enumerate(rows):
        panels = list(page.begin_row(place, row.view, row.image, row.case, row.number))
        masks = [*([] if row.reference is None else [row.reference]), *row.predictions.values()]
        for panel, mask in zip(panels[1:], masks, strict=True):
            _draw_mask(panel, row, mask, options.style, shown)
        if row.dice:
            figures = ["DSC undefined" if value is None else f"DSC {value:.3f}" for value in row.dice.values()]
            for panel, text in zip(panels, ["", "", *figures], strict=True):
                write_above(panel, text)
    _draw_legend(page, _legend(rows, options.style, shown, names))
    return page.finish(_notes(rows, options, names))


def _label_colours(rows: Sequence[Row], options: Overlay) -> dict[int, Colour]:
    """Give each label a colour by its place among those asked for, and leave out those that no slice shows."""
    if options.merged:
        return {1: colours.REFERENCE}
    masks = [mask for row in rows for mask in (row.reference, *row.predictions.values()) if mask is not None]
    shown = sorted({int(label) for mask in masks for label in np.unique(mask)} - {0})
    labels = options.labels or shown or [1]
    if len(labels) > len(colours.LABELS):
        raise UserError(
            f"there are {len(labels)} labels and {len(colours.LABELS)} colours that can be told apart; choose with "
            f"--label among {', '.join(map(str, labels))}"
        )
    named = dict(zip(labels, colours.LABELS, strict=False))
    return {label: colour for label, colour in named.items() if label in shown} or named


def _draw_mask(panel: Axes, row: Row, mask: Labels, style: str, shown: Mapping[int, Colour]) -> None:
    is_prediction = row.reference is not None and mask is not row.reference
    if style == "errors" and is_prediction:
        show(panel, row.view, colours.colour_errors(row.image, np.asarray(row.reference), mask))
        return
    if style != "contour":
        opacity = colours.FILL_OPACITY if style == "fill" else colours.OPACITY
        show(panel, row.view, colours.colour_labels(row.image, mask, shown, opacity))
        return
    show(panel, row.view, row.image)
    for label, colour in shown.items():
        if len(shown) > 1 or row.reference is None:
            outline(panel, mask == label, colour, LABEL_LINE if len(shown) > 1 else PREDICTION_LINE)
            continue
        # A single label is coloured by whose it is, several by which they are.
        outline(panel, row.reference == label, colours.REFERENCE, REFERENCE_LINE)
        if is_prediction:
            outline(panel, mask == label, colours.PREDICTION, PREDICTION_LINE)


def _legend(
    rows: Sequence[Row], style: str, shown: Mapping[int, Colour], names: Mapping[int, str]
) -> list[tuple[str, Colour]]:
    has_reference, has_systems = rows[0].reference is not None, bool(rows[0].predictions)
    if style == "errors":
        errors = [
            ("found (true positive)", colours.TRUE_POSITIVE), ("too much (false positive)", colours.FALSE_POSITIVE),
            ("missed (false negative)", colours.FALSE_NEGATIVE),
        ]  # fmt: skip
        return [("reference", colours.REFERENCE), *(errors if has_systems else [])]
    entries = [(names.get(label, f"label {label}"), colour) for label, colour in shown.items()]
    if style == "contour" and len(entries) == 1 and has_reference:
        name = entries[0][0]
        prediction = [(f"prediction: {name}", colours.PREDICTION)] if has_systems else []
        return [(f"reference: {name}", colours.REFERENCE), *prediction]
    return entries


def _draw_legend(page: Page, entries: Sequence[tuple[str, Colour]]) -> None:
    letters = page.figure.get_figwidth() * 72 / (LETTER * LEGEND)
    widths = [len(name) + ENTRY_ROOM for name, _ in entries]
    columns = len(entries) if sum(widths) <= letters else max(1, int(letters // max(widths)))
    # matplotlib leaves entries out whose name begins with an underscore, unless they are named afterwards.
    shown = page.footer.legend(
        handles=[Patch(color=colour, label="entry") for _, colour in entries], loc="upper center", borderaxespad=0.3,
        bbox_to_anchor=(0.5, 0), ncols=columns, frameon=False, fontsize=LEGEND,
        handlelength=1.2, handleheight=0.7, columnspacing=1.6, borderpad=0,
    )  # fmt: skip
    for text, (name, _) in zip(shown.get_texts(), entries, strict=True):
        text.set(parse_math=False, text=name)


def _notes(rows: Sequence[Row], options: Overlay, names: Mapping[int, str]) -> list[str]:
    """Say below the picture what its reader has to know to read it."""
    is_numbered = rows[0].view.numbered
    numbers = "; slice numbers count from 0" if is_numbered else ""
    sentences = list(dict.fromkeys(row.window for row in rows))
    labels = options.labels or sorted(names)
    if rows[0].dice:
        mean = ", mean of the labels" if len(labels) > 1 and not options.merged else ""
        sentences.append(f"DSC of the whole {'volume' if is_numbered else 'image'}{mean}")
    if options.merged:
        drawn = " and ".join(names.get(label, f"label {label}") for label in labels)
        sentences.append(f"drawn: {drawn}" if drawn else "all labels taken as one")
    views = dict.fromkeys(f"{row.view.description}{numbers}." for row in rows)
    return [*views, "; ".join(sentences) + "."]
