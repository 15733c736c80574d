"""What a benchmark compares and how it is run, with every field in its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

DEVICES = ("cpu", "cuda", "mps")
ENGINES = ("local", "slurm")

EMPTY_RULES = ("undefined", "diagonal")


@dataclass(frozen=True)
class Entry:
    """A system of the benchmark: a trainer in a configuration.

    Args:
        trainer: its name, as nnU-Net's ``-tr``.
        configuration: of nnU-Net's plans.
        title: as the report calls it; no two systems have the same.
    """

    trainer: str
    configuration: str
    title: str


@dataclass(frozen=True)
class Evaluation:
    """How predictions are scored.

    Args:
        nsd_tolerance_mm: of the normalised surface Dice.
        slices: whether slices are scored too.
        empty: the 95% Hausdorff distance of a structure that was missed altogether: ``undefined``, or the
            image's ``diagonal``.
        ignore_geometry: compare voxel by voxel though headers differ, as nnU-Net does.
    """

    nsd_tolerance_mm: float = 2.0
    slices: bool = True
    empty: str = "undefined"
    ignore_geometry: bool = False


@dataclass(frozen=True)
class Statistics:
    """What the report compares, and how.

    Args:
        metric: by which systems are compared.
        confidence: of the intervals, between 0 and 1.
        bootstrap: resamples.
        seed: of the bootstrap.
        reference_system: the title or trainer that the others are compared with, or None for the best one.
    """

    metric: str = "dsc"
    confidence: float = 0.95
    bootstrap: int = 10000
    seed: int = 0
    reference_system: str | None = None


@dataclass(frozen=True)
class Run:
    """Where the jobs run.

    Args:
        engine: ``local`` or ``slurm``.
        jobs: at most so many at once; with SLURM, in its queue.
        gpus: of one training or prediction.
        cpus: of one job; None: this machine's shared among its jobs, or SLURM's own default.
        hours: after which a job is stopped, to go on in another; None: never. With SLURM, its time limit.
        memory_gb: that SLURM is asked for.
        partition: of SLURM.
        cpu_partition: of SLURM, for scoring, which needs no GPU; None: the same.
        slurm: any further option of sbatch, by its long name.
    """

    engine: str = "local"
    jobs: int = 1
    gpus: int = 0
    cpus: int | None = None
    hours: float | None = None
    memory_gb: float | None = None
    partition: str | None = None
    cpu_partition: str | None = None
    slurm: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Spec:
    """A benchmark.

    Args:
        name: for the report's title.
        datasets: folder names, ``Dataset002_Heart``; numbers until they are looked up.
        systems: what is compared.
        folds: of nnU-Net's splits.
        repeats: trainings of each system and fold.
        plans: identifier of nnU-Net's plans.
        device: ``cpu``, ``cuda`` or ``mps``.
        predict_test: whether test images with labels are predicted and scored.
        evaluation: how predictions are scored.
        statistics: what the report compares.
        published: the paper's name of a data set, where it is not clear from its own, or None for none.
        run: where the jobs run.
    """

    name: str
    datasets: tuple[str, ...]
    systems: tuple[Entry, ...]
    folds: tuple[int, ...]
    repeats: int = 1
    plans: str = "nnUNetPlans"
    device: str = "cuda"
    predict_test: bool = True
    evaluation: Evaluation = Evaluation()
    statistics: Statistics = Statistics()
    published: Mapping[str, str | None] | None = None
    run: Run = Run()

    def as_json(self) -> dict[str, Any]:
        """Give the specification as ``spec.json`` holds it: every field, with nothing left to defaults."""
        configurations = list(dict.fromkeys(system.configuration for system in self.systems))
        return {
            "name": self.name,
            "datasets": list(self.datasets),
            "configurations": configurations,
            "trainers": [
                {"trainer": system.trainer, "configurations": [system.configuration], "title": system.title}
                for system in self.systems
            ],
            "folds": list(self.folds),
            "repeats": self.repeats,
            "plans": self.plans,
            "device": self.device,
            "predict_test": self.predict_test,
            "evaluation": asdict(self.evaluation),
            "statistics": asdict(self.statistics),
            "published": dict(self.published or {}),
            "run": {**asdict(self.run), "slurm": dict(self.run.slurm or {})},
        }
