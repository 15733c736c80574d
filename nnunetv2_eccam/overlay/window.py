"""From intensities to grey: windows for computed tomography, percentiles for all else; colours stay what they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.volumes import Volume, ending_of

SAMPLED_VOXELS = 2_000_000
"""From how many voxels of a volume its percentiles are taken at most; more change nothing that is seen."""

PRESETS: Mapping[str, tuple[float, float]] = {
    "soft-tissue": (40, 400),  # this one, liver, lung, bone and brain: defaults of the OHIF viewer
    "abdomen": (40, 350),  # 3D Slicer's CT-Abdomen
    "pancreas": (70, 340),  # -100 to 240 HU: Zhou et al., MICCAI 2017, and Yu et al., CVPR 2018, on Pancreas-CT
    "kidney": (112.5, 383),  # -79 to 304 HU: Isensee and Maier-Hein, arXiv 1908.02182, on KiTS19
    "liver": (90, 150),
    "lung": (-600, 1500),
    "bone": (480, 2500),
    "brain": (40, 80),
}
"""Level and width of windows of computed tomography in HU, by what they show."""


class Window(NamedTuple):
    """What becomes black and what white.

    Attributes:
        low: intensity that is black, HU in computed tomography; or a percentile of each volume.
        high: intensity that is white, or a percentile.
        of_volume: both are percentiles, for intensities without a unit, as of MRI.
    """

    low: float
    high: float
    of_volume: bool = False

    @property
    def description(self) -> str:
        """How intensities became grey, for the legend."""
        if self.of_volume:
            return f"Grey values: percentiles {self.low:g} to {self.high:g} of each volume"
        level, width = (self.low + self.high) / 2, self.high - self.low
        name = next((f" ({name})" for name, preset in PRESETS.items() if preset == (level, width)), "")
        return f"Window: level {level:g} HU, width {width:g} HU{name}"

    def within(self, voxels: npt.NDArray[Any]) -> Window:
        """Give the intensities that these are in a volume of any shape; a constant one is black."""
        if not self.of_volume:
            return self
        step = max(1, round((voxels.size / SAMPLED_VOXELS) ** (1 / voxels.ndim)))
        low, high = np.percentile(voxels[(slice(None, None, step),) * voxels.ndim], self[:2])
        return Window(float(low), float(high) if high > low else float(low) + 1)

    def scaled(self, voxels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Give values from 0 (black) to 1 (white), same shape."""
        scaled = (voxels.astype(np.float32) - self.low) / np.float32(self.high - self.low)
        return np.asarray(np.clip(scaled, 0, 1), np.float32)


def parse_window(words: Sequence[str]) -> Window:
    """Read what the user said about the grey values: a preset, a level and a width, or ``percentiles [LOW HIGH]``.

    Raises:
        UserError: the words are none of these.
    """
    name = words[0].lower().replace("_", "-")
    if len(words) == 1 and name in PRESETS:
        level, width = PRESETS[name]
        return Window(level - width / 2, level + width / 2)
    of_volume = name == "percentiles"
    numbers = list(words[1:]) if of_volume else list(words)
    try:
        first, second = (float(word) for word in numbers or (("1", "99") if of_volume else ()))
    except ValueError:  # no numbers, or more or fewer than two
        first = second = float("nan")
    if of_volume and 0 <= first < second <= 100:
        return Window(first, second, of_volume=True)
    if not of_volume and np.isfinite(first) and 0 < second < float("inf"):
        return Window(first - second / 2, first + second / 2)
    raise UserError(
        f"--window {' '.join(words)} is not a window; give one of {', '.join(PRESETS)}, or a level and a width above "
        f"0 in HU (--window 40 400), or percentiles between 0 and 100 (--window percentiles 1 99)"
    )


def shown_voxels(
    image: Volume, channel: int | None, words: Sequence[str] | None, is_ct: bool
) -> tuple[npt.NDArray[Any], Window, str]:
    """Give what is drawn of an image, and how its intensities become grey.

    Args:
        image: the image.
        channel: None: of a photograph its colours, of all else channel 0.
        words: as :func:`parse_window` takes them. None: colours as they are stored; the soft-tissue window of computed
            tomography; else the 1st and the 99th percentile.
        is_ct: the channel is computed tomography. PNG and BMP have no negative numbers, so they hold no HU.

    Returns:
        The voxels, (x, y, z), or (x, y, z, 3) with colours; their window; and a description of it for the legend.

    Raises:
        UserError: there is no such channel.
    """
    number, channels = channel or 0, image.channels
    if image.colour and channel is None and len(channels) >= 3:
        voxels = image.voxels[..., :3]  # the fourth is how opaque a pixel is
        if words is None:
            is_whole = voxels.dtype.kind in "iu"
            white = float(np.iinfo(voxels.dtype).max) if is_whole else max(1.0, float(voxels.max()))
            return voxels, Window(0, white), "Colours as stored"
    elif 0 <= number < len(channels) or len(channels) == 1:
        voxels = channels[number if len(channels) > 1 else 0]
    else:
        raise UserError(f"{image.path} has {len(channels)} channels, counted from 0; there is no channel {channel}")
    if words is None:
        words = ["soft-tissue"] if is_ct and ending_of(image.path) not in (".png", ".bmp") else ["percentiles"]
    window = parse_window(words)
    return voxels, window.within(voxels), window.description
