"""A table of the report: a pandas frame of values, how its cells are shown, and its files."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pandas import DataFrame

from nnunetv2_eccam.files import written_whole

UNDEFINED = "\u2013"
"""What stands where a number is undefined; in the CSV the field is empty."""

ENDINGS = {".csv": "CSV", ".md": "Markdown", ".tex": "LaTeX"}
"""Endings of a table's files, and what they are."""

LONGEST_FLOAT = 45
"""From how many rows a LaTeX table is one that runs over pages."""


@dataclass(frozen=True)
class Table:
    r"""A table.

    Attributes:
        name: of its files, without ending, and its id on the page.
        title: its caption.
        frame: the values: a column for each number, NaN or "" where it is undefined.
        layout: header to pattern of each column that is shown: ``{DSC mean} ± {DSC SD}\nn = {DSC n}`` shows three
            columns of the frame on two lines; ``{+x}`` with a sign. A line without any value is left out. Columns
            that no pattern names are shown as they are.
        notes: sentences below it.
        bold: row number and header of the cells that are the best.
        links: row number to the id of what its first cell leads to.
    """

    name: str
    title: str
    frame: DataFrame
    layout: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    bold: frozenset[tuple[int, str]] = frozenset()
    links: Mapping[int, str] = field(default_factory=dict)

    @property
    def headers(self) -> dict[str, str]:
        """Header to pattern of all columns, in the frame's order; none for those that are shown as they are."""
        named = {each: header for header, pattern in self.layout.items() for each in _names(pattern)}
        shown = dict.fromkeys(named.get(column, column) for column in self.frame.columns)
        return {header: self.layout.get(header, "") for header in shown}

    @property
    def numeric(self) -> dict[str, bool]:
        """For each header, whether numbers are below it."""
        kinds = self.frame.dtypes
        return {header: kinds[(*_names(pattern), header)[0]].kind in "iuf" for header, pattern in self.headers.items()}

    @property
    def cells(self) -> list[list[str]]:
        """The texts of all cells, row by row; a cell may have several lines."""
        return [
            [_cell(pattern, row) if pattern else value_text(row[header], header) or UNDEFINED
             for header, pattern in self.headers.items()]
            for row in self.frame.to_dict("records")
        ]  # fmt: skip

    def write(self, folder: Path) -> list[Path]:
        """Write the table in all formats into a folder that exists."""
        csv = self.frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        written = []
        for ending, text in zip(ENDINGS, (csv, self.markdown(), self.latex()), strict=True):
            written.append(folder / (self.name + ending))
            with written_whole(written[-1]) as partial:
                partial.write_bytes(text.encode())
        return written

    def markdown(self) -> str:
        """Write it as GitHub's Markdown, its caption above and its notes below."""
        lines = [f"**{_markdown(self.title)}**", "", _line(map(_markdown, self.headers))]
        lines.append(_line("---:" if numeric else "---" for numeric in self.numeric.values()))
        for row, cells in enumerate(self.cells):
            texts = [_markdown(text).replace("\n", "<br>") for text in cells]
            lines.append(_line(f"**{text}**" if (row, header) in self.bold else text
                               for header, text in zip(self.headers, texts, strict=True)))  # fmt: skip
        return "\n".join([*lines, *(f"\n{_markdown(note)}" for note in self.notes)]) + "\n"

    def latex(self) -> str:
        """Write it for LaTeX, by pandas, with the packages booktabs and makecell, and longtable for a long one."""
        shown = DataFrame(self.cells, columns=list(self.headers), dtype=object)
        bold = [["font-weight: bold;" if (row, header) in self.bold else "" for header in shown.columns]
                for row in range(len(shown))]  # fmt: skip
        styler = shown.style.hide(axis="index").format(_makecell, escape="latex").format_index(escape="latex", axis=1)
        styled = styler.apply(lambda frame: DataFrame(bold, frame.index, frame.columns), axis=None)
        text: str = styled.to_latex(
            hrules=True, convert_css=True, label=f"tab:{self.name}", caption=_latex(self.title),
            environment="longtable" if len(shown) > LONGEST_FLOAT else "table", position_float=None,
            column_format="".join("r" if numeric else "l" for numeric in self.numeric.values()),
        )  # fmt: skip
        notes = "".join(f"\\par\\smallskip {_latex(note)}\n" for note in self.notes)
        return f"% \\usepackage{{booktabs,longtable,makecell}}\n{text}{notes}"


def _names(pattern: str) -> list[str]:
    return re.findall(r"\{\+?([^}]+)\}", pattern)


def _cell(pattern: str, row: Mapping[Any, Any]) -> str:
    """Fill a pattern; lines of which nothing is defined are left out."""
    lines = []
    for line in pattern.split("\n"):
        if any(value_text(row[name], name) for name in _names(line)):
            lines.append(re.sub(r"\{(\+?)([^}]+)\}", lambda found: value_text(row[found[2]], found[2], found[1])
                                or UNDEFINED, line))  # fmt: skip
    return "\n".join(lines) or UNDEFINED


def value_text(value: Any, column: str = "", sign: str = "") -> str:
    """Write a value: numbers with two decimals, p values with two digits, nothing where it is undefined."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, float):
        if not math.isfinite(value):
            return ""
        if column == "p" or column.startswith("p "):
            return f"{value:#.2g}".removesuffix(".")
        text = f"{value:{sign}.2f}"
        return text.lstrip("+-") if float(text) == 0 else text  # what rounds to zero has no sign
    return str(value)


def slug(*words: str) -> str:
    """Make a name for files and ids: small Latin letters, digits and underscores."""
    return "_".join(filter(None, (re.sub(r"[^a-z0-9]+", "_", word.lower()).strip("_") for word in words))) or "table"


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(text: str) -> str:
    """Take the meaning from signs that Markdown or HTML give one."""
    text = re.sub(r"[\x00-\x09\x0b-\x1f\u2028\u2029]+", " ", text).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", text.replace(">", "&gt;"))


def _latex(text: str) -> str:
    r"""Take the meaning from signs that LaTeX gives one, as pandas does in cells."""
    names = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return re.sub(r"[\\~^&%$#_{}]", lambda sign: names.get(sign[0], "\\" + sign[0]), text)


def _makecell(text: object) -> str:
    # A bracket after a line break would be that break's option.
    lines = [f"{{}}{line}" if line.startswith("[") else line for line in str(text).split("\n")]
    return "\\makecell[tr]{" + r"\\".join(lines) + "}" if len(lines) > 1 else lines[0]
