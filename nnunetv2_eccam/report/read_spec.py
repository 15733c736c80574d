"""The benchmark as it was run, from ``spec.json`` of its work folder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json
from nnunetv2_eccam.report.metrics import METRICS, Metric, metric_named
from nnunetv2_eccam.systems import RECIPES, SYSTEMS, System
from nnunetv2_eccam.systems.published import DATASETS

PUBLISHED_AS: Mapping[str, str] = {"Heart": "Cardiac", "Pancreas": "MSD", "PancreasCT": "TCIA", "KiTS19": "KiTS"}
"""The paper's name of a data set, by what ``nnUNetv2_eccam convert`` calls it after the number."""


@dataclass(frozen=True)
class BenchmarkSystem:
    """A trainer in a configuration.

    Attributes:
        trainer: its name.
        configuration: of nnU-Net's plans.
        title: as the report calls it; no two systems have the same.
        paper: what it is in the paper's tables, or None.
    """

    trainer: str
    configuration: str
    title: str
    paper: System | None = field(compare=False)


@dataclass(frozen=True)
class Benchmark:
    """What was asked for.

    Attributes:
        work_dir: the work folder.
        name: of the benchmark.
        datasets: folder names, ``Dataset002_Heart``.
        systems: in the order of the spec.
        folds: of each training.
        repeats: trainings of each system and fold.
        plans: identifier of nnU-Net's plans.
        predict_test: whether test sets are predicted.
        slices: whether slices are scored too.
        nsd_tolerance_mm: of the normalised surface Dice.
        empty: how undefined distances were treated, as the evaluation was told; None: not at all.
        ignore_geometry: headers were not compared.
        metric: by which systems are compared.
        confidence: of the intervals, from 0 to 1.
        bootstrap: resamples.
        seed: of the bootstrap.
        reference: the title of the system that the others are compared with, or None for the best one.
        published: the paper's name of a data set, for those that it has.
    """

    work_dir: Path
    name: str
    datasets: tuple[str, ...]
    systems: tuple[BenchmarkSystem, ...]
    folds: tuple[int, ...]
    repeats: int
    plans: str
    predict_test: bool
    slices: bool
    nsd_tolerance_mm: float | None
    empty: str | None
    ignore_geometry: bool
    metric: Metric
    confidence: float
    bootstrap: int
    seed: int
    reference: str | None
    published: Mapping[str, str]

    @property
    def titles(self) -> tuple[str, ...]:
        """The systems' titles, in order."""
        return tuple(system.title for system in self.systems)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """All metrics, the one that systems are compared by first."""
        return (self.metric, *(metric for metric in METRICS.values() if metric != self.metric))


def read_benchmark(work_dir: Path) -> Benchmark:
    """Read ``spec.json``.

    Raises:
        UserError: it is missing, or something in it is missing or wrong.
    """
    path = work_dir / "spec.json"
    if not path.is_file():
        raise UserError(f"{path} is missing, so {work_dir} is not the work folder of a benchmark")
    content = read_json(path)
    try:
        return _benchmark(work_dir, content, str(path))
    except KeyError as error:
        raise UserError(f"{path} has no {error}; run nnUNetv2_eccam benchmark again, which writes it") from None
    except (TypeError, AttributeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is not as nnUNetv2_eccam benchmark writes it: {error}") from None


def _benchmark(work_dir: Path, content: Any, where: str) -> Benchmark:
    systems = _systems(content["trainers"], content.get("configurations") or ())
    evaluation, statistics = content.get("evaluation") or {}, content.get("statistics") or {}
    datasets = tuple(str(name) for name in content["datasets"])
    tolerance = evaluation.get("nsd_tolerance_mm")
    return Benchmark(
        work_dir=work_dir,
        name=str(content.get("name") or work_dir.name),
        datasets=datasets,
        systems=systems,
        folds=tuple(int(fold) for fold in content["folds"]),
        repeats=int(content.get("repeats", 1)),
        plans=str(content.get("plans") or "nnUNetPlans"),
        predict_test=bool(content.get("predict_test", False)),
        slices=bool(evaluation.get("slices", True)),
        nsd_tolerance_mm=None if tolerance is None else float(tolerance),
        empty=None if evaluation.get("empty") is None else str(evaluation["empty"]),
        ignore_geometry=bool(evaluation.get("ignore_geometry", False)),
        metric=metric_named(str(statistics.get("metric", "dsc")), where),
        confidence=float(statistics.get("confidence", 0.95)),
        bootstrap=int(statistics.get("bootstrap", 10000)),
        seed=int(statistics.get("seed", 0)),
        reference=_reference(statistics.get("reference_system"), systems, where),
        published=_published(content.get("published") or {}, datasets, where),
    )


def _systems(trainers: Sequence[Any], configurations: Sequence[str]) -> tuple[BenchmarkSystem, ...]:
    """Read the trainers; those that would have the same title get their configuration or trainer in it."""
    found: list[tuple[str, str, str | None]] = []
    for entry in trainers:
        entry = {"trainer": entry} if isinstance(entry, str) else entry
        chosen = entry.get("configurations") or entry.get("configuration") or configurations
        for configuration in [chosen] if isinstance(chosen, str) else chosen:
            key = (str(entry["trainer"]), str(configuration), entry.get("title"))
            if key[:2] not in [each[:2] for each in found]:
                found.append(key)
    papers = {trainer: paper_system(trainer) for trainer, _, _ in found}
    titles = []
    for trainer, _, title in found:
        paper = papers[trainer]
        titles.append(str(title) if title else paper.title if paper else trainer)
    for differs in (1, 0):
        times = Counter(titles)
        titles = [
            f"{title} ({system[differs]})" if times[title] > 1 else title
            for title, system in zip(titles, found, strict=True)
        ]
    return tuple(
        BenchmarkSystem(trainer, configuration, title, papers[trainer])
        for (trainer, configuration, _), title in zip(found, titles, strict=True)
    )


def paper_system(trainer: str) -> System | None:
    """Give what a trainer is in the paper's tables, or None where it is none of this package's."""
    name = re.sub(r"_[1-9]\d*epochs?$", "", trainer)
    return next((each for each in SYSTEMS for recipe in RECIPES if each.trainer_name(recipe) == name), None)


def _reference(word: Any, systems: Sequence[BenchmarkSystem], where: str) -> str | None:
    if word is None:
        return None
    for system in systems:
        names = (system.title, system.trainer, f"{system.trainer} {system.configuration}")
        if word in (*names, f"{system.trainer}__{system.configuration}"):
            return system.title
    titles = ", ".join(system.title for system in systems)
    raise UserError(f"{where}: statistics.reference_system is {word}, which is no system of it; they are {titles}")


def _published(given: Mapping[str, str | None], datasets: Sequence[str], where: str) -> dict[str, str]:
    published = {}
    for dataset in datasets:
        name = given[dataset] if dataset in given else PUBLISHED_AS.get(dataset.partition("_")[2])
        if name is not None and name not in DATASETS:
            raise UserError(f"{where}: published calls {dataset} {name}; the paper has {', '.join(DATASETS)}")
        if name is not None:
            published[dataset] = name
    return published
