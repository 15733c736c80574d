"""The slices of a case on which heat maps are drawn: chosen, turned and windowed. The rest of the volumes is let go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.pictures.colours import Labels
from nnunetv2_eccam.pictures.orientation import PLANES, View
from nnunetv2_eccam.pictures.slices import area_scores, choose_slices
from nnunetv2_eccam.pictures.volume_files import Volume
from nnunetv2_eccam.pictures.window import Percentiles, Window

CENTRAL = 0.8
"""Share of the slices among which some are chosen evenly, where nothing says which are of interest."""


@dataclass
class HeatRows:
    """Slices of one case, turned for display: (slices, rows, columns) from the top left.

    Attributes:
        view: how they are looked at.
        indices: of the slices in the view's stack.
        grey: the image, from 0 to 1.
        reference: the true labels, or None.
        mark: row and column of the point from which maps are seen, in the only slice, or None.
        heat: the slices of each map, by the column's title.
        seen: where the image is not empty; the colours' range is taken there.
    """

    view: View
    indices: list[int]
    grey: npt.NDArray[np.float32]
    reference: Labels | None
    mark: tuple[int, int] | None
    seen: npt.NDArray[np.bool_]
    heat: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    @property
    def numbers(self) -> list[int]:
        """The slices' numbers along the file's axis, from 0."""
        return [self.view.file_number(index) for index in self.indices]

    def add(self, title: str, voxels: npt.NDArray[np.float32]) -> None:
        """Keep the slices of a map, (x, y, z) in the file's voxels, as a column."""
        self.heat[title] = self.view.stack(voxels)[self.indices].copy()


def rows_of_image(
    image: Volume,
    view: View,
    window: Window | Percentiles,
    reference: Volume | None = None,
    point: Sequence[int] | None = None,
    numbers: Sequence[int] | None = None,
    count: int = 3,
) -> HeatRows:
    """Choose the slices that are drawn and cut them out.

    Args:
        image: the image.
        view: how it is looked at.
        window: how intensities become grey.
        reference: the true mask, on the image's grid.
        point: voxel (x, y, z) of the file, which decides for its slice.
        numbers: slices' numbers along the file's axis, from 0.
        count: how many slices, where neither point nor numbers decide: those where the reference is largest, or
            evenly spread ones.

    Raises:
        UserError: a number is not that of a slice.
    """
    stack = None if reference is None else view.stack(reference.voxels)
    place = None if point is None else _shown_at(view, point, image.voxels.shape)
    if numbers is not None:
        wrong = [number for number in numbers if not 0 <= number < view.slices]
        if wrong:
            raise UserError(
                f"{image.path} has the {view.plane} slices 0 to {view.slices - 1}; there is no slice "
                f"{', '.join(map(str, wrong))}"
            )
        indices = [view.file_number(number) for number in numbers]
    elif place is not None:
        indices = [place[0]]
    elif stack is not None and stack.any():
        indices = choose_slices(area_scores([stack]), count)
    else:
        indices = _spread(view.slices, count)
    chosen = window.window(image.voxels) if isinstance(window, Percentiles) else window
    shown = view.stack(image.voxels)[indices]
    return HeatRows(
        view,
        indices,
        chosen.scaled(shown),
        None if stack is None else stack[indices].copy(),
        place[1:] if place is not None and indices == [place[0]] else None,
        np.asarray(shown != 0),
    )


def _spread(slices: int, count: int) -> list[int]:
    margin = (1 - CENTRAL) / 2 * (slices - 1)
    places: Any = np.linspace(margin, slices - 1 - margin, count) if count > 1 else [(slices - 1) / 2]
    return sorted({round(float(place)) for place in places})


def _shown_at(view: View, point: Sequence[int], shape: Sequence[int]) -> tuple[int, int, int]:
    """Give a voxel's slice, row and column in the view's stack."""
    body = [
        shape[axis] - 1 - point[axis] if turned else point[axis]
        for axis, turned in zip(view.file_axes, view.reversed_axes, strict=True)
    ]
    lengths = [shape[axis] for axis in view.file_axes]
    across = PLANES.index(view.plane)
    left, top = (axis for axis in range(3) if axis != across)
    return body[across], lengths[top] - 1 - body[top], lengths[left] - 1 - body[left]
