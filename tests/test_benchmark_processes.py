"""The benchmark as it is run: jobs in processes of their own, several invocations, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from benchmark_stubs import NAME, FakeBase, heed_interrupts

from nnunetv2_eccam.benchmark.attempts import process_start

STUBS = Path(__file__).with_name("benchmark_stubs.py")
WORDS = ("-d", "1", "-c", "2d", "--device", "cpu", "--no-test")


@pytest.fixture
def base(tmp_path) -> FakeBase:
    return FakeBase(tmp_path).make()


class Invocation:
    """The command, started as a shell does: in a process group of its own."""

    def __init__(self, base: FakeBase, *words: str) -> None:
        handle, name = tempfile.mkstemp(".txt", "output_", base.folder)
        self._output = Path(name)  # a pipe would be held open by the jobs
        self._process = subprocess.Popen(
            [sys.executable, str(STUBS), str(base.folder), *WORDS, "--work-dir", str(base.work), *words],
            stdout=handle, stderr=subprocess.STDOUT, start_new_session=True,
            preexec_fn=heed_interrupts,
        )  # fmt: skip
        os.close(handle)
        self.pid = self._process.pid

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def finish(self, code: int) -> str:
        """Wait until it ends, see that it ends with a code, and give its output."""
        ended = self._process.wait(timeout=60)
        output = self._output.read_text()
        assert ended == code, output
        return output


def start(base: FakeBase, *words: str) -> Invocation:
    return Invocation(base, *words)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def processes_of(base: FakeBase) -> list[str]:
    """Give the command lines of all processes that name the test's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(base.folder) in words and process_start(int(entry.name)) is not None:
                found.append(words)
    return found


def is_asleep(base: FakeBase, fold: int) -> bool:
    log = base.work / "jobs" / f"train.{NAME}.2d.A.repeat_0.fold_{fold}" / "log.txt"
    return log.exists() and "sleeping" in log.read_text()


def test_several_invocations_share_the_jobs_and_none_runs_twice(base):
    base.control(seconds=0.3)
    running = [start(base, "-tr", "A", "-f", "0", "1") for _ in range(3)]
    outputs = [each.finish(0) for each in running]
    called = [tuple(call["words"]) for call in base.calls()]
    assert len(called) == len(set(called)) == 4
    assert len(base.calls("end")) == 4
    for output in outputs:
        assert output.rstrip().endswith("[4 jobs: 4 done]\nReport: written")
    assert processes_of(base) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_commands_with_their_workers_and_the_same_command_goes_on(base, number):
    base.control(sleep=["A 0", "A 1"])
    process = start(base, "-tr", "A", "-f", "0", "1", "--jobs", "2")
    wait_for(lambda: is_asleep(base, 0) and is_asleep(base, 1))
    # Ctrl-C reaches every process of the terminal's group; a scheduler's SIGTERM the command alone.
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    output = process.finish(130)
    assert "The jobs that were running have been ended; the same command goes on." in output
    assert processes_of(base) == []
    attempt = json.loads((base.fold("A", 0) / "eccam_benchmark" / "attempt_1.json").read_text())
    assert attempt["outcome"] == "interrupted"
    base.control()
    base.forget_calls()
    process = start(base, "-tr", "A", "-f", "0", "1", "--jobs", "2")
    process.finish(0)
    trained = [call["words"] for call in base.calls() if call["words"][0] == "nnUNetv2_train"]
    assert ["--c" in words for words in trained] == [True, True]


def test_a_job_whose_process_is_killed_has_failed_and_leaves_no_command(base):
    base.control(sleep=["A 0"])
    process = start(base, "-tr", "A", "-f", "0")
    wait_for(lambda: is_asleep(base, 0))
    attempt = json.loads((base.fold("A", 0) / "eccam_benchmark" / "attempt_1.json").read_text())
    os.kill(attempt["pid"], signal.SIGKILL)
    output = process.finish(1)
    assert "failed   train Dataset001_Fake 2d A fold 0: its process was killed, perhaps for want of memory" in output
    assert "of 2 jobs, 1 failed, 1 blocked" in output
    assert processes_of(base) == []


def test_what_a_killed_command_has_left_running_is_waited_for(base):
    base.control(seconds=2)
    process = start(base, "-tr", "A", "-f", "0")
    wait_for(lambda: len(base.calls()) == 1)
    process.kill()
    base.control()
    again = start(base, "-tr", "A", "-f", "0")
    again.finish(0)
    assert len([call for call in base.calls() if call["words"][0] == "nnUNetv2_train"]) == 1


def test_a_job_that_gives_no_sign_of_life_is_taken_over_and_stops_when_it_wakes(base):
    base.control(seconds=8)
    process = start(base, "-tr", "A", "-f", "0")
    file = base.fold("A", 0) / "eccam_benchmark" / "attempt_1.json"
    wait_for(lambda: len(base.calls()) == 1 and "command_pid" in json.loads(file.read_text()))
    attempt = json.loads(file.read_text())
    process.kill()  # its machine is gone, as far as the others can see
    os.kill(attempt["pid"], signal.SIGSTOP)
    file.write_text(json.dumps({**attempt, "machine": "another"}))
    os.utime(file, (1, 1))
    base.control()
    again = start(base, "-tr", "A", "-f", "0")
    wait_for(lambda: len(base.calls()) >= 2)
    os.kill(attempt["pid"], signal.SIGCONT)
    again.finish(0)
    wait_for(lambda: json.loads(file.read_text())["outcome"] == "lost")
    wait_for(lambda: processes_of(base) == [])
