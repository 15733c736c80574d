"""Reads a benchmark's specification from YAML or from options, and names what is wrong in it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from nnunetv2_eccam.benchmark.spec import (
    DEVICES,
    EMPTY_RULES,
    ENGINES,
    Entry,
    Evaluation,
    Run,
    Spec,
    Statistics,
)
from nnunetv2_eccam.benchmark.spec_fields import Fields
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.report.metrics import METRICS
from nnunetv2_eccam.systems.published import DATASETS as PAPER_DATASETS

NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")
"""What data sets, trainers, configurations and plans may be called: they become parts of folder names."""


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a specification's file.

    Raises:
        UserError: it cannot be read, is not YAML, or holds no mapping.
    """
    try:
        import yaml
    except ModuleNotFoundError:
        raise UserError("YAML files need PyYAML: pip install 'nnunetv2-eccam[benchmark]'") from None
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a specification: it holds no mapping of names to values")
    return content


def read_spec(content: Mapping[str, Any], source: str) -> Spec:
    """Check a specification and put defaults where it is silent.

    Args:
        content: as read from YAML, with what the options change.
        source: the file, or ``the options``; errors begin with it.

    Raises:
        UserError: something in it is missing, wrong or not known.
    """
    fields = Fields(content, source)
    device = fields.choice("device", DEVICES, "cuda")
    name = cast(str, fields.text("name", "benchmark"))
    datasets = _datasets(fields)
    systems = _systems(fields, source)
    spec = Spec(
        name=name,
        datasets=datasets,
        systems=systems,
        folds=_folds(fields),
        repeats=cast(int, fields.integer("repeats", 1, 1)),
        plans=cast(str, fields.text("plans", "nnUNetPlans")),
        device=device,
        predict_test=fields.flag("predict_test", True),
        evaluation=_evaluation(fields.part("evaluation")),
        statistics=_statistics(fields.part("statistics"), systems),
        published=_published(fields),
        run=_run(fields.part("run"), device),
    )
    if not NAME.fullmatch(spec.plans):
        raise fields.wrong("plans", "the name of nnU-Net's plans, as nnUNetPlans")
    fields.finish()
    return spec


def _published(fields: Fields) -> dict[str, str | None]:
    """Read the paper's names of data sets; null is a data set that is none of the paper's, whatever it is called."""
    published = fields.free("published")
    for dataset, name in published.items():
        if name is not None and name not in PAPER_DATASETS:
            raise fields.part("published").wrong(dataset, f"one of {', '.join(PAPER_DATASETS)}, or null for none")
    return published


def _datasets(fields: Fields) -> tuple[str, ...]:
    needed = "a list of nnU-Net's data sets, by number or name (2, Dataset002_Heart)"
    found = []
    for value in fields.items("datasets", needed):
        if isinstance(value, bool) or not isinstance(value, (int, str)) or not NAME.fullmatch(str(value)):
            raise fields.wrong("datasets", needed)
        found.append(str(value))
    return tuple(dict.fromkeys(found))


def _folds(fields: Fields) -> tuple[int, ...]:
    needed = "a list of folds, each a whole number of 0 or more"
    folds = fields.items("folds", needed)
    if any(isinstance(fold, bool) or not isinstance(fold, int) or fold < 0 for fold in folds):
        raise fields.wrong("folds", needed)
    return tuple(dict.fromkeys(folds))


def _systems(fields: Fields, source: str) -> tuple[Entry, ...]:
    """Read the trainers, each a name or a mapping with a configuration and a title of its own."""
    trainers = fields.items("trainers", "a list of trainers, as nnUNetv2_train -tr takes them")
    shared = _names(fields, "configurations") if fields.has("configurations") else ()
    entries: dict[tuple[str, str], str | None] = {}
    for position, value in enumerate(trainers):
        where = f"trainers[{position}]"
        entry = Fields({"trainer": value} if isinstance(value, str) else value, source, where)
        trainer = entry.text("trainer", None)
        if trainer is None or not NAME.fullmatch(trainer):
            raise entry.wrong("trainer", "the name of a trainer, as nnUNetv2_train -tr takes it")
        own = next((key for key in ("configurations", "configuration") if entry.has(key)), None)
        configurations = _names(entry, own) if own else shared
        title = entry.text("title", None)
        entry.finish()
        if not configurations:
            raise UserError(f"{source}: configurations is missing; it must be a list of configurations of the plans")
        for configuration in configurations:
            entries.setdefault((trainer, configuration), title)
    return _with_titles(entries)


def _names(fields: Fields, key: str) -> tuple[str, ...]:
    needed = "a list of configurations of nnU-Net's plans"
    names = fields.items(key, needed)
    if any(not isinstance(name, str) or not NAME.fullmatch(name) for name in names):
        raise fields.wrong(key, needed)
    return tuple(dict.fromkeys(names))


def _with_titles(entries: Mapping[tuple[str, str], str | None]) -> tuple[Entry, ...]:
    """Give each system a title: its own, the paper's, or the trainer's name; the same ones get what differs."""
    from nnunetv2_eccam.report.read_spec import paper_system

    found = [
        Entry(trainer, configuration, title or str(getattr(paper_system(trainer), "title", trainer)))
        for (trainer, configuration), title in entries.items()
    ]
    for differing in ("configuration", "trainer"):
        times = Counter(entry.title for entry in found)
        found = [
            replace(entry, title=f"{entry.title} ({getattr(entry, differing)})") if times[entry.title] > 1 else entry
            for entry in found
        ]
    return tuple(found)


def _evaluation(fields: Fields) -> Evaluation:
    evaluation = Evaluation(
        nsd_tolerance_mm=cast(float, fields.number("nsd_tolerance_mm", 2.0, 0)),
        slices=fields.flag("slices", True),
        empty=fields.choice("empty", EMPTY_RULES, "undefined"),
        ignore_geometry=fields.flag("ignore_geometry", False),
    )
    fields.finish()
    return evaluation


def _statistics(fields: Fields, systems: Sequence[Entry]) -> Statistics:
    statistics = Statistics(
        metric=fields.choice("metric", tuple(METRICS), "dsc"),
        confidence=cast(float, fields.number("confidence", 0.95, 0, 1)),
        bootstrap=cast(int, fields.integer("bootstrap", 10000, 1)),
        seed=cast(int, fields.integer("seed", 0, 0)),
        reference_system=fields.text("reference_system", None),
    )
    names = [name for system in systems for name in (system.title, system.trainer)]
    if statistics.reference_system not in (None, *names):
        raise fields.wrong("reference_system", f"one of {', '.join(system.title for system in systems)}")
    fields.finish()
    return statistics


def _run(fields: Fields, device: str) -> Run:
    engine = fields.choice("engine", ENGINES, "local")
    run = Run(
        engine=engine,
        jobs=cast(int, fields.integer("jobs", 1 if engine == "local" else 64, 1)),
        gpus=cast(int, fields.integer("gpus", int(device == "cuda"), 1 if device == "cuda" else 0)),
        cpus=fields.integer("cpus", None, 1),
        hours=fields.number("hours", None if engine == "local" else 24.0, 0),
        memory_gb=fields.number("memory_gb", None, 0),
        partition=fields.text("partition", None),
        cpu_partition=fields.text("cpu_partition", None),
        slurm=fields.free("slurm"),
    )
    if device != "cuda" and run.gpus:
        raise fields.wrong("gpus", f"0 with device: {device}")
    fields.finish()
    return run
