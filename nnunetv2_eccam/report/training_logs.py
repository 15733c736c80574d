"""Loss and pseudo Dice of each epoch, from nnU-Net's ``training_log_*.txt``."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import NamedTuple

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json

_NUMBER = r"(-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|-?inf|nan)"
_LINE = re.compile(
    r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?: (Epoch time:|Epoch|train_loss|val_loss|Pseudo dice) (\S.*?)\s*$", re.M
)
# "np.float32(0.66)" or "0.66", as numpy's version writes it; the 32 is no value.
_VALUE = re.compile(r"(?<![\w.])" + _NUMBER)


class Epoch(NamedTuple):
    """One epoch of a training.

    Attributes:
        epoch: from 0.
        train_loss: NaN where the log does not say it, as the others.
        val_loss: on nnU-Net's validation patches.
        pseudo_dice: mean over labels of nnU-Net's Dice on validation patches, from 0 to 1.
        seconds: that it took.
        steps: of the optimiser in each epoch, from ``debug.json``; 0 where it is not known.
    """

    epoch: int
    train_loss: float
    val_loss: float
    pseudo_dice: float
    seconds: float
    steps: int = 0


def read_training_logs(folder: Path) -> list[Epoch]:
    """Read the epochs of a fold's folder, in order.

    A training that was resumed has several logs. A later one replaces the epochs from where it begins, so that of a
    training that began anew nothing is left of the earlier one. An epoch that was not finished is left out.

    Args:
        folder: ``.../fold_0``; where it is missing or has no log, there are no epochs.
    """
    epochs: dict[int, Epoch] = {}
    # The names hold year, month, day, hour, minute and second; nnU-Net does not pad all with zeros.
    logs = folder.glob("training_log_*.txt")
    for log in sorted(logs, key=lambda log: [int(part) for part in re.findall(r"\d+", log.stem)]):
        found = _epochs_of(log.read_text(encoding="utf-8", errors="replace"))
        epochs = {number: each for number, each in epochs.items() if not found or number < min(found)} | found
    steps = _steps(folder / "debug.json") if epochs else 0
    return [epochs[number]._replace(steps=steps) for number in sorted(epochs)]


def _steps(path: Path) -> int:
    """Read how many steps nnU-Net's trainer noted that an epoch has; 0 where it is not known."""
    try:
        return int(read_json(path)["num_iterations_per_epoch"])
    except (UserError, KeyError, TypeError, ValueError):
        return 0


def _epochs_of(text: str) -> dict[int, Epoch]:
    epochs: dict[int, Epoch] = {}
    current, figures = -1, dict[str, float]()
    for name, rest in _LINE.findall(text):
        if name == "Epoch":
            current, figures = (int(rest) if rest.isdecimal() else -1), {}
            continue
        defined = [value for value in map(float, _VALUE.findall(rest)) if not math.isnan(value)]
        figures[name] = sum(defined) / len(defined) if defined else math.nan
        if name == "Epoch time:" and current >= 0:
            train, val, dice, seconds = (
                figures.get(each, math.nan) for each in ("train_loss", "val_loss", "Pseudo dice", "Epoch time:")
            )
            epochs[current] = Epoch(current, train, val, dice, seconds)
    return epochs
