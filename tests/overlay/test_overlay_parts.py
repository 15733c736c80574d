"""Parts of the pictures: orientation, grey values, the choice of slices, the DSC, the page."""

import itertools
import math
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from stored_volumes import ORIENTATIONS, shown, stored

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.overlay.colours import colour_errors, colour_labels
from nnunetv2_eccam.overlay.command import WINDOW_HELP
from nnunetv2_eccam.overlay.page import MM_PER_INCH, PAGE_WIDTH_MM, Page, fitted, show
from nnunetv2_eccam.overlay.rows import choose_slices, dice, disagreement_scores
from nnunetv2_eccam.overlay.view import PLANES, view_of
from nnunetv2_eccam.overlay.window import PRESETS, Window, parse_window, shown_voxels
from nnunetv2_eccam.volumes import Volume


def volume(shape, affine, **how):
    voxels = shape if isinstance(shape, np.ndarray) else np.zeros(shape, np.uint8)
    return Volume(Path("image.nii.gz"), voxels, np.asarray(affine, float), **how)


@given(st.sampled_from(ORIENTATIONS), st.sampled_from(PLANES), st.tuples(*[st.floats(0.3, 8)] * 3))
def test_every_way_of_storing_a_volume_is_shown_alike(order, plane, spacing):
    body = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    voxels, affine = stored(body, spacing, *order)
    view = view_of(volume(voxels, affine), plane)
    np.testing.assert_array_equal(view.stack(voxels), shown(body, plane))
    left, top = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}[plane]
    assert view.pixel_mm == pytest.approx((spacing[top], spacing[left]))
    assert view.sides == "RAS"[left] + "RAS"[top]
    assert view.oblique_degrees == pytest.approx(0, abs=1e-5)
    # The number is that of the slice along the file's own axis.
    across = PLANES.index(plane)
    file_axis = order[0].index(across)
    for index in range(view.slices):
        along_file = np.take(voxels, view.file_number(index), axis=file_axis)
        assert set(along_file.ravel()) == set(view.stack(voxels)[index].ravel())
        assert view.indices([view.file_number(index)]) == [index]


@given(st.tuples(*[st.floats(-180, 180)] * 3), st.tuples(*[st.floats(0.3, 8)] * 3))
def test_oblique_volumes_are_shown_along_their_closest_axes(angles, spacing):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.diag(spacing)
    voxels = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    closest = nibabel.as_closest_canonical(nibabel.Nifti1Image(voxels, affine))
    view = view_of(volume(voxels, affine), "axial")
    np.testing.assert_array_equal(view.stack(voxels), shown(np.asarray(closest.dataobj), "axial"))
    assert view.pixel_mm == pytest.approx(tuple(closest.header.get_zooms()[1::-1]), rel=1e-5)
    directions = closest.affine[:3, :3] / np.linalg.norm(closest.affine[:3, :3], axis=0)
    expected = max(math.degrees(math.acos(min(1, abs(directions[axis, axis])))) for axis in range(3))
    assert view.oblique_degrees == pytest.approx(expected, abs=1e-3)
    assert ("oblique by up to" in view.description) == (expected >= 1)


@pytest.mark.parametrize(
    ("shape", "spacing", "plane"),
    [
        ((9, 9, 9), (1, 1, 3), "axial"),
        ((9, 9, 9), (1, 3, 1), "coronal"),
        ((9, 9, 9), (3, 1, 1), "sagittal"),
        ((9, 9, 9), (4, 1, 2), "sagittal"),
        ((9, 9, 9), (1, 1, 1), "axial"),
        ((9, 9, 9), (0.98, 0.98, 0.625), "axial"),  # thin-sliced CT: two axes are the largest
        ((9, 9, 9), (1.0, 1.02, 1.0), "axial"),  # hardly larger
        ((9, 1, 9), (1, 1, 5), "coronal"),  # a single slice, whatever its spacing says
        ((1, 9, 9), (1, 1, 1), "sagittal"),
        ((1, 1, 9), (1, 1, 1), "axial"),
    ],
)
def test_slices_are_taken_across_the_largest_voxels_in_doubt_axial(shape, spacing, plane):
    assert view_of(volume(shape, np.diag((*spacing, 1.0)))).plane == plane


def test_a_photograph_is_shown_as_stored_and_without_sides():
    voxels = np.arange(12).reshape(4, 3, 1)  # x to the right, y downwards
    view = view_of(volume(voxels, np.diag([-1.0, -1.0, 1.0, 1.0]), oriented=False), plane="coronal")
    np.testing.assert_array_equal(view.stack(voxels)[0], voxels[..., 0].T)
    assert view.sides == ""
    assert "as stored" in view.description


def test_a_window_is_black_below_and_white_above_and_linear_between():
    values = np.array([[-161.0, -160, -60, 40, 240, 241]])
    np.testing.assert_allclose(parse_window(["40", "400"]).scaled(values)[0], [0, 0, 0.25, 0.5, 1, 1])


def test_windows_are_read_from_words():
    assert parse_window(["-600", "1500"]) == parse_window(["Lung"]) == Window(-1350, 150)
    assert parse_window(["percentiles"]) == Window(1, 99, of_volume=True)
    assert parse_window(["percentiles", "0.5", "99.5"]) == Window(0.5, 99.5, of_volume=True)
    # The ranges of the two presets that are published as ranges.
    assert parse_window(["pancreas"]) == Window(-100, 240)
    assert parse_window(["kidney"]) == Window(-79, 304)
    for name, (level, width) in PRESETS.items():
        assert f"({name})" in parse_window([name.upper().replace("-", "_")]).description
        assert f"{name} ({level:g} {width:g})" in " ".join(WINDOW_HELP.split())


@pytest.mark.parametrize(
    "words",
    [["spleen"], ["40"], ["40", "0"], ["40", "nan"], ["1", "2", "3"], ["percentiles", "99", "1"], ["lung", "3"]],
)
def test_other_windows_are_refused_with_the_names_of_those_there_are(words):
    with pytest.raises(UserError, match=rf"--window {' '.join(words)} is not a window.*pancreas.*--window 40 400"):
        parse_window(words)


def test_percentiles_are_those_of_the_volume():
    voxels = np.random.default_rng(0).normal(size=(20, 30, 40))
    found = Window(2, 90, of_volume=True).within(voxels)
    assert found[:2] == pytest.approx(tuple(np.percentile(voxels, (2, 90))))
    constant = np.full((3, 3, 3), -0.5)
    assert not Window(1, 99, of_volume=True).within(constant).scaled(constant).any()


def test_colours_are_shown_from_0_to_the_largest_number_of_their_type():
    for pixels, expected in (
        (np.array([0, 51, 255], np.uint8), (0, 0.2, 1)), (np.array([0, 13107, 65535], np.uint16), (0, 0.2, 1)),
        (np.array([0.0, 0.2, 0.7]), (0, 0.2, 0.7)),
    ):  # fmt: skip
        photograph = volume(pixels.reshape(1, 1, 1, 3), np.eye(4), colour=True)
        voxels, window, description = shown_voxels(photograph, None, None, is_ct=True)
        np.testing.assert_allclose(window.scaled(voxels).ravel(), expected)
        assert description == "Colours as stored"


def test_disagreement_counts_every_system_that_differs_from_the_reference():
    reference = (np.arange(25).reshape(5, 5) < np.reshape([0, 3, 9, 4, 0], (5, 1, 1))).astype(np.uint8)  # areas
    first, second = reference.copy(), reference.copy()
    first[1] = 0  # 3 pixels
    second[3] = 2 * second[3]  # another label: 4 pixels
    second[1, 0, 0] = 0  # 1 pixel
    assert disagreement_scores(reference, [first, second]).tolist() == [0, 4, 0, 4, 0]
    assert disagreement_scores(None, [first, second]).tolist() == [0, 2, 0, 4, 0]
    assert disagreement_scores(None, [first, second, reference]).tolist() == [0, 3, 0, 4, 0]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=40), st.integers(1, 8))
def test_chosen_slices_are_the_best_and_apart(scores, count):
    scores = np.array(scores)
    chosen = choose_slices(scores, count)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, len(scores))
    assert scores[chosen].max() == scores.max()
    scored = int((scores > 0).sum())
    with_score = [index for index in chosen if scores[index] > 0]
    if scored >= 2 * count:  # enough to choose from: none without a score, and none side by side if they are long
        assert len(with_score) == count
        assert min(np.diff(chosen), default=99) >= (scored // count + 1) // 2
    if not scored and count == 1:
        assert abs(chosen[0] - (len(scores) - 1) / 2) <= 0.5


def test_an_empty_mask_and_a_flat_one_show_the_middle():
    assert choose_slices(np.zeros(9, int), 1) == [4]
    assert choose_slices(np.zeros(9, int), 3) == [3, 4, 5]
    assert choose_slices(np.array([0, 5, 5, 5, 0, 0, 0]), 1) == [2]
    assert choose_slices(np.zeros(1, int), 5) == [0]


@given(st.integers(0, 2**32 - 1), st.sampled_from([None, (1,), (2, 3), (9,)]))
def test_the_dsc_is_that_of_sets(seed, labels):
    rng = np.random.default_rng(seed)
    reference, prediction = rng.integers(0, 4, (2, 3, 4, 2), dtype=np.uint8) * (rng.random((2, 3, 4, 2)) < 0.4)
    figures = []
    for label in labels or range(1, 4):
        true = {tuple(place) for place in np.argwhere(reference == label)}
        predicted = {tuple(place) for place in np.argwhere(prediction == label)}
        if true or predicted:
            figures.append(2 * len(true & predicted) / (len(true) + len(predicted)))
    assert dice(reference, prediction, labels) == (pytest.approx(sum(figures) / len(figures)) if figures else None)


def test_labels_and_errors_have_their_colours_over_the_image():
    grey = np.full((1, 4), 0.5)
    labels = np.array([[0, 1, 2, 9]])
    pixels = colour_labels(grey, labels, {1: (1, 0, 0), 2: (0, 1, 0)}, opacity=0.4)
    np.testing.assert_allclose(pixels[0], [[0.5] * 3, [0.7, 0.3, 0.3], [0.3, 0.7, 0.3], [0.5] * 3])
    photograph = np.broadcast_to((0.2, 0.4, 0.6), (1, 4, 3))
    filled = colour_labels(photograph, labels, {1: (1, 0, 0)}, opacity=0.5)
    np.testing.assert_allclose(filled[0, :2], [(0.2, 0.4, 0.6), (0.6, 0.2, 0.3)])
    errors = colour_errors(grey, np.array([[0, 5, 5, 0]]), np.array([[0, 5, 0, 5]]))
    assert len({tuple(pixel) for pixel in errors[0]}) == 4
    np.testing.assert_allclose(errors[0, 0], 0.5)


def test_panels_keep_their_proportions_and_nothing_overlaps():
    view = view_of(volume((10, 10, 1), np.eye(4)), "axial")
    page = Page(["image", "reference", "a system with a long name"], [1.0, 0.8, 9.0, 0.01], PAGE_WIDTH_MM, 50)
    for panels, height in zip(page.panels, (100, 80, 900, 1), strict=True):
        for panel in panels:
            show(panel, view, np.zeros((height, 100)))
    figure = page.finish(["a note " * 60, "another"])
    figure.draw_without_rendering()
    assert figure.get_figwidth() * MM_PER_INCH == pytest.approx(PAGE_WIDTH_MM)
    boxes = [[panel.get_window_extent() for panel in panels] for panels in page.panels]
    first, second, tall, flat = (row[0] for row in boxes)
    assert first.height / first.width == pytest.approx(1.0, abs=0.02)
    assert second.height / second.width == pytest.approx(0.8, abs=0.02)
    assert first.width == pytest.approx(second.width, rel=0.01)
    assert tall.height == pytest.approx(2 * first.width, rel=0.02)  # and no higher
    assert flat.height < 5
    for upper, lower in itertools.pairwise(boxes):
        assert upper[0].y0 > lower[0].y1
    for left, right in itertools.pairwise(boxes[0]):
        assert left.x1 < right.x0
    titles = [panel.title.get_window_extent() for panel in page.panels[0]]
    assert all(title.y0 > first.y1 for title in titles)
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(titles))
    notes = figure._supxlabel.get_window_extent()
    assert 0 <= notes.y0 < notes.y1 < flat.y0
    assert 0 <= notes.x0 < notes.x1 <= figure.bbox.x1


def test_long_names_are_broken_into_lines_that_fit():
    text = fitted("nnUNetTrainerECCaM__nnUNetPlans__2d", 1.0, 8)
    assert "\n" in text
    assert text.replace("\n", "") == "nnUNetTrainerECCaM__nnUNetPlans__2d"
    assert max(map(len, text.split("\n"))) * 8 * 0.6 <= 72
    assert fitted("U-Net", 1.0, 8) == "U-Net"
