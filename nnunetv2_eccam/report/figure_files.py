"""Figures as files: SVG that needs nothing else, with its legend, in the page's light colours."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from html import escape
from pathlib import Path

from nnunetv2_eccam.files import saved
from nnunetv2_eccam.report.svg import COLOURS, TYPE, Figure, coordinate, mark_with_line, series, text_width

ENDING = ".svg"

MARK, GAP, LINE = 30.0, 18.0, 18.0
"""Of the legend, in units of the drawing: width of a line with its mark, space between entries, height of a line."""

_HERE = Path(__file__).parent
_RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
_VARIABLE = re.compile(r"--([\w-]+):\s*([^;}]+)")
_USE = re.compile(r"var\(--([\w-]+)\)")
_HEAD = re.compile(r'<svg [^>]*viewBox="0 0 ([\d.]+) ([\d.]+)"[^>]*>')


def write_figure(figure: Figure, folder: Path) -> Path:
    """Write a figure.

    Args:
        figure: to be written.
        folder: where; it exists.

    Returns:
        the file, ``NAME.svg``.

    Raises:
        UserError: it cannot be written.
    """
    path = folder / (figure.name + ENDING)
    with saved(path) as partial:
        partial.write_bytes(as_svg(figure).encode())
    return path


def as_svg(figure: Figure) -> str:
    """Give a figure as a file of its own: on paper, not on what is behind it, and with its legend below."""
    head = _HEAD.match(figure.markup)
    assert head is not None
    width, height = float(head[1]), float(head[2])
    rows = list(_legend_rows(figure.entries, width))
    whole = height + LINE * len(rows)
    legend = "".join(
        f'<g transform="translate({coordinate(x)} {coordinate(height + LINE * number)})">{mark_with_line(index)}'
        f'<text x="{coordinate(MARK)}" y="10">{escape(name)}</text></g>'
        for number, row in enumerate(rows)
        for x, index, name in row
    )
    box = f"0 0 {coordinate(width)} {coordinate(whole)}"
    size = f'viewBox="{box}" width="{coordinate(width)}" height="{coordinate(whole)}"'
    body = figure.markup[head.end() : -len("</svg>")]
    labels = re.search(r'aria-labelledby="[^"]*"', head[0])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" {labels[0] if labels else ""} '
        f'font-family="sans-serif"><style>{_style()}</style>'
        f'<rect width="100%" height="100%" fill="{_palette()["paper"]}"/>{body}{legend}</svg>\n'
    )


def _legend_rows(entries: Sequence[tuple[int, str]], width: float) -> Iterator[list[tuple[float, int, str]]]:
    """Give the legend's rows: place, index and name of each entry; as many in a row as fit."""
    row: list[tuple[float, int, str]] = []
    x = 0.0
    for index, name in entries:
        needed = MARK + text_width(name, TYPE) + GAP
        if row and x + needed > width:
            yield row
            row, x = [], 0.0
        row.append((x, index, name))
        x += needed
    if row:
        yield row


@cache
def _palette() -> dict[str, str]:
    """Read the page's light colours by their names: its first rule."""
    rule = _RULE.search((_HERE / "style.css").read_text(encoding="utf-8"))
    assert rule is not None
    return dict(_VARIABLE.findall(rule[2]))


@cache
def _style() -> str:
    """Give the drawings' style without variables, which many programs that read SVG do not know.

    What takes the series' colour becomes one rule for each series; the rest of its rule holds without a series too.
    """
    palette = _palette()
    rules = []
    for selectors, content in _RULE.findall((_HERE / "drawing.css").read_text(encoding="utf-8")):
        if "--c:" in content:  # names the variable itself
            continue
        names = [selector.strip() for selector in selectors.split(",")]
        declarations = content.strip().rstrip(";").split(";")
        coloured = ";".join(each for each in declarations if "var(--c)" in each)
        rules.append((names, ";".join(each for each in declarations if "var(--c)" not in each)))
        for index in range(COLOURS if coloured else 0):
            own = coloured.replace("var(--c)", palette[series(index)])
            rules.append(([f".{series(index)}{name}" for name in names], own))
    return "".join(
        f"{','.join(names)}{{{_USE.sub(lambda use: palette[use[1]], content).strip()}}}" for names, content in rules
    )
