"""Runs steps that need each other, a few at a time: only what is missing, with a log of each and a progress bar."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO, Any

from integration_steps import Step
from tqdm import tqdm

from nnunetv2_eccam.demo.progress import duration
from nnunetv2_eccam.demo.runner import LAST_LINES, end, script, started
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json, write_json


class Records:
    """What has been done: one file for each finished step, with what it was made from and how long it took.

    Args:
        folder: where they are; created when missing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def read(self, step: str) -> dict[str, Any] | None:
        """Read a finished step's record, or give None."""
        file = self._file(step)
        return dict(read_json(file)) if file.is_file() else None

    def is_done(self, step: Step) -> bool:
        """Say whether a step was finished with these inputs, after those that it needs."""
        record = self.read(step.name)
        return record is not None and record["made_from"] == self._made_from(step)

    def begin(self, step: Step) -> None:
        """Forget an earlier run of the step."""
        self._file(step.name).unlink(missing_ok=True)

    def finish(self, step: Step, seconds: float) -> None:
        """Note that the step is done."""
        record = {"made_from": self._made_from(step), "finished": time.time(), "seconds": round(seconds, 1)}
        write_json(self._file(step.name), record)

    def seconds(self) -> dict[str, float]:
        """Give the seconds of each finished step."""
        return {file.stem: read_json(file)["seconds"] for file in sorted(self._folder.glob("*.json"))}

    def _made_from(self, step: Step) -> dict[str, Any]:
        needs = {name: (self.read(name) or {}).get("finished") for name in step.needs}
        return {"inputs": list(step.inputs), "needs": needs}

    def _file(self, step: str) -> Path:
        return self._folder / f"{step}.json"


class LoggedShell:
    """Runs commands one after the other, with their output in one file.

    Args:
        log: the file, which is begun anew.
        variables: environment variables for all commands.
        running: processes that run, to be ended when the program is.
    """

    def __init__(self, log: Path, variables: Mapping[str, str], running: set[subprocess.Popen[bytes]]) -> None:
        self.log = log
        self._variables = variables
        self._running = running
        log.write_bytes(b"")

    def run(self, *command: str, **settings: str) -> None:
        """Run a command of this environment.

        Raises:
            UserError: it failed; the message ends with the last lines of its output.
        """
        environment = {**os.environ, **self._variables, **settings, "PYTHONUNBUFFERED": "1"}
        if "nnUNet_n_proc_DA" not in settings:
            environment.pop("nnUNet_n_proc_DA", None)  # 0, good for training, would break the planning
        with self.log.open("ab") as output:
            self._write(output, "$ " + shlex.join([*(f"{k}={v}" for k, v in settings.items()), *command]))
            with started([str(script(command[0])), *command[1:]], environment, output) as process:
                self._running.add(process)
                code = process.wait()
                self._running.discard(process)
        if code != 0:
            raise UserError(f"{shlex.join(command)} failed (exit code {code}); its log is {self.log}")

    @staticmethod
    def _write(output: IO[bytes], line: str) -> None:
        output.write(f"{line}\n".encode())
        output.flush()


class Run:
    """One run over the steps.

    Args:
        steps: each after those that it needs.
        work: the work folder; records go to ``state``, logs to ``logs``.
        variables: environment variables for all commands.
        jobs: how many steps run at once.
        after_each: called whenever a step has ended, in the program's main thread.
    """

    def __init__(
        self, steps: list[Step], work: Path, variables: Mapping[str, str], jobs: int, after_each: Callable[[], None]
    ) -> None:
        self._steps = steps
        self._logs = work / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        self.records = Records(work / "state")
        self._variables = variables
        self._jobs = jobs
        self._after_each = after_each
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._stopping = threading.Event()
        self._waiting = {step.name: step for step in steps}
        self._done: set[str] = set()
        self._futures: dict[Future[None], Step] = {}
        self._began: dict[str, float] = {}

    def __call__(self) -> list[str]:
        """Run what is missing; a step that fails stops only those that need it.

        Returns:
            The names of the steps that are not done.
        """
        with (
            tqdm(total=len(self._steps), unit="step", disable=None, dynamic_ncols=True, smoothing=0) as self._bar,
            ThreadPoolExecutor(self._jobs) as pool,
        ):
            try:
                while self._begin_ready(pool) or self._futures:
                    ended, _ = wait(self._futures, timeout=1, return_when=FIRST_COMPLETED)
                    for future in ended:
                        self._ended(future)
                    self._show_running()
            except BaseException:
                self._stopping.set()
                for process in list(self._processes):
                    end(process)
                raise
        return [step.name for step in self._steps if step.name not in self._done]

    def _begin_ready(self, pool: ThreadPoolExecutor) -> bool:
        """Begin the steps that can be, and go past those that are done; say whether there were any."""
        any_ready = False
        for name, step in list(self._waiting.items()):
            if not self._done.issuperset(step.needs):
                continue
            if self.records.is_done(step):
                self._done.add(name)
                self._bar.update()
            elif len(self._futures) < self._jobs:
                self._futures[pool.submit(self._do, step)] = step
                self._began[name] = time.monotonic()
            else:
                continue
            any_ready = True
            del self._waiting[name]
        return any_ready

    def _ended(self, future: Future[None]) -> None:
        step = self._futures.pop(future)
        seconds = time.monotonic() - self._began.pop(step.name)
        error = future.exception()
        if error is None:
            self._done.add(step.name)
        self._bar.update()
        self._say(f"[{len(self._done)}/{len(self._steps)}] {step.name}: {duration(seconds)}")
        if error is not None:
            self._say(f"FAILED: {type(error).__name__}: {error}")
            self._show_log(step)
        self._after_each()

    def _show_running(self) -> None:
        now = time.monotonic()
        self._bar.set_postfix_str(", ".join(f"{name} {duration(now - t)}" for name, t in self._began.items()))

    def _do(self, step: Step) -> None:
        if self._stopping.is_set():
            return
        self.records.begin(step)
        began = time.monotonic()
        step.work(LoggedShell(self._log(step), self._variables, self._processes))
        self.records.finish(step, time.monotonic() - began)

    def _log(self, step: Step) -> Path:
        return self._logs / f"{step.name.replace(' ', '_')}.txt"

    def _show_log(self, step: Step) -> None:
        log = self._log(step)
        text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
        lines = text.replace("\r", "\n").splitlines()[-LAST_LINES:]
        self._say("\n  ".join([f"The last lines of {log}:", *lines]))

    def _say(self, line: str) -> None:
        self._bar.write(line, file=sys.stdout)
        sys.stdout.flush()
