"""How far a benchmark is, on a terminal or in a log: jobs done, running, failed, and the time that is left."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TextIO

from nnunetv2_eccam.benchmark.attempts import DONE, Attempt
from nnunetv2_eccam.benchmark.job import Job
from nnunetv2_eccam.benchmark.records import record_of
from nnunetv2_eccam.benchmark.state import State, Status
from nnunetv2_eccam.demo.progress import TrainingProgress, duration

RUNNING_LINES = 12
"""How many running jobs a terminal shows at most."""

SECONDS_BETWEEN_LINES = 900
"""How long a log that is no terminal hears nothing at most."""

COUNTED = (State.DONE, State.RUNNING, State.QUEUED, State.READY, State.WAITING, State.STOPPED, State.FAILED,
           State.BLOCKED)  # fmt: skip


def counts(statuses: Mapping[str, Status]) -> str:
    """Count the jobs by how they stand, in a line."""
    number = Counter(status.state for status in statuses.values())
    shown = [f"{number[state]} {state.value}" for state in COUNTED if number[state] or state is State.DONE]
    return f"{len(statuses)} jobs: {', '.join(shown)}"


class LogFollower:
    """Makes sense of what a running attempt prints, as far as it has printed it.

    Args:
        job: the job.
        attempt: at it.
    """

    def __init__(self, job: Job, attempt: Attempt) -> None:
        self.number = attempt.number
        self.progress = job.progress()
        self._log = job.log_of(attempt)
        self._offset = int(attempt.content.get("log_offset", 0))
        self._rest = b""

    def follow(self, elapsed: float) -> None:
        """Read on.

        Args:
            elapsed: seconds since the attempt was begun.
        """
        try:
            with self._log.open("rb") as stream:
                stream.seek(self._offset)
                new = stream.read()
        except OSError:
            return
        self._offset += len(new)
        *lines, self._rest = (self._rest + new.replace(b"\r", b"\n")).split(b"\n")
        for line in lines:
            self.progress.feed(line.decode("utf-8", "replace"), elapsed)


class Forecast:
    """Foretells how long jobs take from how long others took.

    Args:
        jobs: by name.
    """

    def __init__(self, jobs: Mapping[str, Job]) -> None:
        self._jobs = jobs
        self._seconds: dict[str, float] = {}

    def learn(self, name: str) -> float:
        """Take in a job that is done; give the seconds that it took, 0 if it was not done by a benchmark."""
        attempts = self._jobs[name].attempts.all()
        seconds = 0.0
        if attempts and attempts[-1].outcome == DONE:
            seconds = float(record_of(attempts)["seconds"])
        if seconds:
            self._seconds[name] = seconds
        return seconds

    def expected(self, job: Job) -> float | None:
        """Expect of a job what the same system took before, or else all jobs of its kind; None: not known."""
        alike = [(self._jobs[name], seconds) for name, seconds in self._seconds.items()]
        alike = [(other, seconds) for other, seconds in alike if other.kind == job.kind]
        same = [seconds for other, seconds in alike if _system(other) == _system(job)]
        chosen = same or [seconds for _, seconds in alike]
        return sum(chosen) / len(chosen) if chosen else None

    def left(self, statuses: Mapping[str, Status], running: Mapping[str, float | None], at_once: int) -> float | None:
        """Estimate the seconds until all that can be done is done.

        Args:
            statuses: of all jobs.
            running: the seconds that each running job still needs, None where they are not known.
            at_once: how many jobs run at the same time.

        Returns:
            None where a training or prediction has nothing to be judged by yet.
        """
        unfinished = (State.READY, State.WAITING, State.QUEUED)
        needed = dict(running)
        for name, status in statuses.items():
            if status.state in unfinished:
                needed[name] = self.expected(self._jobs[name])
        known = [seconds for seconds in needed.values() if seconds is not None]
        if any(seconds is None and self._jobs[name].uses_gpu for name, seconds in needed.items()):
            return None
        return max([*known, sum(known) / max(1, at_once)], default=0.0)


def _system(job: Job) -> tuple[str, str, str]:
    return job.place.dataset, job.place.trainer, job.place.configuration


class Board:
    """Shows how the jobs stand: on a terminal as lines that change, elsewhere as a line for each event.

    Args:
        jobs: by name.
        at_once: how many this command runs at the same time.
        stream: where it is shown.
    """

    def __init__(self, jobs: Mapping[str, Job], at_once: int, stream: TextIO | None = None) -> None:
        self._jobs, self._at_once = jobs, at_once
        self._stream = stream or sys.stdout
        self._before: dict[str, State] = {}
        self._followers: dict[str, LogFollower] = {}
        self._forecast = Forecast(jobs)
        self._height, self._said = 0, time.monotonic()

    def show(self, statuses: Mapping[str, Status]) -> None:
        """Take in how the jobs stand now, and show what has changed."""
        events = self._events(statuses)
        running = {name: status for name, status in statuses.items() if status.state is State.RUNNING}
        lines = [self._running_line(name, status) for name, status in running.items()]
        left = self._forecast.left(statuses, self._left(running), max(self._at_once, len(running)))
        finished = not running and left == 0
        head = counts(statuses)
        if not finished:
            head += ", time left not known yet" if left is None else f", about {duration(left)} left"
        if self._stream.isatty():
            more = [f"  ... and {len(lines) - RUNNING_LINES} more"] if len(lines) > RUNNING_LINES else []
            self._redraw(events, [head, *lines[:RUNNING_LINES], *more])
        elif events or time.monotonic() - self._said > SECONDS_BETWEEN_LINES:
            print(*events, f"[{head}]", *([] if events else lines), sep="\n", file=self._stream, flush=True)
            self._said = time.monotonic()

    def _events(self, statuses: Mapping[str, Status]) -> list[str]:
        is_first = not self._before
        events = []
        for name, status in statuses.items():
            if status.state is self._before.get(name):
                continue
            self._before[name] = status.state
            seconds = self._forecast.learn(name) if status.state is State.DONE else 0.0
            title, attempt = self._jobs[name].title, status.attempt
            if status.state is State.RUNNING and attempt:
                again = f", attempt {attempt.number}" if attempt.number > 1 else ""
                events.append(f"begun    {title} on {attempt.host}{again}")
            elif status.state is State.DONE and not is_first:
                events.append(f"done     {title}" + (f" in {duration(seconds)}" if seconds else ""))
            elif status.state in (State.FAILED, State.STOPPED):
                events.append(f"{status.state.value:8s} {title}: {status.why}; log: {self._jobs[name].log_of(attempt)}")
        return events

    def _running_line(self, name: str, status: Status) -> str:
        attempt = status.attempt
        assert attempt is not None
        follower = self._followers.get(name)
        if follower is None or follower.number != attempt.number:
            follower = self._followers[name] = LogFollower(self._jobs[name], attempt)
        follower.follow(attempt.elapsed)
        return f"  {self._jobs[name].title}: {follower.progress.describe(attempt.elapsed)} [{attempt.host}]"

    def _left(self, running: Mapping[str, Status]) -> dict[str, float | None]:
        left: dict[str, float | None] = {}
        for name, status in running.items():
            elapsed = status.attempt.elapsed if status.attempt else 0.0
            progress = self._followers[name].progress
            seconds = progress.seconds_left(elapsed) if isinstance(progress, TrainingProgress) else None
            expected = self._forecast.expected(self._jobs[name])
            if seconds is None and expected is not None:
                seconds = expected - elapsed
            left[name] = None if seconds is None else max(0.0, seconds)
        return left

    def _redraw(self, events: Sequence[str], lines: Sequence[str]) -> None:
        """Put events above the lines that change, and these in the place of the ones before."""
        width = shutil.get_terminal_size().columns
        up = f"\x1b[{self._height}A" if self._height else ""
        shown = [f"{line[: width - 1]}\n" for line in lines]
        self._stream.write(f"\r{up}\x1b[J" + "".join(f"{event}\n" for event in events) + "".join(shown))
        self._stream.flush()
        self._height = len(shown)
