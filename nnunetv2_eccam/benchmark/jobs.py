"""The jobs of a benchmark, in the order in which they are begun: fold by fold, so that what is there compares."""

from __future__ import annotations

import os
from collections.abc import Mapping

from nnunetv2_eccam.benchmark.datasets import Dataset
from nnunetv2_eccam.benchmark.job import Job, Resources
from nnunetv2_eccam.benchmark.places import Folders, Place
from nnunetv2_eccam.benchmark.predict_job import PredictJob
from nnunetv2_eccam.benchmark.score_job import ScoreJob
from nnunetv2_eccam.benchmark.spec import Spec
from nnunetv2_eccam.benchmark.train_job import TrainJob


def make_jobs(spec: Spec, datasets: Mapping[str, Dataset], folders: Folders, n_gpus: int = 0) -> dict[str, Job]:
    """Make all jobs of a benchmark.

    Args:
        spec: with the data sets' full names.
        datasets: what is known of each.
        folders: where everything is.
        n_gpus: of this machine, where the jobs run here.

    Returns:
        The jobs by their names, each behind those that it needs.
    """
    network = Resources(spec.device, spec.run.gpus, _cpus(spec), _is_shared(spec, n_gpus))
    scoring = Resources("cpu", 0, _cpus(spec))
    jobs: list[Job] = []
    for repeat in range(spec.repeats):
        places = [
            Place(folders, repeat, dataset.name, system.trainer, system.configuration, spec.plans, dataset.file_ending)
            for dataset in datasets.values()
            for system in spec.trainers
        ]
        for fold in spec.folds:
            for place in places:
                part = f"fold_{fold}"
                jobs.append(TrainJob(place, part, network, fold))
                jobs.append(ScoreJob(place, part, scoring, fold, evaluation=spec.evaluation))
        for place in places:
            if cases := datasets[place.dataset].test_cases:
                jobs.append(PredictJob(place, "test", network, spec.folds, cases))
                jobs.append(ScoreJob(place, "test", scoring, None, cases, spec.evaluation))
    return {job.name: job for job in jobs}


def _cpus(spec: Spec) -> int:
    """Give the cores of one job: as asked, else this machine's divided by its jobs; SLURM's own default is one."""
    if spec.run.cpus:
        return spec.run.cpus
    return max(1, (os.cpu_count() or 1) // spec.run.jobs) if spec.run.engine == "local" else 1


def _is_shared(spec: Spec, n_gpus: int) -> bool:
    """Say whether several jobs use a GPU at the same time."""
    return spec.run.engine == "local" and spec.run.gpus > 0 and spec.run.jobs * spec.run.gpus > n_gpus
