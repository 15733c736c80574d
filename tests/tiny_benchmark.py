"""A benchmark that is real and small: nnU-Net's own commands on a tiny data set, with trainers of two iterations."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

NAME = "Dataset900_Labels"

TRAINERS = '''
import time
from pathlib import Path
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

class TinyA(nnUNetTrainer):
    """One epoch, or as many as a file beside this one says, with a checkpoint every three."""

    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch, self.save_every = 2, 1, 3
        self.num_epochs = int(Path(__file__).with_name("epochs.txt").read_text())

    def on_epoch_end(self):
        super().on_epoch_end()
        if self.num_epochs > 1:
            time.sleep(0.3)  # a training that is to be stopped leaves the cores to others

class Broken(TinyA):
    def on_train_start(self):
        raise RuntimeError("CUDA out of memory")
'''


class TinyBenchmark:
    """A folder with nnU-Net's three folders, the trainers, and the command in it.

    Args:
        folder: an empty one.
        planned: nnU-Net's folders with the data set :data:`NAME`, planned and preprocessed.
    """

    def __init__(self, folder: Path, planned: Path) -> None:
        self.folder, self.work = folder, folder / "work"
        for name in ("results", "trainers"):
            (folder / name).mkdir()
        for name in ("raw", "preprocessed"):
            shutil.copytree(planned / name / NAME, folder / name / NAME)
        for part, ending in (("images", "_0000.nii.gz"), ("labels", ".nii.gz")):
            target = folder / "raw" / NAME / f"{part}Ts"
            target.mkdir()
            shutil.copy(folder / "raw" / NAME / f"{part}Tr" / f"case_0{ending}", target / f"test_0{ending}")
        plans_file = folder / "preprocessed" / NAME / "nnUNetPlans.json"
        for other in set(plans_file.parent.glob("*Plans.json")) - {plans_file}:  # of other tests
            other.unlink()
        plans = json.loads(plans_file.read_text())
        architecture = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
        architecture["features_per_stage"] = [4, 6, 8, 10, 12, 14][: architecture["n_stages"]]
        plans["configurations"]["2d"]["batch_size"] = 2
        plans_file.write_text(json.dumps(plans))
        architecture["features_per_stage"][-1] += 2  # other plans, of which nothing else differs
        plans_file.with_name("OtherPlans.json").write_text(json.dumps({**plans, "plans_name": "OtherPlans"}))
        (folder / "trainers" / "tiny_trainers.py").write_text(TRAINERS)
        self.set_epochs(1)
        self.environment = {
            **os.environ,
            **{f"nnUNet_{name}": str(folder / name) for name in ("raw", "preprocessed", "results")},
            "nnUNet_extTrainer": str(folder / "trainers"), "nnUNet_def_n_proc": "1", "nnUNet_compile": "f",
        }  # fmt: skip

    def set_epochs(self, number: int) -> None:
        """Say how many epochs a training has that starts from now on."""
        (self.folder / "trainers" / "epochs.txt").write_text(str(number))

    def start(self, *words: str) -> subprocess.Popen:
        """Start the command on fold 0 of the data set, on the CPU."""
        fixed = ["-d", "900", "-c", "2d", "-f", "0", "--device", "cpu", "--work-dir", str(self.work)]
        command = [str(Path(sys.executable).with_name("nnUNetv2_eccam")), "benchmark", *words, *fixed]
        with (self.folder / "output.txt").open("w") as output:
            return subprocess.Popen(
                command, env=self.environment, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                # A shell that runs the tests behind & has switched Ctrl-C off for them.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), start_new_session=True,
            )  # fmt: skip

    def finish(self, process: subprocess.Popen, code: int = 0) -> str:
        """Wait until the command has ended with a code; give its output."""
        try:
            process.wait(timeout=900)
        finally:
            output = (self.folder / "output.txt").read_text()
        assert process.returncode == code, output
        return output

    def run(self, *words: str, code: int = 0) -> str:
        """Run the command and give its output."""
        return self.finish(self.start(*words), code)

    def fold(self, trainer: str, plans: str = "nnUNetPlans") -> Path:
        """Give a trained fold."""
        return self.folder / "results" / NAME / f"{trainer}__{plans}__2d" / "fold_0"

    def file(self, kind: str, system: str, name: str) -> Path:
        """Give a file of the work folder."""
        return self.work / kind / "repeat_0" / NAME / "2d" / system / name

    def close(self) -> None:
        """End what a failed test has left running."""
        for number in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)

    def wait_for_checkpoint(self, trainer: str) -> None:
        """Wait until a training has written a checkpoint."""
        wait_until(lambda: (self.fold(trainer) / "checkpoint_latest.pth").is_file(), self.output)

    def output(self) -> str:
        """Give what the command has printed so far."""
        return (self.folder / "output.txt").read_text()

    def processes(self) -> list[int]:
        """Give the processes that belong to this benchmark, by the folder in their environment."""
        found, mark = [], f"nnUNet_raw={self.folder / 'raw'}".encode()
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return found


def wait_until(condition: Callable[[], bool], said: Callable[[], str] = str, seconds: float = 300) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, said()
        time.sleep(0.1)
