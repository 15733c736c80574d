"""A table of the report: once as cells, from which the page, CSV, Markdown and LaTeX are written.

A column may hold several fields, as mean, SD and interval: together in one cell for a reader, and as columns of their
own in the CSV.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple

from nnunetv2_eccam.report.formatting import shown

LONGEST_LINE = 28
"""Longer texts are broken into lines."""


class Part(NamedTuple):
    """A piece of a cell's text.

    Attributes:
        text: as it is shown.
        field: the CSV column that it is the value of, or None for what stands between.
    """

    text: str
    field: str | None


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        header: as it is shown.
        fields: its columns in the CSV; none: ``title``.
        pattern: the lines of a cell; ``{0}`` stands for the first field. A line without any value is left out.
        numeric: aligned to the right and sorted as a number.
        heading: names the row.
        group: what stands above the headers of neighbouring columns that share it.
        quoted: holds what others have published.
    """

    header: str
    fields: tuple[str, ...] = ()
    pattern: tuple[str, ...] = ("{0}",)
    numeric: bool = True
    heading: bool = False
    group: str = ""
    quoted: bool = False

    @property
    def title(self) -> str:
        """Its group and header in one."""
        return f"{self.group}: {self.header}" if self.group else self.header

    @property
    def names(self) -> tuple[str, ...]:
        """Its columns in the CSV."""
        return self.fields or (self.title,)

    @property
    def is_plain(self) -> bool:
        """Whether a cell is its one value and nothing else."""
        return self.pattern == ("{0}",) and len(self.names) == 1


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        values: the text of each of its column's fields; empty where it is undefined.
        best: shown in bold.
        order: by what rows are sorted, where it is not the first value.
        link: the id of the element of the page that it leads to.
    """

    values: tuple[str, ...]
    best: bool = False
    order: float | None = None
    link: str | None = None


def cell(*values: str, best: bool = False, order: float | None = None, link: str | None = None) -> Cell:
    """Make a cell of its values."""
    return Cell(values, best, order, link)


def text_column(header: str, heading: bool = False) -> Column:
    """Make a column of words."""
    return Column(header, numeric=False, heading=heading)


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: of its files, without ending, and its id on the page.
        title: its caption.
        columns: from left to right.
        rows: from top to bottom, each with a cell for each column.
        notes: sentences below it.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = self.fields
        if len(set(names)) < len(names):
            raise ValueError(f"{self.name} has two columns of one name: {names}")
        for row in self.rows:
            if [len(each.values) for each in row] != [len(column.names) for column in self.columns]:
                raise ValueError(f"{self.name}: the row {row} does not fit the columns {names}")

    @property
    def fields(self) -> list[str]:
        """The CSV's columns."""
        return [name for column in self.columns for name in column.names]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The line above the headers: each group and over how many columns it is; nothing where there is none."""
        if not any(column.group for column in self.columns):
            return []
        return [(group, len(list(each))) for group, each in groupby(column.group for column in self.columns)]

    def pairs(self, row: tuple[Cell, ...]) -> list[tuple[Column, Cell]]:
        """Give a row's cells with their columns."""
        return list(zip(self.columns, row, strict=True))

    @property
    def letters(self) -> int:
        """About how many letters wide it is: of each column the longest line, or word of its header."""
        widths = [max(map(len, column.header.split() or [""])) for column in self.columns]
        for row in self.rows:
            for place, (column, content) in enumerate(self.pairs(row)):
                widths[place] = max(widths[place], *map(len, plain_lines(column, content)))
        return sum(min(width, LONGEST_LINE) + 2 for width in widths)


def lines_of(column: Column, content: Cell) -> list[list[Part]]:
    """Give the lines of a cell as pieces; one line that says so, where nothing is defined."""
    lines = []
    for pattern in column.pattern:
        pieces = []
        for text in re.split(r"(\{\d+\})", pattern):
            index = int(text[1:-1]) if re.fullmatch(r"\{\d+\}", text) else None
            if index is not None:
                pieces.append(Part(shown(content.values[index]), column.names[index]))
            elif text:
                pieces.append(Part(text, None))
        if any(content.values[column.names.index(piece.field)] for piece in pieces if piece.field):
            lines.append(pieces)
    return lines or [[Part(shown(""), None)]]


def plain_lines(column: Column, content: Cell) -> list[str]:
    """Give the lines of a cell as text."""
    return ["".join(piece.text for piece in line) for line in lines_of(column, content)]


def slug(*words: str) -> str:
    """Make a name for files and ids: small Latin letters, digits and underscores."""
    return "_".join(filter(None, (re.sub(r"[^a-z0-9]+", "_", word.lower()).strip("_") for word in words))) or "table"


def with_names_apart(tables: Iterable[Table]) -> list[Table]:
    """Number tables that would have the same name, since two data sets may differ in nothing but their signs."""
    taken: set[str] = set()
    result = []
    for table in tables:
        name, number = table.name, 2
        while name in taken:
            name, number = f"{table.name}_{number}", number + 1
        taken.add(name)
        result.append(replace(table, name=name))
    return result
