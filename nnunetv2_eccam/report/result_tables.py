"""The tables of what was measured: means, differences with their tests, folds, and every case."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from pandas import DataFrame

from nnunetv2_eccam.report.measured import METRICS, OVERLAP, SUBSETS, CaseKey, Measured, Metric, Tested, Where, adjusted
from nnunetv2_eccam.report.run_tables import costs
from nnunetv2_eccam.report.table import Table, slug, value_text

LEVELS = {"volume": "per volume", "patient": "per patient", "slice": "per slice"}
"""What is scored, and how tables call it."""

CASES = {"volume": "cases", "patient": "patients", "slice": "slices that hold the structure in the reference"}
"""Over what means are."""

OF_A_MEAN = ("mean", "SD", "low", "high", "n", "n of")
"""The columns of a ``Summary``, behind the metric's name."""

DIFFERENCE = "{+difference}\n[{difference low}, {difference high}]"


def means(
    measured: Measured, level: str, where: Where, metrics: Sequence[Metric]
) -> Iterator[tuple[str, dict[str, Any], set[Metric]]]:
    """Give each system that has scores, the columns of its means, and the metrics in which it is the best."""
    present = [title for title in measured.systems(where) if len(measured.rows(level, where, title))]
    found = {each: {title: measured.summary(level, where, title, each) for title in present} for each in metrics}
    best = {each: best_of(measured, where, each, {title: summary.mean for title, summary in of.items()})
            for each, of in found.items()}  # fmt: skip
    for title in present:
        columns = {f"{each.title} {name}": value for each in metrics
                   for name, value in zip(OF_A_MEAN, found[each][title], strict=True)}  # fmt: skip
        yield title, columns, {each for each in metrics if title in best[each]}


def mean_pattern(name: str) -> str:
    """Show a mean with its SD; its interval; and over how many values of how many."""
    return f"{{{name} mean}} ± {{{name} SD}}\n[{{{name} low}}, {{{name} high}}]\n{{{name} n}} of {{{name} n of}}"


def best_of(measured: Measured, where: Where, metric: Metric, means: dict[str, float]) -> set[str]:
    """Give the systems with the best mean, as it is shown, among those with all cases; of a single one, none is."""
    complete = {title: value_text(mean) for title, mean in means.items() if title in measured.complete(where)}
    defined = {title: float(text) for title, text in complete.items() if text}
    if len(defined) < 2:
        return set()
    chosen = max(defined.values()) if metric.higher_is_better else min(defined.values())
    return {title for title, value in defined.items() if value == chosen}


def overview(measured: Measured) -> list[Table]:
    """Make the table that comes first: each system's mean, its difference from the reference, and its cost."""
    hours = costs(measured).get("Hours per training", {})
    metric, bold, notes = measured.metric, set[tuple[int, str]](), list[str]()
    rows: list[dict[str, Any]] = []
    level = measured.level_of(metric)
    for where in (where for block in measured.blocks for where in measured.labels(*block)):
        reference, tests = measured.reference(where), measured.against(where, metric)
        for title, columns, best in means(measured, level, where, [metric]):
            bold |= {(len(rows), each.title) for each in best}
            own, other = (hours.get((where.dataset, each), math.nan) for each in (title, str(reference)))
            rows.append(
                {"System": title, **columns, **_difference(tests.get(title)),
                 "role": "reference" if title == reference else "", "Cost": own / other, "Data set": where.dataset,
                 "Subset": SUBSETS[where.subset], "Label": where.label}
            )  # fmt: skip
        notes += [_visible(where, tests, measured.unit(metric, where.dataset))] if tests else []
    if not rows:
        return []
    layout = {metric.title: mean_pattern(metric.title), "Difference": DIFFERENCE + "\n{role}",
              "p (Holm)": "{p adjusted}", "System": "{System}\n{Data set}, {Subset}, {Label}"}  # fmt: skip
    title = f"{metric.title} [{measured.unit(metric)}] {LEVELS[level]}"
    return [Table(
        "overview", title, DataFrame(rows).drop(columns="p"), layout,
        (f"Mean ± SD over {CASES[level]}, its {_percent(measured)} confidence interval, number of defined values; "
         "difference: the system minus the reference; cost: hours of a training, times the reference's. Bold: the best "
         "mean, among systems that have all cases.", *notes),
        frozenset(bold),
    )]  # fmt: skip


def _visible(where: Where, tests: dict[str, Tested], unit: str) -> str:
    """Say in one line how large a difference this design can see."""
    seen = [each.comparison.smallest_visible for each in tests.values()]
    n = min(each.comparison.n_pairs for each in tests.values())
    if not all(map(math.isfinite, seen)):
        return f"{where}: {n} pairs cannot show a difference to be significant, however large."
    visible = f"{max(seen):.2f} {'points' if unit == '%' else unit}"
    return f"{where}: four of five such studies, with {n} pairs, find a true difference of {visible} significant."


def _percent(measured: Measured) -> str:
    return f"{100 * measured.spec.statistics.confidence:g}%"


def _difference(test: Tested | None) -> dict[str, Any]:
    columns = {"difference": "mean_difference", "difference low": "low", "difference high": "high", "p": "p_value"}
    found = {name: getattr(test and test.comparison, field, math.nan) for name, field in columns.items()}
    return {**found, "p adjusted": test.adjusted if test else math.nan}


def overall(measured: Measured, dataset: str, subset: str) -> list[Table]:
    """Make the tables of means of a data set: over patients, volumes and slices, as far as they were scored."""
    tables = []
    for level in [each for each in LEVELS if each in measured.levels]:
        metrics = tuple(METRICS.values()) if level == "volume" else OVERLAP
        rows: list[dict[str, Any]] = []
        bold = set()
        for where in measured.labels(dataset, subset):
            for title, columns, best in means(measured, level, where, metrics):
                bold |= {(len(rows), _header(measured, each, dataset)) for each in best}
                rows.append({"System": title, "Label": where.label, **columns})
        if rows:
            layout = {_header(measured, each, dataset): mean_pattern(each.title) for each in metrics}
            note = (
                f"Mean ± SD over {CASES[level]}; {_percent(measured)} confidence interval of the mean, by resampling "
                f"whole {'patients' if 'patient' in measured.levels else 'cases'}; number of defined values. Bold: the "
                "best mean of each label, among systems that have all cases."
            )
            title = f"{dataset}, {SUBSETS[subset]}: {LEVELS[level]}"
            name = slug("overall", dataset, SUBSETS[subset], level)
            tables.append(Table(name, title, DataFrame(rows), layout, (note,), frozenset(bold)))
    return tables


def _header(measured: Measured, metric: Metric, dataset: str) -> str:
    return f"{metric.title} [{measured.unit(metric, dataset)}]"


def comparisons(measured: Measured, dataset: str, subset: str) -> list[Table]:
    """Make the tables of differences: every system against the reference in every metric, and all pairs in one."""
    primary, rows = measured.metric, defaultdict[str, list[dict[str, Any]]](list)
    for where in measured.labels(dataset, subset):
        reference = measured.reference(where)
        for metric in (primary, *(each for each in METRICS.values() if each != primary)):
            for title, test in measured.against(where, metric).items():
                rows["against"].append(_row(measured, where, title, str(reference), metric, test))
        systems = measured.systems(where)
        tests = adjusted({pair: measured.compare(where, *pair, primary) for pair in combinations(systems, 2)})
        if len(systems) > 2:
            rows["pairs"] += [_row(measured, where, *pair, primary, test) for pair, test in tests.items()]
    note = (
        f"Mean of system minus other over the pairs, in the metric's unit, with its {_percent(measured)} confidence "
        "interval. p: Wilcoxon's signed-rank test. r: matched-pairs rank-biserial correlation. d_z: mean over SD of "
        "the differences. Visible: the true difference that four of five such studies find significant. "
    )
    layout = {"Difference": DIFFERENCE, "p (Holm)": "{p adjusted}", "Higher": "{higher} of {pairs}"}
    where_ = f"{dataset}, {SUBSETS[subset]}"
    families = {"against": ("systems against the reference", "Each label and metric is a family of tests of its own."),
                "pairs": ("all pairs of systems", "All pairs of a label are a family of tests.")}  # fmt: skip
    return [
        Table(slug(name, dataset, SUBSETS[subset]), f"{where_}: {families[name][0]}", DataFrame(of_family), layout,
              (note + families[name][1],))
        for name, of_family in rows.items()
    ]  # fmt: skip


def _row(measured: Measured, where: Where, first: str, second: str, metric: Metric, test: Tested) -> dict[str, Any]:
    found = test.comparison
    return {
        "System": first, "Other": second, "Label": where.label, "Metric": _header(measured, metric, where.dataset),
        **_difference(test), "higher": found.n_higher, "pairs": found.n_pairs, "r": found.effect_size,
        "d_z": found.cohens_d_z, "Visible": found.smallest_visible,
    }  # fmt: skip


def folds(measured: Measured, dataset: str) -> list[Table]:
    """Make the table of means per fold and, of several, per repeat; none where there is one fold and one repeat."""
    spec, metric = measured.spec, measured.metric
    volumes = measured.levels["volume"]
    rows = volumes[(volumes["dataset"] == dataset) & (volumes["subset"] == "val")]
    if not len(rows) or (len(spec.folds) < 2 and spec.repeats < 2):
        return []
    means = rows.groupby(["system", "label", "repeat", "fold"], sort=False)[metric.column].mean() * metric.factor
    wide = means.unstack("fold").reindex(columns=[str(fold) for fold in spec.folds])
    wide = wide.rename(columns=lambda fold: f"Fold {fold}").assign(**{"SD of folds": wide.std(axis=1)}).reset_index()
    wide = wide.rename(columns={"system": "System", "label": "Label", "repeat": "Repeat"})
    order = {title: number for number, title in enumerate(spec.titles)}
    wide = wide.sort_values(["System", "Repeat"], key=lambda each: each.map(order).fillna(each), kind="stable")
    title = f"{dataset}, validation: {metric.title} [{measured.unit(metric, dataset)}] per volume, means of folds"
    return [Table(slug("folds", dataset), title, wide)]


def case_table(measured: Measured, pictures: Mapping[CaseKey, str]) -> Table:
    """Make the list of cases, worst first by the metric of the spec; a case's values are means over trainings.

    Args:
        measured: the scores.
        pictures: the id of a case's picture on the page, where it has one.
    """
    metric, keys = measured.metric, ["dataset", "subset", "label", "case", "system"]
    figures = [*METRICS, "reference_ml", "prediction_ml"]
    groups = measured.levels["volume"].groupby(keys, sort=False)
    frame = groups[figures].mean().assign(**{name: groups[name].agg(_joined) for name in ("fold", "note")})
    frame = frame.assign(trainings=groups.size()).reset_index().sort_values(
        [metric.column, *keys], ascending=[metric.higher_is_better, *[True] * len(keys)], na_position="last"
    )  # fmt: skip
    of_rows = zip(*(frame[name] for name in keys[:4]), strict=True)
    links = {row: pictures[key] for row, key in enumerate(of_rows) if key in pictures}
    shown = {
        "case": "Case", "system": "System", "label": "Label", **{each.column: each.title for each in METRICS.values()},
        "reference_ml": "Reference [ml]", "prediction_ml": "Prediction [ml]", "note": "Note", "dataset": "Data set",
        "subset": "Subset", "fold": "Fold", "trainings": "Trainings",
    }  # fmt: skip
    factors = {each.column: frame[each.column] * each.factor for each in METRICS.values()}
    frame = frame.assign(**factors, subset=frame["subset"].map(SUBSETS)).rename(columns=shown)[list(shown.values())]
    layout = {f"{each.title} [{measured.unit(each)}]": f"{{{each.title}}}" for each in METRICS.values()}
    note = "Of several trainings, a case's values are their means, and its notes are joined."
    return Table("cases", f"All cases, the worst {metric.title} first", frame, layout, (note,), links=links)


def _joined(texts: list[str]) -> str:
    return "; ".join(dict.fromkeys(text for text in texts if text))
