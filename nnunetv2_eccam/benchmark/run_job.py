"""One attempt at a job, in a process of its own: takes the job, runs its commands, keeps results and record."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import IO

from nnunetv2_eccam.benchmark.attempts import (
    DONE,
    FAILED,
    INTERRUPTED,
    KILLED,
    LOST,
    OUT_OF_TIME,
    Attempt,
    Timing,
    process_start,
    utc,
)
from nnunetv2_eccam.benchmark.energy import EnergyMeter
from nnunetv2_eccam.benchmark.job import Command, Job
from nnunetv2_eccam.benchmark.records import machine_record, record_of
from nnunetv2_eccam.demo.runner import end, started

TAKEN = "taken"
"""What a call gives that came too late: another process has begun this attempt."""


class Stopped(BaseException):
    """A signal ends the job; not an error, so that no ``except Exception`` on the way swallows it."""

    def __init__(self, outcome: str) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class CommandFailed(Exception):
    """A command ended with an error, or was killed."""

    def __init__(self, command: Command, code: int) -> None:
        self.killed = code < 0
        how = f"exit code {code}"
        if self.killed:
            with contextlib.suppress(ValueError):
                how = f"killed by {signal.Signals(-code).name}"
            how += ", perhaps for want of memory" if -code == getattr(signal, "SIGKILL", 9) else ""
        super().__init__(f"{command[0]} failed ({how})")


@dataclass(frozen=True)
class JobCall:
    """A call that makes one attempt at a job; it can be pickled and made on another machine.

    Args:
        job: the job.
        attempt: the number of the attempt, one more than that of the last one.
        settings: environment variables for its commands, beside the job's own.
        scripts: where each command is, by its name.
        timing: how often it gives signs of life.
        token: by which whoever submitted it knows its attempt from others'.
    """

    job: Job
    attempt: int
    settings: Mapping[str, str]
    scripts: Mapping[str, str]
    timing: Timing
    token: str = ""

    def __call__(self) -> str:
        """Make the attempt; give its outcome."""
        attempts = self.job.attempts
        begun = attempts.begin(
            self.attempt, token=self.token, job=self.job.name, log=str(self.job.log), **machine_record()
        )
        if begun is None:
            return TAKEN
        before = next((each for each in attempts.all() if each.number == self.attempt - 1), None)
        if before is not None and before.outcome is None:  # its owner is gone, which was seen before this call
            before.end_command()
            before.update(outcome=LOST)
        self.job.folder.mkdir(parents=True, exist_ok=True)
        with self.job.log.open("ab") as log:
            return _Run(self, begun, log).run()

    def environment(self) -> dict[str, str]:
        """Give the environment of its commands."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SUBMITIT_")}
        # Unbuffered, so that the log shows what happens when it happens.
        return {**kept, **self.settings, **self.job.settings(), "PYTHONUNBUFFERED": "1"}


class _Run:
    """What happens in an attempt."""

    def __init__(self, call: JobCall, begun: Attempt, log: IO[bytes]) -> None:
        self._call, self._job, self._log = call, call.job, log
        self._attempt = begun.update(log_offset=log.tell(), began_at=begun.file.stat().st_mtime)
        self._process: subprocess.Popen[bytes] | None = None
        self._is_lost = False

    def run(self) -> str:
        """Run the job, and write down how it ended."""
        outcome, reason = FAILED, ""
        self._write(f"=== attempt {self._attempt.number}, {utc()}, {self._attempt.host}, process {os.getpid()}")
        try:
            with _stopped_by_signals(), self._signs_of_life():
                self._work()
            outcome = DONE
        except Stopped as stopped:
            outcome, reason = self._stopped(stopped.outcome)
        except CommandFailed as error:
            outcome, reason = KILLED if error.killed else FAILED, str(error)
        except Exception as error:
            self._write(traceback.format_exc())
            reason = f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error)
        if self._is_lost:
            outcome, reason = LOST, "another process has taken the job over, since this one gave no sign of life"
        self._write(f"=== {outcome}{': ' if reason else ''}{reason}")
        self._attempt = self._attempt.update(outcome=outcome, reason=reason, finished=utc())
        return outcome

    def _work(self) -> None:
        job = self._job
        job.prepare()
        inputs, commands = job.inputs(), job.commands()
        environment = self._call.environment()
        began = time.monotonic()
        meter = EnergyMeter(job.resources.gpus, environment.get("CUDA_VISIBLE_DEVICES"))
        try:
            with meter:
                for command in commands:
                    self._command(command, environment)
        finally:
            is_shared = job.resources.shared
            note = "the GPU was shared with other jobs, so its energy is not this job's" if is_shared else None
            self._attempt = self._attempt.update(
                seconds=round(time.monotonic() - began, 1), finished=utc(), device=job.resources.device,
                energy_joules=None if is_shared else meter.joules, energy_note=note,
                gpu=meter.names[0] if meter.names else None, commands=[shlex.join(command) for command in commands],
            )  # fmt: skip
        job.finish(record_of(job.attempts.all()))
        job.note("done", inputs)
        if missing := job.missing():
            raise ValueError(f"{commands[-1][0]} ended without an error, but {missing}")

    def _command(self, command: Command, environment: Mapping[str, str]) -> None:
        self._write("$ " + shlex.join(command))
        found = [self._call.scripts[command[0]], *command[1:]]
        with started(found, environment, self._log) as process:
            self._process = process
            self._attempt = self._attempt.update(command_pid=process.pid, command_started=process_start(process.pid))
            try:
                code = process.wait()
            finally:
                end(process)
                _end_workers(process.pid)
        if code != 0:
            raise CommandFailed(command, code)

    def _stopped(self, outcome: str) -> tuple[str, str]:
        if outcome == OUT_OF_TIME and not self._job.may_go_on(self._attempt):
            return FAILED, "its time was over before there was anything to go on from; give it more (run.hours)"
        return outcome, f"stopped: {outcome}"

    @contextmanager
    def _signs_of_life(self) -> Iterator[None]:
        """Touch the attempt's file while the block runs, and end the command if another attempt was begun."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(self._call.timing.beat):
                if self._job.attempts.touch(self._attempt.number):
                    continue
                self._is_lost = True
                if self._process:
                    end(self._process)
                return

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _write(self, text: str) -> None:
        self._log.write(f"{text}\n".encode())
        self._log.flush()


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Let signals end the block: the first one, since others often follow it.

    SIGUSR2 is how SLURM says, through submitit, that the job's time is nearly over.
    """
    outcomes = {"SIGINT": INTERRUPTED, "SIGTERM": INTERRUPTED, "SIGHUP": INTERRUPTED, "SIGUSR2": OUT_OF_TIME}
    numbers = {getattr(signal, name): outcome for name, outcome in outcomes.items() if hasattr(signal, name)}

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(numbers[number])

    # What is ignored stays so: SIGHUP under nohup, and Ctrl-C, after which the command ends its jobs in order.
    heeded = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            # Ignored until the outcome is written; afterwards there is nothing left to be ended.
            signal.signal(number, signal.SIG_IGN if signal.getsignal(number) == signal.SIG_IGN else handler)


def _end_workers(leader: int) -> None:
    """End what a command has left of its workers; it led their group."""
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)
