"""The tables of the trainings themselves: what they cost, where and with what they ran, what is missing."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from pandas import DataFrame

from nnunetv2_eccam.benchmark.parts import KEYS, Part, known_folder, parts_of
from nnunetv2_eccam.benchmark.training_logs import Epoch
from nnunetv2_eccam.report.measured import SUBSETS, Measured
from nnunetv2_eccam.report.table import Table

JOULES_PER_KWH = 3.6e6
CLIMB = 0.3
"""Points of pseudo Dice over the last fifth of a training; with more it has not reached its plateau."""
NAMED_CASES = 10
"""How many cases are named at most; the list of cases has them all."""


def costs(measured: Measured) -> dict[tuple[str, str], dict[str, Any]]:
    """Give what the trainings of each data set and system took; NaN where it is not known."""
    rows = []
    for part in dict.fromkeys([*measured.records, *measured.epochs]):
        if part.fold is not None:
            record, log = measured.records.get(part, {}), measured.epochs.get(part, [])
            known = {name: _number(record.get(name)) for name in ("parameters", "train_seconds", "energy_joules")}
            rows.append({
                "dataset": part.dataset, "system": part.system.title, "on": computed_on(record), "climb": climb(log),
                "epochs": len(log) or _number(record.get("epochs")), **known,
                "epoch_seconds": statistics.median(epoch.seconds for epoch in log) if log else math.nan,
            })  # fmt: skip
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for (dataset, title), own in DataFrame(rows).groupby(["dataset", "system"], sort=False) if rows else ():
        measured = own["energy_joules"].count()
        found[str(dataset), str(title)] = {
            "Trainings": len(own), "Parameters [M]": own["parameters"].mean() / 1e6,
            "Hours per training": own["train_seconds"].mean() / 3600,
            "Hours in all": own["train_seconds"].sum(min_count=1) / 3600,
            "Epochs": ", ".join(dict.fromkeys(f"{value:g}" for value in own["epochs"].dropna())),
            "Seconds per epoch": own["epoch_seconds"].median(), "Climb [points]": own["climb"].mean(),
            "energy": own["energy_joules"].sum(min_count=1) / JOULES_PER_KWH,
            "known": f"of {measured} trainings" if measured else "",
            "Computed on": ", ".join(dict.fromkeys(filter(None, own["on"]))),
        }  # fmt: skip
    return found


def climb(log: Sequence[Epoch]) -> float:
    """Give by how many points the pseudo Dice rises over the last fifth of a training, by a straight line."""
    last = [epoch for epoch in log[-(len(log) // 5) :] if math.isfinite(epoch.pseudo_dice)]
    if len(log) < 10 or len(last) < 2:
        return math.nan
    slope = np.polyfit([epoch.epoch for epoch in last], [100 * epoch.pseudo_dice for epoch in last], 1)[0]
    return float(slope) * len(log) / 5


def cost_table(measured: Measured) -> Table | None:
    """Make the table of costs; None where nothing is known."""
    found = costs(measured)
    rows = [{"System": title, "Data set": dataset, **cost} for (dataset, title), cost in found.items()]
    short = [f"{title} on {dataset}" for (dataset, title), cost in found.items() if cost["Climb [points]"] > CLIMB]
    notes = [
        "Hours: of the training command, nnU-Net's validation included; of a training that was run outside of the "
        "benchmark, of its epochs. Seconds per epoch: the median of a training's epochs, and of these. "
        "Times are comparable only where the machine was the same and did nothing else. Climb: by how much the pseudo "
        "Dice still rose over the last fifth of a training, mean over trainings."
    ]
    if short:
        notes.append(f"Too short to conclude from, since the Dice still climbs more than {CLIMB} points over the last "
                     f"fifth: {', '.join(short)}.")  # fmt: skip
    layout = {"Energy [kWh]": "{energy}\n{known}"}
    return Table("cost", "Cost of training", DataFrame(rows), layout, tuple(notes)) if rows else None


def runs_table(measured: Measured) -> Table | None:
    """Make the table of trainings and predictions, a row for each record; None where there is none."""
    rows = []
    for part, record in measured.records.items():
        versions = record.get("versions")
        known = versions.items() if isinstance(versions, dict) else ()
        words = {name: record.get(name.lower()) or "" for name in ("Hostname", "Started", "Finished", "Note")}
        rows.append({
            "System": part.system.title, "Data set": part.dataset, "Trainer": part.system.trainer,
            "Configuration": part.system.configuration, "Repeat": part.repeat,
            "Fold": "test set" if part.fold is None else str(part.fold), "Computed on": computed_on(record),
            "Hours": _number(record.get("train_seconds", record.get("predict_seconds"))) / 3600,
            "Energy [kWh]": _number(record.get("energy_joules")) / JOULES_PER_KWH,
            **{name: str(word) for name, word in words.items()},
            "Versions": ", ".join(f"{program} {version}" for program, version in known if version),
        })  # fmt: skip
    return Table("runs", "Trainings and predictions", DataFrame(rows)) if rows else None


def commands_of(measured: Measured) -> list[str]:
    """Give all commands that were run, each once, in the order of the parts."""
    return list(dict.fromkeys(each for record in measured.records.values() for each in record.get("commands") or ()))


def missing_table(measured: Measured) -> Table | None:
    """Make the table of what is missing; None where the benchmark is complete."""
    found: dict[tuple[str, str], list[str]] = {}
    volumes = measured.levels["volume"]
    scored = set(zip(*(volumes[name] for name in KEYS), strict=True))
    for part in parts_of(measured.spec):
        if tuple(part.keys.values()) not in scored and (part.fold is not None or _is_expected(measured, part)):
            which = "test set" if part.fold is None else f"fold {part.fold}"
            repeat = f" of repeat {part.repeat}" if measured.spec.repeats > 1 else ""
            found.setdefault((part.system.title, part.dataset), []).append(which + repeat)
    for dataset, subset in measured.blocks:
        cases = volumes[(volumes["dataset"] == dataset) & (volumes["subset"] == subset)]
        for title, own in cases.groupby("system", sort=False):
            if lacking := sorted(set(cases["case"]) - set(own["case"])):
                more = ", ..." if len(lacking) > NAMED_CASES else ""
                what = f"{len(lacking)} of {cases['case'].nunique()} {SUBSETS[subset]} cases"
                named = f"{what} ({', '.join(lacking[:NAMED_CASES])}{more})"
                found.setdefault((str(title), dataset), []).append(named)
    rows = [{"System": title, "Data set": dataset, "Without scores": ", ".join(each)}
            for (title, dataset), each in found.items()]  # fmt: skip
    return Table("missing", "What is missing", DataFrame(rows)) if rows else None


def _is_expected(measured: Measured, part: Part) -> bool:
    """Tell whether a test set is to be scored: another system has scores of it, or its labels are there."""
    if not measured.spec.predict_test:
        return False
    labels = known_folder("nnUNet_raw") / part.dataset / "labelsTs"
    return (part.dataset, "test") in measured.blocks or any(labels.glob("*"))


def computed_on(record: dict[str, Any]) -> str:
    """Name the GPU of a record, or the processor where there was none."""
    return str(record.get("gpu") or record.get("cpu") or record.get("device") or "")


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
