"""KiTS19: slices-first arrays become axial volumes, image and label together."""

from __future__ import annotations

import json
import re
import shutil

import nibabel
import numpy as np
import pytest
from conversion_phantoms import (
    REAL_DATA,
    abdomen,
    every_byte,
    kits_affine,
    load,
    nnunets_complaints,
    read_list,
    save,
    slices_first,
    use_nnunet_folders,
    write_kits,
)
from nnunetv2_eccam.dataset_conversion import kits19
from nnunetv2_eccam.dataset_conversion.kits19 import convert_kits19

from nnunetv2_eccam.errors import UserError


@pytest.fixture
def raw(tmp_path, monkeypatch):
    return use_nnunet_folders(tmp_path, monkeypatch)


@pytest.fixture
def kits(tmp_path):
    return write_kits(tmp_path / "kits19")


def quietly(source, **options):
    return convert_kits19(source, processes=1, progress=False, **options)


def report_of(folder):
    return json.loads((folder / "conversion_report.json").read_text())


def test_slices_first_arrays_become_axial_volumes(kits, raw, capsys):
    folder = quietly(kits, labels="apart").folder

    assert folder == raw / "Dataset219_KiTS19"
    image, label = abdomen(seed=1)  # x to the left, y to the back; RAS is the reverse of both
    assert np.array_equal(load(folder / "imagesTr/case_00001_0000.nii.gz"), image[::-1, ::-1])
    assert np.array_equal(load(folder / "labelsTr/case_00001.nii.gz"), label[::-1, ::-1])
    assert nnunets_complaints(folder, capsys) == ""
    slicing = report_of(folder)["slicing"]
    assert (slicing["axis"], slicing["plane"], slicing["is_acquired_plane"]) == ("z", "axial", True)


def test_the_result_is_nibabels_closest_canonical(kits, raw):
    folder = quietly(kits, labels="apart").folder

    for source, published in (
        ("imaging.nii.gz", "imagesTr/case_00000_0000.nii.gz"),
        ("segmentation.nii.gz", "labelsTr/case_00000.nii.gz"),
    ):
        expected = nibabel.as_closest_canonical(nibabel.load(kits / "data/case_00000" / source))
        found = nibabel.load(folder / published)
        assert np.array_equal(np.asanyarray(found.dataobj), np.asanyarray(expected.dataobj))
        assert np.allclose(found.affine, expected.affine)
        assert np.allclose(found.get_qform(), expected.affine, atol=1e-4)


def test_labels_of_any_integer_type_are_published_as_uint8(kits, raw):
    folder = quietly(kits).folder

    assert {load(path).dtype.name for path in (folder / "labelsTr").iterdir()} == {"uint8"}
    assert {load(path).dtype.name for path in (folder / "imagesTr").iterdir()} == {"int16"}


@pytest.mark.parametrize(
    ("policy", "labels", "lesion"),
    [
        (None, {"background": 0, "kidney": 1}, 1),
        ("apart", {"background": 0, "kidney": 1, "tumor": 2}, 2),
        ("regions", {"background": 0, "kidney": [1, 2], "tumor": [2]}, 2),
    ],
)
def test_label_policies(kits, raw, capsys, policy, labels, lesion):
    folder = quietly(kits, labels=policy).folder

    assert read_list(folder)["labels"] == labels
    _, source = abdomen(seed=2)
    published = load(folder / "labelsTr/case_00002.nii.gz")[::-1, ::-1]
    assert np.all(published[source == 2] == lesion)
    assert np.all(published[source == 1] == 1)
    assert nnunets_complaints(folder, capsys) == ""


def test_rows_and_columns_of_different_length_keep_their_places(tmp_path, raw):
    image, label = abdomen(size=(52, 34, 18))
    case = tmp_path / "kits19/data/case_00160"
    save(case / "imaging.nii.gz", slices_first(image), kits_affine())
    save(case / "segmentation.nii.gz", slices_first(label).astype(np.uint8), kits_affine())

    folder = quietly(tmp_path / "kits19").folder

    assert np.array_equal(load(folder / "imagesTr/case_00160_0000.nii.gz"), image[::-1, ::-1])
    assert report_of(folder)["cases"][0]["source_size"] == [18, 34, 52]


def test_cases_without_a_label_are_skipped_and_said(kits, raw):
    folder = quietly(kits).folder

    assert read_list(folder)["numTraining"] == 3
    assert report_of(folder)["left_out"] == {"case_00003": "no segmentation.nii.gz"}
    assert not list(folder.rglob("case_00003*"))


def test_a_label_without_its_image_is_an_error_that_says_how_to_fetch_it(kits, raw):
    (kits / "data/case_00001/imaging.nii.gz").unlink()
    with pytest.raises(UserError, match=r"case_00001/imaging\.nii\.gz is missing.*get_imaging"):
        quietly(kits)
    assert quietly(kits, leave_out=("case_00001",)).cases == 2


def test_a_clone_without_any_image_is_one_error(kits, raw):
    for image in kits.rglob("imaging.nii.gz"):
        image.unlink()
    with pytest.raises(UserError, match=r"case_00000/imaging\.nii\.gz and the images of all other"):
        quietly(kits)


@pytest.mark.parametrize("wrong", ["data", "data/case_00000", ".."])
def test_a_wrong_folder_is_answered_with_the_right_one(kits, raw, wrong):
    with pytest.raises(UserError, match=rf"give {kits}$"):
        quietly(kits / wrong)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("segmentation.nii.gz", lambda a: a[:-1], "are they of the same case"),
        ("segmentation.nii.gz", lambda a: np.where(a == 2, 3, a).astype(np.uint8), r"label value 3 "),
        ("segmentation.nii.gz", lambda a: np.roll(a, 17, 1), "are air"),
        ("imaging.nii.gz", lambda a: np.where(a > 500, np.nan, a), "NaN"),
        ("imaging.nii.gz", lambda a: np.stack([a, a], -1), "4 dimensions"),
    ],
)
def test_bad_input_is_named(kits, raw, file, change, message):
    path = kits / "data/case_00002" / file
    save(path, change(load(path)), kits_affine())

    with pytest.raises(UserError, match=message) as caught:
        quietly(kits)

    assert f"case_00002/{file}" in str(caught.value)
    assert not (raw / "Dataset219_KiTS19").exists()


def test_image_and_label_with_different_headers_are_refused(kits, raw):
    path = kits / "data/case_00002/segmentation.nii.gz"
    affine = kits_affine()
    affine[2, 0] *= -1
    save(path, load(path), affine)
    with pytest.raises(UserError, match="does not lie on its image"):
        quietly(kits)


def test_slices_closer_than_pixels_are_pointed_out(tmp_path, raw):
    for index, slice_spacing in enumerate((0.5, 3.0, 3.0)):
        image, label = abdomen(seed=index)
        case = tmp_path / f"kits19/data/case_{index:05d}"
        save(case / "imaging.nii.gz", slices_first(image), kits_affine(slice_spacing))
        save(case / "segmentation.nii.gz", slices_first(label), kits_affine(slice_spacing))

    warnings = quietly(tmp_path / "kits19").warnings

    assert any(re.search(r"1 of 3 cases have slices closer together .*: case_00000$", line) for line in warnings)


def test_slicing_across_the_acquired_slices_is_a_warning(tmp_path, raw):
    image, label = abdomen()
    case = tmp_path / "kits19/data/case_00000"
    save(case / "imaging.nii.gz", slices_first(image), kits_affine(slice_spacing=0.5))
    save(case / "segmentation.nii.gz", slices_first(label), kits_affine(slice_spacing=0.5))

    outcome = quietly(tmp_path / "kits19")

    assert any("will slice along y (coronal slices)" in line for line in outcome.warnings)
    assert report_of(outcome.folder)["slicing"]["is_acquired_plane"] is False


def test_paper_split_counts(kits, raw, monkeypatch):
    monkeypatch.setattr(kits19, "PAPER_COUNTS", {3: (1, 1, 1)})

    folder = quietly(kits, split="paper").folder

    (fold,) = json.loads((folder / "splits_final.json").read_text())
    assert (len(fold["train"]), len(fold["val"]), len(list((folder / "labelsTs").iterdir()))) == (1, 1, 1)


def test_output_is_the_same_to_the_byte(kits, raw):
    first = every_byte(quietly(kits).folder)
    assert quietly(kits).status == "already converted"
    shutil.rmtree(raw / "Dataset219_KiTS19")
    assert every_byte(quietly(kits).folder) == first


@pytest.mark.real_data
@pytest.mark.skipif(not (REAL_DATA / "kits19").is_dir(), reason="the real label is not here")
def test_a_real_label_file_is_read_right(tmp_path, raw):
    file = REAL_DATA / "kits19/data/case_00004/segmentation.nii.gz"
    case = tmp_path / "kits19/data/case_00004"
    case.mkdir(parents=True)
    shutil.copyfile(file, case / "segmentation.nii.gz")
    real = nibabel.load(file)
    label = np.asanyarray(real.dataobj)
    save(case / "imaging.nii.gz", np.where(label, 130, -80).astype(np.int16), real.affine)

    folder = quietly(tmp_path / "kits19", labels="apart").folder

    published = load(folder / "labelsTr/case_00004.nii.gz")
    assert published.shape == (512, 512, 64)
    # Array (slice to the feet, row to the back, column to the left) to (right, front, head).
    assert np.array_equal(published, label[::-1, ::-1, ::-1].transpose(2, 1, 0))
    entry = report_of(folder)["cases"][0]
    assert entry["source_orientation"] == "IPL"
    assert np.allclose(entry["spacing"], [0.9765625, 0.9765625, 4.0])
    assert report_of(folder)["slicing"]["plane"] == "axial"


@pytest.mark.real_data
@pytest.mark.skipif(not (REAL_DATA / "ct_abdomen").is_dir(), reason="the real CT is not here")
def test_a_real_ct_in_the_layout_of_kits19_converts_back(tmp_path, raw, capsys):
    image = load(REAL_DATA / "ct_abdomen/ct.nii.gz")  # RAS
    organs = load(REAL_DATA / "ct_abdomen/organs.nii.gz")
    kidneys = np.isin(organs, (2, 3)).astype(np.uint8)
    case = tmp_path / "kits19/data/case_00000"
    save(case / "imaging.nii.gz", slices_first(image[::-1, ::-1]), kits_affine(3.0, 3.0))
    save(case / "segmentation.nii.gz", slices_first(kidneys[::-1, ::-1]), kits_affine(3.0, 3.0))

    folder = quietly(tmp_path / "kits19").folder

    assert np.array_equal(load(folder / "imagesTr/case_00000_0000.nii.gz"), image)
    assert np.array_equal(load(folder / "labelsTr/case_00000.nii.gz"), kidneys)
    assert nnunets_complaints(folder, capsys) == ""
