"""Where the numbers are from: every training and prediction, and the versions of the programs."""

from __future__ import annotations

from collections import Counter
from typing import Any

from nnunetv2_eccam.report.collect import Collected
from nnunetv2_eccam.report.cost import JOULES_PER_KWH, SECONDS_PER_HOUR, as_number, computed_on
from nnunetv2_eccam.report.formatting import count, number
from nnunetv2_eccam.report.table import Cell, Column, Table, cell, text_column

_TIMES = ("started", "finished")


def runs_table(collected: Collected) -> Table | None:
    """Make the table of trainings and predictions, a row for each record; None where there is none."""
    columns = (
        text_column("System", heading=True), text_column("Data set"), text_column("Trainer"),
        text_column("Configuration"), Column("Repeat"), text_column("Fold"), text_column("Host"),
        text_column("Computed on"), text_column("Started"), text_column("Finished"), Column("Hours"),
        Column("Energy [kWh]"), text_column("Note"),
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for part, record in collected.records.items():
        system = part.system
        words = (_word(record.get("hostname")), computed_on(record), *(_word(record.get(name)) for name in _TIMES))
        rows.append(
            (
                cell(system.title), cell(part.dataset), cell(system.trainer), cell(system.configuration),
                cell(count(part.repeat)), cell("test set" if part.fold is None else str(part.fold)),
                *(cell(word) for word in words), cell(number(_hours(record))),
                cell(number(as_number(record.get("energy_joules")) / JOULES_PER_KWH)),
                cell(_word(record.get("note"))),
            )
        )  # fmt: skip
    return Table("runs", "Trainings and predictions", columns, tuple(rows)) if rows else None


def versions_table(collected: Collected) -> Table | None:
    """Make the table of programs and their versions; None where no record has any."""
    found: dict[str, Counter[str]] = {}
    for record in collected.records.values():
        versions = record.get("versions")
        known = versions.items() if isinstance(versions, dict) else ()
        for package, version in ((package, version) for package, version in known if version is not None):
            found.setdefault(str(package), Counter())[_word(version)] += 1
    rows = [
        (cell(package), cell(version), cell(count(times)))
        for package in sorted(found) for version, times in sorted(found[package].items())
    ]  # fmt: skip
    columns = (text_column("Program", heading=True), text_column("Version"), Column("Records"))
    return Table("versions", "Versions", columns, tuple(rows)) if rows else None


def commands_of(collected: Collected) -> list[str]:
    """Give all commands that were run, each once, in the order of the parts."""
    found: dict[str, None] = {}
    for record in collected.records.values():
        commands = record.get("commands")
        for command in commands if isinstance(commands, list) else ():
            found[" ".join(map(str, command)) if isinstance(command, list) else str(command)] = None
    return list(found)


def _hours(record: dict[str, Any]) -> float:
    return as_number(record.get("train_seconds", record.get("predict_seconds"))) / SECONDS_PER_HOUR


def _word(value: Any) -> str:
    return "" if value is None else str(value)
