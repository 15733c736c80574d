"""Cross-validate systems against each other: nnU-Net's own trainings, scores, statistics and a report.

  nnUNetv2_eccam benchmark SPEC.yaml
  nnUNetv2_eccam benchmark -d 2 -c 2d -tr nnUNetTrainer nnUNetTrainerECCaM -f 0 1 2 3 4 --jobs 2
  nnUNetv2_eccam benchmark --work-dir FOLDER     go on with one, here or on another machine that shares FOLDER

Trains every system on every fold of every data set, scores nnU-Net's validation, predicts and scores test images
that have labels, and writes FOLDER/report/index.html. What is there is not made again: neither trainings in
nnUNet_results, nor what an earlier run has finished. Options win over SPEC.yaml. See docs/benchmark.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_eccam.benchmark.attempts import Timing
from nnunetv2_eccam.benchmark.datasets import Dataset, find_datasets
from nnunetv2_eccam.benchmark.job import Job
from nnunetv2_eccam.benchmark.jobs import make_jobs
from nnunetv2_eccam.benchmark.listing import failures, shell_lines, status_table
from nnunetv2_eccam.benchmark.places import Folders
from nnunetv2_eccam.benchmark.progress import Board
from nnunetv2_eccam.benchmark.spec import Spec, read_spec, read_yaml
from nnunetv2_eccam.benchmark.state import State, Status, Survey
from nnunetv2_eccam.demo.runner import ended_by_signal, script
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import nnunet_folder, read_json, write_json

COMMANDS = ("nnUNetv2_train", "nnUNetv2_predict", "nnUNetv2_eccam")
OWN = ("jobs", "predictions", "scores", "records", "report")
"""What a work folder holds beside ``spec.json`` and further repeats."""

TIMING = Timing()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments; those that nnU-Net's commands have are named as there."""
    add = parser.add_argument
    add("spec", nargs="?", type=Path, metavar="SPEC.yaml", help="the specification; see docs/benchmark.md")
    add("-d", dest="datasets", nargs="+", metavar="DATASET", help="data sets, by number or name")
    add("-c", dest="configurations", nargs="+", metavar="CONFIGURATION", help="configurations of their plans")
    add("-tr", dest="trainers", nargs="+", metavar="TRAINER", help="trainers")
    add("-f", dest="folds", nargs="+", type=int, metavar="FOLD", help="folds (default: 0 1 2 3 4)")
    add("-p", dest="plans", metavar="PLANS", help="plans identifier (default: nnUNetPlans)")
    add("-device", "--device", dest="device", choices=("cpu", "cuda", "mps"), help="where networks run (default: cuda)")
    add("--repeats", type=int, metavar="N", help="trainings of each system and fold (default: 1)")
    add("--no-test", action="store_true", help="leave test images with labels alone")
    add("--work-dir", type=Path, metavar="FOLDER",
        help="where jobs, scores and report go (default: what SPEC.yaml says; else SPEC_benchmark beside it, or "
        "eccam_benchmark here)")  # fmt: skip
    add("--engine", choices=("local", "slurm"), help="processes of this machine, or jobs of SLURM (default: local)")
    add("--jobs", type=int, metavar="N", help="jobs at once (default: 1; 64 in SLURM's queue)")
    todo = parser.add_mutually_exclusive_group()
    todo.add_argument("--dry-run", action="store_true", help="print the commands that would be run, for a shell")
    todo.add_argument("--status", action="store_true", help="print how each job stands")
    todo.add_argument("--report-only", action="store_true", help="write the report on what is there")
    add("--retry-failed", action="store_true", help="run jobs again that failed in an earlier run")


@dataclass(frozen=True)
class Benchmark:
    """A benchmark, checked.

    Args:
        spec: with the data sets' full names.
        datasets: what is known of each.
        folders: where everything is.
    """

    spec: Spec
    datasets: Mapping[str, Dataset]
    folders: Folders

    def jobs(self, n_gpus: int = 0) -> dict[str, Job]:
        """Make its jobs; see :func:`make_jobs`."""
        return make_jobs(self.spec, self.datasets, self.folders, n_gpus)


def run(arguments: argparse.Namespace) -> int:
    """Run a benchmark, or say how it stands.

    Raises:
        UserError: an option or the specification is wrong, or jobs have failed.
    """
    benchmark = _benchmark(arguments)
    jobs = benchmark.jobs()
    survey = Survey(jobs, TIMING, arguments.retry_failed)
    if arguments.status:
        statuses = survey.look()
        print(*status_table(jobs, statuses), *failures(jobs, statuses), sep="\n")
        return 0
    if arguments.report_only:
        _open_work_folder(benchmark)
        _write_report(benchmark)
        return 0
    statuses = survey.look()
    gpus = _preflight(benchmark, jobs, statuses, arguments.dry_run)
    if arguments.dry_run:
        print(*shell_lines(jobs, statuses, benchmark.folders, benchmark.spec.run), sep="\n")
        return 0
    _open_work_folder(benchmark)
    statuses = _conduct(benchmark, gpus, arguments.retry_failed)
    if any(status.state is State.DONE and jobs[name].kind == "score" for name, status in statuses.items()):
        _write_report(benchmark)
    return _conclude(jobs, statuses)


def _benchmark(arguments: argparse.Namespace) -> Benchmark:
    """Read specification and options, and look up what they name."""
    content, source, work = _content(arguments)
    spec, datasets = find_datasets(read_spec(content, source))
    folders = Folders(work, *(Path(os.path.abspath(nnunet_folder(f"nnUNet_{name}")))
                              for name in ("raw", "preprocessed", "results")))  # fmt: skip
    return Benchmark(spec, datasets, folders)


def _content(arguments: argparse.Namespace) -> tuple[dict[str, Any], str, Path]:
    """Give the specification as it is written, with what the options change; its source; and the work folder."""
    given = {name: getattr(arguments, name) for name in
             ("datasets", "configurations", "trainers", "folds", "plans", "device", "repeats")}  # fmt: skip
    options = {name: value for name, value in given.items() if value is not None}
    written: dict[str, Any] = {}
    source, work = "the options", arguments.work_dir
    if arguments.spec:
        written, source = read_yaml(arguments.spec), str(arguments.spec)
        beside = arguments.spec.parent / str(written.pop("work_dir", f"{arguments.spec.stem}_benchmark"))
        work = work or beside
        written.setdefault("name", arguments.spec.stem)
    elif work and "datasets" not in options and (work / "spec.json").is_file():
        written, source = read_json(work / "spec.json"), str(work / "spec.json")
    elif not options:
        raise UserError("name a specification, or give data sets, configurations and trainers: -d, -c and -tr")
    work = Path(os.path.abspath((work or Path("eccam_benchmark")).expanduser()))
    content = {"folds": [0, 1, 2, 3, 4], **written, **options}
    if arguments.no_test:
        content["predict_test"] = False
    run = {name: getattr(arguments, name) for name in ("engine", "jobs") if getattr(arguments, name) is not None}
    if run:
        content["run"] = {**(content.get("run") or {}), **run}
    return content, source, work


def _preflight(
    benchmark: Benchmark, jobs: Mapping[str, Job], statuses: Mapping[str, Status], is_dry: bool
) -> list[str]:
    """Check by nnU-Net what is about to be used; give this machine's GPUs."""
    todo = [jobs[name] for name, status in statuses.items() if status.state is not State.DONE]
    networks = [job for job in todo if job.uses_gpu]
    for name in COMMANDS:
        script(name)
    if not networks:
        return []
    from nnunetv2_eccam.benchmark.preflight import ask

    spec, is_local = benchmark.spec, benchmark.spec.run.engine == "local"
    trainers = list(dict.fromkeys(job.place.trainer for job in networks))
    splits = {
        benchmark.folders.preprocessed / name / "splits_final.json": dataset.data
        for name, dataset in benchmark.datasets.items()
        if dataset.splits is None and not is_dry
    }
    gpus = ask(trainers, splits, spec.device if is_local else None)
    if is_local and spec.run.gpus > len(gpus):
        raise UserError(f"run.gpus is {spec.run.gpus}, but this machine has {len(gpus)}")
    return gpus


def _open_work_folder(benchmark: Benchmark) -> None:
    """Create the work folder, or open it, and write the specification into it.

    Raises:
        UserError: it holds something else, or cannot be written to.
    """
    work = benchmark.folders.work
    try:
        work.mkdir(parents=True, exist_ok=True)
        # The commands of --dry-run may have been here before.
        strange = [path.name for path in work.iterdir() if path.name not in OWN and not path.name.startswith("repeat_")]
        if strange and not (work / "spec.json").is_file():
            raise UserError(f"{work} holds {strange[0]}, so it is not the work folder of a benchmark; name another one")
    except OSError as error:
        raise UserError(f"{work} cannot be used: {error.strerror or error}; give another --work-dir") from error
    write_json(work / "spec.json", benchmark.spec.model_dump(mode="json"))


def _conduct(benchmark: Benchmark, gpus: list[str], retry_failed: bool) -> dict[str, Status]:
    """Run the jobs that are not done."""
    from nnunetv2_eccam.benchmark.conductor import Conductor, Surroundings
    from nnunetv2_eccam.benchmark.engine import Engine

    run, jobs = benchmark.spec.run, benchmark.jobs(len(gpus))
    cpus = next(iter(jobs.values())).resources.cpus
    surroundings = Surroundings(
        benchmark.folders, {name: str(script(name)) for name in COMMANDS}, run, tuple(gpus), cpus
    )
    board = Board(jobs, run.jobs)
    conductor = Conductor(
        jobs, Survey(jobs, TIMING, retry_failed), Engine(run, TIMING), surroundings, TIMING, board.show
    )
    with ended_by_signal():
        try:
            return conductor.run()
        except KeyboardInterrupt:
            print("\nThe jobs that were running have been ended; the same command goes on.", file=sys.stderr)
            raise


def _write_report(benchmark: Benchmark) -> None:
    from nnunetv2_eccam.report import write_report

    print(f"Report: {write_report(benchmark.folders.work)}")


def _conclude(jobs: Mapping[str, Job], statuses: Mapping[str, Status]) -> int:
    """Say what went wrong, if anything."""
    number = {state: sum(status.state is state for status in statuses.values()) for state in State}
    if number[State.DONE] == len(statuses):
        return 0
    print(*failures(jobs, statuses), sep="\n", file=sys.stderr)
    wrong = (State.FAILED, State.STOPPED, State.BLOCKED)
    parts = [f"{number[state]} {state.value}" for state in wrong if number[state]]
    advice = "the same command with --retry-failed runs them again" if number[State.FAILED] else "run it again"
    raise UserError(f"of {len(statuses)} jobs, {', '.join(parts)}; see above; when the cause is mended, {advice}")
