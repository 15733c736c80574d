"""The paper's Tables I to V and Fig. 5, with what it prints and what was measured in columns of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from nnunetv2_eccam.report.case_values import Measured, summary_of
from nnunetv2_eccam.report.collect import SUBSETS
from nnunetv2_eccam.report.formatting import count, number
from nnunetv2_eccam.report.metrics import SLICE_METRICS, Metric
from nnunetv2_eccam.report.read_spec import BenchmarkSystem
from nnunetv2_eccam.report.table import Cell, Column, Table, cell, slug, text_column
from nnunetv2_eccam.systems import SYSTEMS
from nnunetv2_eccam.systems.published import PUBLISHED

if TYPE_CHECKING:
    from pandas import DataFrame

NOT_THE_SAME = (
    "Published: as the paper prints it, on slices of its own split; it gives neither case names nor how slices were "
    "pooled. Measured: on the cases of this benchmark. The two are not the same measurement, and their difference is "
    "no effect of anything."
)
"""What stands below each of these tables."""

SEVERAL_LABELS = "The paper takes an organ and its lesion for one label; its numbers stand beside the first label here."
"""What stands below too where a data set has several labels."""

OUTSIDE = "(not in the paper)"
"""What stands in the place of a row's name for systems that the paper does not have."""

_FOUND = ("mean", "CI low", "CI high")


def paper_tables(measured: Measured, paper_table: str) -> list[Table]:
    """Make one of the paper's tables for each data set that it has, if any of its systems was measured.

    Args:
        measured: the scores.
        paper_table: ``I`` to ``V``, or ``Fig. 5``.
    """
    tables = []
    for dataset, subset in measured.blocks:
        published = measured.benchmark.published.get(dataset)
        if published is not None:
            table = _paper_table(measured, paper_table, dataset, subset, published)
            tables += [] if table is None else [table]
    return tables


def _paper_table(measured: Measured, paper_table: str, dataset: str, subset: str, published: str) -> Table | None:
    present = set(measured.chosen(measured.cases, dataset, subset)["system"])
    systems = [system for system in measured.benchmark.systems if system.title in present]
    metrics = [each for each in SLICE_METRICS if paper_table in ("I", "II", "V") or each.published == "DSC"]
    rows: list[tuple[Cell, ...]] = []
    any_measured = False
    for row in paper_rows(paper_table):
        scores = PUBLISHED[paper_table].get(row, {}).get(published, {})
        here = [system for system in systems if _is_row(system, paper_table, row)]
        any_measured = any_measured or bool(here)
        rows_here: list[BenchmarkSystem | None] = [*here] or [None]
        for system in rows_here:
            rows += _rows(measured, dataset, subset, row, scores, system, metrics)
    if not any_measured:
        return None
    for system in systems:
        if paper_table == "I" and system.paper is None:
            rows += _rows(measured, dataset, subset, OUTSIDE, {}, system, metrics)
    where = paper_table if paper_table.startswith("Fig") else f"Table {paper_table}"
    columns = (
        text_column("The paper's row", heading=True), text_column("System here"), text_column("Label"),
        *(column for metric in metrics for column in _columns(metric)), Column("Cases"),
    )  # fmt: skip
    name = slug("paper", where, dataset, SUBSETS[subset])
    return Table(
        name, f"{where}, {published}: published, and measured on {dataset}, {SUBSETS[subset]}", columns, tuple(rows),
        (NOT_THE_SAME, *((SEVERAL_LABELS,) if len(measured.labels(dataset, subset)) > 1 else ())),
    )  # fmt: skip


def paper_rows(paper_table: str) -> list[str]:
    """Name the rows of one of the paper's tables, in its order; of Fig. 5 its points by alpha."""
    listed = [row.label for system in SYSTEMS for row in system.rows if row.table == paper_table]
    printed = [] if paper_table.startswith("Fig") else list(PUBLISHED[paper_table])
    return list(dict.fromkeys([*printed, *listed]))


def _is_row(system: BenchmarkSystem, paper_table: str, row: str) -> bool:
    rows: Sequence[tuple[str, str]] = () if system.paper is None else system.paper.rows
    return (paper_table, row) in rows


def _columns(metric: Metric) -> Iterator[Column]:
    title = metric.title
    group = f"{title} [%]"
    yield Column("published", (f"{title} published [%]",), group=group, quoted=True)
    for unit in ("slice", "volume"):
        fields = tuple(f"{title} measured per {unit} {name} [%]" for name in _FOUND)
        yield Column(f"measured per {unit}", fields, ("{0}", "[{1}, {2}]"), group=group)


def _rows(
    measured: Measured, dataset: str, subset: str, row: str, scores: Mapping[str, float],
    system: BenchmarkSystem | None, metrics: Sequence[Metric],
) -> list[tuple[Cell, ...]]:  # fmt: skip
    """Make a row of the paper: for a system that was measured, one for each label."""
    labels: Sequence[str] = measured.labels(dataset, subset) if system is not None else ("",)
    rows = []
    for place, label in enumerate(labels):
        cells = [cell(row), cell("" if system is None else system.title), cell(label)]
        for metric in metrics:
            # The paper has one label: what it prints of it is not repeated for a lesion within the organ.
            cells.append(cell(number(scores.get(metric.published or "") if place == 0 else None)))
            for per_slice in (True, False):
                cells.append(_measured_cell(measured, dataset, subset, label, system, metric, per_slice))
        n = 0 if system is None else len(_of(measured.cases, measured, dataset, subset, label, system))
        rows.append((*cells, cell(count(n) if n else "")))
    return rows


def _of(
    frame: DataFrame, measured: Measured, dataset: str, subset: str, label: str, system: BenchmarkSystem
) -> DataFrame:
    rows = measured.chosen(frame, dataset, subset, label)
    return rows[rows["system"] == system.title]


def _measured_cell(
    measured: Measured, dataset: str, subset: str, label: str, system: BenchmarkSystem | None, metric: Metric,
    per_slice: bool,
) -> Cell:  # fmt: skip
    if system is None:
        return cell("", "", "")
    rows = _of(measured.slices if per_slice else measured.cases, measured, dataset, subset, label, system)
    summary = summary_of(rows, metric, measured.benchmark, per_slice)
    return cell(*(number(value * metric.factor) for value in (summary.mean, summary.low, summary.high)))
