"""What every converter keeps to, whatever the data set: one contract, shown on a small download of each."""

import gzip
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conversion_phantoms import abdomen, convert, every_byte, load, patched, save, write_kits, write_task, write_tcia
from nnunetv2_eccam.dataset_conversion import engine, kits19, msd, tcia_pancreas

from nnunetv2_eccam.cli import main
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json


@dataclass(frozen=True)
class Download:
    """A data set's download as a test makes it, with three labelled cases or more.

    Attributes:
        folder: the published folder's name.
        second: the second case's published name.
        image, label: its files in the download; of a series, its folder.
        seed: of its phantom.
        turned: what becomes of a phantom's voxels, (x to the left, y to the back, z to the head).
    """

    data_set: str
    write: Callable[[Path], Path]
    folder: str
    second: str
    image: str
    label: str
    size: tuple[int, int, int] = (40, 36, 20)
    seed: int = 1
    turned: Callable[[np.ndarray], np.ndarray] = lambda voxels: voxels


DOWNLOADS = [
    Download(
        "msd-heart",
        lambda path: write_task(path / "Task02_Heart", labels=("left atrium",), modality=("MRI",), prefix="la"),
        "Dataset002_Heart", "la_002", "imagesTr/la_002.nii.gz", "labelsTr/la_002.nii.gz",
    ),
    Download(
        "msd-pancreas", lambda path: write_task(path / "Task07_Pancreas"),
        "Dataset007_Pancreas", "p_002", "imagesTr/p_002.nii.gz", "labelsTr/p_002.nii.gz",
    ),
    Download(
        "kits19", lambda path: write_kits(path / "kits19"),
        "Dataset219_KiTS19", "case_00001", "data/case_00001/imaging.nii.gz", "data/case_00001/segmentation.nii.gz",
        turned=lambda voxels: voxels[::-1, ::-1],
    ),
    Download(
        "tcia-pancreas", lambda path: write_tcia(path / "tcia"),
        "Dataset282_PancreasCT", "PANCREAS_0002", "Pancreas-CT/PANCREAS_0002/11-24-2015/Pancreas-1",
        "TCIA_pancreas_labels-02-05-2017/label0002.nii.gz", size=(36, 36, 20), seed=2,
    ),
]  # fmt: skip


@pytest.fixture(params=DOWNLOADS, ids=lambda download: download.data_set)
def download(request):
    return request.param


@pytest.fixture
def source(download, tmp_path):
    return download.write(tmp_path)


def published(folder: Path, download: Download) -> tuple[np.ndarray, np.ndarray]:
    return (
        load(folder / f"imagesTr/{download.second}_0000.nii.gz"),
        load(folder / f"labelsTr/{download.second}.nii.gz"),
    )


def refusal(download: Download, source: Path, raw: Path, **options) -> str:
    """Convert what cannot be converted: the message is one line with the advice, and nothing is left behind."""
    with pytest.raises(UserError) as caught:
        convert(download.data_set, source, **options)
    assert "\n" not in str(caught.value)
    assert not [path for path in raw.iterdir() if not path.name.startswith(".")]
    return str(caught.value)


def test_nnunet_accepts_it_and_every_voxel_is_kept(download, source, raw, complaints):
    outcome = convert(download.data_set, source)

    assert outcome.folder == raw / download.folder
    image, label = published(outcome.folder, download)
    expected_image, expected_label = abdomen(download.size, download.seed)
    assert np.array_equal(image, download.turned(expected_image))
    assert image.dtype == np.int16
    assert np.array_equal(label != 0, download.turned(expected_label) != 0)
    assert set(np.unique(label)) == {0, 1}  # merged, the paper's way
    assert complaints(outcome.folder) == ""
    content = read_json(outcome.folder / "dataset.json")
    assert len(content["labels"]) == 2
    assert content["converted_by"].startswith("nnunetv2-eccam ")
    assert content["citation"]
    assert content["licence"].startswith("CC BY")
    report = read_json(outcome.folder / "conversion_report.json")
    assert report["cases"][0]["orientation"] in ("RAS", "LPS")  # slices across the third axis


@pytest.mark.parametrize(("policy", "labels", "values"), [
    ("merged", {"background": 0, "WHOLE": 1}, [0, 1]),
    ("apart", {"background": 0, "WHOLE": 1, "LESION": 2}, [0, 1, 2]),
    ("regions", {"background": 0, "WHOLE": [1, 2], "LESION": [2]}, [0, 1, 2]),
])  # fmt: skip
@pytest.mark.parametrize(("download", "whole", "lesion"), [
    (DOWNLOADS[1], "pancreas", "cancer"), (DOWNLOADS[2], "kidney", "tumor"),
], ids=["msd-pancreas", "kits19"])  # fmt: skip
def test_label_policies_of_an_organ_with_a_lesion(
    tmp_path, raw, complaints, download, whole, lesion, policy, labels, values
):
    folder = convert(download.data_set, download.write(tmp_path), labels=policy).folder

    names = {"background": "background", "WHOLE": whole, "LESION": lesion}
    assert read_json(folder / "dataset.json")["labels"] == {names[name]: value for name, value in labels.items()}
    label = published(folder, download)[1]
    assert np.unique(label).tolist() == values
    expected = download.turned(abdomen(download.size, download.seed)[1])
    assert np.array_equal(label, np.minimum(expected, max(values)))
    assert complaints(folder) == ""


def test_output_is_the_same_to_the_byte_and_a_changed_source_is_noticed(download, source, raw):
    first = every_byte(convert(download.data_set, source, processes=1).folder)
    before = {path: path.stat().st_mtime_ns for path in raw.rglob("*")}
    assert convert(download.data_set, source).status == "already converted"
    assert {path: path.stat().st_mtime_ns for path in raw.rglob("*")} == before

    again = convert(download.data_set, source, processes=3, overwrite=True).folder
    assert every_byte(again) == first
    label = source / download.label
    rewrite(label, label.read_bytes() + b"\0")
    with pytest.raises(UserError, match="was not made from this source"):
        convert(download.data_set, source)
    assert str(source.parent).encode() not in b"".join(first.values())


def rewrite(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def relabel(path: Path, change) -> None:
    save(path, change(load(path)), nibabel.load(path).affine)


BAD_FILE = {
    "truncated": (lambda path: rewrite(path, path.read_bytes()[:-200]), "truncated"),
    "a link to itself": (lambda path: path.unlink() or path.symlink_to(path.name), "is a link to itself"),
    "four dimensions": (lambda path: relabel(path, lambda a: np.stack([a] * 2, -1)), "4 dimensions"),
    "NaN": (lambda path: relabel(path, lambda a: np.where(np.arange(a.shape[0])[:, None, None], a, np.nan)), "are NaN"),
}
SHEAR = np.array([[1, 0, 0, 0], [0, 1, 0.6, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
BAD = {
    "label": BAD_FILE | {
        "undeclared value": (lambda path: relabel(path, lambda a: a * 3), r"label value [36] \(\d+ voxels\)"),
        "fractions": (lambda path: relabel(path, lambda a: a * np.float32(0.4)), r"not whole numbers \(0\.4"),
        "nothing labelled": (lambda path: relabel(path, lambda a: a * 0), "nothing is labelled"),
        "another size": (lambda path: relabel(path, lambda a: a[:, :, :-1]), " voxels"),
    },
    "image": BAD_FILE | {
        "one grey": (lambda path: relabel(path, lambda a: a * 0 + 7), "all voxels have the value 7"),
        "sheared": (lambda path: save(path, load(path), nibabel.load(path).affine @ SHEAR), "not at right angles"),
    },
}  # fmt: skip


@pytest.mark.parametrize(("download", "part", "fault"), [
    (download, part, fault) for download in DOWNLOADS for part in BAD for fault in BAD[part]
    if (download.data_set, part) != ("tcia-pancreas", "image")
], indirect=["download"], ids=lambda value: getattr(value, "data_set", value))  # fmt: skip
def test_a_bad_file_is_one_line_with_its_name_and_the_case(download, source, raw, part, fault):
    spoil, expected = BAD[part][fault]
    file = getattr(download, part)
    spoil(source / file)

    message = refusal(download, source, raw)

    assert file in message
    assert re.search(expected, message)
    assert message.endswith(f"--leave-out {download.second}")


ODD_FILE = {
    "bytes behind the gzip stream": lambda path: rewrite(path, path.read_bytes() + b"\n\n"),
    "NIfTI-2": lambda path: nibabel.save(nibabel.Nifti2Image(load(path), nibabel.load(path).affine), path),
    "NaN intercept": lambda path: patched(path, 112, np.array([1, np.nan], "<f4")),
    "float": lambda path: relabel(path, lambda a: a.astype(np.float64)),
}
ODD_LABEL = ODD_FILE | {
    "1.00000006": lambda path: relabel(path, lambda a: a * np.float32(1.00000006)),
    "uint16": lambda path: relabel(path, lambda a: a.astype(np.uint16)),
}


@pytest.mark.parametrize("oddity", ODD_LABEL)
def test_odd_files_are_read_and_stored_so_that_nnunet_reads_them(download, source, raw, complaints, oddity):
    label, image = source / download.label, source / download.image
    ODD_LABEL[oddity](label)
    if oddity in ODD_FILE and image.is_file():
        ODD_FILE[oddity](image)

    folder = convert(download.data_set, source).folder

    found_image, found_label = published(folder, download)
    expected_image, expected_label = abdomen(download.size, download.seed)
    assert np.array_equal(found_image, download.turned(expected_image))
    assert np.array_equal(found_label, np.minimum(download.turned(expected_label), 1))
    assert complaints(folder) == ""


@pytest.mark.parametrize("kind", [".nii", "capital letters"])
def test_a_label_that_is_not_there_under_its_name_is_named_with_the_remedy(download, source, raw, kind):
    label = source / download.label
    if kind == ".nii":
        label.with_suffix("").write_bytes(gzip.decompress(label.read_bytes()))
        label.unlink()
        expected = f"gzip {label.with_suffix('').name}"
    else:
        label.rename(label.with_name(label.name.upper()))
        expected = f"rename it to {label.name}"

    message = refusal(download, source, raw)
    assert expected in message
    assert message.endswith(f"--leave-out {download.second}")


def test_a_label_without_its_image_is_an_error_and_what_was_left_out_is_said_each_time(download, source, raw, capsys):
    image = source / download.image
    shutil.rmtree(image) if image.is_dir() else image.unlink()

    message = refusal(download, source, raw)

    assert message.endswith(f"--leave-out {download.second}")
    assert {"kits19": "get_imaging"}.get(download.data_set, f"{download.label} has no image") in message
    words = ["convert", download.data_set, str(source), "-np", "1", "--no-progress", "--leave-out", download.second]
    for said in ("converted ", "already converted"):
        assert main(words) == 0
        lines = capsys.readouterr().out.splitlines()
        assert any(line.startswith(said) for line in lines)
        assert f"left out: {download.second}: left out by --leave-out" in lines[-3:]
        assert download.data_set != "kits19" or "left out: case_00003: no segmentation.nii.gz" in lines


def test_a_dry_run_finds_every_problem_and_writes_nothing(download, source, raw, capsys):
    label = source / download.label
    rewrite(label, b"nonsense")
    (source / download.label.replace("2.nii", "3.nii").replace("00001/", "00002/")).write_bytes(b"")

    assert "2 problem(s)" in refusal(download, source, raw, dry_run=True)
    said = capsys.readouterr().err
    assert said.count("problem: ") == 2
    assert said.count("--leave-out") == 2
    assert not list(raw.iterdir())


@pytest.mark.parametrize("levels", [1, -1])
def test_a_wrong_folder_is_answered_with_the_right_one(download, source, raw, levels):
    wrong = source.parent if levels < 0 else next(path for path in sorted(source.iterdir()) if path.is_dir())
    if download.data_set == "tcia-pancreas" and levels < 0:
        assert len(convert(download.data_set, wrong).cases) == 3  # it may lie at any depth
        return
    assert refusal(download, wrong, raw).endswith(f"give {source}")


def test_hidden_files_are_passed_over_with_one_line(download, source, raw):
    label = source / download.label
    label.with_name(f"._{label.name}").write_bytes(b"Mac OS X")
    image = source / download.image
    (image / "._slice" if image.is_dir() else image.with_name(f"._{image.name}")).write_bytes(b"Mac OS X")

    outcome = convert(download.data_set, source)

    assert len(outcome.cases) >= 3
    if download.data_set != "kits19":  # where only two names in each folder are looked at
        assert len([note for note in outcome.notes if "passed over" in note]) == 1


def test_the_papers_split_holds_test_cases_out_and_fixes_the_fold(download, source, raw, monkeypatch):
    count = 3 if download.data_set in ("kits19", "tcia-pancreas") else 4
    known = {"paper_counts": {count: (count - 2, 1, 1)}}
    monkeypatch.setattr(kits19, "CARD", replace(kits19.CARD, **known))
    monkeypatch.setattr(tcia_pancreas, "CARD", replace(tcia_pancreas.CARD, **known))
    monkeypatch.setattr(msd, "TASKS", {name: replace(card, **known) for name, card in msd.TASKS.items()})

    outcome = convert(download.data_set, source, split="paper")

    (fold,) = read_json(outcome.folder / "splits_final.json")
    test = [path.name[:-7] for path in (outcome.folder / "labelsTs").iterdir()]
    assert (len(fold["train"]), len(fold["val"]), len(test)) == (count - 2, 1, 1)
    assert [path.name for path in (outcome.folder / "imagesTs").iterdir()] == [f"{test[0]}_0000.nii.gz"]
    assert any("train fold 0 only" in note for note in outcome.notes)
    if download.data_set.startswith("msd"):
        assert list(outcome.left_out.values()) == ["unlabelled; imagesTs holds exactly the cases of labelsTs"] * 2


def test_an_interrupted_run_goes_on_where_it_stopped(download, source, raw, monkeypatch):
    done = []

    def interrupted(case, **options):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(case)
        return converter(case, **options)

    converter = engine.convert_case
    with monkeypatch.context() as patch:
        patch.setattr(engine, "convert_case", interrupted)
        with pytest.raises(KeyboardInterrupt):
            convert(download.data_set, source)
    assert [path.name for path in raw.iterdir()] == [f".partial_{download.folder}"]

    with monkeypatch.context() as patch:
        patch.setattr(tcia_pancreas, "way_scores", lambda *_: 1 / 0)  # its survey is not done again either
        outcome = convert(download.data_set, source)

    assert outcome.resumed >= 1
    resumed = every_byte(outcome.folder)
    shutil.rmtree(outcome.folder)
    assert every_byte(convert(download.data_set, source).folder) == resumed
