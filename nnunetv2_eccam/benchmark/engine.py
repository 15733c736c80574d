"""Where calls run: processes of this machine, or jobs of a SLURM cluster, both through submitit."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from nnunetv2_eccam.benchmark.attempts import Timing
from nnunetv2_eccam.benchmark.job import Job
from nnunetv2_eccam.benchmark.run_job import JobCall
from nnunetv2_eccam.benchmark.spec import Run
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json, write_json

FOREVER_HOURS = 24 * 365
SECONDS_TO_END = 60
"""How long stopped jobs get to end their commands before they are killed."""


class Engine:
    """Starts calls and tells which have ended.

    Args:
        run: what the specification says of it.
        timing: how often SLURM is asked.

    Raises:
        UserError: submitit or SLURM is missing, or SLURM's options are not known to submitit.
    """

    def __init__(self, run: Run, timing: Timing) -> None:
        try:
            import submitit
        except ModuleNotFoundError:
            raise UserError("a benchmark's jobs need submitit: pip install 'nnunetv2-eccam[benchmark]'") from None
        self._submitit: Any = submitit
        self._run, self._timing = run, timing
        self._jobs: dict[str, Any] = {}
        self._active: set[str] = set()
        self._asked = 0.0

    @property
    def names(self) -> set[str]:
        """The names of the jobs that were submitted and have not been seen to end."""
        return set(self._jobs)

    def submit(self, call: JobCall) -> None:
        """Start a call, or put it in SLURM's queue.

        Raises:
            UserError: SLURM does not take it.
        """
        with _unreached_by_interrupts():
            self._submit(call)

    def _submit(self, call: JobCall) -> None:
        job = call.job
        folder = job.folder / "submitit"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            executor = self._submitit.AutoExecutor(folder=folder, cluster=self._run.engine)
            executor.update_parameters(**self._parameters(job))
            submitted = executor.submit(call)
        except (RuntimeError, ValueError, NameError, OSError, subprocess.CalledProcessError) as error:
            output = getattr(error, "output", None) or getattr(error, "stderr", None) or ""
            detail = output.decode() if isinstance(output, bytes) else str(output)
            raise UserError(f"{job.title} was not taken by {self._run.engine}: {error} {detail}".rstrip()) from error
        self._jobs[job.name] = submitted
        self._active.add(str(submitted.job_id))
        if self._run.engine == "slurm":
            write_json(folder / "submitted.json",
                       {"job_id": submitted.job_id, "attempt": call.attempt, "token": call.token})

    def adopt(self, job: Job, attempt: int) -> str | None:
        """Take over a job that an earlier invocation has put into SLURM's queue and that is still there.

        Args:
            job: the job.
            attempt: the number of the attempt that it makes.

        Returns:
            The token of its call, or None if there is none.
        """
        note = job.folder / "submitit" / "submitted.json"
        if self._run.engine != "slurm" or job.name in self._jobs or not note.is_file():
            return None
        content = read_json(note)
        if content.get("attempt") != attempt:
            return None
        self._ask_slurm()
        if content["job_id"] not in self._active:
            return None
        self._jobs[job.name] = self._submitit.SlurmJob(note.parent, content["job_id"])
        return str(content["token"])

    def ended(self) -> list[str]:
        """Give the names of the jobs that have ended since the last time, well or not."""
        if self._run.engine == "slurm" and time.monotonic() - self._asked >= self._timing.queue:
            self._ask_slurm()
        over = [name for name, job in self._jobs.items() if self._is_over(job)]
        for name in over:
            del self._jobs[name]
        return over

    def forget(self, name: str) -> None:
        """Take a job for ended, since its attempt says so; SLURM may be slower to notice."""
        if self._run.engine == "slurm":
            self._jobs.pop(name, None)

    def stop(self) -> None:
        """End all jobs that were submitted, with their commands, and wait until they have ended."""
        deadline = time.monotonic() + SECONDS_TO_END
        for job in self._jobs.values():
            if self._run.engine == "slurm":
                subprocess.run(["scancel", str(job.job_id)], check=False, capture_output=True)
        while self._jobs and time.monotonic() < deadline:
            if self._run.engine == "local":
                for job in self._jobs.values():  # again and again: a job that only starts may have missed it
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(job.job_id), signal.SIGTERM)  # of submitit's controller, which passes it on
            else:
                self._ask_slurm()
            time.sleep(0.5)
            for name in [name for name, job in self._jobs.items() if self._is_over(job)]:
                del self._jobs[name]
        for job in self._jobs.values():
            job.cancel(check=False)

    def _is_over(self, job: Any) -> bool:
        if self._run.engine == "local":
            return bool(job.done())
        return str(job.job_id) not in self._active

    def _ask_slurm(self) -> None:
        """Note which of the user's jobs SLURM has; accounting, which submitit asks, is not set up everywhere."""
        done = subprocess.run(
            ["squeue", "--noheader", "--me", "--format=%A"], check=False, capture_output=True, text=True
        )
        self._asked = time.monotonic()
        if done.returncode == 0:  # else the controller is busy, and everything is as it was
            self._active = set(done.stdout.split())

    def _parameters(self, job: Job) -> dict[str, Any]:
        """Give submitit's parameters for a job."""
        run = self._run
        common: dict[str, Any] = {"name": job.kind, "timeout_min": max(1, round((run.hours or FOREVER_HOURS) * 60))}
        if run.engine == "local":
            return common
        more = {key.replace("-", "_"): value for key, value in (run.slurm or {}).items()}
        partition = run.partition if job.uses_gpu else run.cpu_partition or run.partition
        return {
            **common,
            "cpus_per_task": run.cpus,
            "mem_gb": run.memory_gb,
            "gpus_per_node": (run.gpus or None) if job.uses_gpu else None,
            "slurm_partition": partition,
            "slurm_additional_parameters": _as_options(more) or None,
        }


def _as_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Give sbatch's options; one that is switched off is left out."""
    return {key: value for key, value in values.items() if value is not False and value is not None}


@contextmanager
def _unreached_by_interrupts() -> Iterator[None]:
    """Start processes that the terminal's Ctrl-C does not reach: the command ends them, in order.

    What is ignored now, they ignore. A SIGTERM waits until the process is started and known.
    """
    waiting: list[int] = []

    def wait(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        waiting.append(number)

    before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
              signal.SIGTERM: signal.signal(signal.SIGTERM, wait)}  # fmt: skip
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if waiting:
            os.kill(os.getpid(), waiting[0])
