"""Loss and pseudo Dice of each epoch, from nnU-Net's ``training_log_*.txt``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json

_STAMP = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?: "
_NUMBER = r"(-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|-?inf|nan)"
_EPOCH = re.compile(_STAMP + r"Epoch (\d+)\s*$")
_FIGURES = {
    "train_loss": re.compile(_STAMP + r"train_loss " + _NUMBER),
    "val_loss": re.compile(_STAMP + r"val_loss " + _NUMBER),
    "seconds": re.compile(_STAMP + r"Epoch time: " + _NUMBER + r" s"),
}
_DICE = re.compile(_STAMP + r"Pseudo dice \[(.*)\]")
# "np.float32(0.66)" or "0.66", as numpy's version writes it; the 32 is no value.
_DICE_VALUE = re.compile(r"(?<![\w.])" + _NUMBER)


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
    training that began anew nothing is left of the earlier one.

    Args:
        folder: ``.../fold_0``; where it is missing or has no log, there are no epochs.
    """
    epochs: dict[int, Epoch] = {}
    # The names hold year, month, day, hour, minute and second; nnU-Net does not pad all with zeros.
    for log in sorted(folder.glob("training_log_*.txt"), key=_time_of):
        found = _epochs_of(log.read_text(encoding="utf-8", errors="replace"))
        if found:
            first = min(found)
            epochs = {number: each for number, each in epochs.items() if number < first} | found
    steps = _steps(folder / "debug.json") if epochs else 0
    return [epochs[number]._replace(steps=steps) for number in sorted(epochs)]


def _steps(path: Path) -> int:
    """Read how many steps nnU-Net's trainer noted that an epoch has; 0 where it is not known."""
    try:
        content = read_json(path)
        return int(content["num_iterations_per_epoch"])
    except (UserError, KeyError, TypeError, ValueError):
        return 0


def _time_of(log: Path) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", log.stem)]


def _epochs_of(text: str) -> dict[int, Epoch]:
    """Read the epochs of one log; one that was not finished is left out."""
    epochs: dict[int, Epoch] = {}
    current, figures = None, dict[str, float]()
    for line in text.splitlines():
        if match := _EPOCH.match(line):
            current, figures = int(match[1]), {}
            continue
        if current is None:
            continue
        if match := _DICE.match(line):
            values = [float(value) for value in _DICE_VALUE.findall(match[1])]
            defined = [value for value in values if value == value]
            figures["pseudo_dice"] = sum(defined) / len(defined) if defined else float("nan")
        for name, pattern in _FIGURES.items():
            if match := pattern.match(line):
                figures[name] = float(match[1])
        if "seconds" in figures:
            names = ("train_loss", "val_loss", "pseudo_dice", "seconds")
            train, val, dice, seconds = (figures.get(name, float("nan")) for name in names)
            epochs[current] = Epoch(current, train, val, dice, seconds)
    return epochs
