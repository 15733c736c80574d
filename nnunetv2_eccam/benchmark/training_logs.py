"""Loss and pseudo Dice of each epoch, as nnU-Net logs them in its checkpoints."""

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json

LOGGED = ("train_losses", "val_losses", "mean_fg_dice", "epoch_start_timestamps", "epoch_end_timestamps")


class Epoch(NamedTuple):
    """One epoch of a training.

    Attributes:
        epoch: from 0.
        train_loss: on nnU-Net's training patches.
        val_loss: on its validation patches.
        pseudo_dice: mean over labels of nnU-Net's Dice on validation patches, from 0 to 1; NaN where it is undefined.
        seconds: that it took.
        steps: of the optimiser in each epoch, from ``debug.json``; 0 where it is not known.
    """

    epoch: int
    train_loss: float
    val_loss: float
    pseudo_dice: float
    seconds: float
    steps: int = 0


def read_epochs(fold: Path) -> list[Epoch]:
    """Read the epochs of a fold from the checkpoint that a training would go on from, in order.

    Args:
        fold: its folder, ``.../fold_0``; without a checkpoint, there are no epochs.
    """
    checkpoints = (read_checkpoint(fold / f"checkpoint_{kind}.pth") for kind in ("final", "latest", "best"))
    logged: dict[str, Any] = next((each["logging"] for each in checkpoints if "logging" in each), {})
    steps = int(read_debug(fold).get("num_iterations_per_epoch", 0))
    rows = zip(*(logged.get(name, ()) for name in LOGGED), strict=False)
    return [Epoch(number, float(train), float(val), float(dice), end - start, steps)
            for number, (train, val, dice, start, end) in enumerate(rows)]  # fmt: skip


def read_debug(fold: Path) -> dict[str, Any]:
    """Read what nnU-Net notes of machine and network when a training starts; nothing where it is not there."""
    try:
        content = read_json(fold / "debug.json")
    except UserError:
        return {}
    return content if isinstance(content, dict) else {}


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Read a checkpoint of nnU-Net's; its tensors stay on the disk until they are used. Nothing where it is none."""
    if not zipfile.is_zipfile(file):
        return {}
    import torch

    try:
        # As nnU-Net loads it: its checkpoints hold more than tensors.
        content = torch.load(file, map_location="cpu", weights_only=False, mmap=True)
    except Exception:  # a file that is cut off or of something else is no reason to write no report
        return {}
    return content if isinstance(content, dict) else {}
