"""Attempts at a job: one file each, which is lock, heartbeat and outcome in one, on a folder that machines share.

Whoever creates ``attempt_3.json`` holds the job. Creation is exclusive (``O_EXCL``, atomic on NFS too), and is tried
only when attempt 2 has ended or gives no sign of life. No lock is ever removed, so there is no moment in which two
processes could each take theirs for the newest. While its owner lives, it touches the file; and it ends its commands
when it sees a newer attempt than its own, as after a machine was suspended.

Times are compared as the file server gives them, so that the machines' clocks may differ.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nnunetv2_eccam.files import write_json

DONE, FAILED, KILLED = "done", "failed", "killed"
INTERRUPTED, OUT_OF_TIME, LOST = "interrupted", "out of time", "lost"
"""How an attempt can end. ``lost``: another one was begun, since this one gave no sign of life."""


ISO = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Timing:
    """How often things are looked at, in seconds.

    Args:
        beat: between two signs of life of a job.
        stale: without a sign of life, after which a job may be taken over.
        poll: between two looks at the own jobs.
        survey: between two looks at all jobs, which others may have changed.
        queue: between two questions to SLURM.
        grace: that a job of another machine has for its outcome to be seen here, after SLURM says that it has ended.
    """

    beat: float = 15
    stale: float = 300
    poll: float = 1
    survey: float = 10
    queue: float = 15
    grace: float = 60


def utc() -> str:
    """Give the time, in ISO format and UTC, to the second."""
    return datetime.now(UTC).strftime(ISO)


def this_machine() -> str:
    """Name this machine, this boot of it and this container: process numbers mean something within these."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return " ".join(parts)


def process_start(number: int) -> str | None:
    """Say when a process of this machine was started, in a form that no later process of its number has.

    Returns:
        None if there is no such process, or it has ended and only waits to be noticed; an empty text where the
        system does not tell.
    """
    try:
        fields = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""


@dataclass(frozen=True)
class Attempt:
    """An attempt, as its file says.

    Args:
        number: from 1.
        file: its file.
        content: what it says; empty while its owner has created it but not yet written.
        touched: when its owner last gave a sign of life, seconds of the file server's clock.
    """

    number: int
    file: Path
    content: Mapping[str, Any] = field(default_factory=dict)
    touched: float = 0.0

    @property
    def outcome(self) -> str | None:
        """How it ended; None while it runs, or where its owner could not say."""
        return self.content.get("outcome")

    @property
    def host(self) -> str:
        """Where it ran."""
        return str(self.content.get("host", "a machine unknown"))

    @property
    def elapsed(self) -> float:
        """Seconds since it was begun, by this machine's clock."""
        try:
            began = datetime.strptime(str(self.content.get("started")), ISO).replace(tzinfo=UTC)
        except ValueError:
            return 0.0
        return max(0.0, (datetime.now(UTC) - began).total_seconds())

    @property
    def seconds(self) -> float:
        """How long it ran; 0 where that is not known."""
        return float(self.content.get("seconds") or 0)

    def is_stale(self, now: float, stale: float) -> bool:
        """Say whether it has not ended and nevertheless gives no sign of life.

        Args:
            now: on the file server's clock.
            stale: seconds without a sign of life.
        """
        if self.outcome is not None:
            return False
        if self.content.get("machine") == this_machine():
            started = process_start(int(self.content["pid"]))
            if started is None or started != self.content.get("pid_started"):
                return True
        return now - self.touched > stale

    def end_command(self) -> None:
        """End the command that its owner has left behind on this machine, with the command's workers."""
        group = self.content.get("command_pid")
        if not group or self.content.get("machine") != this_machine():
            return
        started = process_start(int(group))
        if started is not None and started == self.content.get("command_started"):
            import signal

            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(int(group), signal.SIGKILL)

    def update(self, **changes: Any) -> Attempt:
        """Write changed fields into its file."""
        content = {**self.content, **changes}
        write_json(self.file, content)
        return Attempt(self.number, self.file, content, self.touched)


class Attempts:
    """The attempts at one job.

    Args:
        folder: which holds their files; made when the first attempt begins.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def numbers(self) -> list[int]:
        """Give the numbers of all attempts, in order."""
        try:
            names = os.listdir(self.folder)
        except OSError:
            return []
        return sorted(int(found[1]) for name in names if (found := re.fullmatch(r"attempt_(\d+)\.json", name)))

    def all(self) -> list[Attempt]:
        """Read all attempts, in order."""
        return [attempt for number in self.numbers() if (attempt := self._read(number))]

    def latest(self) -> Attempt | None:
        """Read the newest attempt, or give None if there is none."""
        numbers = self.numbers()
        return self._read(numbers[-1]) if numbers else None

    def begin(self, number: int, **content: Any) -> Attempt | None:
        """Begin an attempt, unless somebody has begun it.

        Args:
            number: one more than that of the attempt that has ended or is stale.
            content: what its file says beside host, process and time.

        Returns:
            The attempt, or None: it is somebody else's.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if number <= max(self.numbers(), default=0):
            return None
        file = self._file(number)
        try:
            handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return None
        owner = {
            "host": socket.gethostname(), "machine": this_machine(),
            "pid": os.getpid(), "pid_started": process_start(os.getpid()), "started": utc(),
        }  # fmt: skip
        content = {**owner, **content}
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(content, stream, indent=4)
        return Attempt(number, file, content)

    def touch(self, number: int) -> bool:
        """Give a sign of life; say whether the attempt is still the newest."""
        with contextlib.suppress(OSError):  # a file server that does not answer now may answer next time
            os.utime(self._file(number))
        return number >= max(self.numbers(), default=0)

    def now(self) -> float:
        """Tell the time by the clock that stamps files here."""
        probe = self.folder / f".clock_{socket.gethostname()}_{os.getpid()}"
        try:
            probe.touch()
            touched = probe.stat().st_mtime
            probe.unlink(missing_ok=True)
        except OSError:  # somebody who only looks may not write here
            return time.time()
        return touched

    def _file(self, number: int) -> Path:
        return self.folder / f"attempt_{number}.json"

    def _read(self, number: int) -> Attempt | None:
        file = self._file(number)
        try:
            with file.open(encoding="utf-8") as stream:  # opening makes NFS ask the server for what it has
                touched = os.fstat(stream.fileno()).st_mtime
                text = stream.read()
        except OSError:
            return None
        try:
            content = json.loads(text)
        except json.JSONDecodeError:  # created, not yet written
            content = {}
        return Attempt(number, file, content if isinstance(content, dict) else {}, touched)
