"""The report of a benchmark: one self-contained page, its tables as CSV, Markdown and LaTeX, its figures as SVG."""

from __future__ import annotations

from pathlib import Path


def write_report(work_dir: Path) -> Path:
    """Write ``report/index.html``, ``report/tables`` and ``report/figures`` of a benchmark, and give the page.

    See :func:`nnunetv2_eccam.report.page.write_report`, which is imported here when it runs.
    """
    from nnunetv2_eccam.report.page import write_report as write

    return write(work_dir)


__all__ = ["write_report"]
