"""Every case with every system's scores, worst first."""

from __future__ import annotations

from collections.abc import Mapping

from nnunetv2_eccam.report.collect import SUBSETS
from nnunetv2_eccam.report.measured import Measured
from nnunetv2_eccam.report.metrics import METRICS
from nnunetv2_eccam.report.table import Table

CaseKey = tuple[str, str, str, str]
"""Data set, subset, label, case."""

_KEYS = ["dataset", "subset", "label", "case", "system"]


def case_table(measured: Measured, pictures: Mapping[CaseKey, str]) -> Table:
    """Make the list of cases, worst first by the metric of the spec; a case's values are means over trainings.

    Args:
        measured: the scores.
        pictures: the id of a case's picture on the page, where it has one.
    """
    metric = measured.metric
    figures = [*METRICS, "reference_ml", "prediction_ml"]
    groups = measured.levels["volume"].groupby(_KEYS, sort=False)
    frame = groups[figures].mean().assign(**{name: groups[name].agg(_joined) for name in ("fold", "note")})
    frame = frame.assign(trainings=groups.size()).reset_index().sort_values(
        [metric.column, *_KEYS], ascending=[metric.higher_is_better, *[True] * len(_KEYS)], na_position="last"
    )  # fmt: skip
    keys = zip(*(frame[name] for name in _KEYS[:4]), strict=True)
    links = {row: pictures[key] for row, key in enumerate(keys) if key in pictures}
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
