"""Every system that the paper compares on one data set: cost, and Dice after the same short training.

  python -m nnunetv2_eccam.benchmark.systems --data /path/to/Task02_Heart
  python -m nnunetv2_eccam.benchmark.systems --data /path/to/Task02_Heart --recipe paper --only UNet SegFormer

Each system is trained by nnUNetv2_train and predicts the held-out cases by nnUNetv2_predict, under the same
configuration (patch 128x128, batch 4, five stages of 16 to 256 where a network takes its widths from the plan).
A short training ranks nothing: the table shows that every row runs, and what it costs. Run the same command
again to go on after an interruption.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from nnunetv2_eccam.benchmark.system_costs import SystemCost, system_costs
from nnunetv2_eccam.benchmark.system_trial import Trial, prepare, result_of, run_trials
from nnunetv2_eccam.demo.runner import ended_by_signal
from nnunetv2_eccam.demo.steps import count_labelled
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json, write_json, written_whole
from nnunetv2_eccam.systems import RECIPES, SYSTEMS, System


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m nnunetv2_eccam.benchmark.systems",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="an unpacked Task02_Heart")
    parser.add_argument(
        "--work-dir", type=Path, default=Path("systems_trial"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument("--recipe", choices=RECIPES, default="nnunet", help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=1, help="length of each training (default: %(default)s)")
    parser.add_argument("--hold-out", type=int, default=4, metavar="N", help="unseen cases (default: %(default)s)")
    parser.add_argument("--only", nargs="+", metavar="SYSTEM", help="these systems; default: all")
    parser.add_argument("--jobs", type=int, default=1, help="systems trained at once (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing and print the table; 1 where a system failed."""
    arguments = _parser().parse_args(argv)
    try:
        with ended_by_signal():
            return _run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(arguments: argparse.Namespace) -> int:
    systems = _chosen(arguments.only)
    count_labelled(arguments.data)
    work = Path(os.path.abspath(arguments.work_dir))
    threads = max(1, (os.cpu_count() or 1) // arguments.jobs)
    trial = Trial(work, Path(os.path.abspath(arguments.data)), arguments.device, arguments.hold_out, threads)
    prepare(trial)
    costs = _costs(trial, systems)
    trainers = {system.name: system.trainer_name(arguments.recipe, arguments.epochs) for system in systems}
    failed = run_trials(trial, list(trainers.values()), arguments.jobs)
    text = "\n".join(table(systems, costs, {name: _dice(trial, trainer) for name, trainer in trainers.items()}))
    with written_whole(work / f"systems_{arguments.recipe}.md") as partial:
        partial.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 1 if failed else 0


def _chosen(names: Sequence[str] | None) -> list[System]:
    if not names:
        return list(SYSTEMS)
    known = {system.name or "ECCaM": system for system in SYSTEMS}
    if unknown := sorted(set(names) - set(known)):
        raise UserError(f"there is no system named {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names]


def _costs(trial: Trial, systems: Sequence[System]) -> dict[str, SystemCost]:
    """Measure the networks whose cost is not in the work folder, before the trainings take the cores."""
    file = trial.work / "costs.json"
    known = {name: SystemCost(*values) for name, values in (read_json(file) if file.is_file() else {}).items()}
    if missing := [system for system in systems if system.name not in known]:
        known.update(system_costs(missing, trial.configuration(), torch.device(trial.device)))
        write_json(file, known)
    return known


def _dice(trial: Trial, trainer: str) -> float | None:
    result = result_of(trial, trainer)
    return None if result is None else result.dice


def table(
    systems: Sequence[System], costs: Mapping[str, SystemCost], dice: Mapping[str, float | None]
) -> list[str]:
    """Lay the measurements out as a Markdown table."""
    lines = [
        "| paper | system | parameters, M | multiply-adds, G | training step, s | over U-Net | training memory, MiB "
        "| Dice |",
        "| --- | --- |" + " ---: |" * 6,
    ]
    for system in systems:
        cost, score = costs[system.name], dice[system.name]
        lines.append(
            f"| {system.where.replace('; ', '<br>')} | {system.title} | {cost.parameters / 1e6:.2f} "
            f"| {cost.gflops:.2f} | {cost.step_seconds:.2f} | {cost.step_ratio:.2f} | {cost.memory_bytes / 2**20:.0f} "
            f"| {'failed' if score is None else f'{score:.3f}'} |"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
