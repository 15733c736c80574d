"""The picture of the result: image, reference and prediction of some unseen cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nnunetv2_eccam.demo.results import result_of
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import written_whole

Colour = tuple[float, float, float]
Mask = npt.NDArray[np.bool_]
Grey = npt.NDArray[np.float64]

# Colours that remain distinct to people who cannot tell red from green.
REFERENCE: Colour = (0.94, 0.89, 0.26)
TRUE_POSITIVE: Colour = (0.00, 0.62, 0.45)
FALSE_POSITIVE: Colour = (0.84, 0.37, 0.00)
FALSE_NEGATIVE: Colour = (0.34, 0.71, 0.91)

OPACITY = 0.6
"""How much of a coloured pixel is colour; the rest is the image beneath."""

SIDES = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}
"""Each side of the body and the opposite one."""


class Slice(NamedTuple):
    """One slice, turned for display: rows from top to bottom, columns from left to right.

    Attributes:
        title: what stands above it.
        image: grey values, (rows, columns).
        reference: the true mask, same shape.
        prediction: the predicted mask, same shape.
        aspect: height of a pixel over its width, both in mm.
        sides: letters of the body's side at the left and at the top edge.
    """

    title: str
    image: Grey
    reference: Mask
    prediction: Mask
    aspect: float
    sides: tuple[str, str]


def colour_errors(grey: Grey, reference: Mask, prediction: Mask) -> Grey:
    """Colour hits, false alarms and misses over an image.

    Args:
        grey: values from 0 to 1, (rows, columns).
        reference: the true mask, same shape.
        prediction: the predicted mask, same shape.

    Returns:
        RGB from 0 to 1, (rows, columns, 3).
    """
    picture = np.repeat(grey[..., None], 3, axis=2)
    for mask, colour in ((reference & prediction, TRUE_POSITIVE), (~reference & prediction, FALSE_POSITIVE),
                         (reference & ~prediction, FALSE_NEGATIVE)):
        picture[mask] = (1 - OPACITY) * picture[mask] + OPACITY * np.asarray(colour)
    return picture


def load_slice(case: str, image: Path, reference: Path, prediction: Path) -> Slice:
    """Read a case and give the slice in which the reference is largest.

    Slices are taken across the axis with the largest voxels (in doubt from foot to head), and shown as
    radiologists do: the patient's right at the left edge, front or head at the top.

    Raises:
        UserError: a file is missing or the three differ in shape.
    """
    import nibabel

    volumes = []
    for path in (image, reference, prediction):
        if not path.is_file():
            raise UserError(f"{path} is missing, so {case} cannot be drawn")
        volumes.append(nibabel.as_closest_canonical(nibabel.load(path)))  # axes to the right, front, head
    shapes = {volume.shape for volume in volumes}
    if len(shapes) > 1:
        raise UserError(f"image, reference and prediction of {case} differ in shape: {sorted(shapes)}")
    grey = np.asanyarray(volumes[0].dataobj)
    true, predicted = (np.asanyarray(volume.dataobj) > 0 for volume in volumes[1:])
    spacing = [float(mm) for mm in volumes[0].header.get_zooms()[:3]]
    across = max(range(3), key=lambda axis: (round(spacing[axis], 3), axis))
    shown = [axis for axis in range(3) if axis != across]
    index = int(np.argmax(true.sum(axis=tuple(shown))))

    def turned(volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        # The first axis shown goes from the left edge to the right one: from R to L, or from A to P.
        return np.asarray(np.take(volume, index, axis=across)[::-1, ::-1].T)

    counts = [int(mask.sum()) for mask in (true & predicted, ~true & predicted, true & ~predicted)]
    dice = result_of(case, *counts).dice
    figure = "undefined" if math.isnan(dice) else f"{dice:.3f}"
    return Slice(f"{case}: Dice {figure} in the volume", turned(grey).astype(np.float64), turned(true),
                 turned(predicted), spacing[shown[1]] / spacing[shown[0]],
                 ("RAS"[shown[0]], "RAS"[shown[1]]))


def draw_picture(slices: Sequence[Slice], target: Path) -> None:
    """Draw one row per slice - image, reference, prediction with its errors - into a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    heights = [each.image.shape[0] * each.aspect / each.image.shape[1] for each in slices]
    width = 3.4
    figure = Figure(figsize=(3 * width, width * sum(heights) + 0.4 * len(slices) + 0.6), dpi=110,
                    layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(slices), 3, squeeze=False, gridspec_kw={"height_ratios": heights})
    for row, each in zip(panels, slices, strict=True):
        _draw_row(row, each)
    names: Mapping[str, Colour] = {"reference": REFERENCE, "found (true positive)": TRUE_POSITIVE,
                                   "too much (false positive)": FALSE_POSITIVE,
                                   "missed (false negative)": FALSE_NEGATIVE}
    figure.legend(handles=[Patch(color=colour, label=name) for name, colour in names.items()],
                  loc="outside lower center", ncols=4, fontsize=11, frameon=False)
    with written_whole(target) as partial:
        figure.savefig(partial)


def _draw_row(panels: Sequence[Any], each: Slice) -> None:
    from matplotlib.patheffects import withStroke

    grey = _windowed(each.image)
    plain = np.repeat(grey[..., None], 3, axis=2)
    reference = plain.copy()
    reference[each.reference] = ((1 - OPACITY) * plain + OPACITY * np.asarray(REFERENCE))[each.reference]
    titles = (f"{each.title}\nimage", "reference", "prediction")
    shown = (plain, reference, colour_errors(grey, each.reference, each.prediction))
    for panel, title, pixels in zip(panels, titles, shown, strict=True):
        panel.imshow(pixels, interpolation="nearest", aspect=each.aspect)
        panel.set_title(title, fontsize=12)
        panel.set_axis_off()
    left, top = each.sides
    for x, y, letter, across, along in (
        (0.02, 0.5, left, "left", "center"), (0.98, 0.5, SIDES[left], "right", "center"),
        (0.5, 0.98, top, "center", "top"), (0.5, 0.02, SIDES[top], "center", "bottom"),
    ):
        panels[0].text(x, y, letter, ha=across, va=along, transform=panels[0].transAxes, color="white",
                       fontsize=12, path_effects=[withStroke(linewidth=3, foreground="black")])


def _windowed(image: Grey) -> Grey:
    """Scale grey values to 0-1, so that the brightest and the darkest percent saturate."""
    low, high = np.percentile(image, (1, 99))
    return np.asarray(np.clip((image - low) / max(high - low, 1e-9), 0, 1))
