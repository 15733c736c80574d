"""What ``nnUNetv2_eccam evaluate`` prints: each label's and metric's mean, spread, interval and number of cases."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from nnunetv2_eccam.evaluation.score_files import patients_of
from nnunetv2_eccam.statistics import Summary, summarise

if TYPE_CHECKING:
    import pandas

Interval = Mapping[str, Any]
"""Confidence, resamples and seed of the intervals, as ``statistics.summarise`` takes them."""

OVERLAP = {"dsc": "DSC", "sensitivity": "sensitivity", "precision": "precision"}


class Scores(NamedTuple):
    """The tables of ``score_files``, and the pattern by which cases are of one patient, or None."""

    volumes: pandas.DataFrame
    slices: pandas.DataFrame | None
    patients: pandas.DataFrame | None
    group: str | None

    @property
    def has_slices(self) -> bool:
        """Whether any case has several slices; of flat images, the slices are the cases."""
        return self.slices is not None and bool(self.slices.duplicated(["case", "label"]).any())


def _lines(scores: Scores, interval: Interval) -> Iterator[tuple[str, str, Summary, str]]:
    """Summarise each label's metrics over cases, over the slices of the reference's structure, and over patients.

    Yields:
        Label, metric, its summary, and of what it is one.
    """

    def summary(rows: pandas.DataFrame, column: str) -> Summary:
        units = rows["patient" if "patient" in rows else "case"].tolist()
        if scores.group is not None and "patient" not in rows:
            units = patients_of(units, scores.group)
        return summarise(rows[column].tolist(), units, **interval)

    for label, rows in scores.volumes.groupby("label", sort=False):
        unit, tolerance = "/".join(dict.fromkeys(rows["unit"])), float(rows["nsd_tolerance"].iloc[0])
        for column, name in (OVERLAP | {"hd95": f"HD95 ({unit})", "nsd": f"NSD at {tolerance:g} {unit}"}).items():
            yield str(label), name, summary(rows, column), "cases"
        if scores.slices is not None and scores.has_slices:
            parts = scores.slices[(scores.slices["label"] == label) & (scores.slices["tp"] + scores.slices["fn"] > 0)]
            for column, name in OVERLAP.items():
                yield str(label), f"{name} per slice", summary(parts, column), "slices"
        if scores.patients is not None:
            pooled = scores.patients[scores.patients["label"] == label]
            for column, name in OVERLAP.items():
                yield str(label), f"{name} per patient", summary(pooled, column), "patients"


def table(scores: Scores, interval: Interval) -> str:
    """Lay all out; what is not defined is a dash."""
    import pandas

    rows = []
    for label, metric, summary, unit in _lines(scores, interval):
        digits = 2 if metric.startswith("HD95") else 4
        mean, sd, low, high = (f"{value:.{digits}f}" if not math.isnan(value) else "-" for value in summary[:4])
        ends = "-" if low == "-" else f"{low} to {high}"
        rows.append((label, metric, mean, sd, ends, f"{summary.n_defined} of {summary.n_all} {unit}"))
    columns = ["label", "metric", "mean", "SD", f"{100 * interval['confidence']:g}% CI", "n"]
    laid = pandas.DataFrame(rows, columns=columns).set_index(["label", "metric"])
    text: str = laid.rename_axis([None, None]).to_string()
    return text


def remarks(scores: Scores, interval: Interval) -> str:
    """Say how the numbers are to be read, and name each case for which something is not defined."""
    volumes, patients = scores.volumes, scores.patients
    units = "cases" if patients is None else "patients"
    count = volumes["case"].nunique() if patients is None else patients["patient"].nunique()
    words = [f"CI: of the mean, bootstrap over {units} ({interval['n_bootstrap']} resamples, seed {interval['seed']})"]
    if scores.has_slices:
        words.append(f"Per slice: the slices that hold the structure in the reference; the CI resamples whole {units}")
    if patients is not None:
        words.append("Per patient: of the voxels of all its cases together")
    if "px" in set(volumes["unit"]):
        words.append("px: pixels, since the images do not say how large one is in mm")
    if 1 < count < 10:
        words.append(f"{count} {units} are few: their CI is likely too narrow")
    means = [volumes.loc[volumes["label"] == label, "dsc"].mean() for label in dict.fromkeys(volumes["label"])]
    if len(means) > 1:
        mean = sum(means) / len(means)
        shown = "not defined" if math.isnan(mean) else f"{mean:.4f}"
        words.append(f"Mean of the labels' mean DSC (nnU-Net's foreground_mean): {shown}")
    noted = volumes[volumes["note"] != ""]
    words += [f"{case}, {label}: {note}" for case, label, note in noted[["case", "label", "note"]].values.tolist()]
    return "\n".join(words)
