"""What nnU-Net prints, boiled down to one line that is worth looking at."""

from __future__ import annotations

import re


def duration(seconds: float) -> str:
    """Write seconds as ``m:ss``, or ``h:mm:ss`` from an hour on."""
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """The progress of any command: the last counter (``3/12``) that it printed."""

    def __init__(self) -> None:
        self._counter = ""

    def feed(self, line: str, elapsed: float) -> str | None:  # noqa: ARG002
        """Take in a line of the command's output.

        Args:
            line: the line, without its end.
            elapsed: seconds since the command began.

        Returns:
            A line that should stay on the screen, or None.
        """
        for label, done, total in re.findall(r"([A-Za-z][\w ]*):\s+\d+%.*?\s(\d+)/(\d+) \[", line):
            self._counter = f"{label.lower()} {done}/{total}"
        return None

    def describe(self, elapsed: float) -> str:
        """Say in one line how far the command is, ``elapsed`` seconds after it began."""
        return f"{self._counter or 'running'}, {duration(elapsed)} elapsed"


class TrainingProgress(Progress):
    """Training: epochs, pseudo Dice and the time that is left.

    Args:
        epochs: how many epochs the trainer runs, or None where it cannot be told.
    """

    def __init__(self, epochs: int | None) -> None:
        super().__init__()
        self._epochs = epochs
        self._epoch: int | None = None
        self._epoch_began = 0.0
        self._epoch_seconds: list[float] = []
        self._dice = ""
        self._validating = ""

    def feed(self, line: str, elapsed: float) -> str | None:
        """Take in a line of nnU-Net's training log; give one line for each finished epoch."""
        if found := re.search(r": Epoch (\d+)\s*$", line):
            self._epoch, self._epoch_began = int(found[1]), elapsed
        elif found := re.search(r"Pseudo dice \[(.*)\]", line):
            # "[np.float32(0.8123)]" with numpy 2, "[0.8123]" before
            self._dice = " ".join(re.findall(r"(?<![\w.])\d\.\d+|nan", found[1])) or "0"
        elif found := re.search(r"Epoch time: ([\d.]+) s", line):
            self._epoch_seconds.append(float(found[1]))
            return f"{self._counted()}: pseudo Dice {self._dice}, {float(found[1]):.0f} s"
        elif found := re.search(r": predicting (\S+)", line):
            self._validating = found[1]
        elif found := re.search(r"Mean Validation Dice:\s+([\d.]+|nan)", line):
            return f"validation cases of the fold: mean Dice {float(found[1]):.3f}"
        return None

    def _counted(self) -> str:
        total = f"/{self._epochs}" if self._epochs else ""
        return f"epoch {(self._epoch or 0) + 1}{total}"

    def describe(self, elapsed: float) -> str:
        """Say which epoch runs, the last pseudo Dice, the time gone by and the time left."""
        if self._validating:
            return f"validating, {self._validating}, {duration(elapsed)} elapsed"
        if self._epoch is None:
            return f"starting, {duration(elapsed)} elapsed"
        dice = f", pseudo Dice {self._dice}" if self._dice else ""
        return f"{self._counted()}{dice}, {duration(elapsed)} elapsed{self._left(elapsed)}"

    def seconds_left(self, elapsed: float) -> float | None:
        """Estimate the seconds of training that are left; None where that cannot be told yet."""
        if not self._epochs or not self._epoch_seconds or self._epoch is None:
            return None
        each = sum(self._epoch_seconds) / len(self._epoch_seconds)
        return (self._epochs - self._epoch) * each - (elapsed - self._epoch_began)

    def _left(self, elapsed: float) -> str:
        left = self.seconds_left(elapsed)
        return "" if left is None else f", about {duration(left)} of training left"


class PredictionProgress(Progress):
    """Prediction: how many of the cases are predicted and written.

    Args:
        cases: how many cases there are.
    """

    def __init__(self, cases: int) -> None:
        super().__init__()
        self._cases = cases
        self._done = 0

    def feed(self, line: str, elapsed: float) -> str | None:  # noqa: ARG002
        """Take in a line of nnU-Net's prediction log."""
        self._done += line.startswith("done with ")
        return None

    def describe(self, elapsed: float) -> str:
        """Say how many cases are done."""
        return f"{self._done}/{self._cases} cases, {duration(elapsed)} elapsed"


def epochs_of(trainer: str) -> int | None:
    """Read the number of epochs off a trainer's name, which is how nnU-Net names its short variants."""
    found = re.search(r"_(\d+)epochs?$", trainer)
    return int(found[1]) if found else None
