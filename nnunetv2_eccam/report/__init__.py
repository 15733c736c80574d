"""The report of a benchmark: one self-contained page, its tables as CSV, Markdown and LaTeX, its figures as SVG."""

from nnunetv2_eccam.report.page import write_report

__all__ = ["write_report"]
