"""The phantom: what its cases hold, and that its folder is what a download is."""

import json

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from nnunetv2_eccam.demo.phantom import generate_case, write_phantom


@pytest.fixture(scope="module")
def cases():
    return [generate_case(0, number) for number in range(1, 4)]


def dice(first, second):
    return 2 * np.sum(first & second) / (np.sum(first) + np.sum(second))


def test_seed_and_number_make_a_patient(cases):
    again = generate_case(0, 3)
    np.testing.assert_array_equal(again.image, cases[2].image)
    np.testing.assert_array_equal(again.label, cases[2].label)
    assert len({case.spacing for case in [*cases, generate_case(1, 1)]}) == 4


def test_sizes_and_spacings_make_nnunet_slice_axially(cases):
    for case in cases:
        assert all(90 <= n <= 105 for n in case.image.shape[:2])
        assert 20 <= case.image.shape[2] <= 28
        assert 1.0 <= case.spacing[0] == case.spacing[1] <= 1.4
        assert 2.5 <= case.spacing[2] <= 4.0
        assert case.label.shape == case.image.shape


def test_neither_a_threshold_nor_a_connected_bright_piece_is_the_atrium(cases):
    """Even where somebody tells which piece of the smoothed, thresholded image to take."""
    for case in cases:
        true = case.label > 0
        assert max(dice(case.image >= level, true) for level in np.unique(case.image)[::5]) < 0.6
        smooth = ndimage.gaussian_filter(case.image.astype(float), (1, 1, 0.3))
        best = 0.0
        for level in np.percentile(smooth, np.arange(60, 97, 4)):
            pieces, _ = ndimage.label(smooth >= level)
            largest = np.bincount(pieces[true & (pieces > 0)], minlength=1).argmax()
            best = max(best, dice(pieces == largest, true) if largest else 0.0)
        assert best < 0.85


def test_the_atrium_is_one_body_of_an_atriums_size_in_the_middle_of_the_field_of_view(cases):
    for case in cases:
        pieces, count = ndimage.label(case.label, np.ones((3, 3, 3)))
        assert count == 1 or np.bincount(pieces.ravel())[1:].max() > 0.97 * case.label.sum()
        assert 25 < case.label.sum() * np.prod(case.spacing) / 1000 < 80  # ml
        x, _, z = np.nonzero(case.label)
        assert 0 < z.min() < z.max() < case.label.shape[2] - 1
        assert abs(x.mean() - case.label.shape[0] / 2) * case.spacing[0] < 15
        assert case.image.dtype == np.int16
        assert np.percentile(case.image, 2) > 0, "noise is Rician: the lungs are dark but not zero"


def test_the_folder_is_laid_out_as_an_msd_download_whose_files_hold_the_cases(tmp_path):
    write_phantom(tmp_path, labelled=2, unlabelled=1, seed=5)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.nii.gz"))
    one, two, three = (f"phantom_00{number}.nii.gz" for number in (1, 2, 3))
    assert found == [f"imagesTr/{one}", f"imagesTr/{two}", f"imagesTs/{three}", f"labelsTr/{one}", f"labelsTr/{two}"]
    content = json.loads((tmp_path / "dataset.json").read_text())
    assert (content["numTraining"], content["numTest"]) == (2, 1)
    assert content["training"][1] == {"image": f"./imagesTr/{two}", "label": f"./labelsTr/{two}"}
    assert content["test"] == [f"./imagesTs/{three}"]
    case = generate_case(5, 2)
    image = nibabel.load(tmp_path / "imagesTr" / two)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), case.image)
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (2, 0)
    assert nibabel.aff2axcodes(image.header.get_sform()) == ("R", "A", "S")
    label, read = (sitk.ReadImage(str(tmp_path / part / two)) for part in ("labelsTr", "imagesTr"))
    np.testing.assert_allclose(read.GetSpacing(), case.spacing, rtol=1e-6)
    np.testing.assert_allclose(label.GetOrigin(), read.GetOrigin())
    np.testing.assert_array_equal(sitk.GetArrayFromImage(label), case.label.T)
