"""From intensities to grey: windows for computed tomography, percentiles for everything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nnunetv2_eccam.errors import UserError

SAMPLED_VOXELS = 2_000_000
"""From how many voxels of a volume its percentiles are taken at most; more change nothing that is seen."""


class Window(NamedTuple):
    """The intensities between black and white.

    Attributes:
        level: the intensity that is shown as middle grey; HU in computed tomography.
        width: how far white is from black, in the same unit.
        source: who uses this window, for the presets.
    """

    level: float
    width: float
    source: str = ""

    def scaled(self, image: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Give grey values from 0 (black) to 1 (white), same shape; what is not a number is black."""
        low = self.level - self.width / 2
        grey = np.clip((image.astype(np.float32) - low) / max(self.width, 1e-9), 0, 1)
        return np.asarray(np.nan_to_num(grey, copy=False), np.float32)


class Percentiles(NamedTuple):
    """The window between two percentiles of a volume, for intensities without a unit, as of MRI."""

    low: float = 1.0
    high: float = 99.0

    def window(self, volume: npt.NDArray[Any]) -> Window:
        """Find the window of a volume of any shape; of a constant one, everything is black."""
        step = max(1, round((volume.size / SAMPLED_VOXELS) ** (1 / max(volume.ndim, 1))))
        sample = volume[(slice(None, None, step),) * volume.ndim]
        sample = sample[np.isfinite(sample)]
        if not sample.size:
            return Window(0.5, 1.0)
        low, high = (float(value) for value in np.percentile(sample, (self.low, self.high)))
        return Window((low + high) / 2, high - low) if high > low else Window(low + 0.5, 1.0)


_OHIF = "default of the OHIF viewer"

PRESETS: Mapping[str, Window] = {
    "soft-tissue": Window(40, 400, _OHIF),
    "abdomen": Window(40, 350, "3D Slicer's CT-Abdomen"),
    "pancreas": Window(70, 340, "-100 to 240 HU: Zhou et al., MICCAI 2017, and Yu et al., CVPR 2018, on Pancreas-CT"),
    "kidney": Window(112.5, 383, "-79 to 304 HU: Isensee and Maier-Hein, arXiv 1908.02182, on KiTS19"),
    "liver": Window(90, 150, _OHIF),
    "lung": Window(-600, 1500, _OHIF),
    "bone": Window(480, 2500, _OHIF),
    "brain": Window(40, 80, _OHIF),
}
"""Windows of computed tomography in HU, by what they show."""


def parse_window(words: Sequence[str] | None, is_ct: bool) -> Window | Percentiles:
    """Read what the user said about the grey values.

    Args:
        words: the name of a preset, a level and a width, or ``percentiles`` with none or two numbers; None
            leaves the choice to this function.
        is_ct: the images are known to be computed tomography; then the default is the soft-tissue window,
            and otherwise the 1st and the 99th percentile.

    Raises:
        UserError: the words are none of these.
    """
    if not words:
        return PRESETS["soft-tissue"] if is_ct else Percentiles()
    name, numbers = words[0].lower().replace("_", "-"), words
    if name in PRESETS and len(words) == 1:
        return PRESETS[name]
    if name == "percentiles":
        if len(words) == 1:
            return Percentiles()
        numbers = words[1:]
    values = [_number(word) for word in numbers]
    if len(values) == 2 and None not in values:
        first, second = (float(value) for value in values if value is not None)
        if name == "percentiles" and 0 <= first < second <= 100:
            return Percentiles(first, second)
        if name != "percentiles" and second > 0:
            return Window(first, second)
    raise UserError(
        f"--window {' '.join(words)} is not a window; give one of {', '.join(PRESETS)}, or a level and a width above "
        f"0 in HU (--window 40 400), or percentiles between 0 and 100 (--window percentiles 1 99)"
    )


def description(choice: Window | Percentiles) -> str:
    """Say in a few words how intensities became grey, for the legend."""
    if isinstance(choice, Percentiles):
        return f"Grey values: percentiles {choice.low:g} to {choice.high:g} of each volume"
    names = [name for name, preset in PRESETS.items() if preset == choice]
    unit = f"Window: level {choice.level:g} HU, width {choice.width:g} HU"
    return f"{unit} ({names[0]})" if names else unit


def _number(word: str) -> float | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return value if np.isfinite(value) else None
