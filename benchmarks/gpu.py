r"""All figures that need a GPU, in one run of a few minutes: a table, and CSV, JSON and a log as it goes.

  make gpu                                     on a machine with CUDA, this repository and nnU-Net's packages
  python -m benchmarks.gpu --minutes 6 -o gpu_run
  python -m benchmarks.gpu --only real --data Dataset082_NIHPancreas2D --by 'pancreas_(\d+)_\d+'   last row, real images
  python -m benchmarks.gpu --tiny --device cpu   each kind of row once, on anything: to know that the script works

Every row is a network or command of this package beside nnU-Net's of the same plan, in the same process or in turn;
ratios are medians of rounds. Rows stand in the order of their worth, and each is written when it is done, so that a
run cut short leaves its first ones. A row that fails is noted, and the next begins. Where a ratio misses its goal, a
trace of the step is written beside the table.
"""

import argparse
import contextlib
import gc
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch

from benchmarks.measuring import (
    Job,
    command_usage,
    forward_job,
    interleaved_seconds,
    markdown,
    median_ratio,
    step_job,
    step_peak,
)
from benchmarks.model_folder import PAIRS, pair
from benchmarks.prediction import compare, write_made_up_model

FIELDS = ("row", "what", "ours", "nnunet", "unit", "ratio", "goal", "met", "note")
"""Columns; ``ratio`` is ours over nnU-Net's, for speed-ups nnU-Net's over ours."""

GOALS: dict[str, dict[str, float]] = {
    "practical": {"inference": 1.00, "step": 1.03, "memory": 1.05},
    "paper": {"inference": 1.05, "step": 1.25},
    "residual": {"inference": 1.00, "step": 1.03, "memory": 1.05},
}
"""The goals of each kind of network, as ratios to nnU-Net's own of the same plan."""

TRAINERS = """
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2_eccam.trainers import nnUNetTrainerECCaM

class nnUNetTrainer_short(nnUNetTrainer):
    length = SHORT

    def initialize(self):
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = self.length
        self.disable_checkpointing = True
        super().initialize()

class nnUNetTrainer_epoch(nnUNetTrainer_short):
    length = EPOCH

    def perform_actual_validation(self, save_probabilities=False):
        pass

class nnUNetTrainerECCaM_short(nnUNetTrainer_short, nnUNetTrainerECCaM):
    pass

class nnUNetTrainerECCaM_epoch(nnUNetTrainer_epoch, nnUNetTrainerECCaM):
    pass
"""
"""Trainers of one epoch and nothing else, since whole validation cases and checkpoints would cost minutes of the GPU's;
and of a short training with its validation."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """A configuration as nnU-Net plans it: patch, batch, and the stages' widths and strides."""

    patch: tuple[int, ...]
    batch: int
    widths: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]


def halved(patch: Sequence[int], batch: int, widths: Sequence[int], anisotropic: int = 0) -> Plan:
    """Give a plan that halves every axis between stages, but the first one only after so many stages."""
    first = [(1,) * len(patch)]
    steps = [
        tuple(1 if axis == 0 and n < anisotropic else 2 for axis in range(len(patch))) for n in range(len(widths) - 1)
    ]
    return Plan(tuple(patch), batch, tuple(widths), tuple(first + steps))


PLANS = {
    "512x512": halved((512, 512), 12, (32, 64, 128, 256, 512, 512, 512, 512)),
    "left atrium 160x192": halved((160, 192), 96, (32, 64, 128, 256, 512, 512)),
    "3d_fullres 48x192x192": halved((48, 192, 192), 2, (32, 64, 128, 256, 320, 320), anisotropic=2),
}
TINY = {"tiny 2d": halved((32, 32), 2, (4, 6, 8)), "tiny 3d": halved((8, 16, 16), 1, (4, 6))}


class Run:
    """One run: its settings, its clock, and what is done.

    Args:
        folder: for the table, CSV, JSON, log and traces.
        device: ``cuda`` or ``cpu``.
        tiny: small networks and data.
        minutes: after which no further row begins.
    """

    def __init__(self, folder: Path, device: str, tiny: bool, minutes: float) -> None:
        self.folder, self.device, self.tiny = folder.absolute(), torch.device(device), tiny
        self.plans = TINY if tiny else PLANS
        self.repeats = 2 if tiny else 20
        self.until = time.monotonic() + 60 * minutes
        self.rows: list[Row] = []
        self.folder.mkdir(parents=True, exist_ok=True)

    def note(self, text: str) -> None:
        """Say something, and write it to the log."""
        print(text, flush=True)
        with (self.folder / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%H:%M:%S')} {text}\n")

    def attempt(self, name: str, rows: Callable[[], Iterator[Row]]) -> None:
        """Do one kind of row; what fails is noted."""
        if time.monotonic() > self.until:
            self.note(f"{name}: left out, the time is over")
            return
        begin = time.monotonic()
        try:
            for row in rows():
                self._keep({"row": name, **row})
        except Exception:
            self.note(f"{name} failed\n{traceback.format_exc()}")
            self._keep({"row": name, "what": "failed", "note": traceback.format_exc().splitlines()[-1]})
        self.note(f"{name}: {time.monotonic() - begin:.0f} s")
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _keep(self, row: Row) -> None:
        row = {field: row.get(field, "") for field in FIELDS}
        if row["goal"] != "" and row["ratio"] != "":
            faster = row["unit"] == "cases/s"
            row["met"] = row["ratio"] >= row["goal"] if faster else row["ratio"] <= row["goal"]
        self.rows.append(row)
        self.note(" | ".join(map(_text, row.values())))
        pandas.DataFrame(self.rows).to_csv(self.folder / "rows.csv", index=False)
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else "CPU"
        content = {"device": name, "torch": torch.__version__, "python": sys.version, "rows": self.rows}
        (self.folder / "rows.json").write_text(json.dumps(content, indent=1), encoding="utf-8")

    def table(self) -> str:
        """Lay the rows out in Markdown."""
        return markdown([{name: _text(value) for name, value in row.items()} for row in self.rows])


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def network_rows(run: Run, plan_name: str, kind: str, compiled: bool) -> Iterator[Row]:
    """Training step, its peak memory, and inference; compiled also how long that took, and graph breaks."""
    from torch._dynamo.utils import counters

    plan, goals = run.plans[plan_name], GOALS[kind]
    networks: list[Any] = [each.to(run.device) for each in pair(kind, plan.widths, plan.strides, plan.patch)]
    image = torch.randn(plan.batch, 1, *plan.patch, device=run.device)
    amp = run.device.type == "cuda"
    called: list[Any] = list(networks)
    if compiled:
        torch._dynamo.reset()  # else it counts other rows' networks, and gives up
        backend = "inductor" if amp else "aot_eager"  # on a CPU compiling takes minutes, and shows nothing
        called = [torch.compile(network, backend=backend) for network in networks]
    what = f"{kind}, {plan_name}, batch {plan.batch}{', compiled' if compiled else ''}"
    for part, make, supervised in (("step", step_job, True), ("inference", forward_job, False)):
        for network in networks:
            network.decoder.deep_supervision = supervised
        jobs: list[Job] = [make(network, image, amp) for network in called]
        first, breaks = [], []
        for job in jobs:
            counters.clear()
            begin = time.perf_counter()
            job()
            first.append(time.perf_counter() - begin)
            breaks.append(sum(counters["graph_break"].values()))
        ours, nnunets = interleaved_seconds(jobs, run.device, run.repeats, what, warmup=3, quiet=True)
        ratio = median_ratio(ours, nnunets)
        medians = [1e3 * statistics.median(ours), 1e3 * statistics.median(nnunets)]
        yield _pair(f"{what}: {part}", medians, "ms", ratio, goals.get(part, ""))
        if ratio > goals.get(part, ratio):
            _trace(run, f"{kind} {plan_name} {part}{' compiled' if compiled else ''}", jobs[0])
        if compiled:
            yield _pair(f"{what}: compiling the {part}", first, "s", first[0] / first[1])
            yield _pair(f"{what}: graph breaks of the {part}", breaks, "breaks", "")
        if part == "step":
            peaks = [step_peak(*each, run.device) / 2**20 for each in zip(networks, jobs, strict=True)]
            yield _pair(f"{what}: memory of a step", peaks, "MiB", peaks[0] / peaks[1], goals.get("memory", ""))


def _pair(what: str, values: Sequence[float], unit: str, ratio: float | str, goal: float | str = "") -> Row:
    ours, nnunet = values
    return {"what": what, "ours": ours, "nnunet": nnunet, "unit": unit, "ratio": ratio, "goal": goal}


def _trace(run: Run, name: str, job: Job) -> None:
    """Write a trace of three calls, and its longest operations to the log."""
    from torch.profiler import ProfilerActivity, profile

    on_gpu = run.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiled:
        for _ in range(3):
            job()
    profiled.export_chrome_trace(str(run.folder / f"trace {name}.json.gz"))
    order = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
    run.note(profiled.key_averages().table(sort_by=order, row_limit=15))


def prediction_rows(run: Run, kind: str) -> Iterator[Row]:
    """``nnUNetv2_eccam predict`` beside ``nnUNetv2_predict``: cases a second, mirrored, files compared."""
    import SimpleITK as sitk

    folder = run.folder / f"prediction {kind}"
    slices = kind == "slices"
    cases = 3 if run.tiny else 250 if slices else 20
    size = ((32, 32) if slices else (8, 16, 16)) if run.tiny else ((512, 512) if slices else (36, 50, 35))
    patch = size if slices or run.tiny else (40, 56, 40)
    widths = (4, 6) if run.tiny else (32, 64, 128, 256, 512, 512, 512, 512) if slices else (32, 64, 128, 256)
    write_made_up_model(folder / "results", widths, patch, ".png" if slices else ".nii.gz")
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    for number in range(cases):
        voxels = np.random.default_rng(number).integers(1, 255, size).astype(np.uint8)
        file = images / f"case_{number:04d}_0000{'.png' if slices else '.nii.gz'}"
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(file))
    workers = ("-npp", "0", "-nps", "0") if run.tiny else ()
    usage, differing = compare(folder / "results", images, run.device.type, options=workers)
    nnunet, ours = (cases / runs[0].seconds for runs in usage.values())
    note = f"{differing:.1e} of the voxels differ; seconds from start to end of the commands"
    what = f"{cases} {'slices' if slices else 'volumes'} of {'x'.join(map(str, size))}, mirrored"
    yield {**_pair(what, (ours, nnunet), "cases/s", ours / nnunet, 5 if slices else 3), "note": note}


def training_rows(run: Run) -> Iterator[Row]:
    """One epoch of nnU-Net's own training of made-up slices: seconds a step, and what of it the GPU waits."""
    size = 32 if run.tiny else 512
    made_up = run.folder / "made up" / "Dataset999_MadeUp"
    _write_training_data(made_up, size)
    base, environment = _planned(run, made_up)
    seconds = []
    for trainer in ("nnUNetTrainerECCaM_epoch", "nnUNetTrainer_epoch"):
        command_usage(_training(run, made_up.name, "2d", trainer), environment)
        *_, log = sorted(_fold(base, made_up.name, "2d", trainer).glob("*log*.txt"))
        (line,) = [line for line in log.read_text().splitlines() if "Epoch time" in line]
        seconds.append(float(line.split("Epoch time:")[1].split()[0]))
    plans = json.loads((base / "preprocessed" / made_up.name / "nnUNetPlans.json").read_text(encoding="utf-8"))
    batch = plans["configurations"]["2d"]["batch_size"]
    yield _pair(f"nnU-Net's first epoch, {size}x{size}, batch {batch}", seconds, "s", seconds[0] / seconds[1])


def real_rows(run: Run, data: Path, by: str | None) -> Iterator[Row]:
    """Dice of fold 0 after short trainings of real slices at full size, all at once; they end with the run's time.

    Args:
        run: the run.
        data: a data set of 2D images in nnU-Net's raw layout.
        by: groups its cases to folds, as ``nnUNetv2_eccam splits --by`` takes it.
    """
    base, environment = _planned(run, data)
    ours = [sys.executable, "-m", "nnunetv2_eccam"]
    if by:  # not beside the raw images, which are the user's
        words = [*ours, "splits", "-d", data.name, "--by", by, "--overwrite"]
        command_usage(words, {**environment, "nnUNet_raw": ""})
    command_usage([*ours, "plans", "-d", data.name, "paper_tcia_pancreas"], environment)
    epochs, paper = ("1epoch", "2d") if run.tiny else ("10epochs", "2d_eccam_paper")
    recipes = {
        "the paper's recipe": (paper, f"nnUNetTrainerECCaMPaper_{epochs}", f"nnUNetTrainerECCaMPaper_UNet_{epochs}"),
        "nnU-Net's recipe": ("2d", "nnUNetTrainerECCaM_short", "nnUNetTrainer_short"),
    }
    if run.tiny:
        del recipes["nnU-Net's recipe"]  # which the row before has trained
    started: list[subprocess.Popen[bytes]] = []
    try:
        for configuration, *trainers in recipes.values():
            for trainer in trainers:
                words = _training(run, data.name, configuration, trainer)
                with (base / f"{trainer}.txt").open("wb") as log:
                    started.append(subprocess.Popen(
                        words, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
                    ))  # fmt: skip
        for process in started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, run.until - time.monotonic()))
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):  # it and its workers have ended
                os.killpg(process.pid, signal.SIGKILL)
    for name, (configuration, *trainers) in recipes.items():
        files = [_fold(base, data.name, configuration, each) / "validation" / "summary.json" for each in trainers]
        scores = [json.loads(file.read_text())["foreground_mean"]["Dice"] if file.is_file() else "" for file in files]
        late = ", ".join(trainer for trainer, score in zip(trainers, scores, strict=True) if score == "")
        note = f"did not end: {late}; see {base}" if late else ", ".join(trainers)
        yield {"what": f"{data.name}, {name}", "ours": scores[0], "nnunet": scores[1], "unit": "Dice", "note": note}


def _planned(run: Run, data: Path) -> tuple[Path, dict[str, str]]:
    """Plan and preprocess a raw data set in a folder of the run; give this, and what nnU-Net's commands need."""
    base = run.folder / f"training {data.name}"
    workers = "0" if run.device.type == "cpu" else str(min(12, os.cpu_count() or 1))
    environment = {**os.environ, "nnUNet_compile": "f" if run.tiny else "t", "nnUNet_extTrainer": str(base)}
    for part in ("raw", "preprocessed", "results"):
        (base / part).mkdir(parents=True, exist_ok=True)
        environment[f"nnUNet_{part}"] = str(base / part)
    file = base / "preprocessed" / data.name / "nnUNetPlans.json"
    if not file.is_file():
        (base / "raw" / data.name).symlink_to(data.absolute())
        entry = "plan_and_preprocess_entry"
        api = f"from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import {entry}; {entry}()"
        processes, number = "1" if run.tiny else "4", str(int(data.name[len("Dataset") :][:3]))
        planning = [sys.executable, "-c", api, "-d", number, "-c", "2d", "-np", processes, "-npfp", processes]
        command_usage(planning, {**environment, "nnUNet_n_proc_DA": "1"})
        source = TRAINERS.replace("EPOCH", "1, 4, 1" if run.tiny else "1, 250, 50").replace("SHORT", "20, 50, 5")
        (base / "short_trainers.py").write_text(source, encoding="utf-8")
        if run.tiny:
            plans = json.loads(file.read_text(encoding="utf-8"))
            plans["configurations"]["2d"]["batch_size"] = 2
            network = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
            network["features_per_stage"] = [4] * network["n_stages"]
            file.write_text(json.dumps(plans), encoding="utf-8")
    return base, {**environment, "nnUNet_n_proc_DA": workers}


def _training(run: Run, dataset: str, configuration: str, trainer: str) -> list[str]:
    train = "from nnunetv2.run.run_training import run_training_entry as e; e()"
    return [sys.executable, "-c", train, dataset, configuration, "0", "-tr", trainer, "-device", run.device.type]


def _fold(base: Path, dataset: str, configuration: str, trainer: str) -> Path:
    return base / "results" / dataset / f"{trainer}__nnUNetPlans__{configuration}" / "fold_0"


def _write_training_data(folder: Path, size: int) -> None:
    import SimpleITK as sitk

    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number in range(20):
        rng = np.random.default_rng(number)
        y, x = np.indices((size, size))
        distance = (y - size * rng.uniform(0.3, 0.7)) ** 2 + (x - size * rng.uniform(0.3, 0.7)) ** 2
        label = (distance < (size / 6) ** 2).astype(np.uint8)
        image = np.clip(rng.normal(80, 20, label.shape) + 60 * label, 1, 255).astype(np.uint8)
        sitk.WriteImage(sitk.GetImageFromArray(image), str(folder / "imagesTr" / f"case_{number:03d}_0000.png"))
        sitk.WriteImage(sitk.GetImageFromArray(label), str(folder / "labelsTr" / f"case_{number:03d}.png"))
    description = {"channel_names": {"0": "grey"}, "labels": {"background": 0, "disc": 1}, "numTraining": 20,
                   "file_ending": ".png"}  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Do all rows that the time allows, in the order of their worth; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", type=Path, default=Path("gpu_run"), metavar="FOLDER", help="default: %(default)s")
    parser.add_argument("--minutes", type=float, default=6, help="no row begins later (default: %(default)s)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small networks and data")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="2D images in nnU-Net's raw layout, to train on")
    parser.add_argument("--by", metavar="PATTERN", help="their groups, as nnUNetv2_eccam splits takes it")
    parser.add_argument("--only", metavar="TEXT", default="", help="rows whose name has this in it")
    arguments = parser.parse_args(argv)
    run = Run(arguments.o, arguments.device, arguments.tiny, arguments.minutes)
    first, *others = run.plans
    rows: list[tuple[str, Callable[[], Iterator[Row]]]] = []

    def add(plan: str, kind: str, compiled: bool) -> None:
        name = f"{'compiled' if compiled else 'eager'} {kind}, {plan}"
        rows.append((name, partial(network_rows, run, plan, kind, compiled)))

    for kind in PAIRS:
        add(first, kind, False)
    add(first, "practical", True)
    for kind in ("slices", "volumes"):
        rows.append((f"prediction of {kind}", partial(prediction_rows, run, kind)))
    add(first, "paper", True)
    for plan in others:
        add(plan, "practical", False)
    add(others[-1], "practical", True)
    add(first, "residual", True)
    rows.append(("training and data loading", partial(training_rows, run)))
    for plan in others:
        if len(run.plans[plan].patch) == 2:  # the paper's recipe has no 3D
            add(plan, "paper", False)
        add(plan, "residual", False)
    if data := run.folder / "made up" / "Dataset999_MadeUp" if arguments.tiny else arguments.data:
        rows.append(("training of real images", partial(real_rows, run, data, arguments.by)))
    if arguments.tiny:  # each kind of row once, compiled or not
        left_out = (f"compiled paper, {first}", f"compiled residual, {first}", f"compiled practical, {others[-1]}")
        rows = [(name, job) for name, job in rows if name not in (*left_out, "prediction of volumes")]
    for name, job in rows:
        if arguments.only in name:
            run.attempt(name, job)
    table = run.table()
    (run.folder / "table.md").write_text(table + "\n", encoding="utf-8")
    print(table)
    return int(any(row["what"] == "failed" for row in run.rows))


if __name__ == "__main__":
    sys.exit(main())
