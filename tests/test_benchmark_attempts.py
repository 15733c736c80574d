"""Attempts: who holds a job, who may take it over, what becomes of its commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nnunetv2_eccam.benchmark.attempts import Attempts, process_start

RACER = """
import sys
from pathlib import Path
from nnunetv2_eccam.benchmark.attempts import Attempts
attempts = Attempts(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(1, 201):
    if attempts.begin(number):
        print(number)
"""


def test_each_attempt_is_begun_by_one_of_several_processes(tmp_path):
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         text=True)
        for _ in range(3)
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("\n")
        racer.stdin.flush()
    won = [racer.communicate()[0].split() for racer in racers]
    assert sorted(int(number) for numbers in won for number in numbers) == list(range(1, 201))


def test_a_number_is_given_once(tmp_path):
    attempts = Attempts(tmp_path)
    first = attempts.begin(1, job="x")
    assert first is not None
    assert attempts.begin(1) is None
    assert attempts.begin(2) is not None
    assert attempts.begin(1) is None
    assert [attempt.number for attempt in attempts.all()] == [1, 2]
    assert attempts.latest().number == 2
    assert not attempts.touch(1), "a newer one was begun"
    assert attempts.touch(2)


def test_a_living_owner_is_not_stale_and_a_dead_one_is(tmp_path):
    attempts = Attempts(tmp_path)
    attempt = attempts.begin(1)
    assert not attempts.latest().is_stale(attempts.now(), 60)
    process = subprocess.Popen(["sleep", "60"])
    attempt.update(pid=process.pid, pid_started=process_start(process.pid))
    assert not attempts.latest().is_stale(attempts.now(), 60)
    process.kill()
    while process_start(process.pid) is not None:
        time.sleep(0.01)
    assert attempts.latest().is_stale(attempts.now(), 60), "a process that waits to be noticed is no owner"
    process.wait()
    assert attempts.latest().is_stale(attempts.now(), 60)
    attempt.update(outcome="failed")
    assert not attempts.latest().is_stale(attempts.now(), 60), "one that has ended is not stale"


def test_a_number_that_another_process_has_now_is_not_its_owners(tmp_path):
    attempts = Attempts(tmp_path)
    attempts.begin(1).update(pid_started="12")
    assert attempts.latest().is_stale(attempts.now(), 60)


def test_another_machines_owner_is_judged_by_its_signs_of_life(tmp_path):
    attempts = Attempts(tmp_path)
    attempts.begin(1).update(machine="another", pid=1)
    assert not attempts.latest().is_stale(attempts.now(), 60)
    now = attempts.now()
    os.utime(tmp_path / "attempt_1.json", (now - 61, now - 61))
    assert attempts.latest().is_stale(attempts.now(), 60)
    attempts.touch(1)
    assert not attempts.latest().is_stale(attempts.now(), 60)


def test_an_attempt_that_is_not_yet_written_is_held(tmp_path):
    attempts = Attempts(tmp_path)
    (tmp_path / "attempt_1.json").touch()
    assert attempts.latest().outcome is None
    assert not attempts.latest().is_stale(attempts.now(), 60)
    assert attempts.begin(1) is None


def test_the_clock_is_the_file_servers(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert Attempts(tmp_path).now() == pytest.approx(Path(tmp_path / "x").touch() or os.stat(tmp_path / "x").st_mtime,
                                                     abs=5)  # fmt: skip
    assert not list(tmp_path.glob(".clock*"))


def test_a_command_that_was_left_behind_is_ended_with_its_workers(tmp_path):
    leader = subprocess.Popen(["bash", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, text=True,
                              start_new_session=True)  # fmt: skip
    worker = int(leader.stdout.readline())
    attempt = Attempts(tmp_path).begin(1)
    attempt.update(command_pid=leader.pid, command_started="another process").end_command()
    assert leader.poll() is None, "the number was given to another process since"
    attempt.update(command_pid=leader.pid, command_started=process_start(leader.pid), machine="other").end_command()
    assert leader.poll() is None
    attempt.update(command_pid=leader.pid, command_started=process_start(leader.pid)).end_command()
    assert leader.wait(10) == -signal.SIGKILL
    while process_start(worker) is not None:
        time.sleep(0.01)


def test_updates_are_written_whole(tmp_path):
    attempts = Attempts(tmp_path)
    attempt = attempts.begin(1, job="x")

    def read(_):
        return json.loads((tmp_path / "attempt_1.json").read_text())["job"]

    with ThreadPoolExecutor(2) as pool:
        read_all = pool.map(read, range(200))
        for number in range(100):
            attempt = attempt.update(number=number)
        assert set(read_all) == {"x"}
