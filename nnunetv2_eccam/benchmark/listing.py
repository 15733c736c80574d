"""Lists of a benchmark's jobs: how they stand, what commands they are, what went wrong."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence

from nnunetv2_eccam.benchmark.job import Job
from nnunetv2_eccam.benchmark.places import Folders
from nnunetv2_eccam.benchmark.progress import LogFollower, counts
from nnunetv2_eccam.benchmark.spec import Run
from nnunetv2_eccam.benchmark.state import State, Status, last_lines
from nnunetv2_eccam.demo.progress import duration


def status_table(jobs: Mapping[str, Job], statuses: Mapping[str, Status]) -> Iterator[str]:
    """Give a line for each job, and how many there are of each kind."""
    rows = [("state", "job", "attempt", "host", "")]
    for name, job in jobs.items():
        status = statuses[name]
        number, host = (str(status.attempt.number), status.attempt.host) if status.attempt else ("", "")
        rows.append((status.state.value, job.title, number, host, _remark(job, status)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        yield "  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4])).rstrip()
    yield counts(statuses)


def _remark(job: Job, status: Status) -> str:
    attempt = status.attempt
    if attempt is None:
        return status.why
    if status.state is State.RUNNING:
        follower = LogFollower(job, attempt)
        follower.follow(attempt.elapsed)
        return follower.progress.describe(attempt.elapsed)
    if status.state is State.DONE and attempt.seconds:
        return duration(attempt.seconds)
    return status.why


def failures(jobs: Mapping[str, Job], statuses: Mapping[str, Status]) -> Iterator[str]:
    """Give each failed job with the last lines of its log, and each that waits for one."""
    for name, status in statuses.items():
        if status.state is State.FAILED:
            log = jobs[name].log_of(status.attempt)
            yield f"failed: {jobs[name].title}: {status.why}"
            yield from (f"  | {line}" for line in last_lines(log))
            yield f"  all of it: {log}"
        elif status.state in (State.BLOCKED, State.STOPPED):
            yield f"{status.state.value}: {jobs[name].title}: {status.why}"


def shell_lines(
    jobs: Mapping[str, Job], statuses: Mapping[str, Status], folders: Folders, run: Run
) -> Iterator[str]:
    """Give the commands of all jobs that are not done, in an order in which a shell can run them."""
    yield f"# {counts(statuses)}"
    if run.engine == "slurm":
        wanted = {"partition": run.partition, "gpus": run.gpus, "cpus": run.cpus, "hours": run.hours,
                  "memory_gb": run.memory_gb, **(run.slurm or {})}  # fmt: skip
        asked = ", ".join(f"{key} {value}" for key, value in wanted.items() if value is not None)
        yield f"# each as a job of SLURM: {asked}"
    for name in ("raw", "preprocessed", "results"):
        yield f"export nnUNet_{name}={shlex.quote(str(getattr(folders, name)))}"
    for name, job in jobs.items():
        status = statuses[name]
        if status.state is State.DONE:
            continue
        yield f"# {job.title}" + _comment(status)
        hidden = "# " if status.state in (State.FAILED, State.BLOCKED, State.RUNNING, State.QUEUED) else ""
        yield from (hidden + line for line in _commands(job))


def _comment(status: Status) -> str:
    if status.state is State.FAILED:
        return f": {status.why}; --retry-failed runs it again"
    if status.state is State.BLOCKED:
        return f": {status.why}"
    if status.state in (State.RUNNING, State.QUEUED):
        return f": {status.state.value}" + (f" on {status.attempt.host}" if status.attempt else "")
    return ""


def _commands(job: Job) -> Sequence[str]:
    settings = [f"{name}={shlex.quote(value)}" for name, value in job.settings().items()]
    return [" ".join([*settings, shlex.join(command)]) for command in job.commands()]
