"""Writes the report of a benchmark's work folder."""

from __future__ import annotations

from pathlib import Path

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import written_whole
from nnunetv2_eccam.report.collect import collect
from nnunetv2_eccam.report.content import build_content
from nnunetv2_eccam.report.figure_files import ENDING, write_figure
from nnunetv2_eccam.report.page import build_page
from nnunetv2_eccam.report.read_spec import read_benchmark
from nnunetv2_eccam.report.table_files import ENDINGS, write_table


def write_report(work_dir: Path) -> Path:
    """Write ``report/index.html``, ``report/tables`` and ``report/figures`` of a benchmark, complete or not.

    The same scores, records and logs give the same bytes. Tables and figures of an earlier report that this one does
    not have are removed.

    Args:
        work_dir: the benchmark's work folder, with ``spec.json``.

    Returns:
        the page.

    Raises:
        UserError: the folder is not that of a benchmark, something in it cannot be read, or the report cannot be
            written.
    """
    benchmark = read_benchmark(work_dir)
    folder = work_dir / "report"
    tables, figures = folder / "tables", folder / "figures"
    page = folder / "index.html"
    try:
        for part in (tables, figures):  # first, since what follows may take minutes
            part.mkdir(parents=True, exist_ok=True)
        content = build_content(collect(benchmark))
        written = {path for table in content.tables for path in write_table(table, tables)}
        written |= {write_figure(figure, figures) for figure in content.figures}
        with written_whole(page) as partial:
            partial.write_bytes(build_page(content).encode())
        for path in (*tables.iterdir(), *figures.iterdir()):
            if path.suffix in (*ENDINGS, ENDING) and path not in written and not path.name.startswith("."):
                path.unlink()
    except OSError as error:
        raise UserError(f"{error.filename or page} cannot be written: {error.strerror or error}") from error
    return page
