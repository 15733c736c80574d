"""Reads the report's page back: each table as rows of fields, as its CSV has them."""

from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

UNDEFINED = "\u2013"


class _Tables(HTMLParser):
    """Collects tables by id; no cell of the report holds a table."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[str, list[dict[str, str]]] = {}
        self._columns: list[list[str]] = []
        self._rows: list[dict[str, str]] | None = None
        self._in_body = False
        self._cell: dict[str, str] | None = None
        self._place = 0
        self._field: str | None = None
        self._depth = 0

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "table":
            self._rows, self._columns, self._in_body = [], [], False
            self.tables[given["id"]] = self._rows
        elif tag == "tbody":
            self._in_body = True
        elif tag == "th" and "data-fields" in given:
            self._columns.append(json.loads(given["data-fields"]))
        elif tag == "tr" and self._in_body:
            self._rows.append({})
            self._place = 0
        elif tag in ("td", "th") and self._in_body:
            self._cell = {}
        elif tag == "span" and self._cell is not None:
            self._depth += 1
            if "data-field" in given:
                self._field = given["data-field"]

    def handle_endtag(self, tag):
        if tag == "span" and self._cell is not None:
            self._depth -= 1
            self._field = None
        elif tag in ("td", "th") and self._cell is not None:
            names = self._columns[self._place]
            plain = self._cell.pop("", "")
            if len(names) == 1 and names[0] not in self._cell:
                self._cell[names[0]] = plain
            self._rows[-1].update(self._cell)
            self._cell, self._place = None, self._place + 1

    def handle_data(self, text):
        if self._cell is not None:
            name = self._field if self._field is not None else "" if self._depth == 0 else None
            if name is not None:
                self._cell[name] = self._cell.get(name, "") + text


def read_tables(page: Path) -> dict[str, list[dict[str, str]]]:
    """Give the page's tables: name to rows of fields; undefined values are empty, as in the CSV."""
    parser = _Tables()
    parser.feed(page.read_text())
    return {
        name: [{field: "" if text == UNDEFINED else text for field, text in row.items()} for row in rows]
        for name, rows in parser.tables.items()
    }


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
