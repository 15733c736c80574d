"""Surface distances: against DeepMind's surface-distance, and against what can be worked out by hand."""

import math

import numpy as np
import pytest
import surface_distance
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from nnunetv2_eccam.evaluation import surfaces
from nnunetv2_eccam.evaluation.surfaces import surface_distances

SPACING = (2.5, 0.7, 1.1)


@st.composite
def two_masks(draw):
    shape = draw(array_shapes(min_dims=3, max_dims=3, min_side=2, max_side=5))
    masks = [draw(arrays(bool, shape, elements=st.booleans())) for _ in range(2)]
    for mask in masks:
        mask[tuple(draw(st.integers(0, length - 1)) for length in shape)] = True
    margin = draw(st.tuples(*[st.tuples(*[st.integers(0, 3)] * 2)] * 3))
    return [np.pad(mask, margin) for mask in masks]


@settings(max_examples=60)
@given(two_masks(), st.sampled_from([(1.0, 1.0, 1.0), SPACING, (0.4, 3.0, 0.8)]), st.floats(0, 4))
def test_equals_deepminds_on_anisotropic_masks(masks, spacing, tolerance):
    theirs = surface_distance.compute_surface_distances(*masks, spacing)
    ours = surface_distances(*masks, spacing)
    for side, name in ((ours.reference, "gt_to_pred"), (ours.prediction, "pred_to_gt")):
        np.testing.assert_allclose(side.distances, theirs[f"distances_{name}"], rtol=1e-5, atol=1e-6)
        assert side.areas.sum() == pytest.approx(theirs[f"surfel_areas_{name[: name.index('_')]}"].sum(), rel=1e-5)
    # Areas are added up in another order: a percentile or a tolerance on an edge may fall to either side.
    near = [surface_distance.compute_robust_hausdorff(theirs, 95 + step) for step in (-1e-3, 0, 1e-3)]
    assert min(near) - 1e-4 <= ours.hausdorff() <= max(near) + 1e-4
    near = [surface_distance.compute_surface_dice_at_tolerance(theirs, tolerance + step) for step in (-1e-4, 0, 1e-4)]
    assert min(near) - 1e-5 <= ours.surface_dice(tolerance) <= max(near) + 1e-5


def test_a_single_slice_is_measured_by_its_contour():
    reference = np.zeros((1, 30, 30), bool)
    reference[0, 5:25, 5:25] = True
    prediction = np.roll(reference, 2, 2)
    distances = surface_distances(reference, prediction, (99.0, 0.5, 1.5))
    # A square's contour, its corners cut: 19 elements of one pixel on each side, and 4 diagonals.
    length = 2 * 19 * (0.5 + 1.5) + 4 * 0.5 * math.hypot(0.5, 1.5)
    assert distances.reference.areas.sum() == pytest.approx(length)
    assert distances.hausdorff(1.0) == pytest.approx(3.0)
    turned = surface_distances(reference.swapaxes(0, 1), prediction.swapaxes(0, 1), (0.5, 99.0, 1.5))
    assert turned.hausdorff() == pytest.approx(distances.hausdorff())


@pytest.mark.parametrize("slab", [1, 50])
def test_slabs_change_nothing(monkeypatch, slab):
    rng = np.random.default_rng(1)
    masks = [rng.random((9, 8, 7)) > 0.6 for _ in range(2)]
    whole = surface_distances(*masks, SPACING)
    monkeypatch.setattr(surfaces, "SLAB_VOXELS", slab)
    parts = surface_distances(*masks, SPACING)
    np.testing.assert_array_equal(parts.reference.distances, whole.reference.distances)
    np.testing.assert_array_equal(parts.prediction.areas, whole.prediction.areas)


def test_a_distance_of_the_tolerance_is_within_it():
    """3 x 0.7 is not 2.1 in floating point."""
    reference = np.zeros((1, 12, 12), bool)
    reference[0, 2:8, 2:8] = True
    distances = surface_distances(reference, np.roll(reference, 3, 1), (1.0, 0.7, 0.7))
    assert distances.surface_dice(2.1) == 1
    assert distances.surface_dice(2.0999) < 1


class TestIgnoredVoxels:
    """The surface at voxels whose truth is unknown is not measured."""

    def setup_method(self):
        self.reference = np.zeros((12, 12, 12), bool)
        self.reference[3:9, 3:9, 3:9] = True
        self.ignored = np.zeros_like(self.reference)
        self.ignored[:, :, 7:] = True
        self.reference &= ~self.ignored

    def test_the_cut_itself_is_not_measured(self):
        everything = surface_distances(self.reference, self.reference, SPACING)
        measured = surface_distances(self.reference, self.reference, SPACING, self.ignored)
        cut = 6 * 6 * SPACING[0] * SPACING[1]
        lost = everything.reference.areas.sum() - measured.reference.areas.sum()
        assert cut * 0.8 < lost < cut * 1.8  # the cut, and the elements beside it that touch ignored voxels

    def test_errors_elsewhere_count(self):
        prediction = self.reference.copy()
        prediction[3] = False
        assert surface_distances(self.reference, prediction, SPACING, self.ignored).hausdorff(1.0) == SPACING[0]

    def test_without_measurable_surface_nothing_is_defined(self):
        reference, ignored = np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool)
        reference[1, 1, 1], ignored[1, 1, 1] = True, False
        distances = surface_distances(reference, reference, SPACING, ignored)
        assert math.isnan(distances.hausdorff())
        assert math.isnan(distances.surface_dice(1))
