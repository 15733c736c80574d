"""nnUNetv2_eccam evaluate: nnU-Net's Dice to the digit, the rule for empty masks, files, grids and messages."""

import json
import math
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from nnunetv2.evaluation.evaluate_predictions import compute_metrics
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from small_dataset import LABELS
from stored_volumes import write_simpleitk

from nnunetv2_eccam.cli import main
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.evaluation.case_scores import Counts, Scoring
from nnunetv2_eccam.evaluation.folders import score_folder
from nnunetv2_eccam.evaluation.labels import plans_beside, read_dataset_json, slice_axis_of_plans
from nnunetv2_eccam.evaluation.score_files import (
    PATIENT_COLUMNS,
    SLICE_COLUMNS,
    VOLUME_COLUMNS,
    pool_patients,
    read_scores,
    score_table,
    write_scores,
)
from nnunetv2_eccam.files import write_json

SPACING = (0.7, 1.1, 2.5)
"""x, y, z, as files have it."""


def random_masks(seed, shape=(5, 7, 6)):
    return np.random.default_rng(seed).integers(0, 3, (2, *shape))


class Folders:
    """References, predictions and dataset.json in a folder."""

    def __init__(self, base: Path, labels=LABELS["labels"], **more):
        self.references, self.predictions = base / "references", base / "predictions"
        self.json = base / "dataset.json"
        content = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
        if any(isinstance(value, list) for value in labels.values()):
            content["regions_class_order"] = [1, 2]
        base.mkdir(exist_ok=True)
        write_json(self.json, content | more)

    def add(self, case, reference=None, prediction=None, **grid):
        for folder, labels in ((self.references, reference), (self.predictions, prediction)):
            if labels is not None:
                write_simpleitk(folder / f"{case}.nii.gz", np.asarray(labels, np.uint8), SPACING, **grid)
        return self

    def score(self, **options):
        of_folder = {name: options.pop(name) for name in ("cases", "chill", "n_processes") if name in options}
        scoring = Scoring(read_dataset_json(self.json), **options)
        return score_folder(self.references, self.predictions, scoring, **of_folder)

    def row(self, case, label="organ", **options):
        volumes, _ = self.score(**options)
        return volumes[(volumes["case"] == case) & (volumes["label"] == label)].iloc[0]

    @property
    def words(self):
        return ["evaluate", str(self.references), str(self.predictions), "-djfile", str(self.json), "-np", "1"]


@pytest.fixture
def folders(tmp_path) -> Folders:
    return Folders(tmp_path)


def assert_as_nnunet(folders: Folders, case: str):
    """Every count and Dice equals those of nnU-Net's own function, to the last digit."""
    structures = read_dataset_json(folders.json)
    content = json.loads(folders.json.read_text())
    manager = LabelManager(content["labels"], content.get("regions_class_order"))
    wanted = manager.foreground_regions if manager.has_regions else manager.foreground_labels
    files = [str(folder / f"{case}.nii.gz") for folder in (folders.references, folders.predictions)]
    theirs = compute_metrics(*files, SimpleITKIO(), wanted, manager.ignore_label)["metrics"]
    volumes, slices = folders.score(cases=[case])
    assert len(wanted) == len(structures.scored) == len(volumes)
    for label, (name, values), (_, row) in zip(wanted, structures.scored.items(), volumes.iterrows(), strict=True):
        assert values == (tuple(label) if isinstance(label, tuple) else (label,))
        metrics = theirs[label]
        assert (row.tp, row.fp, row.fn) == (metrics["TP"], metrics["FP"], metrics["FN"])
        assert row.dsc == metrics["Dice"] or (math.isnan(row.dsc) and math.isnan(metrics["Dice"]))
        of_label = slices[slices["label"] == name]
        assert of_label[["tp", "fp", "fn"]].sum().tolist() == [row.tp, row.fp, row.fn]


class TestAsNnunet:
    @pytest.mark.parametrize("kind", list(LABELS))
    def test_random_masks(self, tmp_path, kind):
        folders = Folders(tmp_path, LABELS[kind])
        reference, prediction = random_masks(0)
        if "ignore" in kind:
            reference[:, :3] = 3
        assert_as_nnunet(folders.add("a", reference, prediction), "a")

    def test_empty_masks(self, folders):
        empty = np.zeros((3, 4, 5))
        assert_as_nnunet(folders.add("both", empty, empty).add("one", empty, empty + 1), "both")
        assert_as_nnunet(folders, "one")

    @pytest.mark.parametrize("values", [{"background": 0, "b": 2, "a": 1}, {"background": 0, "a": [1], "b": [2]}])
    def test_labels_in_nnunets_order(self, tmp_path, values):
        folders = Folders(tmp_path, values, regions_class_order=None)
        assert list(read_dataset_json(folders.json).scored) == ["a", "b"]
        assert_as_nnunet(folders.add("a", *random_masks(5)), "a")


class TestRuleForEmptyMasks:
    EMPTY = np.zeros((4, 6, 5))

    def full(self):
        mask = self.EMPTY.copy()
        mask[1:3, 2:4, 1:4] = 1
        return mask

    @pytest.mark.parametrize(
        ("reference", "prediction", "expected"),
        [
            (False, False, (math.nan, math.nan, math.nan, math.nan, math.nan, "both empty")),
            (False, True, (0, math.nan, 0, math.nan, 0, "empty reference")),
            (True, False, (0, 0, math.nan, math.nan, 0, "empty prediction")),
            (True, True, (1, 1, 1, 0, 1, "")),
        ],
    )
    def test_volumes(self, folders, reference, prediction, expected):
        folders.add("a", self.full() if reference else self.EMPTY, self.full() if prediction else self.EMPTY)
        row = folders.row("a")
        found = (row.dsc, row.sensitivity, row.precision, row.hd95, row.nsd)
        assert found == pytest.approx(expected[:5], nan_ok=True)
        assert row.note == expected[5]

    def test_the_diagonal_in_place_of_an_empty_predictions_distance(self, folders):
        folders.add("a", self.full(), self.EMPTY).add("b", self.EMPTY, self.full())
        row = folders.row("a", hd95_of_empty="diagonal")
        assert row.hd95 == pytest.approx(math.hypot(4 * 2.5, 6 * 1.1, 5 * 0.7))
        assert row.note == "empty prediction; hd95 is the image's diagonal"
        assert math.isnan(folders.row("b", hd95_of_empty="diagonal").hd95)

    def test_slices(self, folders):
        reference, prediction = self.EMPTY.copy(), self.EMPTY.copy()
        reference[1, 1, 1] = reference[2, 1, 1] = prediction[2, 1, 1] = prediction[3, 1, :2] = 1
        _, slices = folders.add("a", reference, prediction).score()
        rows = slices[["label", "slice", "tp", "fp", "fn", "dsc", "note"]].values.tolist()
        assert rows == [
            ["organ", 1, 0, 0, 1, 0, "empty prediction"],
            ["organ", 2, 1, 0, 0, 1, ""],
            ["organ", 3, 0, 2, 0, 0, "empty reference"],
        ]


def test_sensitivity_and_precision():
    counts = Counts(tp=6, fp=2, fn=4)
    assert (counts.sensitivity, counts.precision) == (6 / 10, 6 / 8)
    assert counts.dsc == pytest.approx(2 / (1 / counts.sensitivity + 1 / counts.precision))


class TestFiles:
    MASK = np.ones((2, 3, 4))

    def error(self, folders, **options):
        with pytest.raises(UserError) as caught:
            folders.score(**options)
        return str(caught.value)

    def test_missing_predictions_are_named(self, folders):
        folders.add("a", self.MASK, self.MASK).add("b", self.MASK).add("c", self.MASK)
        message = self.error(folders)
        assert f"2 cases without prediction: {folders.predictions / 'b.nii.gz'}, " in message
        assert "c.nii.gz missing" in message
        assert "--chill" in message

    def test_extra_predictions_are_named_even_with_chill(self, folders):
        folders.add("a", self.MASK, self.MASK).add("b", None, self.MASK)
        for options in ({}, {"chill": True}):
            message = self.error(folders, **options)
            assert f"1 case without reference: {folders.references / 'b.nii.gz'} missing" in message

    def test_a_subset_by_name_or_by_what_is_there(self, folders):
        folders.add("a", self.MASK, self.MASK).add("b", self.MASK, self.MASK).add("c", self.MASK)
        assert folders.score(cases=["b"])[0]["case"].unique().tolist() == ["b"]
        assert folders.score(chill=True)[0]["case"].unique().tolist() == ["a", "b"]
        assert "without prediction" in self.error(folders, cases=["a", "c"])
        assert "without reference" in self.error(folders, cases=["a", "d"])
        assert "name at least one" in self.error(folders, cases=[])

    def test_other_files_are_left_alone(self, folders):
        folders.add("a", self.MASK, self.MASK)
        for name in ("summary.json", "a.npz", "._a.nii.gz", "dataset.json"):
            (folders.predictions / name).write_text("x")
        assert folders.score()[0]["case"].unique().tolist() == ["a"]

    def test_folders_that_are_none_or_hold_nothing(self, folders):
        assert "references is not a folder; it should hold the references" in self.error(folders)
        folders.references.mkdir()
        assert "has no file that ends in .nii.gz" in self.error(folders)

    def test_undeclared_labels_are_named(self, folders):
        wrong = self.MASK.copy()
        wrong[0, 0, :2] = (4, 7)
        folders.add("a", self.MASK, wrong).add("b", wrong, self.MASK)
        message = self.error(folders)
        assert f"{folders.predictions / 'a.nii.gz'} has the labels 4, 7 in 2 voxels" in message
        assert f"{folders.references / 'b.nii.gz'} has the labels" in message  # both cases, not only the first
        assert f"{folders.json} does not declare (it has 0, 1, 2)" in message

    def test_other_grids(self, folders):
        folders.add("a", self.MASK).add("a", None, self.MASK, origin=(5.0, 0.0, 0.0))
        message = self.error(folders)
        assert "are on different grids" in message
        assert "--ignore-geometry" in message
        assert folders.score(compare_headers=False)[0].loc[0, "dsc"] == 1
        folders.add("a", None, np.ones((2, 3, 5)))
        assert "differ in shape: 4 x 3 x 2 and 5 x 3 x 2 voxels (x, y, z)" in self.error(folders, compare_headers=False)

    @pytest.mark.parametrize("side", ["references", "predictions"])
    def test_a_damaged_file_is_named_and_nothing_scored(self, folders, side):
        folders.add("a", *random_masks(1)).add("b", *random_masks(2))
        path = getattr(folders, side) / "b.nii.gz"
        path.write_bytes(path.read_bytes()[:50])
        assert f"{side}/b.nii.gz" in self.error(folders)
        assert main(folders.words) == 1
        assert not list(folders.predictions.glob("*.csv"))

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"file_ending": ".nii.gz"}, "has no 'labels'"),
            ({"labels": {"background": 0, "a": 1}}, "has no 'file_ending'"),
            ({"labels": {"a": 1}, "file_ending": ".nii.gz"}, "that nnU-Net does not take: Background label not"),
            ({"labels": {"background": 0}, "file_ending": ".nii.gz"}, "nothing to score"),
            ([], "has no 'labels'"),
            ({"labels": {"background": 0, "a": 1, "b": 1}, "file_ending": ".nii.gz"}, "two labels the same value"),
        ],
    )
    def test_a_dataset_json_that_will_not_do(self, folders, content, message):
        folders.json.write_text(json.dumps(content))
        assert message in self.error(folders)

    @pytest.mark.parametrize(
        ("options", "message"),
        [({"nsd_tolerance": math.nan}, "give a distance from 0"), ({"n_processes": 0}, "not a number of processes")],
    )
    def test_options_that_will_not_do(self, folders, options, message):
        assert message in self.error(folders.add("a", self.MASK, self.MASK), **options)


class TestGeometry:
    def test_distances_and_volumes_are_by_the_headers_spacing_however_the_grid_lies(self, folders):
        reference = np.zeros((8, 10, 12))
        reference[2:5, 3:7, 2:9] = 1
        prediction = np.roll(reference, 1, 0)
        c, s = math.cos(0.4), math.sin(0.4)
        folders.add("plain", reference, prediction)
        folders.add("oblique", reference, prediction, direction=(c, 0, s, 0, 1, 0, -s, 0, c))
        plain, oblique = folders.row("plain"), folders.row("oblique")
        assert plain.hd95 == pytest.approx(2.5)
        assert oblique[["hd95", "nsd"]].tolist() == pytest.approx(plain[["hd95", "nsd"]].tolist())
        assert plain.reference_ml == pytest.approx(3 * 4 * 7 * 0.7 * 1.1 * 2.5 / 1000)
        assert plain.prediction_ml == plain.reference_ml

    @pytest.mark.parametrize("turned", [False, True])
    def test_slices_count_from_the_files_first_though_the_reader_turns_it(self, tmp_path, turned):
        folders = Folders(tmp_path, overwrite_image_reader_writer="SimpleITKIOWithReorient")
        voxels = np.zeros((4, 5, 6), np.uint8)  # x, y, z
        voxels[:2, 1, 0] = 1
        voxels[1, 1, 4] = 1
        affine = np.diag([1.0, 1.0, -3.0 if turned else 3.0, 1.0])
        for folder in (folders.references, folders.predictions):
            folder.mkdir()
            nibabel.save(nibabel.Nifti1Image(voxels, affine), folder / "a.nii.gz")
        slices = folders.score(slice_axis=0)[1]
        assert slices[["slice", "tp"]].values.tolist() == [[0, 2], [4, 1]]

    def test_photographs_have_distances_in_pixels_and_no_volume(self, tmp_path, capsys):
        folders = Folders(tmp_path, file_ending=".png")
        reference = np.zeros((20, 30), np.uint8)
        reference[4:12, 5:20] = 1
        for folder, mask in ((folders.references, reference), (folders.predictions, np.roll(reference, 2, 1))):
            write_simpleitk(folder / "a.png", mask, (1.0, 1.0))
        row = folders.row("a")
        assert (row.hd95, row.unit, row.nsd) == (pytest.approx(2), "px", 1)
        assert math.isnan(row.reference_ml)
        assert row.dsc == pytest.approx(13 / 15)
        assert main(folders.words) == 0
        printed = capsys.readouterr().out
        assert "HD95 (px)" in printed
        assert "NSD at 2 px" in printed
        assert "per slice" not in printed
        assert "mm" not in printed.replace("in mm", "")

    def test_ignored_voxels_count_for_nothing(self, tmp_path):
        folders = Folders(tmp_path, LABELS["ignore"])
        reference = np.zeros((6, 8, 8))
        reference[2:4, 2:6, 2:6] = 1
        reference[:, :, 6:] = 3
        prediction = np.where(reference == 3, 1, reference)
        row = folders.add("a", reference, prediction).row("a")
        assert (row.dsc, row.hd95, row.nsd) == (1, 0, 1)
        assert row.prediction_ml == row.reference_ml


def test_several_processes_give_the_same(folders):
    for case in "abc":
        folders.add(case, np.zeros((3, 4, 5)), random_masks(ord(case), shape=(3, 4, 5))[0])
    for one, many in zip(folders.score(), folders.score(n_processes=2), strict=True):
        pd.testing.assert_frame_equal(one, many)


class TestScoreFiles:
    def test_what_is_read_is_what_was_scored(self, folders, tmp_path):
        for case in ("007", "NA", 'comma, "quoted"'):
            folders.add(case, *random_masks(len(case)))
        folders.add("empty", np.ones((2, 2, 2)), np.zeros((2, 2, 2)))
        volumes, slices = folders.score()
        patients = pool_patients(volumes, ".")
        for scores, columns in ((volumes, VOLUME_COLUMNS), (slices, SLICE_COLUMNS), (patients, PATIENT_COLUMNS)):
            write_scores(scores, tmp_path / "deep" / "a.csv")
            read = read_scores(tmp_path / "deep" / "a.csv", columns)
            pd.testing.assert_frame_equal(read, scores, check_exact=True)
            write_scores(score_table([], columns), tmp_path / "empty.csv")
            assert (tmp_path / "empty.csv").read_text() == ",".join(columns) + "\n"
        assert "NA" in volumes["case"].tolist()

    def test_files_of_version_0_1_are_read(self, folders, tmp_path):
        volumes, _ = folders.add("a", *random_masks(1)).score()
        old = volumes.drop(columns="unit").rename(columns={"hd95": "hd95_mm", "nsd_tolerance": "nsd_tolerance_mm"})
        write_scores(old, tmp_path / "old.csv")
        pd.testing.assert_frame_equal(read_scores(tmp_path / "old.csv", VOLUME_COLUMNS), volumes)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (None, "does not exist"),
            ("", "cannot be read as a table"),
            ("case,label\n", "lacks the columns slice, tp, fp"),
            ("case,label,slice,tp,fp,fn,dsc,sensitivity,precision,note\na,b,1,1,0,0,high,1,1,\n", "not a number"),
            ("case,label,slice,tp,fp,fn,dsc,sensitivity,precision,note\na,b,,1,0,0,1,1,1,\n", "not a number"),
        ],
    )
    def test_files_that_are_none(self, tmp_path, text, message):
        if text is not None:
            (tmp_path / "s.csv").write_text(text)
        with pytest.raises(UserError, match=message):
            read_scores(tmp_path / "s.csv", SLICE_COLUMNS)


class TestPatients:
    """Slices of one patient, taken together."""

    PATTERN = r"pancreas_(\d+)_\d+"

    def slices(self, folders):
        for patient in range(3):
            for number in range(4):
                folders.add(f"pancreas_{patient:03d}_{number}", *random_masks(10 * patient + number, shape=(1, 7, 6)))
        return folders

    def test_a_patients_scores_are_those_of_its_slices_stacked(self, folders, tmp_path):
        patients = pool_patients(self.slices(folders).score()[0], self.PATTERN)
        stacked = Folders(tmp_path / "stacked")
        for patient in range(3):
            pairs = [random_masks(10 * patient + number, shape=(1, 7, 6)) for number in range(4)]
            stacked.add(f"{patient:03d}", *(np.concatenate(each) for each in zip(*pairs, strict=True)))
        columns = ["label", "tp", "fp", "fn", "dsc", "sensitivity", "precision", "note"]
        pd.testing.assert_frame_equal(patients[columns], stacked.score()[0][columns])
        assert patients["patient"].tolist() == [each for each in ("000", "001", "002") for _ in range(2)]
        assert set(patients["cases"]) == {4}

    def test_the_command_scores_them_and_resamples_them(self, folders, capsys):
        assert main([*self.slices(folders).words, "--no-slices", "--group", self.PATTERN]) == 0
        printed = capsys.readouterr().out
        scores = read_scores(folders.predictions / "scores_patient.csv", PATIENT_COLUMNS)
        (line,) = [each for each in printed.splitlines() if "DSC per patient" in each][:1]
        assert f"{scores[scores['label'] == 'organ']['dsc'].mean():.4f}" in line
        assert line.endswith("3 of 3 patients")
        assert "bootstrap over patients" in printed

    @pytest.mark.parametrize(("pattern", "message"), [("(", "no regular expression"), ("liver_(.)", "does not match")])
    def test_a_pattern_that_will_not_do(self, folders, refused, pattern, message):
        assert message in refused(*self.slices(folders).words, "--group", pattern)
        assert not list(folders.predictions.glob("*.csv"))


def test_the_slice_axis_is_that_of_the_plans_beside_the_predictions_or_of_the_trained_model(tmp_path):
    validation = tmp_path / "model" / "fold_0" / "validation"
    validation.mkdir(parents=True)
    assert plans_beside(validation) is None
    for folder, order in ((tmp_path / "model", [1, 0, 2]), (validation, [2, 0, 1])):
        (folder / "plans.json").write_text(json.dumps({"transpose_forward": order}))
        assert plans_beside(validation) == folder / "plans.json"
        assert slice_axis_of_plans(folder / "plans.json") == order[0]
    (tmp_path / "plans.json").write_text(json.dumps({"transpose_forward": [0, 0, 1]}))
    with pytest.raises(UserError, match="transpose_forward"):
        slice_axis_of_plans(tmp_path / "plans.json")


class TestCommand:
    def filled(self, folders):
        for case in "ab":
            folders.add(case, *random_masks(ord(case)))
        reference, _ = random_masks(1)
        return folders.add("c", reference, np.zeros_like(reference))

    def test_writes_and_prints(self, folders, tmp_path, capsys):
        output = tmp_path / "scores"
        assert main([*self.filled(folders).words, "-o", str(output), "--nsd-tolerance", "1.5"]) == 0
        volumes = read_scores(output / "scores_volume.csv", VOLUME_COLUMNS)
        slices = read_scores(output / "scores_slice.csv", SLICE_COLUMNS)
        assert len(volumes) == 6
        assert set(volumes["nsd_tolerance"]) == {1.5}
        printed = capsys.readouterr().out
        organ = volumes[volumes["label"] == "organ"]
        line = next(each for each in printed.splitlines() if each.startswith("organ") and "DSC" in each)
        assert f"{organ['dsc'].mean():.4f}" in line
        assert f"{organ['dsc'].std():.4f}" in line
        assert line.endswith("3 of 3 cases")
        of_reference = slices[(slices["label"] == "organ") & (slices["tp"] + slices["fn"] > 0)]
        (line,) = [each for each in printed.splitlines() if "precision per slice" in each][:1]
        assert line.endswith(f"{of_reference['precision'].count()} of {len(of_reference)} slices")
        for words in ("NSD at 1.5 mm", "95% CI", "2 of 3 cases", "c, organ: empty prediction", "no plans were found",
                      "3 cases are few", "foreground_mean"):  # fmt: skip
            assert words in printed

    def test_by_default_into_the_predictions_with_their_plans(self, folders, capsys):
        self.filled(folders)
        (folders.predictions / "plans.json").write_text(json.dumps({"transpose_forward": [2, 0, 1]}))
        assert main(folders.words) == 0
        assert "Slices are along x" in capsys.readouterr().out
        assert read_scores(folders.predictions / "scores_slice.csv", SLICE_COLUMNS)["slice"].max() == 5

    def test_what_is_left_out_is_named(self, folders, capsys):
        assert main([*self.filled(folders).add("d", np.ones((2, 2, 2))).words, "--chill"]) == 0
        assert "Not scored, as asked: 1 of 4 references (d)" in capsys.readouterr().out
        assert main([*folders.words, "--cases", "a", "b"]) == 0
        assert "Not scored, as asked: 2 of 4 references (c, d)" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["-np", "0"], "0 is not a number of processes; give 1 or more (-np)"),
            (["--confidence", "95"], "--confidence 95.0 will not do"),
            (["--bootstrap", "5"], "--bootstrap 5 will not do"),
            (["--seed", "-1"], "--seed -1 will not do"),
            (["-pfile", "nowhere.json"], "nowhere.json does not exist"),
            (["--cases", "z"], "z.nii.gz missing"),
            (["-o", __file__], "test_evaluation.py: a file is there; give a folder"),
        ],
    )
    def test_mistakes_are_one_message(self, folders, refused, words, message):
        assert message in refused(*self.filled(folders).words, *words)
        assert not list(folders.predictions.glob("*.csv"))
