"""What trainings cost: parameters, hours, seconds per epoch, energy, from the records and nnU-Net's logs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nnunetv2_eccam.report.collect import Collected, Part
from nnunetv2_eccam.report.formatting import count, number
from nnunetv2_eccam.report.table import Cell, Column, Table, cell, text_column

SECONDS_PER_HOUR = 3600.0
JOULES_PER_KWH = 3.6e6
MILLION = 1e6


@dataclass(frozen=True)
class Cost:
    """What the trainings of a system on a data set took; NaN where it is not known.

    Attributes:
        trainings: how many are known.
        parameters: of the network.
        hours: of one training, the mean.
        total_hours: of all.
        epochs: of one training, those that are known to differ are joined.
        epoch_seconds: the median over all epochs.
        kwh: of all trainings whose energy is known.
        energies: how many these are.
        devices: GPUs, or what else computed.
    """

    trainings: int
    parameters: float
    hours: float
    total_hours: float
    epochs: str
    epoch_seconds: float
    kwh: float
    energies: int
    devices: str


def cost_of(collected: Collected, dataset: str, title: str) -> Cost | None:
    """Sum up the trainings of a system on a data set; None where nothing is known of any."""
    parts = [
        part for part in dict.fromkeys([*collected.records, *collected.epochs])
        if part.dataset == dataset and part.system.title == title and part.fold is not None
    ]  # fmt: skip
    records = [collected.records[part] for part in parts if part in collected.records]
    seconds = _numbers(records, "train_seconds")
    energies = _numbers(records, "energy_joules")
    parameters = _numbers(records, "parameters")
    if not parts:
        return None
    return Cost(
        trainings=len(parts),
        parameters=parameters[0] if parameters else math.nan,
        hours=_mean(seconds) / SECONDS_PER_HOUR,
        total_hours=sum(seconds) / SECONDS_PER_HOUR if seconds else math.nan,
        epochs=_joined(_epochs(collected, part) for part in parts),
        epoch_seconds=_epoch_seconds(collected, parts),
        kwh=sum(energies) / JOULES_PER_KWH if energies else math.nan,
        energies=len(energies),
        devices=_joined(map(computed_on, records)),
    )


def cost_table(collected: Collected) -> Table | None:
    """Make the table of costs; None where nothing is known."""
    columns = (
        text_column("System", heading=True), text_column("Data set"), Column("Trainings"), Column("Parameters [M]"),
        Column("Hours per training"), Column("Hours in all"), Column("Epochs"), Column("Seconds per epoch"),
        Column("Energy [kWh]", ("Energy [kWh]", "Energy known of"), ("{0}", "{1} of the trainings")),
        text_column("Computed on"),
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for dataset in collected.benchmark.datasets:
        for title in collected.benchmark.titles:
            cost = cost_of(collected, dataset, title)
            if cost is not None:
                rows.append(_cost_row(title, dataset, cost))
    if not rows:
        return None
    return Table(
        "cost", "Cost of training", columns, tuple(rows),
        (
            "Hours: of the training command, nnU-Net's validation included; of a training that was run outside of the "
            "benchmark, of its epochs. Seconds per epoch: the median over the epochs of all trainings, by nnU-Net's "
            "logs. Times are comparable only where the machine was the same and did nothing else.",
        ),
    )  # fmt: skip


def _cost_row(title: str, dataset: str, cost: Cost) -> tuple[Cell, ...]:
    return (
        cell(title), cell(dataset), cell(count(cost.trainings)), cell(number(cost.parameters / MILLION)),
        cell(number(cost.hours)), cell(number(cost.total_hours)), cell(cost.epochs), cell(number(cost.epoch_seconds)),
        cell(number(cost.kwh), count(cost.energies) if cost.energies else ""), cell(cost.devices),
    )  # fmt: skip


def _epochs(collected: Collected, part: Part) -> str:
    """Give the epochs of a training: the log's count, else the record's."""
    if part in collected.epochs:
        return count(len(collected.epochs[part]))
    return count(as_number(collected.records[part].get("epochs")))


def _epoch_seconds(collected: Collected, parts: Sequence[Part]) -> float:
    seconds = [
        epoch.seconds for part in parts for epoch in collected.epochs.get(part, ()) if math.isfinite(epoch.seconds)
    ]
    return statistics.median(seconds) if seconds else math.nan


def computed_on(record: dict[str, Any]) -> str:
    """Name the GPU of a record, or the processor where there was none."""
    return str(record.get("gpu") or record.get("cpu") or record.get("device") or "")


def as_number(value: Any) -> float:
    """Read a record's number; NaN where there is none."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def _numbers(records: Sequence[dict[str, Any]], name: str) -> list[float]:
    values = [as_number(record.get(name)) for record in records]
    return [value for value in values if math.isfinite(value)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _joined(texts: Any) -> str:
    return ", ".join(dict.fromkeys(text for text in texts if text))
