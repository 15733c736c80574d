"""Starts Snakemake on a Snakefile of this package, and ends it with its jobs when the command is to end."""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from nnunetv2_eccam.errors import UserError

RULES = (
    # Jobs that failed stop no other. What a killed run has left half done is done again, and its lock is not heeded:
    # the one of work_folder is, which the system takes away with the process.
    "--keep-going", "--rerun-incomplete", "--nolock",
    # Neither a new version of this package nor another device is a reason to train again.
    "--rerun-triggers", "mtime", "params", "input",
    "--printshellcmds",
)  # fmt: skip

BUSY = -1
"""Instead of a lock that another process has."""


def check_options(options: Sequence[str]) -> None:
    """See that options are Snakemake's; where they are not, it says so and exits with code 2.

    Raises:
        UserError: Snakemake is not installed.
    """
    try:
        from snakemake.cli import get_argument_parser
    except ModuleNotFoundError:
        raise UserError("this needs Snakemake: pip install 'nnunetv2-eccam[benchmark]'") from None
    parser = get_argument_parser()
    parser.prog, parser.usage = "nnUNetv2_eccam benchmark", "%(prog)s -h and snakemake -h show the options"
    parser.parse_args(list(options))


def open_work_folder(folder: Path, marker: str) -> None:
    """Create a work folder, or open one that an earlier run has left.

    Args:
        folder: where a workflow runs.
        marker: the file by which a work folder of this command is known.

    Raises:
        UserError: it holds something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.glob("[!.]*")) and not (folder / marker).is_file():
        raise UserError(f"{folder} is not empty and not a work folder of this command; give another --work-dir")


def run_snakemake(
    snakefile: Path, folder: Path, options: Sequence[str], variables: Mapping[str, str] | None = None
) -> int:
    """Run a workflow; Ctrl-C and SIGTERM end its jobs in order.

    Args:
        snakefile: the workflow.
        folder: where it runs.
        options: of Snakemake; they win over :data:`RULES`.
        variables: environment variables, beside those of this process.

    Returns:
        Snakemake's exit code; 130 when it was interrupted.

    Raises:
        UserError: Snakemake is not installed, this is Windows, or another run works in the folder.
    """
    if importlib.util.find_spec("snakemake") is None:
        raise UserError("this needs Snakemake: pip install 'nnunetv2-eccam[benchmark]'")
    if os.name != "posix":
        raise UserError("jobs run on Linux and macOS; on Windows, in its subsystem for Linux")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), "--directory", str(folder)]
    # So that the commands are those of this environment, whether it is activated or not.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, **(variables or {}), "PATH": path, "PYTHONUNBUFFERED": "1"}
    started: list[subprocess.Popen[bytes]] = []
    ended: list[int] = []

    def end_jobs(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if started and not ended:
            os.killpg(started[0].pid, signal.SIGINT)  # Snakemake and its jobs, for which it waits
        ended.append(number)

    with locked(folder / ".lock") as lock:
        if lock is BUSY:
            raise UserError(f"another run works in {folder}; wait for it, or give another --work-dir")
        # Handled before Snakemake starts: it would inherit that a signal is ignored, as in the background of a script.
        before = {number: signal.signal(number, end_jobs) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            started.append(subprocess.Popen([*command, *RULES, *options], env=environment, process_group=0))
            code = started[0].wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    return 130 if ended else code


@contextmanager
def locked(file: Path, waiting: str = "") -> Iterator[int | None]:
    """Hold a file's lock while the block runs: the system gives it up with the last process that has it.

    Args:
        file: made where it is missing.
        waiting: printed when another process has the lock, before it is waited for; without, it is not.

    Yields:
        what a process inherits the lock by; None on a shared disk without locks; :data:`BUSY` where another process
        has the lock.
    """
    import fcntl

    with file.open("w") as stream:
        lock: int | None = stream.fileno()
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                print(waiting, file=sys.stderr, flush=True)
                fcntl.flock(stream, fcntl.LOCK_EX)
            else:
                lock = BUSY
        except OSError:
            lock = None
        yield lock
