"""The benchmark through a real SLURM of one node, which slurm/single_node.sh starts."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
from tiny_benchmark import TinyBenchmark, wait_until

SCRIPT = Path(__file__).parents[1] / "slurm" / "single_node.sh"
PROGRAMS = f"{os.environ['PATH']}:/usr/sbin"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(shutil.which(name, path=PROGRAMS) for name in ("slurmctld", "slurmd", "munged", "sbatch")),
        reason="SLURM is not installed (apt-get install slurm-wlm munge)",
    ),
]


@pytest.fixture(scope="module")
def slurm():
    """SLURM_CONF of a SLURM that runs."""
    with tempfile.TemporaryDirectory(prefix="slurm_") as folder:  # its socket's path may not be long
        subprocess.run([str(SCRIPT), "start", folder], check=True, timeout=120)
        try:
            yield f"{folder}/slurm.conf"
        finally:
            subprocess.run([str(SCRIPT), "stop", folder], check=True, timeout=120)


OPTIONS = ("--slurm-init-seconds-before-status-checks=2", "--latency-wait=10")
"""Snakemake's own, which pass through: it looks at the queue sooner, as the jobs are short."""


@pytest.fixture
def tiny(nnunet_base, small_dataset, tmp_path, slurm):
    small_dataset("labels")
    made = TinyBenchmark(tmp_path, nnunet_base)
    made.environment |= {"SLURM_CONF": slurm, "PATH": f"{Path(slurm).parent / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    (tmp_path / "spec.yaml").write_text(
        "trainers: TinyA\nwork_dir: work\nrun: {engine: slurm, partition: test, hours: 0.5, cpus: 1, memory_gb: 0.25, "
        "slurm: {nice: 5}}\n"
    )
    yield made
    made.close()


def queue(tiny: TinyBenchmark, form: str) -> list[str]:
    done = subprocess.run(
        ["squeue", "--noheader", "--me", f"--format={form}"], env=tiny.environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return done.stdout.split("\n")[:-1]


def test_an_interrupt_cancels_the_jobs_and_the_same_command_goes_on(tiny):
    tiny.set_epochs(100_000)
    command = (str(tiny.folder / "spec.yaml"), "--no-test", *OPTIONS)
    process = tiny.start(*command)
    tiny.wait_for_checkpoint("TinyA")
    assert queue(tiny, "%P %l %c %m %y") == ["test 30:00 1 250M 5"]  # partition, time, cores, memory and niceness
    process.send_signal(signal.SIGINT)
    assert "interrupted" in tiny.finish(process, 130).splitlines()[-1]
    wait_until(lambda: not queue(tiny, "%A") and not tiny.processes())

    tiny.set_epochs(1)
    tiny.finish(tiny.start(*command))
    log = (tiny.fold("TinyA") / "eccam_benchmark" / "log.txt").read_text()
    commands = [line for line in log.splitlines() if line.startswith("$ ")]
    assert ["--c" in command for command in commands] == [False, True]
    record = json.loads(tiny.file("records", "TinyA", "fold_0.json").read_text())
    assert (record["hostname"], record["attempts"]) == (os.uname().nodename, 2)
    assert record["epochs"] > 1
    assert tiny.file("scores", "TinyA", "fold_0_volume.csv").is_file()
    assert (tiny.work / "report" / "index.html").is_file()
