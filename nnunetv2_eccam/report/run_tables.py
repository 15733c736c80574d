"""The tables of the trainings themselves: what they cost, where and with what they ran, what is missing."""

import math
from typing import Any

import numpy as np
from pandas import DataFrame

from nnunetv2_eccam.benchmark.records import KEYS, Part, known_folder, parts_of
from nnunetv2_eccam.report.measured import SUBSETS, Measured
from nnunetv2_eccam.report.table import Table

JOULES_PER_KWH = 3.6e6
CLIMB = 0.3
"""Points of pseudo Dice over the last fifth of a training; with more it has not reached its plateau."""
NO_EPOCHS = DataFrame(columns=["epoch", "pseudo_dice", "seconds"], dtype=float)
"""The log of a training that has none."""
NAMED_CASES = 10
"""How many cases are named at most; the list of cases has them all."""


def costs(measured: Measured) -> DataFrame:
    """Give what the trainings of each data set and system took, a row for both; NaN where it is not known."""
    rows = []
    for part in dict.fromkeys([*measured.records, *measured.epochs]):
        if part.fold is not None:
            record, log = measured.records.get(part, {}), measured.epochs.get(part, NO_EPOCHS)
            known = {name: _number(record.get(name)) for name in ("parameters", "train_seconds", "energy_joules")}
            rows.append({
                "dataset": part.dataset, "system": part.system.title, "on": computed_on(record), "climb": climb(log),
                "epochs": len(log) or _number(record.get("epochs")), **known, "epoch_seconds": log["seconds"].median(),
            })  # fmt: skip
    if not rows:
        return DataFrame()
    trainings = DataFrame(rows).groupby(["dataset", "system"], sort=False)
    seconds, joules = trainings["train_seconds"], trainings["energy_joules"]
    return DataFrame({
        "Trainings": trainings.size(), "Parameters [M]": trainings["parameters"].mean() / 1e6,
        "Hours per training": seconds.mean() / 3600, "Hours in all": seconds.sum(min_count=1) / 3600,
        "Epochs": trainings["epochs"].agg(lambda each: ", ".join(dict.fromkeys(f"{n:g}" for n in each.dropna()))),
        "Seconds per epoch": trainings["epoch_seconds"].median(), "Climb [points]": trainings["climb"].mean(),
        "energy": joules.sum(min_count=1) / JOULES_PER_KWH,
        "known": joules.count().map(lambda n: f"of {n} trainings" if n else ""),
        "Computed on": trainings["on"].agg(lambda each: ", ".join(dict.fromkeys(filter(None, each)))),
    })  # fmt: skip


def climb(log: DataFrame) -> float:
    """Give by how many points the pseudo Dice rises over the last fifth of a training, by a straight line."""
    last = log.tail(len(log) // 5).dropna(subset="pseudo_dice")
    if len(log) < 10 or len(last) < 2:
        return math.nan
    slope = np.polyfit(last["epoch"], 100 * last["pseudo_dice"], 1)[0]
    return float(slope) * len(log) / 5


def cost_table(measured: Measured) -> list[Table]:
    """Make the table of costs; none where nothing is known."""
    found = costs(measured)
    if found.empty:
        return []
    short = [f"{title} on {dataset}" for dataset, title in found.index[found["Climb [points]"] > CLIMB]]
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
    found = found.swaplevel().rename_axis(["System", "Data set"]).reset_index()
    return [Table("cost", "Cost of training", found, layout, tuple(notes))]


def runs_table(measured: Measured) -> list[Table]:
    """Make the table of trainings and predictions, a row for each record, if there is any."""
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
    return [Table("runs", "Trainings and predictions", DataFrame(rows))] if rows else []


def commands_of(measured: Measured) -> list[str]:
    """Give all commands that were run, each once, in the order of the parts."""
    return list(dict.fromkeys(each for record in measured.records.values() for each in record.get("commands") or ()))


def missing_table(measured: Measured) -> list[Table]:
    """Make the table of what is missing; none where the benchmark is complete."""
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
    return [Table("missing", "What is missing", DataFrame(rows))] if rows else []


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
