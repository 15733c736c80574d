"""How each job stands, read from the disk: results first, then the newest attempt, then the jobs that it needs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from nnunetv2_eccam.benchmark.attempts import FAILED, KILLED, Attempt, Timing
from nnunetv2_eccam.benchmark.job import Job
from nnunetv2_eccam.demo.runner import LAST_LINES


class State(Enum):
    """How a job stands."""

    DONE = "done"
    RUNNING = "running"
    QUEUED = "queued"
    READY = "ready"
    WAITING = "waiting"
    STOPPED = "stopped"
    FAILED = "failed"
    BLOCKED = "blocked"


UNFINISHABLE = (State.FAILED, State.BLOCKED, State.STOPPED)
"""What this invocation does no more about."""


@dataclass(frozen=True)
class Status:
    """How a job stands, and why.

    Args:
        state: in a word.
        attempt: the newest one, if any.
        why: in words, where there is something to say.
    """

    state: State
    attempt: Attempt | None = None
    why: str = ""

    @property
    def next_attempt(self) -> int:
        """The number that the next attempt has."""
        return self.attempt.number + 1 if self.attempt else 1


class Survey:
    """Looks at all jobs.

    Args:
        jobs: by name, each behind those that it needs.
        timing: after what time a job without a sign of life may be taken over.
        retry_failed: whether jobs whose last attempt failed before this survey was made are begun again.
    """

    def __init__(self, jobs: Mapping[str, Job], timing: Timing, retry_failed: bool = False) -> None:
        self._jobs, self._timing = jobs, timing
        self._done: set[str] = set()
        self._given_up: dict[str, int] = {}
        self._retried: dict[str, int] = {}
        if retry_failed:
            for name, job in jobs.items():
                latest = job.attempts.latest()
                if latest is not None and latest.outcome in (FAILED, KILLED):
                    self._retried[name] = latest.number

    def give_up(self, name: str, attempt: int) -> None:
        """Leave a job alone that was stopped from outside, until somebody begins a later attempt."""
        self._given_up[name] = attempt

    def look(self, queued: Collection[str] = ()) -> dict[str, Status]:
        """Say how each job stands.

        Args:
            queued: names of jobs that were submitted.
        """
        found: dict[str, Status] = {}
        for name, job in self._jobs.items():
            found[name] = self._status(name, job, found, name in queued)
        return found

    def _status(self, name: str, job: Job, before: Mapping[str, Status], is_queued: bool) -> Status:
        if name in self._done:
            return Status(State.DONE)
        attempt = job.attempts.latest()
        # Results are looked at when it has ended, or is gone without a word.
        if attempt and attempt.outcome is None and not attempt.is_stale(job.attempts.now(), self._timing.stale):
            return Status(State.RUNNING, attempt)
        waits = [before[need] for need in job.needs if before[need].state is not State.DONE]
        if not waits and (missing := job.missing()) is None:
            self._done.add(name)
            return Status(State.DONE, attempt)
        if is_queued:
            return Status(State.QUEUED, attempt)
        if attempt and attempt.outcome in (FAILED, KILLED) and self._retried.get(name) != attempt.number:
            return Status(State.FAILED, attempt, str(attempt.content.get("reason") or "failed"))
        if attempt and self._given_up.get(name) == attempt.number:
            return Status(State.STOPPED, attempt, "stopped from outside; the same command goes on with it")
        if any(each.state in UNFINISHABLE for each in waits):
            blockers = [need for need in job.needs if before[need].state in UNFINISHABLE]
            return Status(State.BLOCKED, attempt, "needs " + ", ".join(self._jobs[each].title for each in blockers))
        if waits:
            return Status(State.WAITING, attempt)
        return Status(State.READY, attempt, missing or "")


def last_lines(log: Path, number: int = LAST_LINES) -> list[str]:
    """Give the last lines of a log, without progress bars' earlier states."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 64 * 1024))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return []
    lines = [line.rstrip().rpartition("\r")[2] for line in text.split("\n")]
    return [line for line in lines if line][-number:]
