"""The Decathlon's converter: its list of cases, labels and channels; and, on it, what the engine does for all."""

import errno
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
from conversion_phantoms import REAL_DATA, abdomen, convert, every_byte, load, patched, save, write_task
from nnunetv2_eccam.dataset_conversion import cases, engine
from nnunetv2_eccam.dataset_conversion.target import growing

from nnunetv2_eccam.cli import main
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json, write_json


@pytest.fixture
def heart(tmp_path):
    return write_task(tmp_path / "Task02_Heart", labels=("left atrium",), modality=("MRI",), prefix="la")


@pytest.fixture
def pancreas(tmp_path):
    return write_task(tmp_path / "Task07_Pancreas")


def test_unlabelled_images_go_to_images_ts_and_unchanged_files_are_hard_links(heart, raw):
    folder = convert("msd", heart).folder

    assert sorted(path.name for path in (folder / "imagesTs").iterdir()) == ["la_005_0000.nii.gz", "la_006_0000.nii.gz"]
    assert (folder / "imagesTr/la_001_0000.nii.gz").samefile(heart / "imagesTr/la_001.nii.gz")
    assert (folder / "labelsTr/la_001.nii.gz").samefile(heart / "labelsTr/la_001.nii.gz")
    assert read_json(folder / "dataset.json")["channel_names"] == {"0": "MRI"}


def no_link(*_):
    raise OSError(errno.EXDEV, "Invalid cross-device link")


def test_files_are_copied_where_they_cannot_be_linked(heart, raw, monkeypatch):
    monkeypatch.setattr(cases.os, "link", no_link)
    published = convert("msd", heart).folder / "imagesTr/la_001_0000.nii.gz"
    assert not published.samefile(heart / "imagesTr/la_001.nii.gz")
    assert published.read_bytes() == (heart / "imagesTr/la_001.nii.gz").read_bytes()


def test_modalities_in_the_fourth_dimension_become_channels(tmp_path, raw, complaints):
    source = write_task(tmp_path / "Task05_Prostate", labels=("PZ", "TZ"), modality=("T2", "ADC"))
    folder = convert("msd", source).folder

    assert folder.name == "Dataset005_Prostate"
    image = load(source / "imagesTr/p_003.nii.gz")
    for channel in (0, 1):
        assert np.array_equal(load(folder / f"imagesTr/p_003_000{channel}.nii.gz"), image[..., channel])
    assert complaints(folder) == ""
    save(source / "imagesTr/p_002.nii.gz", abdomen()[0])
    with pytest.raises(UserError, match=r"p_002\.nii\.gz has 3 dimensions .* 2 modality/modalities are declared"):
        convert("msd", source, overwrite=True)


@pytest.mark.parametrize(("task", "options", "expected"), [
    ("msd-heart", {"split": "paper"}, "cross-validates its 20 cases"),
    ("msd-heart", {"labels": "regions"}, "organ with a lesion"),
    ("msd-heart", {"leave_out": ("la_009",)}, "there is no such case; the first ones are la_001"),
    ("msd-heart", {"hold_out": 4}, "--hold-out 4: of 4 labelled cases, 0 to 3 can be held out"),
    ("msd-heart", {"hold_out": -1}, "--hold-out -1: .* 0 to 3 can be held out"),
    ("msd-heart", {"split": "paper", "hold_out": 1}, "--hold-out is for --split cv"),
    ("msd-heart", {"dataset_id": 0}, "1 to 999"),
    ("msd-heart", {"dataset_id": 1000}, "1 to 999"),
    ("msd-heart", {"name": "../evil"}, "is not allowed"),
    ("msd-heart", {"name": ".hidden"}, "is not allowed"),
    ("msd-pancreas", {}, "use msd-heart for this folder"),
])  # fmt: skip
def test_options_that_make_no_sense_are_refused(heart, raw, task, options, expected):
    with pytest.raises(UserError, match=expected):
        convert(task, heart, **options)
    assert not list(raw.iterdir())


def listing(folder: Path, **changes) -> None:
    write_json(folder / "dataset.json", {**read_json(folder / "dataset.json"), **changes})


def training(folder: Path, change) -> list:
    return [change(entry) for entry in read_json(folder / "dataset.json")["training"]]


BAD_LIST = {
    "listed but missing": (
        lambda f: [(f / part / "la_002.nii.gz").unlink() for part in ("imagesTr", "labelsTr")],
        "lists la_002 under 'training'.*--leave-out la_002",
    ),
    "there but not listed": (lambda f: listing(f, test=[]), "la_005 is in the folder.*--leave-out la_005"),
    "an entry without image": (
        lambda f: listing(f, training=training(f, lambda e: {"label": e["label"]} if "002" in e["image"] else e)),
        r"entry 2 of 'training', .* has no 'image'",
    ),
    "a test case named as a training case": (
        lambda f: shutil.copy(f / "imagesTs/la_005.nii.gz", f / "imagesTs/la_002.nii.gz"), "name of a case",
    ),
    "a name with a line break": (
        lambda f: shutil.copy(f / "imagesTs/la_005.nii.gz", f / "imagesTs/la\n7.nii.gz"), r"'la\\n7' is not allowed",
    ),
    "no JSON": (lambda f: (f / "dataset.json").write_bytes(b"{"), "not valid JSON"),
    "JSON in Latin-1": (lambda f: (f / "dataset.json").write_bytes(b'{"name": "Gef\xe4\xdfe"}'), "valid JSON in UTF-8"),
    "JSON of something else": (lambda f: (f / "dataset.json").write_bytes(b"[]"), "not a Decathlon task's"),
    "a gap in the labels": (
        lambda f: listing(f, labels={"0": "background", "2": "left atrium"}), r"dataset\.json: .* 0, 1, 2, … .* 0, 2;",
    ),
    "two labels of one name": (
        lambda f: listing(f, labels={"0": "background", "1": "a", "2": "a"}), "values 1 and 2 are both called 'a'",
    ),
    "two backgrounds": (
        lambda f: listing(f, labels={"0": "background", "1": "background"}), "values 0 and 1 are both called",
    ),
    "background that is not 0": (lambda f: listing(f, labels={"0": "air", "1": "Background"}), "which is 0 in nnU-Net"),
    "ignore that is not the highest": (
        lambda f: listing(f, labels={"0": "background", "1": "ignore", "2": "a"}), "must be the highest value",
    ),
    "only background": (lambda f: listing(f, labels={"0": "background"}), "nothing but the background"),
    "channels with a gap": (lambda f: listing(f, modality={"1": "MRI"}), "must be 0, 1, 2"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD_LIST)
def test_a_list_that_does_not_fit_is_one_line(heart, raw, fault):
    spoil, expected = BAD_LIST[fault]
    spoil(heart)
    with pytest.raises(UserError, match=expected) as caught:
        convert("msd", heart)
    assert "\n" not in str(caught.value)
    assert not list(raw.iterdir())


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "backslashes"])
def test_lists_as_other_programs_write_them_are_read(heart, raw, encoding):
    file = heart / "dataset.json"
    if encoding == "backslashes":
        listing(heart, training=training(heart, lambda e: {k: v.replace("/", "\\") for k, v in e.items()}))
    else:
        file.write_text(file.read_text(), encoding=encoding)
    assert len(convert("msd", heart).cases) == 6


@pytest.mark.parametrize("policy", ["apart", "merged"])
def test_ignore_stays_ignore(tmp_path, raw, policy):
    source = write_task(tmp_path / "Task09_Some", labels=("a", "ignore"))
    folder = convert("msd", source, labels=policy).folder
    assert read_json(folder / "dataset.json")["labels"] == {"background": 0, "a": 1, "ignore": 2}
    assert np.unique(load(folder / "labelsTr/p_001.nii.gz")).tolist() == [0, 1, 2]


@pytest.mark.parametrize(("affine", "expected"), [
    (np.diag([0.8, -0.8, 2.5, 1]), "on different grids.*LPS and RPS"),
    (np.diag([-0.8, -0.8, 2.501, 1]), "differ in spacing"),
])  # fmt: skip
def test_a_label_on_another_grid_is_refused(heart, raw, affine, expected):
    path = heart / "labelsTr/la_002.nii.gz"
    save(path, load(path), affine)
    with pytest.raises(UserError, match=expected):
        convert("msd", heart)


def test_ambiguous_headers_and_odd_units_are_warnings(pancreas, raw):
    path = pancreas / "imagesTr/p_003.nii.gz"
    save(path, load(path) + np.int16(1024))
    patched(path, 252, np.int32(0))  # neither qform nor sform, for which SimpleITK and nibabel have each a rule
    warnings = convert("msd", pancreas).warnings
    assert any("p_003" in line and "Hounsfield" in line for line in warnings)
    assert any("p_003" in line and "read in different ways" in line for line in warnings)


def test_a_task_without_a_number_needs_id_and_name(tmp_path, raw):
    source = write_task(tmp_path / "spleen", labels=("spleen",))
    with pytest.raises(UserError, match="--id and --name"):
        convert("msd", source)
    assert convert("msd", source, dataset_id=309, name="Spleen").folder == raw / "Dataset309_Spleen"


@pytest.mark.parametrize(("make", "expected"), [
    (Path.mkdir, "is empty"), (lambda path: None, "does not exist"), (lambda path: path.write_bytes(b""), "is a file"),
])  # fmt: skip
def test_an_empty_missing_or_unrelated_folder_is_refused(tmp_path, raw, make, expected):
    make(tmp_path / "source")
    with pytest.raises(UserError, match=expected):
        convert("msd", tmp_path / "source")


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"])
def test_refuses_an_id_that_another_data_set_has(heart, raw, variable):
    (raw.parent / variable / "Dataset002_Liver").mkdir()
    with pytest.raises(UserError, match=f"taken by Dataset002_Liver in {variable}"):
        convert("msd", heart)


def test_overwrite_replaces_only_by_a_complete_data_set(heart, raw):
    convert("msd", heart)
    before = every_byte(raw / "Dataset002_Heart")
    with pytest.raises(UserError, match="--overwrite"):
        convert("msd", heart, hold_out=1)
    image = heart / "imagesTr/la_002.nii.gz"
    good = image.read_bytes()
    image.unlink()  # it is a hard link; writing to it would change the published file
    image.write_bytes(good[:500])

    with pytest.raises(UserError, match="truncated"):
        convert("msd", heart, hold_out=1, overwrite=True)
    assert every_byte(raw / "Dataset002_Heart") == before

    image.write_bytes(good)
    convert("msd", heart, hold_out=1, overwrite=True)
    assert read_json(raw / "Dataset002_Heart/dataset.json")["numTraining"] == 3
    assert not (raw / "Dataset002_Heart/splits_final.json").exists()
    assert [path.name for path in raw.iterdir()] == ["Dataset002_Heart"]


def test_an_interrupted_run_with_other_options_is_not_continued(heart, raw, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(engine, "write_description", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            convert("msd", heart)
    outcome = convert("msd", heart, hold_out=2)
    assert outcome.resumed == 0
    assert len(list((outcome.folder / "imagesTr").iterdir())) == 2


@pytest.mark.parametrize(("room", "file"), [(1000, "imagesTr/p_001_0000.nii.gz"), (10, ".conversion/key.json")])
def test_a_full_disk_is_an_error_that_can_be_mended(pancreas, raw, refused, monkeypatch, room, file):
    monkeypatch.setattr(cases.os, "link", no_link)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        line = refused("convert", "msd", pancreas, "-np", "1", "--no-progress")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"{raw}/.partial_Dataset007_Pancreas/{file}: File too large" in line
    assert not (raw / "Dataset007_Pancreas").exists()
    assert convert("msd", pancreas).status == "converted"


def test_two_conversions_to_one_target_do_not_mix(pancreas, raw):
    held = growing(raw / "Dataset007_Pancreas", {})
    with held, pytest.raises(UserError, match="another conversion"):
        convert("msd", pancreas)


def test_the_old_data_set_comes_back_after_a_kill_between_two_renames(pancreas, raw):
    convert("msd", pancreas).folder.rename(raw / ".replaced_Dataset007_Pancreas")
    assert convert("msd", pancreas).status == "already converted"


def test_stale_preprocessed_data_is_pointed_out(heart, raw):
    (raw.parent / "nnUNet_preprocessed/Dataset002_Heart").mkdir()
    assert any("delete it, then plan" in line for line in convert("msd", heart).warnings)


def test_a_dry_run_says_what_would_be_done_and_goes_on_where_the_split_is_impossible(heart, raw, capsys):
    assert main(["convert", "msd-heart", str(heart), "--dry-run", "-np", "1", "--no-progress"]) == 0
    assert "4 in imagesTr, 2 in imagesTs, 0 in labelsTs" in capsys.readouterr().out
    (heart / "imagesTr/la_001.nii.gz").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"2 problem\(s\)"):
        convert("msd-heart", heart, dry_run=True, split="paper")
    said = capsys.readouterr().err
    assert "cross-validates its 20 cases" in said
    assert "la_001" in said
    assert not list(raw.iterdir())


@pytest.mark.real_data
@pytest.mark.skipif(not (REAL_DATA / "Task02_Heart").is_dir(), reason="the real images are not here")
def test_real_left_atria_convert(raw, complaints):
    outcome = convert("msd-heart", REAL_DATA / "Task02_Heart", hold_out=15)
    assert len(outcome.cases) == 20
    assert outcome.warnings == []
    assert complaints(outcome.folder) == ""
    report = read_json(outcome.folder / "conversion_report.json")
    assert {tuple(entry["spacing"]) for entry in report["cases"]} == {(0.625, 0.625, 0.625)}
