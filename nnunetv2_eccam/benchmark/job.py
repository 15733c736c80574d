"""Runs one command of nnU-Net as a job of the benchmark, and notes how long it took, where, and at what cost.

``python -m nnunetv2_eccam.benchmark.job --log FILE --record FILE [--made-from FILE ...] -- COMMAND ...``

The Snakefile calls it. It adds to the command what Snakemake does not know: a training that was stopped goes on from
its checkpoint, a prediction keeps the cases that are whole, a GPU is chosen that no other job uses, and a command that
an earlier run has left running is waited for.
"""

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from nnunetv2_eccam.benchmark.checks import GPUS
from nnunetv2_eccam.benchmark.records import begun, gpu_energy, stamp, training_record
from nnunetv2_eccam.benchmark.run_snakemake import BUSY, locked
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json, write_json
from nnunetv2_eccam.volumes import list_volumes, read_volume

LAST_LINES = 20
"""How many lines of a failed command's log are shown."""


def main(words: Sequence[str] | None = None) -> int:
    """Run a job; give the command's exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, required=True, help="where the command's output is appended")
    parser.add_argument("--record", type=Path, required=True, help="JSON file, written when the command has succeeded")
    parser.add_argument("--made-from", type=Path, nargs="*", default=[], help="files that a prediction depends on")
    words = list(sys.argv[1:] if words is None else words)
    given, command = parser.parse_args(words[: words.index("--")]), words[words.index("--") + 1 :]
    given.record.parent.mkdir(parents=True, exist_ok=True)
    given.log.parent.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # on the way out, the command is ended
    fold = given.record.parent.parent if command[0] == "nnUNetv2_train" else None
    waiting = f"another process works in {given.record.parent}; waiting for its end"
    with locked(given.record.with_suffix(".lock"), waiting) as lock:
        if fold is not None:
            more = training_options(fold)
            if more is None:
                return 0
            command += more
        elif given.made_from:
            keep_whole_predictions(Path(str(_value(command, "-o"))), given.made_from)
        return _run(command, given.record, given.log, lock, fold)


def training_options(fold: Path) -> tuple[str, ...] | None:
    """Say how ``nnUNetv2_train`` goes on with a fold, by what lies in its folder; None if nothing is left to do.

    A checkpoint that was being written when the training was killed is removed: nnU-Net takes the one before.
    """
    for file in fold.glob("checkpoint_*.pth"):
        if not zipfile.is_zipfile(file):
            print(f"{file} was cut off, and is removed", file=sys.stderr)
            file.unlink()
    if (fold / "checkpoint_final.pth").is_file():
        return None if (fold / "validation" / "summary.json").is_file() else ("--val",)
    return ("--c",) if any((fold / f"checkpoint_{kind}.pth").is_file() for kind in ("latest", "best")) else ()


def keep_whole_predictions(folder: Path, made_from: Sequence[Path]) -> None:
    """Make a prediction's folder ready to go on with: empty if its models have changed, and without half files."""
    noted, now = folder / "made_from.json", {str(file): stamp(file) for file in made_from}
    if not noted.is_file() or read_json(noted) != now:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_json(noted, now)
    for file in list_volumes(folder).values():
        try:
            read_volume(file)
        except UserError:
            file.unlink()


def _run(command: list[str], record: Path, log: Path, lock: int | None, fold: Path | None) -> int:
    """Run a command and keep its record."""
    noted = record.with_suffix(".begun.json")
    before: dict[str, Any] = read_json(noted) if noted.is_file() else {}
    content = begun(before, shlex.join(command), _now())
    write_json(noted, content)
    began = time.monotonic()
    device = _value(command, "-device")
    with _own_gpus(device) as (gpus, shared), log.open("ab") as stream:
        name, before_it = gpu_energy(gpus)
        try:
            code = _wait(command, gpus, stream, lock)
        finally:
            seconds = before.get("seconds", 0) + time.monotonic() - began
            content |= {"seconds": round(seconds, 1), "finished": _now(), "device": device, "gpu": name}
        after_it, used = gpu_energy(gpus)[1], before.get("energy_joules", 0.0)
    if shared:
        content["energy_note"] = "the GPU was shared with other jobs, so its energy is not this job's"
    elif used is not None and before_it is not None and after_it is not None:
        content["energy_joules"] = used + after_it - before_it
    if code:
        write_json(noted, content)
        lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
        print(f"{command[0]} failed (exit code {code}). The last lines of {log}:", file=sys.stderr)
        print(*(f"  {line}" for line in lines[-LAST_LINES:]), sep="\n", file=sys.stderr)
        return code if code > 0 else 128 - code
    if fold is not None:
        content = training_record(fold, content)
    else:
        content["predict_seconds"] = content["seconds"]
    write_json(record, content)
    noted.unlink()
    return 0


def _wait(command: Sequence[str], gpus: str, log: IO[bytes], lock: int | None) -> int:
    """Run a command to its end, and end it with all its workers when this process is to end."""
    chosen = {"CUDA_VISIBLE_DEVICES": gpus} if gpus else {}
    log.write(f"=== {_now()}\n$ {shlex.join(command)}\n".encode())
    log.flush()
    # A session of its own, whose members are its workers. It keeps the lock though this process should be killed.
    process = subprocess.Popen(
        command, env={**os.environ, **chosen, "PYTHONUNBUFFERED": "1"}, stdin=subprocess.DEVNULL, stdout=log,
        stderr=subprocess.STDOUT, start_new_session=True, pass_fds=() if lock is None else (lock,),
    )  # fmt: skip
    try:
        return process.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, number)
                process.wait(timeout=10)


@contextmanager
def _own_gpus(device: str | None) -> Iterator[tuple[str, bool]]:
    """Take GPUs that no other job has: as ``CUDA_VISIBLE_DEVICES`` names them, and whether they are shared.

    A cluster's queue chooses them itself.
    """
    places = [place for place in os.environ.get(GPUS, "").split(";") if place]
    if not places or device != "cuda":
        yield os.environ.get("CUDA_VISIBLE_DEVICES", "") if device == "cuda" else "", False
        return
    while True:
        for number, gpus in enumerate(places):
            with locked(Path(f".gpu_{number}.lock")) as lock:
                if lock is not BUSY:
                    yield gpus, places.count(gpus) > 1
                    return
        time.sleep(1)


def _value(command: Sequence[str], option: str) -> str | None:
    return command[command.index(option) + 1] if option in command else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


if __name__ == "__main__":
    sys.exit(main())
