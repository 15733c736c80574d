"""Tables as files: CSV for programs, Markdown for a repository, LaTeX for a paper."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from nnunetv2_eccam.files import saved
from nnunetv2_eccam.report.table import Cell, Column, Table, plain_lines

ENDINGS = {".csv": "CSV", ".md": "Markdown", ".tex": "LaTeX"}
"""Endings of a table's files, and what they are."""

LONGEST_FLOAT = 45
"""From how many rows a LaTeX table is one that runs over pages."""

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "{''}", "\u2013": "--", "±": r"$\pm$", "·": r"$\cdot$", "≥": r"$\geq$",
    "\u03b1": r"$\alpha$", "`": r"\textasciigrave{}", "[": "{[}",
}  # fmt: skip
_MARKDOWN = {
    **{sign: f"\\{sign}" for sign in "\\`*_[]|~$"}, "<": "&lt;", ">": "&gt;", "&": "&amp;",
}  # fmt: skip


def write_table(table: Table, folder: Path) -> list[Path]:
    """Write a table in all formats.

    Args:
        table: to be written.
        folder: where; it exists.

    Raises:
        UserError: a file cannot be written.
    """
    written = []
    for ending, text in zip(ENDINGS, (as_csv(table), as_markdown(table), as_latex(table)), strict=True):
        path = folder / (table.name + ending)
        with saved(path) as partial:
            partial.write_bytes(text.encode())
        written.append(path)
    return written


def as_csv(table: Table) -> str:
    """Write a table as CSV (RFC 4180): a column for each field, undefined values empty."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(table.fields)
    writer.writerows([value for content in row for value in content.values] for row in table.rows)
    return text.getvalue()


def as_markdown(table: Table) -> str:
    """Write a table as GitHub's Markdown, its caption above and its notes below."""
    lines = [f"**{escape_markdown(table.title)}**", ""]
    lines.append(_markdown_row([escape_markdown(column.title) for column in table.columns]))
    lines.append(_markdown_row(["---:" if column.numeric else "---" for column in table.columns]))
    for row in table.rows:
        lines.append(_markdown_row([_markdown_cell(*pair) for pair in zip(table.columns, row, strict=True)]))
    for note in table.notes:
        lines += ["", escape_markdown(note)]
    return "\n".join(lines) + "\n"


def _markdown_row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cell(column: Column, content: Cell) -> str:
    first, *others = [escape_markdown(line) for line in plain_lines(column, content)]
    return "<br>".join([f"**{first}**" if content.best else first, *others])


def escape_markdown(text: str) -> str:
    """Take the meaning from signs that Markdown or HTML give one; line breaks become spaces."""
    return "".join(_MARKDOWN.get(sign, sign) for sign in _one_line(text))


def as_latex(table: Table) -> str:
    """Write a table for LaTeX with the package booktabs; a long one needs longtable too.

    The second line of cells is a row of its own, so that no package is needed for it.
    """
    is_long = len(table.rows) > LONGEST_FLOAT
    alignment = "".join("r" if column.numeric else "l" for column in table.columns)
    caption = rf"\caption{{{escape_latex(table.title)}}}\label{{tab:{table.name}}}"
    header = " & ".join(escape_latex(column.header) for column in table.columns) + r" \\"
    body = [line for row in table.rows for line in _latex_rows(table.columns, row)]
    notes = [rf"\par\smallskip {escape_latex(note)}" for note in table.notes]
    head = [r"\toprule", *_latex_groups(table), header, r"\midrule"]
    if is_long:
        lines = [
            r"% \usepackage{booktabs,longtable}", r"{\footnotesize", rf"\begin{{longtable}}{{{alignment}}}",
            caption + r"\\", *head, r"\endfirsthead", *head, r"\endhead", r"\bottomrule", r"\endfoot", *body,
            r"\end{longtable}", *notes, "}",
        ]  # fmt: skip
    else:
        lines = [
            r"% \usepackage{booktabs}", r"\begin{table}[htbp]", r"\centering\footnotesize", caption,
            rf"\begin{{tabular}}{{{alignment}}}", *head, *body, r"\bottomrule", r"\end{tabular}", *notes,
            r"\end{table}",
        ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _latex_groups(table: Table) -> list[str]:
    """Write the line above the headers, with a rule under each group."""
    if not table.groups:
        return []
    cells, rules, first = [], [], 1
    for group, span in table.groups:
        cells.append(rf"\multicolumn{{{span}}}{{c}}{{{escape_latex(group)}}}")
        rules += [rf"\cmidrule(lr){{{first}-{first + span - 1}}}"] if group else []
        first += span
    return [" & ".join(cells) + r" \\", "".join(rules)]


def _latex_rows(columns: tuple[Column, ...], row: tuple[Cell, ...]) -> list[str]:
    cells = [[escape_latex(line) for line in plain_lines(*pair)] for pair in zip(columns, row, strict=True)]
    height = max(len(lines) for lines in cells)
    rows = []
    for number in range(height):
        texts = [lines[number] if number < len(lines) else "" for lines in cells]
        if number == 0:
            texts = [rf"\textbf{{{text}}}" if each.best else text for text, each in zip(texts, row, strict=True)]
        is_last_of_several = 1 < height == number + 1
        rows.append(" & ".join(texts) + (r" \\[2pt]" if is_last_of_several else r" \\"))
    return rows


def escape_latex(text: str) -> str:
    """Take the meaning from signs that LaTeX gives one; a number's minus becomes a minus."""
    text = _one_line(text).replace("--", "\ue000")
    if re.fullmatch(r"-\d.*", text):
        return "$-$" + escape_latex(text[1:])
    # Two hyphens would become a dash; a bracket that begins a row would be an option of the line break before it.
    return "".join(_LATEX.get(sign, sign) for sign in text).replace("\ue000", "-{}-")


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f\u2028\u2029]+", " ", text)
