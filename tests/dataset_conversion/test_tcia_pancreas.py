"""TCIA Pancreas-CT: DICOM series to volumes in HU, and the labels' orientation decided by the voxels."""

import shutil

import numpy as np
import pytest
from conversion_phantoms import REAL_DATA, abdomen, convert, load, save, write_series, write_tcia
from nnunetv2_eccam.dataset_conversion.dicom_series import read_series
from nnunetv2_eccam.dataset_conversion.orientation_evidence import WAYS, Way, decide_way, way_scores

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json

SIZE = (36, 36, 20)


def pancreas(number: int) -> np.ndarray:
    return np.minimum(abdomen(SIZE, seed=number)[1], 1)


def series_folder(source, number):
    return source / f"Pancreas-CT/PANCREAS_{number:04d}/11-24-2015/Pancreas-1"


def symmetric(size, seed) -> tuple[np.ndarray, np.ndarray]:
    """A ball in a ball: no flip shows."""
    grid = np.meshgrid(*(np.linspace(-1, 1, length) for length in size), indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in grid))
    image = np.select([radius < 0.4, radius < 0.9], [100, -90], -1000)
    noise = np.random.default_rng(seed).normal(0, 8, size)
    return (image + noise).astype(np.int16), (radius < 0.4).astype(np.uint8)


def test_every_way_is_told_from_every_other():
    volume = np.arange(24).reshape(2, 3, 4)
    cases = [abdomen(SIZE, seed=number) for number in (1, 2)]
    for way in WAYS:
        assert np.array_equal(way.place(way.undo(volume)), volume)
        measured = {
            str(number): {"scores": way_scores(image, way.undo(label)), "descending": False}
            for number, (image, label) in enumerate(cases)
        }
        finding, ways = decide_way(measured)
        assert finding["decision"] == str(way)
        assert finding["margin"] > 0.1
        assert set(ways.values()) == {way}


def test_labels_stored_by_instance_number_are_found_where_the_direction_of_numbers_differs(tmp_path, raw):
    order = {1: True, 2: False, 3: True}
    source = write_tcia(tmp_path / "tcia", descending=order.get)
    for number, descending in order.items():
        stored = pancreas(number)[:, :, ::-1] if descending else pancreas(number)
        save(source / f"TCIA_pancreas_labels-02-05-2017/label{number:04d}.nii.gz", np.ascontiguousarray(stored))

    folder = convert("tcia-pancreas", source).folder

    (finding,) = read_json(folder / "conversion_report.json")["findings"]
    assert finding["decision"] == "as stored, slices by instance number"
    for number in order:
        assert np.array_equal(load(folder / f"labelsTr/PANCREAS_{number:04d}.nii.gz"), pancreas(number))


def test_an_ambiguous_anatomy_is_refused_with_the_scores(tmp_path, raw):
    source = write_tcia(tmp_path / "tcia", anatomy=symmetric)

    with pytest.raises(UserError, match=r"cannot be decided from 3 case.*as stored 0\.\d+.*margin 0\.0"):
        convert("tcia-pancreas", source)

    assert not (raw / "Dataset282_PancreasCT").exists()


def test_one_label_unlike_the_others_is_refused_by_name(tmp_path, raw):
    source = write_tcia(tmp_path / "tcia", cases=4)
    path = source / "TCIA_pancreas_labels-02-05-2017/label0003.nii.gz"
    save(path, np.ascontiguousarray(pancreas(3)[:, ::-1]))

    with pytest.raises(UserError, match=r"PANCREAS_0003: its label fits as 'flip y'"):
        convert("tcia-pancreas", source)

    assert len(convert("tcia-pancreas", source, leave_out=("PANCREAS_0003",)).cases) == 3


def test_the_label_of_a_case_that_tcia_withdrew_is_left_out(tmp_path, raw):
    source = write_tcia(tmp_path / "tcia", cases=2)
    save(source / "TCIA_pancreas_labels-02-05-2017/label0025.nii.gz", pancreas(1))
    outcome = convert("tcia-pancreas", source)
    assert outcome.left_out == {"label0025.nii.gz": "withdrawn by TCIA, a repetition of case 2"}
    assert len(list((outcome.folder / "labelsTr").iterdir())) == 2


def test_files_without_the_preamble_are_read(tmp_path, raw):
    source = write_tcia(tmp_path / "tcia")
    for path in series_folder(source, 2).iterdir():
        path.write_bytes(path.read_bytes()[132:])
    (series_folder(source, 1) / "note").write_bytes(b"\x08\0 is no DICOM, though it begins like it" * 9)

    outcome = convert("tcia-pancreas", source)

    assert len(outcome.cases) == 3
    assert np.array_equal(load(outcome.folder / "imagesTr/PANCREAS_0002_0000.nii.gz"), abdomen(SIZE, seed=2)[0])
    assert any("2 files beside the slices are not DICOM" in note for note in outcome.notes)


def test_a_missing_rescale_is_named_with_the_file(tmp_path):
    files = write_series(tmp_path, abdomen(SIZE)[0], patient="PANCREAS_0001")
    for element, other in ((b"\x28\0\x52\x10", b"\x28\0\x56\x10"), (b"\x28\0\x53\x10", b"\x28\0\x57\x10")):
        assert files[0].read_bytes().count(element) == 1
        files[0].write_bytes(files[0].read_bytes().replace(element, other))
    with pytest.raises(UserError, match=r"0001\.bin has no rescale slope or no rescale intercept"):
        read_series("PANCREAS_0001", files)


def test_patients_are_known_by_their_files_where_folders_do_not_tell(tmp_path, raw):
    source = write_tcia(tmp_path / "tcia", cases=2)
    for number in (1, 2):
        shutil.move(series_folder(source, number), source / f"series {number}")
    shutil.rmtree(source / "Pancreas-CT")
    assert len(convert("tcia-pancreas", source).cases) == 2


def test_files_of_another_patient_are_refused(tmp_path, raw):
    source = write_tcia(tmp_path / "tcia", cases=2)
    write_series(series_folder(source, 2), abdomen(SIZE, seed=2)[0], patient="PANCREAS_0009", name="x2-{:d}")
    with pytest.raises(UserError, match=r"PANCREAS_0002.* has files of PANCREAS_0009"):
        convert("tcia-pancreas", source)


def test_two_series_with_the_same_number_are_refused_by_name(tmp_path, raw):
    source = write_tcia(tmp_path / "tcia", cases=2)
    other = source / "Pancreas-CT/PANCREAS_0002/01-01-2016/again"
    write_series(other, abdomen(SIZE, seed=2)[0], patient="PANCREAS_0002", series="77")
    with pytest.raises(UserError, match=r"PANCREAS_0002: 2 series have this number \(20 files in .*again"):
        convert("tcia-pancreas", source)


POSITIONS = [2.5 * index for index in range(20)]
BAD_SERIES = {
    "gantry tilt": ({"shift_per_slice": (0.0, 0.4)}, None, r"gantry tilt of 9\.1 degrees"),
    "missing slice": ({}, lambda files: files[7].unlink(), r"1 slice\(s\) missing between 0007\.bin .* and 0009\.bin"),
    "two missing slices": ({}, lambda files: [files[7].unlink(), files[8].unlink()], r"2 slice\(s\) missing"),
    "duplicated slice": ({}, lambda files: shutil.copy(files[7], files[7].with_name("copy")),
                         r"0008\.bin and .*copy are at the same place .* duplicated slice"),
    "uneven spacing": ({"positions": POSITIONS[:10] + [value + 0.6 for value in POSITIONS[10:]]}, None,
                       r"unevenly spaced slices .* 3\.100 mm between 0010\.bin"),
    "single slice": ({}, lambda files: [file.unlink() for file in files[1:]], r"only 1 CT slice"),
    "truncated file": ({}, lambda files: files[3].write_bytes(files[3].read_bytes()[:400]),
                       r"0004\.bin is DICOM but cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD_SERIES)
def test_a_bad_series_is_refused_and_never_resampled(tmp_path, fault):
    how, spoil, message = BAD_SERIES[fault]
    files = write_series(tmp_path / "series", abdomen(SIZE)[0], patient="PANCREAS_0005", **how)
    if spoil:
        spoil(files)

    with pytest.raises(UserError, match=message) as caught:
        read_series("PANCREAS_0005", sorted((tmp_path / "series").iterdir()))

    assert "PANCREAS_0005" in str(caught.value) or str(tmp_path / "series") in str(caught.value)


def test_files_in_any_order_with_any_name_give_the_same_volume(tmp_path):
    image = abdomen(SIZE)[0]
    files = write_series(tmp_path / "a", image, patient="PANCREAS_0001")
    shuffled = [files[index] for index in np.random.default_rng(1).permutation(len(files))]

    found, descending, _ = read_series("PANCREAS_0001", shuffled)

    assert np.array_equal(found.voxels, image)
    expected = [[-0.8, 0, 0, 150], [0, -0.8, 0, 150], [0, 0, 2.5, -100], [0, 0, 0, 1]]
    assert np.allclose(found.affine, expected)
    assert descending is False


@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (2, -1000), (1, 0)])
def test_stored_values_are_rescaled_to_hounsfield_units(tmp_path, slope, intercept):
    image = abdomen(SIZE)[0] // 2 * 2
    files = write_series(tmp_path, image, patient="PANCREAS_0001", slope=slope, intercept=intercept)
    raw_pixels = np.frombuffer(files[0].read_bytes()[-2 * 36 * 36 :], dtype="<i2").reshape(36, 36)

    found, *_ = read_series("PANCREAS_0001", files)

    assert np.array_equal(raw_pixels * slope + intercept, image[:, :, 0].T)
    assert np.array_equal(found.voxels, image)


def test_a_changed_answer_undoes_what_an_interrupted_run_converted(tmp_path, raw, monkeypatch):
    from nnunetv2_eccam.dataset_conversion import engine

    source = write_tcia(tmp_path / "tcia", cases=2)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "write_description", lambda *_: exec("raise KeyboardInterrupt"))
        with pytest.raises(KeyboardInterrupt):
            convert("tcia-pancreas", source)
    way = Way(transpose=True, flip_x=False, flip_y=False, flip_z=True)
    for number in (1, 2):
        save(source / f"TCIA_pancreas_labels-02-05-2017/label{number:04d}.nii.gz", way.undo(pancreas(number)))

    outcome = convert("tcia-pancreas", source)

    assert outcome.resumed == 0
    (finding,) = read_json(outcome.folder / "conversion_report.json")["findings"]
    assert finding["decision"] == "transpose + flip z"
    assert set(finding["scores"]) == {str(way) for way in WAYS}
    for number in (1, 2):
        assert np.array_equal(load(outcome.folder / f"labelsTr/PANCREAS_{number:04d}.nii.gz"), pancreas(number))


@pytest.mark.real_data
@pytest.mark.skipif(not (REAL_DATA / "ct_abdomen").is_dir(), reason="the real CT is not here")
def test_one_real_pancreas_decides():
    """Laid x to the left, y to the back, z to the head."""
    image = load(REAL_DATA / "ct_abdomen/ct.nii.gz")[::-1, ::-1]
    label = (load(REAL_DATA / "ct_abdomen/organs.nii.gz") == 7)[::-1, ::-1]
    for way in WAYS:
        finding, _ = decide_way({"x": {"scores": way_scores(image, way.undo(label)), "descending": True}})
        assert finding["decision"] == str(way)
