"""The phantom: what its cases hold, and that its folder is what a download is."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from nnunetv2_eccam.demo.phantom import generate_case, write_phantom

NUMBERS = range(1, 5)


@pytest.fixture(scope="module")
def cases():
    return [generate_case(0, number) for number in NUMBERS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("download") / "Task502_HeartPhantom"
    write_phantom(target, labelled=2, unlabelled=1, seed=5)
    return target


def dice(first, second):
    return 2 * np.sum(first & second) / (np.sum(first) + np.sum(second))


def test_the_same_seed_and_number_give_the_same_voxels(cases):
    again = generate_case(0, 3)
    np.testing.assert_array_equal(again.image, cases[2].image)
    np.testing.assert_array_equal(again.label, cases[2].label)
    assert again.spacing == cases[2].spacing


def test_another_seed_or_number_gives_another_patient(cases):
    assert generate_case(1, 1).spacing != cases[0].spacing
    assert len({case.spacing for case in cases}) == len(cases)
    assert len({case.image.shape for case in cases}) > 2


def test_sizes_and_spacings_make_nnunet_slice_axially(cases):
    for case in cases:
        assert all(90 <= n <= 105 for n in case.image.shape[:2])
        assert 20 <= case.image.shape[2] <= 28
        assert case.spacing[0] == case.spacing[1]
        assert 1.0 <= case.spacing[0] <= 1.4
        assert 2.5 <= case.spacing[2] <= 4.0
        assert case.label.shape == case.image.shape
    assert any(n % 2 for case in cases for n in case.image.shape)


def test_no_threshold_finds_the_atrium(cases):
    for case in cases:
        true = case.label > 0
        best = max(dice(case.image >= level, true) for level in np.unique(case.image)[::3])
        assert best < 0.6


def test_no_connected_bright_piece_is_the_atrium(cases):
    # Even where somebody tells which piece of the smoothed, thresholded image to take.
    for case in cases:
        true = case.label > 0
        smooth = ndimage.gaussian_filter(case.image.astype(float), (1, 1, 0.3))
        best = 0.0
        for level in np.percentile(smooth, np.arange(60, 97, 3)):
            pieces, _ = ndimage.label(smooth >= level)
            largest = np.bincount(pieces[true & (pieces > 0)], minlength=1).argmax()
            best = max(best, dice(pieces == largest, true) if largest else 0.0)
        assert best < 0.85


def test_the_atrium_is_one_body_of_an_atriums_size_inside_the_field_of_view(cases):
    for case in cases:
        pieces, count = ndimage.label(case.label, np.ones((3, 3, 3)))
        assert count == 1 or np.bincount(pieces.ravel())[1:].max() > 0.97 * case.label.sum()
        assert 25 < case.label.sum() * np.prod(case.spacing) / 1000 < 80  # ml
        slices = np.flatnonzero(case.label.any(axis=(0, 1)))
        assert slices[0] > 0
        assert slices[-1] < case.label.shape[2] - 1


def test_the_atrium_lies_in_front_of_the_spine_between_the_lungs(cases):
    for case in cases:
        x, y, _ = (np.asarray(where) for where in np.nonzero(case.label))
        middle = np.array(case.label.shape) / 2
        assert abs(np.mean(x) - middle[0]) * case.spacing[0] < 15
        image = ndimage.gaussian_filter(case.image.astype(float), 1)
        across = image[:, round(np.mean(y)), :].mean(axis=1)
        assert max(across[3], across[-4]) < 0.5 * across.max()


def test_image_noise_is_rician_so_the_lungs_are_dark_but_not_zero(cases):
    for case in cases:
        assert case.image.dtype == np.int16
        assert case.image.min() >= 0
        assert np.percentile(case.image, 2) > 0


def test_the_folder_is_laid_out_as_an_msd_download(folder):
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert found == [
        "dataset.json",
        "imagesTr/._phantom_001.nii.gz",
        "imagesTr/phantom_001.nii.gz",
        "imagesTr/phantom_002.nii.gz",
        "imagesTs/phantom_003.nii.gz",
        "labelsTr/phantom_001.nii.gz",
        "labelsTr/phantom_002.nii.gz",
    ]
    content = json.loads((folder / "dataset.json").read_text())
    assert list(content) == [
        "name",
        "description",
        "tensorImageSize",
        "modality",
        "labels",
        "numTraining",
        "numTest",
        "training",
        "test",
    ]
    assert content["labels"] == {"0": "background", "1": "left atrium"}
    assert content["modality"] == {"0": "MRI"}
    assert (content["numTraining"], content["numTest"]) == (2, 1)
    assert content["training"][1] == {
        "image": "./imagesTr/phantom_002.nii.gz",
        "label": "./labelsTr/phantom_002.nii.gz",
    }
    assert content["test"] == ["./imagesTs/phantom_003.nii.gz"]


def test_headers_are_those_of_the_real_download(folder):
    for part, dtype in (("imagesTr", np.int16), ("labelsTr", np.uint8)):
        header = nibabel.load(folder / part / "phantom_001.nii.gz").header
        assert header.get_data_dtype() == dtype
        assert (int(header["sform_code"]), int(header["qform_code"])) == (2, 0)
        assert np.isnan(header["scl_slope"])
        assert nibabel.aff2axcodes(header.get_sform()) == ("R", "A", "S")


def test_files_hold_the_generated_case_and_simpleitk_agrees_on_its_geometry(folder):
    case = generate_case(5, 2)
    image = nibabel.load(folder / "imagesTr/phantom_002.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), case.image)
    np.testing.assert_allclose(image.header.get_zooms(), case.spacing, rtol=1e-6)
    label = sitk.ReadImage(str(folder / "labelsTr/phantom_002.nii.gz"))
    read = sitk.ReadImage(str(folder / "imagesTr/phantom_002.nii.gz"))
    np.testing.assert_allclose(read.GetSpacing(), case.spacing, rtol=1e-6)
    np.testing.assert_allclose(label.GetOrigin(), read.GetOrigin())
    np.testing.assert_array_equal(sitk.GetArrayFromImage(label), case.label.T)


def test_the_stray_file_is_no_image(folder):
    with pytest.raises(Exception, match=r"not a gzip|Cannot work out"):
        nibabel.load(folder / "imagesTr/._phantom_001.nii.gz").get_fdata()
