"""What of the benchmark is not there: unscored folds and test sets, and cases that some systems lack."""

from __future__ import annotations

from collections.abc import Iterable

from nnunetv2_eccam.report.case_values import Measured, cases_of
from nnunetv2_eccam.report.collect import SUBSETS, Collected, Part, nnunet_folder_or_none
from nnunetv2_eccam.report.table import Cell, Table, cell, slug, text_column

NAMED_CASES = 10
"""How many cases are named at most; the list of cases has them all."""


def missing_table(collected: Collected, measured: Measured) -> Table | None:
    """Make the table of what is missing; None where the benchmark is complete."""
    rows: list[tuple[Cell, ...]] = []
    benchmark = collected.benchmark
    unscored = [part for part in collected.without_scores if part.fold is not None or _is_expected(collected, part)]
    for dataset in benchmark.datasets:
        for title in benchmark.titles:
            for repeat in range(benchmark.repeats):
                where = (dataset, title, repeat)
                parts = [part for part in unscored if _where(part) == where]
                sliced = [part for part in collected.without_slices if _where(part) == where]
                texts = [_said(parts, "scores of"), _said(sliced, "slices' scores of")]
                if what := "; ".join(filter(None, texts)):
                    rows.append((cell(title), cell(dataset), cell(_repeat(repeat, benchmark.repeats)), cell(what)))
    rows += _lacking_cases(measured)
    if not rows:
        return None
    columns = (text_column("System", heading=True), text_column("Data set"), text_column("Repeat"),
               text_column("Missing"))  # fmt: skip
    return Table(slug("missing"), "What is missing", columns, tuple(rows))


def _where(part: Part) -> tuple[str, str, int]:
    return (part.dataset, part.system.title, part.repeat)


def _repeat(repeat: int, repeats: int) -> str:
    return f"{repeat} (of 0 to {repeats - 1})" if repeats > 1 else str(repeat)


def _said(parts: Iterable[Part], what: str) -> str:
    """Name parts: ``scores of folds 1, 3 and the test set``."""
    folds = [str(part.fold) for part in parts if part.fold is not None]
    names = [f"fold{'s' if len(folds) > 1 else ''} {', '.join(folds)}"] if folds else []
    names += ["the test set"] if any(part.fold is None for part in parts) else []
    return f"{what} {' and '.join(names)}" if names else ""


def _is_expected(collected: Collected, part: Part) -> bool:
    """Tell whether a data set has a test set: another system has scores of it, or its labels are there."""
    volumes = collected.volumes
    if ((volumes["dataset"] == part.dataset) & (volumes["subset"] == "test")).any():
        return True
    raw = nnunet_folder_or_none("nnUNet_raw")
    return raw is not None and any((raw / part.dataset / "labelsTs").glob("*"))


def _lacking_cases(measured: Measured) -> list[tuple[Cell, ...]]:
    """Name the cases that a system lacks and another has."""
    rows: list[tuple[Cell, ...]] = []
    for dataset, subset in measured.blocks:
        cases = cases_of(measured.chosen(measured.cases, dataset, subset))
        everything = frozenset[str]().union(*cases.values())
        for title, present in cases.items():
            lacking = sorted(everything - present)
            if lacking:
                more = f" and {len(lacking) - NAMED_CASES} more" if len(lacking) > NAMED_CASES else ""
                names = ", ".join(lacking[:NAMED_CASES]) + more
                what = f"{len(lacking)} of the {len(everything)} {SUBSETS[subset]} cases: {names}"
                rows.append((cell(title), cell(dataset), cell(""), cell(what)))
    return rows
