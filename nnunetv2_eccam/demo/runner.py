"""Runs the commands that a user would type: echoed, logged, watched, and ended with this program."""

from __future__ import annotations

import os
import queue
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO

from nnunetv2_eccam.demo.progress import Progress
from nnunetv2_eccam.errors import UserError

LAST_LINES = 20
"""How many lines of a failed command's output are shown."""


def script(name: str) -> Path:
    """Find a command of the environment that this program runs in.

    Args:
        name: the command's name, for example ``nnUNetv2_train``.

    Raises:
        UserError: it is not beside the Python interpreter.
    """
    folder = Path(sys.executable).parent  # not resolved: in a virtual environment this is a link
    for candidate in (folder / name, folder / f"{name}.exe"):
        if candidate.is_file():
            return candidate
    raise UserError(
        f"the command {name} is not in {folder}; install nnunetv2 and this package into the environment "
        f"of {sys.executable}"
    )


def echo(command: Sequence[str], settings: Mapping[str, str]) -> None:
    """Print a command as it would be typed, with the environment variables that hold for it alone."""
    assignments = [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
    print("$ " + " ".join([*assignments, shlex.join(command)]), flush=True)


def run_command(
    command: Sequence[str], environment: Mapping[str, str], log: Path, progress: Progress
) -> None:
    """Run one command of this environment, with its output in a file and its progress on the terminal.

    Args:
        command: name and arguments; the name is looked up by :func:`script`.
        environment: the command's whole environment.
        log: where its output goes, line ends included as they come.
        progress: what makes sense of the output.

    Raises:
        UserError: the command failed; its last lines have been printed to standard error.
    """
    last = deque[str](maxlen=LAST_LINES)
    found = [str(script(command[0])), *command[1:]]
    with log.open("wb") as log_file, started(found, environment) as process:
        began = time.monotonic()
        for line in _watched_lines(process, log_file, lambda: progress.describe(time.monotonic() - began)):
            if line.strip():
                last.append(line)
            if keep := progress.feed(line, time.monotonic() - began):
                _clear_line()
                print(f"  {keep}", flush=True)
        _clear_line()
        code = process.wait()
    if code != 0:
        print(f"The last lines of {command[0]}:", *last, sep="\n  ", file=sys.stderr)
        raise UserError(f"{command[0]} failed (exit code {code}); everything that it printed is in {log}")


@contextmanager
def started(
    command: Sequence[str], environment: Mapping[str, str], output: int | IO[bytes] = subprocess.PIPE
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process and make sure that neither it nor its workers outlive the block."""
    process = subprocess.Popen(
        command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output,
        stderr=subprocess.STDOUT, start_new_session=os.name == "posix",
    )
    try:
        yield process
    finally:
        end(process)
        if process.stdout:
            process.stdout.close()


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process, if it still runs, with the workers that it started."""
    if process.poll() is not None:
        return
    for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        if os.name == "posix":
            os.killpg(process.pid, number)  # it leads its own group: see start_new_session
        else:
            process.terminate()
        try:
            process.wait(timeout=10)
            return
        except subprocess.TimeoutExpired:
            continue


def _watched_lines(
    process: subprocess.Popen[bytes], log: IO[bytes], describe: Callable[[], str]
) -> Iterator[str]:
    """Yield a process's lines as they come, and keep the terminal's last line current between them.

    A carriage return ends a line as a newline does, since progress bars use it.
    """
    chunks: queue.Queue[bytes | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        try:
            while chunk := os.read(process.stdout.fileno(), 65536):
                chunks.put(chunk)
        finally:
            chunks.put(None)

    threading.Thread(target=read, daemon=True).start()
    rest = b""
    while True:
        try:
            chunk = chunks.get(timeout=0.5)
        except queue.Empty:
            _show_line(describe())
            continue
        log.write(chunk or b"")
        log.flush()
        *lines, rest = (rest + (chunk or b"\n")).replace(b"\r", b"\n").split(b"\n")
        yield from (line.decode("utf-8", "replace") for line in lines)
        if chunk is None:
            return
        _show_line(describe())


def _show_line(text: str) -> None:
    """Overwrite the terminal's current line; elsewhere (a file, a pipe) do nothing."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        print(f"\r\x1b[2K{('  ' + text)[: width - 1]}", end="", flush=True)


def _clear_line() -> None:
    if sys.stdout.isatty():
        print("\r\x1b[2K", end="", flush=True)


@contextmanager
def ended_by_signal() -> Iterator[None]:
    """Let a SIGTERM (``timeout``, a scheduler) end the block as Ctrl-C does, with its commands."""

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # some senders send it twice, and the commands are being ended
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
