"""Say what a checkpoint was trained with: trainer, version of this package, network, its switches.

  nnUNetv2_eccam checkpoint .../fold_0/checkpoint_final.pth
  nnUNetv2_eccam checkpoint .../nnUNetTrainerECCaM__nnUNetPlans__2d     every checkpoint of a trained model
  nnUNetv2_eccam checkpoint -d 2 -c 2d -tr nnUNetTrainerECCaM           the same

A checkpoint is a pickle, as all of nnU-Net's: reading one from somebody whom you do not trust may run their code.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nnunetv2_eccam.arguments import add_option
from nnunetv2_eccam.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("path", nargs="*", type=Path, help="a checkpoint, or the folder of a trained model")
    for option in ("-d", "-c", "-tr", "-p"):
        add_option(parser, option)


def run(arguments: argparse.Namespace) -> int:
    """Print what each checkpoint says."""
    from nnunetv2_eccam.trainers.checkpoints import read_checkpoint

    paths = list(arguments.path)
    if arguments.dataset:
        from nnunetv2_eccam.inference.trained_model import model_folder

        if not arguments.configuration:
            raise UserError(f"-d {arguments.dataset} needs a configuration, as -c 2d")
        folder = model_folder(arguments.dataset, arguments.configuration, arguments.trainer, arguments.plans)
        paths.append(folder)
    if not paths:
        raise UserError("give a checkpoint, the folder of a trained model, or -d, -c and -tr")
    for path in paths:
        for file in _files(path):
            print(file)
            for name, value in _facts(read_checkpoint(str(file))):
                print(f"  {name:14s} {value}")
    return 0


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("checkpoint_*.pth")) + sorted(path.glob("fold_*/checkpoint_*.pth"))
    if not files:
        raise UserError(f"{path} has no checkpoint_*.pth, nor has a fold_* in it")
    return files


def _facts(checkpoint: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    import nnunetv2_eccam
    from nnunetv2_eccam.architectures.origin import Origin

    yield "trainer", str(checkpoint.get("trainer_name", "not said"))
    arguments = checkpoint.get("init_args", {})
    plans = arguments.get("plans", {})
    if plans:
        where = f"{plans.get('dataset_name')}, {plans.get('plans_name')}"
        yield "trained on", f"{where}, {arguments.get('configuration')}, fold {arguments.get('fold')}"
    yield "epochs", str(checkpoint.get("current_epoch", "not said"))
    origin = Origin.of(checkpoint["network_weights"])
    if origin is None:
        yield "nnunetv2-eccam", "not said: another trainer, or a version that did not keep it"
        return
    same = origin.version == nnunetv2_eccam.__version__
    yield "nnunetv2-eccam", origin.version + ("" if same else f"; {nnunetv2_eccam.__version__} is installed")
    yield "system", origin.system
    yield "network", origin.network
    yield "switches", json.dumps(origin.switches)
    for name, value in origin.arguments.items():
        yield f"  {name}", json.dumps(value)
