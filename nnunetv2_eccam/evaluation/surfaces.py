"""Distances between two masks' surfaces: 95% Hausdorff distance and normalised surface Dice.

A mask's surface is taken as Nikolov et al. define it (Clinically applicable segmentation of head and neck
anatomy for radiotherapy, Journal of Medical Internet Research 23(7), 2021): wherever eight neighbouring voxels
are neither all inside nor all outside there is a surface element, at the corner that they share, with the area
that marching cubes gives it for the voxels' spacing. So distances are weighted by area; counting boundary voxels
weighs them wrongly, most of all with anisotropic spacing. The elements and their areas are MONAI's
(``monai.metrics.get_mask_edges``, which takes the table of areas from the authors' ``surface-distance``), and so
are the distances (``get_surface_distance``). Beyond the image there is no structure: where one touches the
image's border, its surface is there.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from monai.metrics import get_mask_edges, get_surface_distance
from scipy.ndimage import maximum_filter

from nnunetv2_eccam.evaluation.case_scores import Mask

ROUNDING = 1e-6
"""Areas and distances are of single precision: what is closer than this fraction counts as equal."""

SLAB_VOXELS = 4_000_000
"""How much of a volume is searched for surface elements at once. MONAI needs some 40 bytes a voxel for it."""


@dataclass(frozen=True)
class OneSided:
    """The elements of one surface, from the closest to the other surface to the farthest.

    Attributes:
        distances: of each element to the other surface, ascending, in the spacing's unit (mm, or pixels).
        areas: of each element, in its square; of contours in the plane, their lengths.
    """

    distances: npt.NDArray[np.float64]
    areas: npt.NDArray[np.float64]

    def percentile(self, fraction: float) -> float:
        """Give the smallest distance within which this fraction of the surface lies; NaN without surface."""
        if not len(self.areas):
            return math.nan
        reached = np.cumsum(self.areas)
        place = int(np.searchsorted(reached, fraction * reached[-1] * (1 - ROUNDING)))
        return float(self.distances[min(place, len(self.distances) - 1)])

    def area_within(self, tolerance: float) -> float:
        """Sum the area of the elements whose distance is at most this."""
        return float(self.areas[self.distances <= tolerance * (1 + ROUNDING)].sum())


@dataclass(frozen=True)
class SurfaceDistances:
    """Two surfaces, each seen from the other.

    Attributes:
        reference: the reference's elements, by their distance to the prediction's surface.
        prediction: the prediction's, by their distance to the reference's.
    """

    reference: OneSided
    prediction: OneSided

    def hausdorff(self, fraction: float = 0.95) -> float:
        """Give the robust Hausdorff distance: the larger one of the two sides' percentiles.

        NaN where either side has no surface to measure.
        """
        return float(np.max([self.reference.percentile(fraction), self.prediction.percentile(fraction)]))

    def surface_dice(self, tolerance: float) -> float:
        """Give the part of both surfaces' area that is at most ``tolerance`` from the other surface.

        NaN where neither side has surface to measure.
        """
        area = float(self.reference.areas.sum() + self.prediction.areas.sum())
        within = self.reference.area_within(tolerance) + self.prediction.area_within(tolerance)
        return within / area if area else math.nan


def surface_distances(
    reference: Mask, prediction: Mask, spacing: tuple[float, float, float], ignored: Mask | None = None
) -> SurfaceDistances:
    """Measure two masks' surfaces against each other.

    A volume of a single slice is measured in its plane: by contours and their lengths, without the two faces.

    Args:
        reference: ``(z, y, x)``, not empty.
        prediction: of the same shape, not empty.
        spacing: z, y, x, in mm, or pixels.
        ignored: voxels that count for nothing, and in which neither mask may have any. Elements that touch one
            are not measured: whether there is a surface is not known. They still count as the other mask's
            nearest, so that a prediction that goes on into the ignored part is not punished for it.
    """
    masks = [reference, prediction] + ([] if ignored is None else [ignored])
    single = [axis for axis, length in enumerate(reference.shape) if length == 1]
    kept = tuple(axis for axis in range(3) if axis not in single[:1])
    mm = tuple(float(spacing[axis]) for axis in kept)
    boxed = _with_margin([mask.squeeze(single[0]) if single else mask for mask in masks])
    of_reference, of_prediction = _elements(boxed[0], boxed[1], mm)
    known: Mask = np.ones_like(of_reference[0])
    if ignored is not None:  # no voxel around the element is
        known = ~maximum_filter(boxed[2], size=2)[(slice(1, None),) * len(mm)]
    return SurfaceDistances(
        _one_sided(*of_reference, of_prediction[0], known, mm), _one_sided(*of_prediction, of_reference[0], known, mm)
    )


def _with_margin(masks: list[Mask]) -> list[Mask]:
    """Cut masks to the box around the first two, and one voxel around that, also beyond the image."""
    union = masks[0] | masks[1]
    axes = range(union.ndim)
    filled = [np.flatnonzero(union.any(axis=tuple(other for other in axes if other != axis))) for axis in axes]
    low, high = [int(each[0]) - 1 for each in filled], [int(each[-1]) + 2 for each in filled]
    inside = tuple(slice(max(a, 0), min(b, n)) for a, b, n in zip(low, high, union.shape, strict=True))
    beyond = [(max(-a, 0), max(b - n, 0)) for a, b, n in zip(low, high, union.shape, strict=True)]
    return [np.pad(mask[inside], beyond) for mask in masks]


def _elements(first: Mask, second: Mask, mm: tuple[float, ...]) -> list[tuple[Mask, npt.NDArray[np.float64]]]:
    """Find both masks' surface elements, a slab at a time: where they are, and their areas in that order.

    Each array of places is one shorter than the mask along each axis; place i lies between voxels i and i + 1.
    """
    places: list[list[Mask]] = [[], []]
    areas: list[list[npt.NDArray[np.float64]]] = [[], []]
    step = max(1, SLAB_VOXELS * len(first) // first.size)
    for start in range(0, len(first) - 1, step):
        slabs = (torch.from_numpy(np.ascontiguousarray(mask[start : start + step + 1])) for mask in (first, second))
        found = get_mask_edges(*slabs, crop=False, spacing=mm)
        for which in range(2):
            places[which].append(np.asarray(found[which], bool))
            areas[which].append(np.asarray(found[which + 2], np.float64)[places[which][-1]])
    return [(np.concatenate(places[which]), np.concatenate(areas[which])) for which in range(2)]


def _one_sided(
    places: Mask, areas: npt.NDArray[np.float64], others: Mask, known: Mask, mm: tuple[float, ...]
) -> OneSided:
    """Measure those of a surface's elements that are known against the other surface's."""
    measured, distances = places & known, np.zeros(0)
    if measured.any():
        distances = np.asarray(get_surface_distance(measured, others, "euclidean", mm), np.float64)
    order = np.argsort(distances, kind="stable")
    return OneSided(distances[order], areas[measured[places]][order])
