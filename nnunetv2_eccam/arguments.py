"""The options that mean the same in every command, under nnU-Net's own names.

``-d``, ``-c``, ``-tr``, ``-p``, ``-f``, ``-i``, ``-o``, ``-np``, ``-device``, ``-m`` and ``-chk`` are what nnU-Net's
commands call a data set, a configuration, and so on. A command takes them from here by name, with what differs in it::

    add_option(parser, "-d", required=True)
    add_option(parser, "-o", "--work-dir", dest="work_dir", help="where everything is written")

Further spellings (``--work-dir``) are aliases. Light to import, since ``--help`` of every command passes through it.
"""

import argparse
import os
import re
from pathlib import Path
from typing import Any

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import nnunet_folder

OPTIONS: dict[str, dict[str, Any]] = {
    "-d": {"dest": "dataset", "metavar": "DATASET", "help": "data set, by number or name"},
    "-c": {"dest": "configuration", "metavar": "CONFIGURATION", "help": "configuration of its plans, as 2d"},
    "-tr": {
        "dest": "trainer", "metavar": "TRAINER", "default": "nnUNetTrainer",
        "help": "trainer (default: nnUNetTrainer)",
    },
    "-p": {
        "dest": "plans", "metavar": "PLANS", "default": "nnUNetPlans",
        "help": "plans identifier (default: nnUNetPlans)",
    },
    "-f": {"dest": "folds", "metavar": "FOLD", "nargs": "+", "help": "folds, numbers or all (default: 0 1 2 3 4)"},
    "-i": {"dest": "input", "metavar": "FOLDER", "type": Path, "help": "folder with images, named CASE_0000.nii.gz"},
    "-o": {"dest": "output", "metavar": "FOLDER", "type": Path, "help": "where the files go; created if needed"},
    "-m": {
        "dest": "model", "metavar": "FOLDER", "type": Path,
        "help": "folder of a trained model, instead of -d, -p, -tr and -c",
    },
    "-chk": {
        "dest": "checkpoint", "metavar": "FILE", "default": "checkpoint_final.pth",
        "help": "name of the checkpoint (default: checkpoint_final.pth)",
    },
    "-np": {"dest": "processes", "metavar": "N", "type": int, "help": "number of processes"},
    "-device": {
        "dest": "device", "choices": ("cuda", "cpu", "mps"), "default": "cuda",
        "help": "where the network runs (default: cuda); CUDA_VISIBLE_DEVICES chooses among GPUs",
    },
}  # fmt: skip
"""nnU-Net's option to how argparse is told of it."""


def add_option(parser: argparse._ActionsContainer, option: str, *aliases: str, **changes: Any) -> argparse.Action:
    """Add one of nnU-Net's options.

    Args:
        parser: a parser or a group of one.
        option: its name, a key of :data:`OPTIONS`.
        aliases: other spellings that are taken as well; the help lists them after nnU-Net's.
        changes: what is different in this command: ``required``, ``nargs``, ``default``, ``help``, ...; None drops
            a setting.
    """
    settings = {name: value for name, value in {**OPTIONS[option], **changes}.items() if value is not None}
    return parser.add_argument(option, *aliases, **settings)


def dataset_name(dataset: str, *variables: str) -> str:
    """Turn a data set's number into its name; a name is checked.

    Args:
        dataset: the number, with or without leading zeros (``2``, ``002``), or the name (``Dataset002_Heart``).
        variables: nnU-Net's folders to look in (``nnUNet_raw``, ...); of several, those that are set. Without any,
            all three, as nnU-Net does.

    Returns:
        ``DatasetXXX_Name``.

    Raises:
        UserError: there is no such data set, there are several of this number, or no folder is set.
    """
    asked = variables or ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    # If none is set, nnunet_folder explains it.
    bases = [nnunet_folder(variable) for variable in [each for each in asked if os.environ.get(each)] or asked[:1]]
    present = sorted({path.name for folder in bases for path in folder.glob("Dataset*") if path.is_dir()})
    if dataset.isdecimal():
        found = [name for name in present if name.startswith(f"Dataset{int(dataset):03d}_")]
    elif re.fullmatch(r"Dataset\d{3}_.+", dataset):
        found = [name for name in present if name == dataset]
    else:
        raise UserError(f"{dataset} is neither a number nor a name such as Dataset002_Heart")
    where = ", ".join(map(str, bases))
    if not found:
        raise UserError(
            f"there is no data set {dataset} in {where}" + (f" (there are {', '.join(present)})" if present else "")
        )
    if len(found) > 1:
        raise UserError(f"data set {dataset} is not unique in {where}: {', '.join(found)}")
    return found[0]


def raw_folder(dataset: str) -> Path:
    """Give a data set's folder in ``nnUNet_raw``, by its number or name.

    Raises:
        UserError: ``nnUNet_raw`` is not set, or there is no such data set in it.
    """
    return nnunet_folder("nnUNet_raw") / dataset_name(dataset, "nnUNet_raw")
