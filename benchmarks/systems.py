"""Every system that the paper compares on one data set: cost, and Dice after the same short training.

  python -m benchmarks.systems --data /path/to/Task02_Heart
  python -m benchmarks.systems --data /path/to/Task02_Heart --recipe paper --only UNet SegFormer

Each system is trained by nnUNetv2_train and predicts the held-out cases by nnUNetv2_predict, under the same
configuration (patch 128x128, batch 4, five stages of 16 to 256 where a network takes its widths from the plan).
A short training ranks nothing: the table shows that every row runs, and what it costs. Run the same command
again to go on after an interruption.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from benchmarks.measuring import forward_gflops, interleaved_seconds, median_ratio, step_job, training_memory
from nnunetv2_eccam.architectures.from_plans import build_network
from nnunetv2_eccam.systems import RECIPES, SYSTEMS, System, system_named

CONFIGURATION = "2d_systems"
OVERRIDE: dict[str, Any] = {
    "description": "Half of nnU-Net's widths and a small patch, the same for every system.",
    "configurations": {
        CONFIGURATION: {
            "inherits_from": "2d",
            "patch_size": [128, 128],
            "batch_size": 4,
            "arch_kwargs": {"n_stages": 5, "features_per_stage": [16, 32, 64, 128, 256]},
        }
    },
}


class SystemCost(NamedTuple):
    """What a network costs on one batch.

    Attributes:
        parameters: number of parameters.
        gflops: multiply-adds of a forward pass of one image, in 1e9.
        step_seconds: median of a training step of the whole batch.
        step_ratio: that over the plain U-Net's, timed in turn with it.
        memory_bytes: of a training step, by :func:`benchmarks.measuring.training_memory`.
    """

    parameters: int
    gflops: float
    step_seconds: float
    step_ratio: float
    memory_bytes: int


@dataclass(frozen=True)
class Trial:
    """Where the trainings happen and how.

    Args:
        work: the work folder, absolute; what is finished in it is not done again.
        data: a download in the layout of MSD Task02_Heart, absolute.
        device: ``cpu`` or ``cuda``.
        hold_out: labelled cases that no training sees and on which Dice is taken.
        threads: CPU threads of each command.
    """

    work: Path
    data: Path
    device: str
    hold_out: int
    threads: int

    @property
    def raw(self) -> Path:
        """The data set in nnU-Net's raw format."""
        return self.work / "nnUNet_raw/Dataset002_Heart"

    @property
    def preprocessed(self) -> Path:
        """The preprocessed data set, with its plans."""
        return self.work / "nnUNet_preprocessed/Dataset002_Heart"

    def summary(self, trainer: str) -> Path:
        """The scores of one trainer's predictions."""
        return self.work / "predictions" / trainer / "summary.json"

    def run(self, log: str, *words: str) -> None:
        """Run a command of this environment, with what it prints in a log.

        Raises:
            RuntimeError: it failed.
        """
        environment = {name: value for name, value in os.environ.items() if not name.startswith("nnUNet_")}
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "logs"):
            (self.work / name).mkdir(parents=True, exist_ok=True)
            environment[name] = str(self.work / name)
        environment.update(nnUNet_compile="f", nnUNet_def_n_proc="1", OMP_NUM_THREADS=str(self.threads))
        if words[0] == "nnUNetv2_train" and self.device == "cpu":
            environment["nnUNet_n_proc_DA"] = "0"  # nnU-Net's planning fails with it
        command = Path(sys.executable).parent / words[0]  # not resolved: in a virtual environment this is a link
        file = self.work / "logs" / f"{log}.txt"
        with file.open("wb") as output:
            code = subprocess.call([command, *words[1:]], env=environment, stdout=output, stderr=subprocess.STDOUT)
        if code != 0:
            raise RuntimeError(f"{words[0]} failed (exit code {code}); all that it printed is in {file}")

    def prepare(self) -> None:
        """Convert, plan, preprocess, add the configuration; one validation case, so that validation stays short."""
        splits = self.preprocessed / "splits_final.json"
        if splits.is_file():
            return
        self.work.mkdir(parents=True, exist_ok=True)
        override = self.work / "systems.json"
        override.write_text(json.dumps(OVERRIDE), encoding="utf-8")
        hold_out = ("--hold-out", str(self.hold_out))
        self.run("convert", "nnUNetv2_eccam", "convert", "msd-heart", str(self.data), *hold_out)
        self.run("plan", "nnUNetv2_plan_and_preprocess", "-d", "2", "-c", "2d", "-np", "1", "-npfp", "1")
        self.run("plans", "nnUNetv2_eccam", "plans", "2", str(override))
        cases = sorted(path.name.removesuffix(".nii.gz") for path in (self.raw / "labelsTr").glob("*.nii.gz"))
        splits.write_text(json.dumps([{"train": cases[:-1], "val": cases[-1:]}]), encoding="utf-8")

    def train_and_predict(self, trainer: str) -> float:
        """Train, predict and score with one trainer, or go on with it; give the mean Dice."""
        summary = self.summary(trainer)
        if not summary.is_file():
            shutil.rmtree(summary.parent, ignore_errors=True)
            fold = self.work / "nnUNet_results/Dataset002_Heart" / f"{trainer}__nnUNetPlans__{CONFIGURATION}/fold_0"
            resume = ["--c"] if any(fold.glob("checkpoint_*.pth")) else []
            device = ("-device", self.device)
            self.run(f"{trainer}_train", "nnUNetv2_train", "2", CONFIGURATION, "0", "-tr", trainer, *device, *resume)
            self.run(f"{trainer}_predict", "nnUNetv2_predict", "-i", str(self.raw / "imagesTs"),
                     "-o", str(summary.parent), "-d", "2", "-c", CONFIGURATION, "-tr", trainer, "-f", "0", *device,
                     "--disable_tta", "-npp", "1", "-nps", "1")  # fmt: skip
            self.run(f"{trainer}_evaluate", "nnUNetv2_evaluate_folder", str(self.raw / "labelsTs"),
                     str(summary.parent), "-djfile", str(self.raw / "dataset.json"),
                     "-pfile", str(self.preprocessed / "nnUNetPlans.json"), "-np", "1")  # fmt: skip
        return float(json.loads(summary.read_text(encoding="utf-8"))["foreground_mean"]["Dice"])


def system_costs(
    systems: Sequence[System], configuration: Mapping[str, Any], device: torch.device, rounds: int = 3
) -> dict[str, SystemCost]:
    """Measure each network, one at a time, in turn with the plain U-Net.

    Args:
        systems: whose networks.
        configuration: of nnU-Net's plans: architecture, patch and batch.
        device: where they run; on a GPU in mixed precision.
        rounds: timed steps of each.

    Returns:
        the costs by the systems' names; systems that share a network share its cost.
    """

    def network_of(system: System) -> torch.nn.Module:
        plan, patch = configuration["architecture"], configuration["patch_size"]
        return build_network(plan, patch, 1, 2, system.side_outputs, system.switches, system.network).to(device)

    plain = system_named("UNet")
    assert plain is not None
    amp = device.type == "cuda"
    image = torch.randn(configuration["batch_size"], 1, *configuration["patch_size"], device=device)
    reference = step_job(network_of(plain), image, amp)
    costs: dict[str, SystemCost] = {}
    measured: dict[tuple[Any, ...], SystemCost] = {}
    for system in tqdm(systems, desc="costs", file=sys.stderr):
        key = (system.network, system.side_outputs, *sorted(system.switches.items()))
        if key not in measured:
            network = network_of(system)
            gflops = forward_gflops(network, image[:1])
            memory = training_memory(network, image, amp)
            jobs = [reference, step_job(network, image, amp)]
            plain_seconds, seconds = interleaved_seconds(jobs, device, rounds, system.title, warmup=1, quiet=True)
            measured[key] = SystemCost(
                sum(p.numel() for p in network.parameters()),
                gflops,
                statistics.median(seconds),
                median_ratio(seconds, plain_seconds),
                memory,
            )
        costs[system.name] = measured[key]
    return costs


def costs_of(trial: Trial, systems: Sequence[System]) -> dict[str, SystemCost]:
    """Measure the networks whose cost is not in the work folder yet."""
    file = trial.work / "costs.json"
    known = {
        name: SystemCost(*values) for name, values in (json.loads(file.read_text()) if file.is_file() else {}).items()
    }
    if missing := [system for system in systems if system.name not in known]:
        plans = json.loads((trial.preprocessed / "nnUNetPlans.json").read_text(encoding="utf-8"))
        known.update(system_costs(missing, plans["configurations"][CONFIGURATION], torch.device(trial.device)))
        file.write_text(json.dumps(known), encoding="utf-8")
    return known


def table(systems: Sequence[System], costs: Mapping[str, SystemCost], dice: Mapping[str, float]) -> str:
    """Lay the measurements out as a Markdown table."""
    lines = [
        "| paper | system | parameters, M | multiply-adds, G | training step, s | over U-Net | training memory, MiB "
        "| Dice |",
        "| --- | --- |" + " ---: |" * 6,
    ]
    for system in systems:
        cost = costs[system.name]
        score = f"{dice[system.name]:.3f}" if system.name in dice else "failed"
        lines.append(
            f"| {system.where.replace('; ', '<br>')} | {system.title} | {cost.parameters / 1e6:.2f} "
            f"| {cost.gflops:.2f} | {cost.step_seconds:.2f} | {cost.step_ratio:.2f} | {cost.memory_bytes / 2**20:.0f} "
            f"| {score} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing and print the table; 1 where a system failed."""
    known = {system.name or "ECCaM": system for system in SYSTEMS}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="an unpacked Task02_Heart")
    parser.add_argument("--work-dir", type=Path, default=Path("systems_trial"), metavar="DIR")
    parser.add_argument("--recipe", choices=RECIPES, default="nnunet", help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=1, help="length of each training (default: %(default)s)")
    parser.add_argument("--hold-out", type=int, default=4, metavar="N", help="unseen cases (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=known, metavar="SYSTEM", help=f"of {', '.join(known)}")
    parser.add_argument("--jobs", type=int, default=1, help="systems trained at once (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args(argv)
    systems = [known[name] for name in arguments.only or known]
    threads = max(1, (os.cpu_count() or 1) // arguments.jobs)
    trial = Trial(
        arguments.work_dir.absolute(), arguments.data.absolute(), arguments.device, arguments.hold_out, threads
    )
    trial.prepare()
    costs = costs_of(trial, systems)  # before the trainings take the cores
    dice: dict[str, float] = {}
    with ThreadPoolExecutor(arguments.jobs) as pool:
        futures = {
            system.name: pool.submit(trial.train_and_predict, system.trainer_name(arguments.recipe, arguments.epochs))
            for system in systems
        }
        for name, future in tqdm(futures.items(), desc="systems", file=sys.stderr):
            try:
                dice[name] = future.result()
            except RuntimeError as error:
                tqdm.write(f"{name}: {error}", file=sys.stderr)
    text = table(systems, costs, dice)
    (trial.work / f"systems_{arguments.recipe}.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return int(len(dice) < len(systems))


if __name__ == "__main__":
    sys.exit(main())
