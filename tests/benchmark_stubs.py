"""nnU-Net's commands as stubs that write what nnU-Net would write, and a data set that they work on.

``python benchmark_stubs.py BASE WORDS...`` runs ``nnUNetv2_eccam benchmark WORDS...`` with them, in a process of its
own. What the stubs do is told by BASE/control.json; each call is noted in BASE/calls.txt.
"""

from __future__ import annotations

import gzip
import json
import os
import signal
import sys
from pathlib import Path

NAME = "Dataset001_Fake"
COMMANDS = ("nnUNetv2_train", "nnUNetv2_predict", "nnUNetv2_eccam")


def heed_interrupts() -> None:
    """Heed Ctrl-C in the process that begins: a shell that runs the tests behind & has switched it off for them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


STUB = """#!{python} -IS
import gzip, json, os, sys, time
words = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
base = {base!r}
with open(base + "/control.json") as stream:
    control = json.load(stream)

def value(option):
    return words[words.index(option) + 1]

def note(what):
    with open(base + "/calls.txt", "a") as stream:
        stream.write(json.dumps([what, os.getpid(), time.time(), words, dict(os.environ)]) + "\\n")

def misbehave(name):
    if name in control.get("sleep", ()):
        # A worker, as nnU-Net has: nothing may be left of it.
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
        print("sleeping", flush=True)
        time.sleep(600)
    if name in control.get("kill", ()):
        os.kill(os.getpid(), 9)
    if name in control.get("fail", ()):
        print("Traceback (most recent call last):\\nRuntimeError: CUDA out of memory", file=sys.stderr)
        sys.exit(1)
    time.sleep(control.get("seconds", 0))

def write(path, text=""):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if path.endswith(".gz"):
        with gzip.open(path, "wb") as stream:
            stream.write(text.encode())
        return
    with open(path, "w") as stream:
        stream.write(text)

def train():
    dataset, configuration, fold = words[1:4]
    trainer = value("-tr")
    target = "/".join((os.environ["nnUNet_results"], dataset, trainer + "__" + value("-p") + "__" + configuration,
                       "fold_" + fold))
    name = trainer + " " + fold
    note("begin")
    stamp = "2026-01-02 03:04:05.000000: "
    if "--val" not in words:
        first = 1 if "--c" in words else 0
        lines = ""
        for epoch in range(first, 2):
            for line in ("Epoch %d" % epoch, "train_loss -0.5", "val_loss -0.4", "Pseudo dice [np.float32(0.8)]",
                         "Epoch time: 1.5 s"):
                lines += stamp + line + "\\n"
            print(lines, flush=True)
            write(target + "/training_log_2026_1_2_03_04_%02d.txt" % first, lines)
            write(target + "/checkpoint_latest.pth", "weights")
            if epoch == first:
                misbehave(name)
        os.replace(target + "/checkpoint_latest.pth", target + "/checkpoint_final.pth")
    else:
        misbehave(name)
    if name in control.get("no_validation", ()):
        return
    with open(os.environ["nnUNet_preprocessed"] + "/" + dataset + "/splits_final.json") as stream:
        cases = json.load(stream)[int(fold)]["val"]
    for case in cases:
        write(target + "/validation/" + case + ".nii.gz", case)
    write(target + "/validation/summary.json", "{{}}")

def predict():
    note("begin")
    misbehave("predict " + value("-tr"))
    for name in sorted(os.listdir(value("-i"))):
        path = value("-o") + "/" + name.replace("_0000", "")
        if not os.path.exists(path):
            note("predicts " + name)
            write(path, name)

def evaluate():
    note("begin")
    misbehave("evaluate")
    columns = ("case,label,tp,fp,fn,dsc,sensitivity,precision,hd95_mm,nsd,nsd_tolerance_mm,reference_ml,"
               "prediction_ml,note")
    rows = [case + ",organ,8,1,1,0.889,0.889,0.889,1.0,0.9," + value("--nsd-tolerance") + ",1,1,"
            for case in words[words.index("--cases") + 1:]]
    write(value("-o") + "/scores_volume.csv", "\\n".join([columns, *rows]) + "\\n")
    if "--no-slices" not in words:
        write(value("-o") + "/scores_slice.csv", "case,label,slice,tp,fp,fn,dsc,sensitivity,precision,note\\n")

{{"nnUNetv2_train": train, "nnUNetv2_predict": predict, "nnUNetv2_eccam": evaluate}}[words[0]]()
note("end")
"""


class FakeBase:
    """nnU-Net's folders with a data set, stubs of the commands, and what they were called with.

    Args:
        folder: in which all of it is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder / "work"

    def make(self, n_folds: int = 2, test_cases: int = 2) -> FakeBase:
        for name in ("raw", "preprocessed", "results", "stubs"):
            (self.folder / name).mkdir(parents=True)
        data = self.folder / "preprocessed" / NAME
        (data / "gt_segmentations").mkdir(parents=True)
        for name in ("nnUNetPlans_2d", "nnUNetPlans_3d"):
            (data / name).mkdir()
            (data / name / "case_0.b2nd").touch()
        dataset_json = {"labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz", "channel_names": {"0": "MR"}}
        (data / "dataset.json").write_text(json.dumps(dataset_json))
        configurations = {
            "2d": {"data_identifier": "nnUNetPlans_2d", "patch_size": [8, 8]},
            "2d_small": {"inherits_from": "2d"},
            "3d_fullres": {"data_identifier": "nnUNetPlans_3d", "patch_size": [8, 8, 8]},
            "3d_lowres": {"data_identifier": "nnUNetPlans_low", "patch_size": [8, 8, 8]},
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        }
        (data / "nnUNetPlans.json").write_text(
            json.dumps({"transpose_forward": [0, 1, 2], "configurations": configurations})
        )
        self.set_splits(n_folds)
        for case in range(test_cases):
            for part, ending in (("imagesTs", "_0000.nii.gz"), ("labelsTs", ".nii.gz")):
                (self.folder / "raw" / NAME / part).mkdir(parents=True, exist_ok=True)
                (self.folder / "raw" / NAME / part / f"test_{case}{ending}").write_bytes(gzip.compress(b""))
        for name in COMMANDS:
            stub = self.folder / "stubs" / name
            stub.write_text(STUB.format(python=sys.executable, base=str(self.folder)))
            stub.chmod(0o755)
        self.control()
        return self

    def set_splits(self, n_folds: int) -> None:
        cases = [f"case_{i}" for i in range(2 * n_folds)]
        splits = [{"train": [], "val": cases[2 * fold : 2 * fold + 2]} for fold in range(n_folds)]
        (self.folder / "preprocessed" / NAME / "splits_final.json").write_text(json.dumps(splits))

    def control(self, **content) -> None:
        """Tell the stubs what to do: ``fail``, ``kill`` or ``sleep`` (lists of names), ``seconds``."""
        (self.folder / "control.json").write_text(json.dumps(content))

    def calls(self, what: str = "begin") -> list[dict]:
        """Give the calls since the last look at them."""
        file = self.folder / "calls.txt"
        if not file.exists():
            return []
        read = [json.loads(line) for line in file.read_text().splitlines()]
        names = ("what", "pid", "time", "words", "environment")
        return [call for values in read if (call := dict(zip(names, values, strict=True)))["what"] == what]

    def forget_calls(self) -> None:
        (self.folder / "calls.txt").unlink(missing_ok=True)

    def environment(self) -> dict[str, str]:
        return {f"nnUNet_{name}": str(self.folder / name) for name in ("raw", "preprocessed", "results")}

    def fold(self, trainer: str, fold: int, configuration: str = "2d") -> Path:
        return self.folder / "results" / NAME / f"{trainer}__nnUNetPlans__{configuration}" / f"fold_{fold}"

    def scores(self, trainer: str, repeat: int = 0, configuration: str = "2d") -> Path:
        return self.work / "scores" / f"repeat_{repeat}" / NAME / configuration / trainer

    def use(self, patch, **timing: float) -> None:
        """Make the command use the stubs.

        Args:
            patch: ``setattr``, or monkeypatch's.
            timing: fields of ``Timing``.
        """
        from nnunetv2_eccam.benchmark import command, preflight
        from nnunetv2_eccam.benchmark.attempts import Timing

        fast = {"beat": 0.2, "stale": 5, "poll": 0.05, "survey": 0.3, "queue": 0.5, "grace": 2}
        patch(command, "script", lambda name: self.folder / "stubs" / name)
        patch(command, "TIMING", Timing(**{**fast, **timing}))
        patch(command, "_write_report", lambda benchmark: print("Report: written"))
        patch(preflight, "ask", lambda trainers, splits, device: [])


def main() -> int:
    from nnunetv2_eccam.cli import main as run

    base = FakeBase(Path(sys.argv[1]))
    os.environ.update(base.environment())
    base.use(setattr)
    return run(["benchmark", *sys.argv[2:]])


if __name__ == "__main__":
    sys.exit(main())
