"""The tables of a data set: means with spread and interval, and the spread over folds and repeats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnunetv2_eccam.report.case_values import Measured, summary_of
from nnunetv2_eccam.report.collect import SUBSETS, Collected
from nnunetv2_eccam.report.comparisons import Tested, against, complete_systems, reference_of
from nnunetv2_eccam.report.formatting import count, number, p_value
from nnunetv2_eccam.report.metrics import METRICS, SLICE_METRICS, Metric
from nnunetv2_eccam.report.table import Cell, Column, Table, cell, slug, text_column
from nnunetv2_eccam.statistics import Summary, summarise

if TYPE_CHECKING:
    from pandas import DataFrame

MEAN_PATTERN = ("{0} ± {1}", "[{2}, {3}]", "{4} of {5}")
"""How a mean is shown: with its SD; its interval; and over how many values of how many."""


def mean_column(metric: Metric) -> Column:
    """Make a column of means."""
    unit, title = metric.unit, metric.title
    fields = (
        f"{title} mean [{unit}]", f"{title} SD [{unit}]", f"{title} CI low [{unit}]", f"{title} CI high [{unit}]",
        f"{title} n", f"{title} n of",
    )  # fmt: skip
    return Column(metric.header, fields, MEAN_PATTERN)


def mean_cell(summary: Summary, metric: Metric, best: bool = False) -> Cell:
    """Make a cell of a mean."""
    figures = (number(value * metric.factor) for value in (summary.mean, summary.sd, summary.low, summary.high))
    return cell(*figures, count(summary.n_defined), count(summary.n_all), best=best)


def overall_tables(measured: Measured, dataset: str, subset: str) -> list[Table]:
    """Make the tables of means of a data set: over volumes and, where they were scored, over slices."""
    where, names = f"{dataset}, {SUBSETS[subset]}", ("overall", dataset, SUBSETS[subset])
    volumes = _overall(measured, dataset, subset, per_slice=False)
    interval = f"{100 * measured.benchmark.confidence:g}% confidence interval of the mean"
    note = f"Mean ± standard deviation over cases; {interval}; number of defined values."
    bold = _bold_note(measured)
    tables = [Table(slug(*names, "volume"), f"{where}: per volume", *volumes, (note, bold))]
    if len(measured.chosen(measured.slices, dataset, subset)):
        slices = _overall(measured, dataset, subset, per_slice=True)
        note = (
            f"Mean ± standard deviation over the slices that hold the structure in the reference; {interval}, by "
            "resampling whole cases; number of slices with a defined value. p-values are of each case's mean over its "
            "slices."
        )
        tables.append(Table(slug(*names, "slice"), f"{where}: per slice", *slices, (note, bold)))
    return tables


def _bold_note(measured: Measured) -> str:
    reference = measured.benchmark.reference
    against_what = f"against {reference}" if reference else "against the system with the best mean, which is marked"
    return (
        f"Bold: the best mean of each label, among systems that have all cases. p: Wilcoxon's signed-rank test of "
        f"{measured.benchmark.metric.title} per case {against_what}, adjusted by Holm's procedure."
    )


def _overall(
    measured: Measured, dataset: str, subset: str, per_slice: bool
) -> tuple[tuple[Column, ...], tuple[tuple[Cell, ...], ...]]:
    metrics = SLICE_METRICS if per_slice else tuple(METRICS.values())
    primary = measured.benchmark.metric
    tested = primary if primary in metrics else METRICS["dsc"]
    columns = (
        text_column("System", heading=True), text_column("Label"), Column("Cases"), *map(mean_column, metrics),
        Column(f"p ({tested.title}, Holm)"),
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for label in measured.labels(dataset, subset):
        cases = measured.chosen(measured.slice_cases if per_slice else measured.cases, dataset, subset, label)
        values = measured.chosen(measured.slices, dataset, subset, label) if per_slice else cases
        rows += _label_rows(measured, cases, values, metrics, tested, label, per_slice)
    return columns, tuple(rows)


def _label_rows(
    measured: Measured, cases: DataFrame, values: DataFrame, metrics: tuple[Metric, ...], tested: Metric, label: str,
    per_slice: bool,
) -> list[tuple[Cell, ...]]:  # fmt: skip
    benchmark = measured.benchmark
    titles = list(dict.fromkeys(cases["system"]))
    summaries = {
        (title, metric.column): summary_of(values[values["system"] == title], metric, benchmark, per_slice)
        for title in titles for metric in metrics
    }  # fmt: skip
    best = {metric.column: _best(metric, {t: summaries[t, metric.column] for t in complete_systems(cases)})
            for metric in metrics}  # fmt: skip
    reference = reference_of(cases, tested, benchmark)
    tests = {} if reference is None else against(cases, tested, reference, benchmark)
    rows = []
    for title in titles:
        means = [mean_cell(summaries[title, each.column], each, title in best[each.column]) for each in metrics]
        n = count(int((cases["system"] == title).sum()))
        rows.append((cell(title), cell(label), cell(n), *means, _p_cell(title, reference, tests, benchmark.reference)))
    return rows


def _best(metric: Metric, summaries: dict[str, Summary]) -> set[str]:
    """Give the systems with the best mean as it is shown; of a single one, none is best."""
    shown = {title: number(each.mean * metric.factor) for title, each in summaries.items()}
    defined = {title: float(text) for title, text in shown.items() if text}
    if len(defined) < 2:
        return set()
    chosen = max(defined.values()) if metric.higher_is_better else min(defined.values())
    return {title for title, value in defined.items() if value == chosen}


def _p_cell(title: str, reference: str | None, tests: dict[str, Tested], named: str | None) -> Cell:
    if title == reference:
        return cell("reference" if named else "best", order=float("inf"))
    test = tests.get(title)
    return cell("" if test is None else p_value(test.adjusted))


def spread_table(collected: Collected, dataset: str) -> Table | None:
    """Make the table of means per fold and, of several, per repeat; None where there is one fold and one repeat."""
    benchmark = collected.benchmark
    volumes = collected.volumes
    rows_of = volumes[(volumes["dataset"] == dataset) & (volumes["subset"] == "val")]
    if not len(rows_of) or (len(benchmark.folds) < 2 and benchmark.repeats < 2):
        return None
    metric = benchmark.metric
    groups = rows_of.groupby(["label", "system", "repeat", "fold"], sort=False)[metric.column].agg(["mean", "count"])
    found = {tuple(key): (float(mean), int(n)) for key, mean, n in groups.itertuples()}
    columns = [text_column("System", heading=True), text_column("Label")]
    columns += [Column("Repeat")] if benchmark.repeats > 1 else []
    columns += [
        Column(f"Fold {fold}", (f"fold {fold} mean [{metric.unit}]", f"fold {fold} n"), ("{0}", "n = {1}"))
        for fold in benchmark.folds
    ]
    columns += [Column(f"SD of folds [{metric.unit}]")]
    rows = []
    for label in dict.fromkeys(rows_of["label"]):
        for title in benchmark.titles:
            for repeat in range(benchmark.repeats):
                keys = [(label, title, repeat, str(fold)) for fold in benchmark.folds]
                if any(key in found for key in keys):
                    means = [found.get(key, (float("nan"), 0)) for key in keys]
                    head = [cell(title), cell(label), *([cell(count(repeat))] if benchmark.repeats > 1 else [])]
                    rows.append((*head, *_fold_cells(means, metric)))
    return Table(
        slug("folds", dataset), f"{dataset}, validation: {metric.title} [{metric.unit}] per fold", tuple(columns),
        tuple(rows), (f"Mean {metric.title} per volume over the n cases of each fold that have a defined value.",),
    )  # fmt: skip


def _fold_cells(means: list[tuple[float, int]], metric: Metric) -> list[Cell]:
    cells = [cell(number(mean * metric.factor), count(n) if n else "") for mean, n in means]
    sd = summarise([mean * metric.factor for mean, _ in means], n_bootstrap=1).sd
    return [*cells, cell(number(sd))]


def overview_table(measured: Measured) -> Table | None:
    """Make the table of all data sets in the metric of the spec; None where nothing was measured."""
    benchmark, metric = measured.benchmark, measured.benchmark.metric
    columns = [text_column("System", heading=True)]
    cells: dict[str, list[Cell]] = {}
    for dataset, subset in measured.blocks:
        for label in measured.labels(dataset, subset):
            rows = measured.chosen(measured.cases, dataset, subset, label)
            found = {
                title: summary_of(rows[rows["system"] == title], metric, benchmark)
                for title in benchmark.titles if (rows["system"] == title).any()
            }  # fmt: skip
            best = _best(metric, {title: found[title] for title in complete_systems(rows)})
            group = f"{dataset}, {SUBSETS[subset]}"
            fields = tuple(f"{group}, {label}: {name}" for name in _OVERVIEW)
            columns.append(Column(label, fields, MEAN_PATTERN, group=group))
            for title in benchmark.titles:
                empty = cell(*[""] * len(_OVERVIEW))
                each = mean_cell(found[title], metric, title in best) if title in found else empty
                cells.setdefault(title, []).append(each)
    if len(columns) == 1:
        return None
    rows_ = tuple((cell(title), *each) for title, each in cells.items())
    return Table(
        "overview", f"{metric.title} [{metric.unit}] per volume", tuple(columns), rows_,
        (f"Mean ± standard deviation over cases; {100 * benchmark.confidence:g}% confidence interval of the mean; "
         "number of defined values. Bold: the best mean, among systems that have all cases.",),
    )  # fmt: skip


_OVERVIEW = ("mean", "SD", "CI low", "CI high", "n", "n of")
