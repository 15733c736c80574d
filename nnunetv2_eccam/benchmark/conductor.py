"""Runs the jobs of a benchmark: begins what is ready, notices what has ended, until nothing is left to be done."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_eccam.benchmark.attempts import INTERRUPTED, KILLED, Timing, utc
from nnunetv2_eccam.benchmark.engine import Engine
from nnunetv2_eccam.benchmark.job import Job
from nnunetv2_eccam.benchmark.places import Folders
from nnunetv2_eccam.benchmark.run_job import JobCall
from nnunetv2_eccam.benchmark.spec import Run
from nnunetv2_eccam.benchmark.state import UNFINISHABLE, State, Status, Survey, last_lines

Show = Callable[[Mapping[str, Status]], None]


@dataclass(frozen=True)
class Surroundings:
    """What all calls need beside their jobs.

    Args:
        folders: where everything is.
        scripts: where each command is, by its name.
        run: where the jobs run.
        gpus: of this machine, as ``CUDA_VISIBLE_DEVICES`` names them; empty with SLURM, which gives them itself.
        cpus: of one job.
    """

    folders: Folders
    scripts: Mapping[str, str]
    run: Run
    gpus: Sequence[str] = ()
    cpus: int = 1

    def settings(self, slot: int) -> dict[str, str]:
        """Give the environment variables of the commands of the job in a slot, from 0."""
        # By name, since a cluster may start jobs without the submitter's environment.
        settings = {name: value for name, value in os.environ.items() if name.startswith("nnUNet_")}
        settings |= {
            "nnUNet_raw": str(self.folders.raw),
            "nnUNet_preprocessed": str(self.folders.preprocessed),
            "nnUNet_results": str(self.folders.results),
        }
        settings.setdefault("nnUNet_def_n_proc", str(min(8, self.cpus)))
        if self.gpus and self.run.gpus:
            chosen = [self.gpus[(slot * self.run.gpus + i) % len(self.gpus)] for i in range(self.run.gpus)]
            settings["CUDA_VISIBLE_DEVICES"] = ",".join(chosen)
            if "CUDA_VISIBLE_DEVICES" not in os.environ:  # else the numbers are the user's, in the user's order
                settings["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # in which NVML, which measures energy, counts
        return settings


class Conductor:
    """Runs jobs until each is done or cannot be.

    Args:
        jobs: by name, each behind those that it needs.
        survey: looks at them.
        engine: runs them.
        surroundings: what all calls need.
        timing: how often things are looked at.
        show: is told how the jobs stand, again and again.
    """

    def __init__(
        self, jobs: Mapping[str, Job], survey: Survey, engine: Engine, surroundings: Surroundings, timing: Timing,
        show: Show,
    ) -> None:  # fmt: skip
        self._jobs, self._survey, self._engine = jobs, survey, engine
        self._surroundings, self._timing, self._show = surroundings, timing, show
        self._calls: dict[str, JobCall] = {}
        self._slots: dict[str, int] = {}
        self._ended_at: dict[str, float] = {}

    def run(self) -> dict[str, Status]:
        """Run the jobs; give how each stands in the end.

        Raises:
            UserError: SLURM does not take a job.
            KeyboardInterrupt: the jobs that were begun have been ended.
        """
        try:
            return self._run()
        except BaseException:
            self._engine.stop()
            raise

    def _run(self) -> dict[str, Status]:
        statuses = self._look()
        self._adopt(statuses)
        looked = time.monotonic()
        while True:
            if self._notice_ends() or time.monotonic() - looked >= self._timing.survey:
                statuses, looked = self._look(), time.monotonic()
            if self._begin_ready(statuses):
                statuses = self._look()
            self._show(statuses)
            final = (State.DONE, *UNFINISHABLE)
            if not self._engine.names and not self._ended_at and all(s.state in final for s in statuses.values()):
                return statuses
            time.sleep(self._timing.poll)

    def _look(self) -> dict[str, Status]:
        statuses = self._survey.look({*self._engine.names, *self._ended_at})
        for name in self._engine.names:
            call = self._calls.get(name)
            attempt = statuses[name].attempt
            if call and attempt and attempt.number == call.attempt and attempt.outcome is not None:
                self._engine.forget(name)
        return statuses

    def _adopt(self, statuses: Mapping[str, Status]) -> None:
        """Take over what an earlier invocation has left in SLURM's queue."""
        for name, status in statuses.items():
            number = status.attempt.number if status.state is State.RUNNING and status.attempt else status.next_attempt
            token = None if status.state is State.DONE else self._engine.adopt(self._jobs[name], number)
            if token is not None:
                self._calls[name] = self._call(name, number, 0, token)

    def _begin_ready(self, statuses: Mapping[str, Status]) -> bool:
        """Begin what is ready, as far as there is room; what needs no network first, since it is short."""
        ready = [name for name, status in statuses.items() if status.state is State.READY]
        ready = [name for name in ready if name not in self._engine.names]
        ready.sort(key=lambda name: self._jobs[name].uses_gpu)
        room = self._surroundings.run.jobs - len(self._engine.names)
        for name in ready[: max(0, room)]:
            taken = [self._slots[other] for other in self._engine.names if other in self._slots]
            self._slots[name] = next(slot for slot in range(len(taken) + 1) if slot not in taken)
            call = self._call(name, statuses[name].next_attempt, self._slots[name], uuid.uuid4().hex)
            self._calls[name] = call
            self._engine.submit(call)
        return bool(ready[: max(0, room)])

    def _call(self, name: str, attempt: int, slot: int, token: str) -> JobCall:
        around = self._surroundings
        return JobCall(self._jobs[name], attempt, around.settings(slot), around.scripts, self._timing, token)

    def _notice_ends(self) -> bool:
        """Look after jobs that have ended; say whether there are any."""
        now = time.monotonic()
        self._ended_at |= dict.fromkeys(self._engine.ended(), now)
        closed = [name for name, ended in list(self._ended_at.items()) if self._close(name, now - ended)]
        for name in closed:
            del self._ended_at[name]
        return bool(closed)

    def _close(self, name: str, since: float) -> bool:
        """Write down how a job ended that could not do so itself; say whether that is settled."""
        job, call = self._jobs[name], self._calls[name]
        attempt = job.attempts.latest()
        is_ours = attempt is not None and attempt.content.get("token") == call.token
        if attempt is not None and is_ours and attempt.outcome is not None:
            if attempt.outcome == INTERRUPTED and not job.may_go_on(attempt):
                self._survey.give_up(name, attempt.number)
            return True
        if attempt is not None and attempt.number >= call.attempt and not is_ours:
            return True  # somebody else was faster
        if since < (self._timing.grace if self._surroundings.run.engine == "slurm" else 0):
            return False
        if attempt is None or not is_ours:  # it never came to begin
            attempt = job.attempts.begin(call.attempt, job=job.name, log=str(job.log))
            if attempt is None:
                return True
        attempt.end_command()
        _append(job.log, _submitit_output(job.folder / "submitit"))
        attempt.update(outcome=KILLED, finished=utc(), reason="its process was killed, perhaps for want of memory")
        return True


def _submitit_output(folder: Path) -> list[str]:
    """Give the last lines of the newest output of a job's own process, where SLURM and Python say what happened."""
    files = sorted(folder.glob("*.err"), key=lambda file: file.stat().st_mtime)
    return last_lines(files[-1]) if files else []


def _append(log: Path, lines: Sequence[str]) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as stream:
        stream.writelines(f"{line}\n" for line in [*lines, f"=== {KILLED}"])
