"""The Decathlon converter: layout, labels, channels, splits, and every kind of bad input."""

from __future__ import annotations

import argparse
import errno
import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from conversion_phantoms import (
    AXIAL,
    REAL_DATA,
    abdomen,
    load,
    nnunets_complaints,
    read_list,
    save,
    use_nnunet_folders,
    write_list,
    write_task,
)
from nnunetv2_eccam.dataset_conversion import command, msd, placing
from nnunetv2_eccam.dataset_conversion.msd import convert_msd

from nnunetv2_eccam.errors import UserError


@pytest.fixture
def raw(tmp_path, monkeypatch):
    return use_nnunet_folders(tmp_path, monkeypatch)


@pytest.fixture
def heart(tmp_path):
    return write_task(tmp_path / "Task02_Heart", labels=("left atrium",), modality=("MRI",), prefix="la")


@pytest.fixture
def pancreas(tmp_path):
    return write_task(tmp_path / "Task07_Pancreas")


def quietly(source, **options):
    return convert_msd(source, processes=1, progress=False, **options)


def run_command(*words) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    arguments = parser.parse_args([str(word) for word in words])
    return command.run(arguments)


def test_heart_becomes_a_data_set_that_nnunet_accepts(heart, raw, capsys):
    outcome = quietly(heart, task="msd-heart")

    assert outcome.folder == raw / "Dataset002_Heart"
    assert sorted(path.name for path in (outcome.folder / "imagesTr").iterdir()) == [
        f"la_00{number}_0000.nii.gz" for number in range(1, 5)
    ]
    assert sorted(path.name for path in (outcome.folder / "imagesTs").iterdir()) == [
        "la_005_0000.nii.gz",
        "la_006_0000.nii.gz",
    ]
    content = read_list(outcome.folder)
    assert content["channel_names"] == {"0": "MRI"}
    assert content["labels"] == {"background": 0, "left atrium": 1}
    assert content["numTraining"] == 4
    assert content["converted_by"].startswith("nnunetv2-eccam ")
    assert "Decathlon" in content["citation"][0]
    assert nnunets_complaints(outcome.folder, capsys) == ""


def test_unchanged_files_are_hard_links(heart, raw):
    folder = quietly(heart).folder

    assert (folder / "imagesTr/la_001_0000.nii.gz").samefile(heart / "imagesTr/la_001.nii.gz")
    assert (folder / "labelsTr/la_001.nii.gz").samefile(heart / "labelsTr/la_001.nii.gz")


def test_files_are_copied_where_they_cannot_be_linked(heart, raw, monkeypatch):
    def no_link(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(placing.os, "link", no_link)

    published = quietly(heart).folder / "imagesTr/la_001_0000.nii.gz"

    assert not published.samefile(heart / "imagesTr/la_001.nii.gz")
    assert published.read_bytes() == (heart / "imagesTr/la_001.nii.gz").read_bytes()


@pytest.mark.parametrize(
    ("policy", "labels", "values"),
    [
        ("merged", {"background": 0, "pancreas": 1}, [0, 1]),
        ("apart", {"background": 0, "pancreas": 1, "cancer": 2}, [0, 1, 2]),
        ("regions", {"background": 0, "pancreas": [1, 2], "cancer": [2]}, [0, 1, 2]),
    ],
)
def test_label_policies_of_an_organ_with_a_lesion(pancreas, raw, capsys, policy, labels, values):
    folder = quietly(pancreas, labels=policy).folder

    assert read_list(folder)["labels"] == labels
    source, published = load(pancreas / "labelsTr/p_002.nii.gz"), load(folder / "labelsTr/p_002.nii.gz")
    assert np.unique(published).tolist() == values
    assert np.array_equal(published != 0, source != 0)
    assert nnunets_complaints(folder, capsys) == ""


def test_pancreas_is_merged_unless_asked_otherwise(pancreas, raw):
    assert read_list(quietly(pancreas).folder)["labels"] == {"background": 0, "pancreas": 1}


def test_regions_are_refused_where_no_lesion_lies_in_an_organ(heart, raw):
    with pytest.raises(UserError, match="organ with a lesion"):
        quietly(heart, labels="regions")


def test_modalities_in_the_fourth_dimension_become_channels(tmp_path, raw, capsys):
    source = write_task(tmp_path / "Task05_Prostate", labels=("PZ", "TZ"), modality=("T2", "ADC"))

    folder = quietly(source).folder

    assert folder.name == "Dataset005_Prostate"
    image = load(source / "imagesTr/p_003.nii.gz")
    for channel in (0, 1):
        assert np.array_equal(load(folder / f"imagesTr/p_003_000{channel}.nii.gz"), image[..., channel])
    assert nnunets_complaints(folder, capsys) == ""


def test_paper_split_holds_test_cases_out_and_fixes_the_fold(pancreas, raw, monkeypatch):
    known = msd.TASKS["msd-pancreas"]
    fewer = msd.KnownTask(known.card, known.labels, known.default_labels, known.organ, {4: (2, 1, 1)})
    monkeypatch.setitem(msd.TASKS, "msd-pancreas", fewer)

    folder = quietly(pancreas, split="paper").folder

    (fold,) = __import__("json").loads((folder / "splits_final.json").read_text())
    test = [path.name[:-7] for path in (folder / "labelsTs").iterdir()]
    assert (len(fold["train"]), len(fold["val"]), len(test)) == (2, 1, 1)
    assert sorted(fold["train"] + fold["val"] + test) == ["p_001", "p_002", "p_003", "p_004"]
    assert [path.name for path in (folder / "imagesTs").iterdir()] == [f"{test[0]}_0000.nii.gz"]
    assert "unlabelled cases are left out" in (folder / "conversion_report.md").read_text()


def test_paper_split_of_an_incomplete_download_is_refused(pancreas, raw):
    with pytest.raises(UserError, match="281 labelled cases; found 4"):
        quietly(pancreas, split="paper")


def test_heart_has_no_paper_split_and_says_why(heart, raw):
    with pytest.raises(UserError, match="cross-validates its 20 cases"):
        quietly(heart, split="paper")


def test_held_out_cases_leave_the_training_folder(heart, raw):
    folder = quietly(heart, hold_out=1).folder

    (test,) = (folder / "labelsTs").iterdir()
    assert [path.name for path in (folder / "imagesTs").iterdir()] == [test.name.replace(".nii.gz", "_0000.nii.gz")]
    assert read_list(folder)["numTraining"] == 3
    assert not (folder / "imagesTr" / test.name.replace(".nii.gz", "_0000.nii.gz")).exists()
    assert not (folder / "splits_final.json").exists()


def test_a_case_can_be_left_out(heart, raw):
    folder = quietly(heart, leave_out=("la_002",)).folder

    assert read_list(folder)["numTraining"] == 3
    assert not list(folder.rglob("la_002*"))


def overwrite_label(folder: Path, change) -> Path:
    path = folder / "labelsTr/la_002.nii.gz"
    return save(path, change(load(path)))


def damage_json(folder: Path, **changes) -> Path:
    write_list(folder, {**read_list(folder), **changes})
    return folder / "dataset.json"


def rewrite(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def flip_a_byte(path: Path) -> Path:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    return rewrite(path, bytes(content))


def save_sheared(path: Path) -> Path:
    affine = AXIAL.copy()
    affine[1, 2] = 1.5
    return save(path, load(path), affine)


IMAGE = "imagesTr/la_002.nii.gz"
BAD_INPUT = {
    "not a NIfTI": (lambda f: rewrite(f / IMAGE, gzip.compress(b"hello" * 200)), "not a NIfTI image"),
    "not gzip": (lambda f: rewrite(f / IMAGE, b"hello" * 200), "not a gzip-compressed"),
    "empty file": (lambda f: rewrite(f / IMAGE, b""), "is empty"),
    "truncated gzip": (lambda f: rewrite(f / IMAGE, (f / IMAGE).read_bytes()[:-2000]), "truncated"),
    "header only": (
        lambda f: rewrite(f / IMAGE, gzip.compress(gzip.decompress((f / IMAGE).read_bytes())[:900])),
        "truncated",
    ),
    "damaged gzip": (lambda f: flip_a_byte(f / IMAGE), "damaged"),
    "4D where 3D belongs": (lambda f: save(f / IMAGE, np.stack([abdomen()[0]] * 2, -1)), "4 dimensions"),
    "4D label": (lambda f: overwrite_label(f, lambda a: np.stack([a] * 2, -1)), "4 dimensions"),
    "2D image": (lambda f: save(f / IMAGE, abdomen()[0][:, :, 5]), "2 dimensions"),
    "NaN voxels": (
        lambda f: save(f / IMAGE, np.where(abdomen()[0] > 500, np.nan, 1).astype(np.float32)),
        "NaN",
    ),
    "one grey": (lambda f: save(f / IMAGE, np.full_like(abdomen()[0], 7)), "all voxels have the value 7"),
    "label value outside the list": (
        lambda f: overwrite_label(f, lambda a: a * 3),
        r"label value 3 \(\d+ voxels\)",
    ),
    "fractional label": (lambda f: overwrite_label(f, lambda a: a * np.float32(0.5)), r"label value 0\.5"),
    "empty label": (lambda f: overwrite_label(f, lambda a: a * 0), "nothing is labelled"),
    "label of another size": (lambda f: overwrite_label(f, lambda a: a[:, :, :-1]), "40 x 36 x 19 voxels"),
    "label flipped by its header": (
        lambda f: save(f / "labelsTr/la_002.nii.gz", load(f / "labelsTr/la_002.nii.gz"), np.diag([0.8, -0.8, 2.5, 1])),
        "does not lie on its image",
    ),
    "label of another spacing": (
        lambda f: save(f / "labelsTr/la_002.nii.gz", load(f / "labelsTr/la_002.nii.gz"), np.diag([-0.8, -0.8, 3, 1])),
        "has spacing",
    ),
    "axes not at right angles": (lambda f: save_sheared(f / IMAGE), "not at right angles"),
    "label without image": (lambda f: (f / IMAGE).unlink(), r"labelsTr/la_002\.nii\.gz has no image"),
    "image without label": (
        lambda f: (f / "labelsTr/la_002.nii.gz").unlink(),
        r"imagesTr/la_002\.nii\.gz has no label",
    ),
    "a test case named as a training case": (
        lambda f: shutil.copy(f / "imagesTs/la_005.nii.gz", f / "imagesTs/la_002.nii.gz"),
        "name of a case",
    ),
    "listed but missing": (
        lambda f: [(f / IMAGE).unlink(), (f / "labelsTr/la_002.nii.gz").unlink()],
        "lists la_002 under 'training'",
    ),
    "there but not listed": (lambda f: damage_json(f, test=[]), "la_005 is in the folder"),
    "list that leads out of the folder": (
        lambda f: damage_json(f, test=["../../la_005.nii.gz", "./imagesTs/la_006.nii.gz"]),
        "leads out of the folder",
    ),
    "a name with a line break": (
        lambda f: shutil.copy(f / "imagesTs/la_005.nii.gz", f / "imagesTs/la\n7.nii.gz"),
        "is not allowed",
    ),
    "no JSON": (lambda f: rewrite(f / "dataset.json", b"{"), "not valid JSON"),
    "JSON of something else": (lambda f: rewrite(f / "dataset.json", b"[]"), "not a Decathlon task's"),
    "gaps in the label values": (
        lambda f: damage_json(f, labels={"0": "background", "2": "left atrium"}),
        r"0, 1, 2, …",
    ),
}


@pytest.mark.parametrize("fault", BAD_INPUT)
def test_bad_input_is_named_and_leaves_no_target(heart, raw, fault):
    spoil, message = BAD_INPUT[fault]
    spoil(heart)

    with pytest.raises(UserError, match=message) as caught:
        quietly(heart)

    assert "\n" not in str(caught.value).replace("la\\n7", "")
    assert (
        "la_00" in str(caught.value)
        or "dataset.json" in str(caught.value)
        or "la\\n7" in str(caught.value)
        or "declares" in str(caught.value)
    )
    assert [path.name for path in raw.iterdir() if not path.name.startswith(".")] == []


def test_a_label_in_air_is_refused_in_a_soft_tissue_data_set(pancreas, raw):
    path = pancreas / "labelsTr/p_003.nii.gz"
    label = np.zeros_like(load(path))
    label[:4, :4, 8:12] = 1
    save(path, label)

    with pytest.raises(UserError, match=r"p_003\.nii\.gz: 100% of the labelled voxels are air"):
        quietly(pancreas)


def test_implausible_hounsfield_units_are_a_warning(pancreas, raw):
    path = pancreas / "imagesTr/p_003.nii.gz"
    save(path, load(path) + np.int16(1024))

    assert any("p_003" in line and "Hounsfield" in line for line in quietly(pancreas).warnings)


@pytest.mark.parametrize("wrong", ["..", "imagesTr"])
def test_a_wrong_folder_is_answered_with_the_right_one(heart, raw, wrong):
    with pytest.raises(UserError, match=rf"give {heart}$"):
        quietly(heart / wrong)


def test_an_empty_missing_or_unrelated_folder_is_refused(tmp_path, raw):
    (tmp_path / "empty").mkdir()
    file = rewrite(tmp_path / "archive.tar", b"")
    for source, message in (
        (tmp_path / "empty", "is empty"),
        (tmp_path / "none", "does not exist"),
        (file, "is a file"),
    ):
        with pytest.raises(UserError, match=message):
            quietly(source)


def test_another_task_is_refused_by_name(heart, raw):
    with pytest.raises(UserError, match="use msd-heart for this folder"):
        quietly(heart, task="msd-pancreas")


def test_a_task_without_a_number_needs_id_and_name(tmp_path, raw):
    source = write_task(tmp_path / "spleen", labels=("spleen",))
    with pytest.raises(UserError, match="--id and --name"):
        quietly(source)
    assert quietly(source, dataset_id=309, name="Spleen").folder == raw / "Dataset309_Spleen"


@pytest.mark.real_data
@pytest.mark.skipif(not (REAL_DATA / "Task02_Heart").is_dir(), reason="the real images are not here")
def test_real_left_atria_convert(raw, capsys):
    outcome = quietly(REAL_DATA / "Task02_Heart", task="msd-heart", hold_out=15)

    assert outcome.cases == 20
    assert outcome.warnings == []
    assert nnunets_complaints(outcome.folder, capsys) == ""
