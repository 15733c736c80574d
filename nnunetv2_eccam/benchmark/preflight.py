"""What only nnU-Net can tell before jobs start, asked of one process: trainers, splits, GPUs.

``python -m nnunetv2_eccam.benchmark.preflight`` reads a question from standard input and writes the answer to
standard output, both JSON. It is a process of its own, since nnU-Net and PyTorch would stay in the memory of the
command that waits for the jobs.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import write_json


def ask(trainers: Sequence[str], splits: Mapping[Path, Path], device: str | None) -> list[str]:
    """Check trainers, have splits made where there are none, and count GPUs.

    nnU-Net makes its splits in the first training. Several that start at once would each write the file, and one
    might read what another has half written; so they are made here, by nnU-Net's own function.

    Args:
        trainers: names that nnU-Net must find.
        splits: the ``splits_final.json`` that are missing, and the folder of preprocessed cases for each.
        device: that must be there; None: it is another machine's affair.

    Returns:
        The GPUs that can be used, as ``CUDA_VISIBLE_DEVICES`` names them.

    Raises:
        UserError: a trainer is not found or cannot be imported, there are too few cases for nnU-Net's folds, or the
            device is not there.
    """
    question = {
        "trainers": list(trainers),
        "splits": {str(file): str(folder) for file, folder in splits.items()},
        "device": device,
    }
    done = subprocess.run(
        [sys.executable, "-m", "nnunetv2_eccam.benchmark.preflight"],
        input=json.dumps(question), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        last = "\n  ".join(done.stderr.splitlines()[-20:])
        raise UserError(f"nnU-Net could not be asked about trainers and splits:\n  {last}")
    answer = json.loads(done.stdout)
    if answer["wrong"]:
        raise UserError("\n".join(answer["wrong"]))
    return list(answer["gpus"])


def answer(question: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a question of :func:`ask`, in a process that may import nnU-Net."""
    wrong = [text for trainer in question["trainers"] if (text := _trainer(trainer))]
    wrong += [text for file, folder in question["splits"].items() if (text := _make_splits(Path(file), Path(folder)))]
    gpus: list[str] = []
    if question["device"] in ("cuda", "mps"):
        import torch

        gpus = _visible_gpus(torch.cuda.device_count())
        there = bool(gpus) if question["device"] == "cuda" else torch.backends.mps.is_available()
        if not there:
            wrong.append(f"device: PyTorch finds no {question['device']} on this machine; give device: cpu")
    return {"wrong": wrong, "gpus": gpus}


def _trainer(name: str) -> str:
    """Say what is wrong with a trainer, or nothing."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    try:
        trainer = recursive_find_trainer_class_by_name(name)
    except RuntimeError:
        return (
            f"trainers: nnU-Net finds no trainer {name}; nnUNetv2_eccam trainers lists this package's, "
            "and nnUNet_extTrainer names folders with your own"
        )
    except Exception as error:  # whatever a trainer's module raises when it is imported
        return f"trainers: {name} cannot be imported: {type(error).__name__}: {error}"
    path = getattr(getattr(trainer, "system", None), "network", "")
    return _missing_package(name, path)


def _missing_package(trainer: str, network: str) -> str:
    """Say that a compared network's optional package is missing, before it is missed in a job."""
    if not network:
        return ""
    needed = getattr(importlib.import_module(network.rpartition(".")[0]), "segmentation_models_pytorch", None)
    try:
        if needed:
            needed(trainer)
    except UserError as error:
        return f"trainers: {error}"
    return ""


def _make_splits(file: Path, folder: Path) -> str:
    """Write nnU-Net's own five folds, unless somebody has done so meanwhile."""
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    if file.is_file():
        return ""
    cases = sorted(infer_dataset_class(str(folder)).get_identifiers(str(folder)))
    if len(cases) < 5:
        return f"datasets: {file.parent.name} has {len(cases)} cases, too few for nnU-Net's five folds"
    splits = generate_crossval_split(cases, seed=12345, n_splits=5)
    write_json(file, [{part: list(map(str, split[part])) for part in ("train", "val")} for split in splits])
    return ""


def _visible_gpus(number: int) -> list[str]:
    named = [word.strip() for word in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if word.strip()]
    return named[:number] if named else [str(index) for index in range(number)]


def main() -> None:
    """Answer the question on standard input."""
    question = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):  # nnU-Net prints where it searches
        given = answer(question)
    print(json.dumps(given))


if __name__ == "__main__":
    main()
