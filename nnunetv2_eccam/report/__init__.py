"""The report of a benchmark: one self-contained page, and its tables as CSV, Markdown and LaTeX."""

from __future__ import annotations

from pathlib import Path


def write_report(work_dir: Path) -> Path:
    """Write ``report/index.html`` and ``report/tables`` of a benchmark, complete or not, and give the page.

    See :func:`nnunetv2_eccam.report.write.write_report`, which is imported here when it runs.
    """
    from nnunetv2_eccam.report.write import write_report as write

    return write(work_dir)


__all__ = ["write_report"]
