"""The benchmark through a real SLURM of one node, which slurm/single_node.sh starts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from benchmark_stubs import NAME, FakeBase, heed_interrupts

TESTS = Path(__file__).parent
SCRIPT = TESTS / "slurm" / "single_node.sh"

pytestmark = pytest.mark.skipif(
    not all(shutil.which(name) for name in ("slurmctld", "slurmd", "munged", "sbatch")) or os.geteuid() != 0,
    reason="SLURM is not installed (apt-get install slurm-wlm munge), or this is not root, who starts its daemons",
)


@pytest.fixture(scope="module")
def slurm():
    """SLURM_CONF of a SLURM that runs."""
    with tempfile.TemporaryDirectory(prefix="slurm_") as folder:  # its socket's path may not be long
        subprocess.run([str(SCRIPT), "start", folder], check=True, timeout=120)
        try:
            yield f"{folder}/slurm.conf"
        finally:
            subprocess.run([str(SCRIPT), "stop", folder], check=True, timeout=120)


@pytest.fixture
def base(tmp_path, slurm) -> FakeBase:
    made = FakeBase(tmp_path).make()
    (tmp_path / "spec.yaml").write_text(
        "datasets: 1\nconfigurations: 2d\ntrainers: A\nfolds: 0\ndevice: cpu\nwork_dir: work\n"
        "run: {engine: slurm, partition: test, hours: 0.5, cpus: 1, memory_gb: 0.25, slurm: {comment: by the spec}}\n"
    )
    return made


def start(base: FakeBase, slurm: str, *words: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(TESTS / "benchmark_stubs.py"), str(base.folder), str(base.folder / "spec.yaml"), *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "SLURM_CONF": slurm},
        preexec_fn=heed_interrupts,
    )  # fmt: skip


def finish(process: subprocess.Popen, code: int) -> str:
    output = process.communicate(timeout=120)[0]
    assert process.returncode == code, output
    return output


def queue(slurm: str, form: str = "%A") -> list[str]:
    done = subprocess.run(["squeue", "--noheader", "--me", f"--format={form}"], env={**os.environ, "SLURM_CONF": slurm},
                          capture_output=True, text=True, check=True)  # fmt: skip
    return done.stdout.split("\n")[:-1]


def wait_until_asleep(base: FakeBase) -> None:
    log = base.work / "jobs" / f"train.{NAME}.2d.A.repeat_0.fold_0" / "log.txt"
    deadline = time.monotonic() + 60
    while not log.exists() or "sleeping" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def group_of(leader: int) -> list[str]:
    """Give the members of a process group that live, by what the system says of them."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = entry.read_text()
        except OSError:
            continue
        state, _, group = text.rpartition(")")[2].split()[:3]
        if group == str(leader) and state not in "ZX":
            found.append(text)
    return found


def attempt(base: FakeBase, number: int) -> dict:
    return json.loads((base.fold("A", 0) / "eccam_benchmark" / f"attempt_{number}.json").read_text())


def test_jobs_go_through_slurm_as_the_specification_says(base, slurm):
    output = finish(start(base, slurm, "-tr", "A", "B"), 0)
    assert "8 jobs: 8 done" in output
    assert all(call["environment"]["SLURM_JOB_PARTITION"] == "test" for call in base.calls())
    assert all(call["environment"]["SLURM_CPUS_PER_TASK"] == "1" for call in base.calls())
    script = next((base.work / "jobs" / f"train.{NAME}.2d.A.repeat_0.fold_0" / "submitit").glob("*_submission.sh"))
    for line in ("--time=30", "--mem=256MB", "--comment='by the spec'", "--job-name=train"):
        assert f"#SBATCH {line}\n" in script.read_text()
    record = json.loads((base.work / "records" / "repeat_0" / NAME / "2d" / "A" / "test.json").read_text())
    assert record["hostname"] == os.uname().nodename


def test_an_interrupt_cancels_the_jobs_and_their_commands(base, slurm):
    base.control(sleep=["A 0"])
    process = start(base, slurm)
    wait_until_asleep(base)
    process.send_signal(signal.SIGINT)
    finish(process, 130)
    assert queue(slurm, "%T") in ([], ["COMPLETING"])
    assert attempt(base, 1)["outcome"] == "interrupted"
    assert group_of(attempt(base, 1)["command_pid"]) == []


def test_a_job_goes_on_in_another_when_its_time_is_over(base, slurm):
    base.control(sleep=["A 0"])
    process = start(base, slurm, "--no-test")
    wait_until_asleep(base)
    base.control()
    for job in queue(slurm):  # as SLURM does before it ends a job
        subprocess.run(["scancel", "--signal=USR2", job], env={**os.environ, "SLURM_CONF": slurm}, check=True)
    finish(process, 0)
    assert [attempt(base, number)["outcome"] for number in (1, 2)] == ["out of time", "done"]
    assert "--c" in attempt(base, 2)["commands"][0]


def test_what_slurm_runs_outlives_the_command_and_is_not_submitted_again(base, slurm):
    base.control(seconds=2)
    process = start(base, slurm, "--no-test")
    while not base.calls():
        time.sleep(0.1)
    process.kill()
    process.communicate()
    base.control()
    finish(start(base, slurm, "--no-test"), 0)
    assert len(base.calls()) == 2


def test_a_job_that_slurm_refuses_is_said_so(base, slurm):
    text = (base.folder / "spec.yaml").read_text()
    (base.folder / "spec.yaml").write_text(text.replace("partition: test", "partition: nowhere"))
    output = finish(start(base, slurm), 1)
    assert "was not taken by slurm" in output
    assert "invalid partition specified: nowhere" in output
