"""Tables of comparisons: each system with the reference, all pairs, and ranks."""

from __future__ import annotations

import math

from nnunetv2_eccam.report.case_values import Measured, by_case
from nnunetv2_eccam.report.collect import SUBSETS
from nnunetv2_eccam.report.comparisons import Tested, against, pairwise, reference_of
from nnunetv2_eccam.report.formatting import count, number, p_value
from nnunetv2_eccam.report.metrics import Metric
from nnunetv2_eccam.report.table import Cell, Column, Table, cell, slug, text_column

MATRIX_COLUMNS = 12
"""How many systems a matrix of pairs has beside each other."""


def against_table(measured: Measured, dataset: str, subset: str) -> Table | None:
    """Make the table of every system against the reference in every metric; None where there is nothing to compare."""
    benchmark = measured.benchmark
    columns = (
        text_column("System", heading=True), text_column("Against"), text_column("Label"), text_column("Metric"),
        Column("Pairs"),
        Column(
            "Difference", ("mean difference", "CI low", "CI high"), ("{0}", "[{1}, {2}]"),
        ),
        Column("p"), Column("p (Holm)"), Column("r"), Column("d_z"),
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for label in measured.labels(dataset, subset):
        cases = measured.chosen(measured.cases, dataset, subset, label)
        for metric in benchmark.metrics:
            reference = reference_of(cases, benchmark.metric, benchmark)
            if reference is not None:
                tests = against(cases, metric, reference, benchmark)
                rows += [_against_row(other, reference, label, metric, test) for other, test in tests.items()]
    if not rows:
        return None
    where = SUBSETS[subset]
    return Table(
        slug("against", dataset, where), f"{dataset}, {where}: systems against the reference, per volume", columns,
        tuple(rows),
        (
            "Difference: mean of system minus reference over the pairs, in the metric's unit (percentage points, mm), "
            f"with its {100 * benchmark.confidence:g}% confidence interval. p: Wilcoxon's signed-rank test. r: "
            "matched-pairs rank-biserial correlation. d_z: mean over SD of the differences. Each label and metric is a "
            "family of tests of its own.",
        ),
    )  # fmt: skip


def _against_row(other: str, reference: str, label: str, metric: Metric, test: Tested) -> tuple[Cell, ...]:
    found = test.comparison
    differences = (number(value * metric.factor, signed=True)
                   for value in (found.mean_difference, found.low, found.high))  # fmt: skip
    return (
        cell(other), cell(reference), cell(label), cell(metric.header), cell(count(found.n_pairs)), cell(*differences),
        cell(p_value(found.p_value)), cell(p_value(test.adjusted)),
        cell(number(found.effect_size, signed=True)), cell(number(found.cohens_d_z, signed=True)),
    )  # fmt: skip


def pairwise_tables(measured: Measured, dataset: str, subset: str, label: str) -> list[Table]:
    """Make the matrix of all pairs of systems in the metric of the spec, so many columns at a time as a page holds.

    Returns:
        nothing for fewer than three systems, whose pair is in the other table already.
    """
    benchmark, metric = measured.benchmark, measured.benchmark.metric
    cases = measured.chosen(measured.cases, dataset, subset, label)
    titles = list(dict.fromkeys(cases["system"]))
    if len(titles) < 3:
        return []
    tests = pairwise(cases, metric, benchmark)
    alpha = 1 - benchmark.confidence
    unit = "percentage points" if metric.unit == "%" else metric.unit
    note = (
        f"Mean difference of the row's system minus the column's over the n cases that both have, in {unit}; p by "
        f"Wilcoxon's signed-rank test, adjusted by Holm's procedure over all {len(tests)} pairs of systems. Bold: p at "
        f"most {alpha:.2g} and the row's system better."
    )
    tables = []
    for start in range(0, len(titles), MATRIX_COLUMNS):
        across = titles[start : start + MATRIX_COLUMNS]
        part = f" (columns {start + 1} to {start + len(across)})" if len(titles) > MATRIX_COLUMNS else ""
        columns = [
            Column(each, (f"minus {each} [{metric.unit}]", f"minus {each}: p", f"minus {each}: n"),
                   ("{0}", "p {1}", "n = {2}"))
            for each in across
        ]  # fmt: skip
        rows = [(cell(row), *(_pair_cell(row, each, tests, metric, alpha) for each in across)) for row in titles]
        tables.append(
            Table(
                slug("pairwise", dataset, SUBSETS[subset], label, str(start + 1) if part else ""),
                f"{dataset}, {SUBSETS[subset]}, {label}: all pairs, {metric.title} per volume{part}",
                (text_column("System", heading=True), *columns), tuple(rows), (note,),
            )
        )  # fmt: skip
    return tables


def _pair_cell(row: str, column: str, tests: dict[tuple[str, str], Tested], metric: Metric, alpha: float) -> Cell:
    if row == column:
        return cell("", "", "")
    sign, test = (1, tests[row, column]) if (row, column) in tests else (-1, tests[column, row])
    difference = sign * test.comparison.mean_difference
    better = difference > 0 if metric.higher_is_better else difference < 0
    return cell(
        number(difference * metric.factor, signed=True), p_value(test.adjusted), count(test.comparison.n_pairs),
        best=better and test.adjusted <= alpha + 1e-12,
    )  # fmt: skip


def ranks_table(measured: Measured) -> Table | None:
    """Make the table of mean ranks in the metric of the spec; None for a single system."""
    benchmark, metric = measured.benchmark, measured.benchmark.metric
    columns = [text_column("System", heading=True)]
    ranked: list[tuple[dict[str, float], int]] = []
    for dataset, subset in measured.blocks:
        for label in measured.labels(dataset, subset):
            cases = by_case(measured.chosen(measured.cases, dataset, subset, label), metric.column)
            if len(cases.columns) < 2:
                continue
            each = cases.dropna().rank(axis=1, ascending=not metric.higher_is_better)
            means = {str(system): float(value) for system, value in each.mean(axis=0).items()}
            ranked.append((means, len(each)))
            group = f"{dataset}, {SUBSETS[subset]}"
            fields = (f"{group}, {label}: mean rank", f"{group}, {label}: n")
            columns.append(Column(label, fields, ("{0}", "n = {1}"), group=group))
    if not ranked:
        return None
    several = len(ranked) > 1
    columns += [Column("Mean of ranks")] if several else []
    best = [_lowest(means) for means, _ in ranked]
    rows = []
    for title in benchmark.titles:
        places = [each.get(title, math.nan) for each, _ in ranked]
        if any(title in each for each, _ in ranked):
            cells = [
                cell(number(mean), count(n) if math.isfinite(mean) else "", best=number(mean) == lowest != "")
                for mean, (_, n), lowest in zip(places, ranked, best, strict=True)
            ]
            rows.append((cell(title), *cells, *([cell(number(sum(places) / len(places)))] if several else [])))
    return Table(
        "ranks", f"Mean rank per case by {metric.title} per volume", tuple(columns), tuple(rows),
        (
            "1 is the best; systems that tie on a case share the mean of their places. n: cases that all systems of "
            "the column have, with a defined value for each.",
        ),
    )  # fmt: skip


def _lowest(means: dict[str, float]) -> str:
    return number(min((value for value in means.values() if math.isfinite(value)), default=None))
