"""What ``nnUNetv2_eccam evaluate`` prints: each label's and metric's mean, spread, interval and number of cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from nnunetv2_eccam.statistics import Summary, summarise, summarise_parts

if TYPE_CHECKING:
    import pandas

OVERLAP = {"dsc": "DSC", "sensitivity": "sensitivity", "precision": "precision"}


class Interval(NamedTuple):
    """How the confidence intervals are made: as ``statistics.summarise`` takes it."""

    confidence: float = 0.95
    n_bootstrap: int = 10_000
    seed: int = 0


class Line(NamedTuple):
    """One line of the table."""

    label: str
    metric: str
    summary: Summary
    unit: str


def lines_of(volumes: pandas.DataFrame, slices: pandas.DataFrame | None, interval: Interval) -> list[Line]:
    """Summarise each label's metrics over cases, and those per slice over the slices of the reference's structure."""
    lines = []
    for label in dict.fromkeys(volumes["label"]):
        rows = volumes[volumes["label"] == label]
        tolerance = float(rows["nsd_tolerance_mm"].iloc[0])
        names = OVERLAP | {"hd95_mm": "HD95 (mm)", "nsd": f"NSD at {tolerance:g} mm"}
        for column, name in names.items():
            lines.append(Line(label, name, summarise(rows[column].tolist(), *interval), "cases"))
        if slices is not None:
            parts = slices[(slices["label"] == label) & (slices["tp"] + slices["fn"] > 0)]
            for column, name in OVERLAP.items():
                summary = summarise_parts(parts[column].tolist(), parts["case"].tolist(), *interval)
                lines.append(Line(label, f"{name} per slice", summary, "slices"))
    return lines


def table(lines: Sequence[Line], interval: Interval) -> str:
    """Lay lines out; what is not defined is a dash."""
    rows = [("label", "metric", "mean", "SD", f"{100 * interval.confidence:g}% CI", "n")]
    for label, metric, summary, unit in lines:
        digits = 2 if "mm)" in metric else 4
        mean, sd, low, high = (f"{value:.{digits}f}" if not math.isnan(value) else "-" for value in summary[:4])
        ends = "-" if low == "-" else f"{low} to {high}"
        rows.append((label, metric, mean, sd, ends, f"{summary.n_defined} of {summary.n_all} {unit}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rule = "-" * (sum(widths) + 2 * len(widths) - 2)
    shown = []
    for place, row in enumerate(rows):
        if place and row[0] != rows[place - 1][0]:
            shown.append(rule)
        same = place > 1 and row[0] == rows[place - 1][0]
        cells = ["" if same else row[0], *row[1:]]
        shown.append("  ".join(
            cell.rjust(width) if 2 <= column <= 3 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip())  # fmt: skip
    return "\n".join(shown)


def remarks(volumes: pandas.DataFrame, slices: pandas.DataFrame | None, interval: Interval) -> str:
    """Say how the numbers are to be read, and name each case for which something is not defined."""
    n_cases = volumes["case"].nunique()
    words = [f"CI: of the mean, bootstrap over cases ({interval.n_bootstrap} resamples, seed {interval.seed})"]
    if slices is not None:
        words.append("Per slice: the slices that hold the structure in the reference; the CI resamples whole cases")
    if 1 < n_cases < 10:
        words.append(f"{n_cases} cases are few: their CI is likely too narrow")
    means = [volumes.loc[volumes["label"] == label, "dsc"].mean() for label in dict.fromkeys(volumes["label"])]
    if len(means) > 1:
        mean = sum(means) / len(means)
        shown = "not defined" if math.isnan(mean) else f"{mean:.4f}"
        words.append(f"Mean of the labels' mean DSC (nnU-Net's foreground_mean): {shown}")
    noted = volumes[volumes["note"] != ""]
    words += [f"{case}, {label}: {note}" for case, label, note in noted[["case", "label", "note"]].values.tolist()]
    return "\n".join(words)
