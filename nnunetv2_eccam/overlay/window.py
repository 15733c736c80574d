"""From intensities to grey: windows for computed tomography, percentiles for all else; colours stay what they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.volumes import Volume

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

    @property
    def description(self) -> str:
        """How intensities became grey, for the legend."""
        name = next((f" ({name})" for name, preset in PRESETS.items() if preset == self), "")
        return f"Window: level {self.level:g} HU, width {self.width:g} HU{name}"

    def window(self, _voxels: npt.NDArray[Any]) -> Window:
        """Give the window of a volume: this one."""
        return self

    def scaled(self, voxels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Give values from 0 (black) to 1 (white), same shape."""
        low = self.level - self.width / 2
        scaled = (voxels.astype(np.float32) - low) / np.float32(max(self.width, 1e-9))
        return np.asarray(np.clip(scaled, 0, 1), np.float32)


class Percentiles(NamedTuple):
    """The window between two percentiles of a volume, for intensities without a unit, as of MRI."""

    low: float = 1.0
    high: float = 99.0

    @property
    def description(self) -> str:
        """How intensities became grey, for the legend."""
        return f"Grey values: percentiles {self.low:g} to {self.high:g} of each volume"

    def window(self, voxels: npt.NDArray[Any]) -> Window:
        """Find the window of a volume of any shape; of a constant one, everything is black."""
        step = max(1, round((voxels.size / SAMPLED_VOXELS) ** (1 / voxels.ndim)))
        sample = voxels[(slice(None, None, step),) * voxels.ndim]
        low, high = (float(value) for value in np.percentile(sample, (self.low, self.high)))
        return Window((low + high) / 2, high - low) if high > low else Window(low + 0.5, 1.0)


class AsStored(NamedTuple):
    """A photograph's colours, from 0 to the largest number of their type."""

    @property
    def description(self) -> str:
        """How intensities became colours, for the legend."""
        return "Colours as stored"

    def window(self, voxels: npt.NDArray[Any]) -> Window:
        """Give the window of the type's whole range; of fractions, from 0 to 1 or their maximum."""
        whole = float(np.iinfo(voxels.dtype).max) if voxels.dtype.kind in "iu" else max(1.0, float(voxels.max()))
        return Window(whole / 2, whole)


Choice = Window | Percentiles | AsStored

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


def parse_window(words: Sequence[str] | None, is_ct: bool = False) -> Window | Percentiles:
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
    name = words[0].lower().replace("_", "-")
    if len(words) == 1 and (name in PRESETS or name == "percentiles"):
        return PRESETS.get(name, Percentiles())
    try:
        first, second = (float(word) for word in (words[1:] if name == "percentiles" else words))
    except ValueError:  # no numbers, or more or fewer than two
        first = second = float("nan")
    if name == "percentiles" and 0 <= first < second <= 100:
        return Percentiles(first, second)
    if name != "percentiles" and np.isfinite(first) and 0 < second < float("inf"):
        return Window(first, second)
    raise UserError(
        f"--window {' '.join(words)} is not a window; give one of {', '.join(PRESETS)}, or a level and a width above "
        f"0 in HU (--window 40 400), or percentiles between 0 and 100 (--window percentiles 1 99)"
    )


def shown_voxels(image: Volume, channel: int | None) -> npt.NDArray[Any]:
    """Give what is drawn of an image: a channel, (x, y, z), or if none is chosen a photograph's colours, (x, y, z, 3).

    Raises:
        UserError: there is no such channel.
    """
    channels = image.channels
    if channel is None and image.colour and len(channels) >= 3:
        return image.voxels[..., :3]  # the fourth is how opaque a pixel is
    if len(channels) == 1:
        return channels[0]
    if (channel or 0) >= len(channels):
        raise UserError(f"{image.path} has {len(channels)} channels, counted from 0; there is no channel {channel}")
    return channels[channel or 0]
