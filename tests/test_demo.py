"""The demonstration: its table, its picture, how it runs commands, and how it goes on after a stop."""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
from matplotlib.image import imread

from nnunetv2_eccam.demo import command, picture, runner
from nnunetv2_eccam.demo.journal import JOURNAL, Journal, open_work_folder
from nnunetv2_eccam.demo.progress import PredictionProgress, Progress, TrainingProgress, duration, epochs_of
from nnunetv2_eccam.demo.results import mean_of, read_results, result_of, table, write_csv
from nnunetv2_eccam.demo.steps import count_labelled
from nnunetv2_eccam.errors import UserError

posix = pytest.mark.skipif(os.name != "posix", reason="the stand-ins for nnU-Net's commands are sh scripts")


# ---- the table ------------------------------------------------------------------------------------


def write_summary(target, cases):
    """Write what nnUNetv2_evaluate_folder writes, as far as the demonstration reads it."""
    entries = [
        {
            "prediction_file": f"/p/{name}.nii.gz",
            "reference_file": f"/r/{name}.nii.gz",
            "metrics": {"1": {"TP": tp, "FP": fp, "FN": fn, "TN": 0, "Dice": None}},
        }
        for name, (tp, fp, fn) in cases.items()
    ]
    target.write_text(json.dumps({"metric_per_case": entries}))
    return target


def test_figures_are_those_of_equations_14_to_16(tmp_path):
    results = read_results(write_summary(tmp_path / "summary.json", {"b": (30, 10, 20), "a": (50, 0, 50)}))
    assert [each.case for each in results] == ["a", "b"]
    assert results[0][1:] == pytest.approx((100 / 150, 0.5, 1.0))
    assert results[1][1:] == pytest.approx((60 / 90, 0.6, 0.75))
    assert mean_of(results)[1:] == pytest.approx((2 / 3, 0.55, 0.875))


def test_figures_that_are_not_defined_are_left_out_of_the_mean_and_shown_as_a_dash():
    nothing_found, good = result_of("a", 0, 0, 10), result_of("b", 8, 2, 2)
    assert nothing_found.dice == 0
    assert math.isnan(nothing_found.precision)
    assert mean_of([nothing_found, good])[1:] == pytest.approx((0.4, 0.4, 0.8))
    lines = [line.split() for line in table([nothing_found, good]).splitlines()]
    assert lines[0] == ["unseen", "case", "Dice", "sensitivity", "precision"]
    assert lines[2] == ["a", "0.000", "0.000", "-"]
    assert lines[3] == ["b", "0.800", "0.800", "0.800"]
    assert lines[5] == ["mean", "0.400", "0.400", "0.800"]


def test_the_csv_holds_the_table(tmp_path):
    write_csv([result_of("a", 1, 0, 2), result_of("b", 0, 0, 4)], tmp_path / "results.csv")
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == ["a", "b", "mean"]
    assert float(rows[0]["dice"]) == pytest.approx(0.5, abs=1e-6)
    assert float(rows[0]["sensitivity"]) == pytest.approx(1 / 3, abs=1e-6)
    assert rows[1]["precision"] == ""


def test_a_summary_without_cases_or_with_two_labels_is_refused(tmp_path):
    with pytest.raises(UserError, match="no cases"):
        read_results(write_summary(tmp_path / "empty.json", {}))
    two = {"prediction_file": "/p/a.nii.gz", "metrics": {"1": {}, "2": {}}}
    (tmp_path / "two.json").write_text(json.dumps({"metric_per_case": [two]}))
    with pytest.raises(UserError, match="2 labels"):
        read_results(tmp_path / "two.json")


# ---- the picture ----------------------------------------------------------------------------------


def save(path, voxels, spacing=(1, 1, 3)):
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag((*spacing, 1))), path)
    return path


def planted(tmp_path, prediction=None, spacing=(1, 1, 3)):
    """A flat image, a reference block, and a prediction with one miss and one false alarm.

    Axes are right, front, head. The reference is largest in slice 3. The prediction misses the block's
    front right quarter, and adds a block at the back left.
    """
    image = np.full((40, 40, 6), 100, np.int16)
    reference = np.zeros(image.shape, np.uint8)
    reference[10:30, 10:30, 3] = 1
    reference[18:22, 18:22, 4] = 1
    if prediction is None:
        prediction = reference.copy()
        prediction[20:30, 20:30, 3] = 0
        prediction[2:8, 2:8, 3] = 1
    volumes = {"image": image, "true": reference, "predicted": prediction}
    return picture.load_slice(
        "case_7", *[save(tmp_path / f"{name}.nii.gz", volume, spacing) for name, volume in volumes.items()]
    )


def blocks_of(pixels, colour):
    """Give row and column of each pixel that has a colour over a flat image, which is drawn black."""
    return np.argwhere(np.abs(pixels[..., :3] - picture.OPACITY * np.asarray(colour)).max(axis=-1) < 0.02)


def test_errors_are_drawn_in_their_colour_at_their_place(tmp_path):
    picture.draw_picture([planted(tmp_path)], tmp_path / "demo.png")
    pixels = imread(tmp_path / "demo.png")
    hits, alarms, misses = (
        blocks_of(pixels, colour) for colour in (picture.TRUE_POSITIVE, picture.FALSE_POSITIVE, picture.FALSE_NEGATIVE)
    )
    reference = blocks_of(pixels, picture.REFERENCE)
    scale = math.sqrt(len(reference) / 400)  # pixels of the picture per voxel
    assert len(hits) == pytest.approx(300 * scale**2, rel=0.05)
    assert len(misses) == pytest.approx(100 * scale**2, rel=0.08)
    assert len(alarms) == pytest.approx(36 * scale**2, rel=0.1)
    middle = hits.mean(axis=0)
    # Seen from the feet: the patient's right is at the left edge, the front at the top.
    assert (misses.mean(axis=0) < middle).all()
    assert (alarms.mean(axis=0) > middle).all()
    offset = (alarms.mean(axis=0) - misses.mean(axis=0)) / scale
    np.testing.assert_allclose(offset, (20, 20), atol=1)
    # Errors are in the third column, the reference in the second, nothing in the first.
    third = pixels.shape[1] / 3
    assert misses[:, 1].min() > 2 * third
    assert third < reference[:, 1].min() < reference[:, 1].max() < 2 * third


def test_a_pixel_is_two_fifths_image_and_three_fifths_colour():
    grey = np.array([[0.5, 0.5, 0.5, 0.5]])
    true, predicted = np.array([[1, 1, 0, 0]], bool), np.array([[1, 0, 1, 0]], bool)
    colours = picture.colour_errors(grey, true, predicted)[0]
    for got, colour in zip(
        colours, (picture.TRUE_POSITIVE, picture.FALSE_NEGATIVE, picture.FALSE_POSITIVE), strict=False
    ):
        np.testing.assert_allclose(got, 0.2 + 0.6 * np.array(colour))
    np.testing.assert_allclose(colours[3], 0.5)


def test_the_slice_with_the_largest_reference_is_shown_with_the_dice_of_the_volume(tmp_path):
    shown = planted(tmp_path)
    assert shown.reference.sum() == 400
    # slice 3: 300 hits, 36 false alarms, 100 misses; slice 4: 16 hits
    assert shown.title == f"case_7: Dice {2 * 316 / (2 * 316 + 36 + 100):.3f} in the volume"


def test_an_empty_prediction_is_drawn_as_all_missed(tmp_path):
    shown = planted(tmp_path, prediction=np.zeros((40, 40, 6), np.uint8))
    picture.draw_picture([shown], tmp_path / "demo.png")
    pixels = imread(tmp_path / "demo.png")
    assert "Dice 0.000" in shown.title
    assert len(blocks_of(pixels, picture.FALSE_NEGATIVE)) > 1000
    assert len(blocks_of(pixels, picture.FALSE_POSITIVE)) < 20


def test_voxels_are_drawn_at_their_physical_proportions_across_the_thickest_axis(tmp_path):
    shown = planted(tmp_path, spacing=(4, 1, 2))  # slices across x: columns are y (1 mm), rows z (2 mm)
    assert shown.image.shape == (6, 40)
    assert shown.aspect == 2
    assert shown.sides == ("A", "S")
    picture.draw_picture([shown, shown], tmp_path / "demo.png")
    found = blocks_of(imread(tmp_path / "demo.png"), picture.REFERENCE)
    upper = found[found[:, 0] < found[:, 0].mean()]
    height, width = np.ptp(upper, axis=0) + 1
    assert height / width == pytest.approx(2 * 2 / 20, rel=0.1)  # rows 3 and 4 by columns 10 to 29


def test_a_file_stored_in_another_orientation_gives_the_same_picture(tmp_path):
    before = planted(tmp_path)
    files = []
    for name in ("image", "true", "predicted"):
        turned = nibabel.load(tmp_path / f"{name}.nii.gz").as_reoriented([[1, -1], [0, 1], [2, -1]])
        files.append(tmp_path / f"{name}_turned.nii.gz")
        nibabel.save(turned, files[-1])
    after = picture.load_slice("case_7", *files)
    np.testing.assert_array_equal(after.prediction, before.prediction)
    np.testing.assert_array_equal(after.reference, before.reference)


def test_a_missing_or_misshapen_prediction_is_named(tmp_path):
    planted(tmp_path)
    files = [tmp_path / "image.nii.gz", tmp_path / "true.nii.gz"]
    with pytest.raises(UserError, match=r"nowhere\.nii\.gz is missing"):
        picture.load_slice("a", *files, tmp_path / "nowhere.nii.gz")
    with pytest.raises(UserError, match="differ in shape"):
        picture.load_slice("a", *files, save(tmp_path / "small.nii.gz", np.zeros((4, 4, 4), np.uint8)))


# ---- the progress ---------------------------------------------------------------------------------


def test_training_progress_follows_nnunets_log():
    progress = TrainingProgress(epochs=5)
    assert progress.describe(3) == "starting, 0:03 elapsed"
    stamp = "2030-01-01 10:00:00.000000: "
    assert progress.feed(f"{stamp}Epoch 0 ", 10) is None
    assert progress.describe(40) == "epoch 1/5, 0:40 elapsed"
    progress.feed(f"{stamp}Pseudo dice [np.float32(0.8123)] ", 69)
    assert progress.feed(f"{stamp}Epoch time: 60.4 s", 70) == "epoch 1/5: pseudo Dice 0.8123, 60 s"
    progress.feed(f"{stamp}Epoch 1 ", 70)
    assert progress.describe(100) == (
        "epoch 2/5, pseudo Dice 0.8123, 1:40 elapsed, about 3:32 of training left"  # 4 * 60.4 - 30
    )
    progress.feed(f"{stamp}predicting phantom_001", 400)
    assert progress.describe(401) == "validating, phantom_001, 6:41 elapsed"
    kept = progress.feed(f"{stamp}Mean Validation Dice:  0.87654 ", 410)
    assert kept == "validation cases of the fold: mean Dice 0.877"


@pytest.mark.parametrize(
    ("printed", "dice"),
    [
        ("[0.5, 0.25]", "0.5 0.25"),
        ("[np.float64(nan)]", "nan"),
        ("[np.float32(0.0)]", "0.0"),
        ("[np.float32(1.0)]", "1.0"),
    ],
)
def test_pseudo_dice_is_read_with_any_numpy(printed, dice):
    progress = TrainingProgress(epochs=None)
    progress.feed("x: Epoch 0", 0)
    progress.feed(f"x: Pseudo dice {printed}", 1)
    assert progress.feed("x: Epoch time: 2.0 s", 2) == f"epoch 1: pseudo Dice {dice}, 2 s"


def test_other_progress_shows_the_last_counter():
    progress = Progress()
    assert progress.describe(2) == "running, 0:02 elapsed"
    progress.feed("Preprocessing cases:  25%|██▌       | 3/12 [00:02<00:05,  1.74it/s]", 2)
    assert progress.describe(3) == "preprocessing cases 3/12, 0:03 elapsed"
    predicting = PredictionProgress(4)
    predicting.feed("done with phantom_001", 5)
    predicting.feed("Predicting phantom_002:", 5)
    assert predicting.describe(65) == "1/4 cases, 1:05 elapsed"


def test_durations_and_training_lengths_are_read():
    assert [duration(s) for s in (-1, 59.6, 3600)] == ["0:00", "1:00", "1:00:00"]
    assert epochs_of("nnUNetTrainerECCaM_5epochs") == 5
    assert epochs_of("nnUNetTrainer_1epoch") == 1
    assert epochs_of("nnUNetTrainerECCaM") is None


# ---- the runner -----------------------------------------------------------------------------------


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """An environment with nothing in it, of which the running Python claims to be."""
    folder = tmp_path / "environment" / "bin"
    folder.mkdir(parents=True)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    return folder


def put_script(folder, name, text):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@posix
def test_a_failing_command_shows_its_last_lines_and_names_its_log(environment, tmp_path, capsys):
    lines = "for i in $(seq 1 50); do echo line $i; done"
    put_script(environment, "fails", f"{lines}; echo 'the reason' >&2; exit 3")
    with pytest.raises(UserError, match=r"fails failed \(exit code 3\).*log\.txt"):
        runner.run_command(["fails"], os.environ, tmp_path / "log.txt", Progress())
    shown = capsys.readouterr().err.split("\n  ")
    assert shown[-1].strip() == "the reason"
    assert shown[-2] == "line 50"
    assert len(shown) == runner.LAST_LINES + 1
    log = (tmp_path / "log.txt").read_text()
    assert log.startswith("line 1\nline 2\n")
    assert log.endswith("the reason\n")


@posix
def test_a_progress_bars_carriage_returns_end_lines(environment, tmp_path, capsys):
    put_script(environment, "bar", r"printf 'work:  50%%|#| 1/2 [\rwork: 100%%|#| 2/2 [\rlast, no end'")
    seen = []

    class Listening(Progress):
        def feed(self, line, elapsed):
            seen.append(line)
            return "kept" if "last" in line else None

    runner.run_command(["bar"], os.environ, tmp_path / "log.txt", Listening())
    assert seen[:3] == ["work:  50%|#| 1/2 [", "work: 100%|#| 2/2 [", "last, no end"]
    assert capsys.readouterr().out == "  kept\n"


@posix
def test_an_interrupt_ends_the_command_and_its_workers(environment, tmp_path):
    put_script(environment, "parent", "sleep 60 & echo worker $!; wait")
    pids = []

    class Interrupting(Progress):
        def feed(self, line, elapsed):
            pids.append(int(line.split()[1]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run_command(["parent"], os.environ, tmp_path / "log.txt", Interrupting())
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and is_running(pids[0]):
        time.sleep(0.05)
    assert not is_running(pids[0])


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] == "Z")


def test_a_command_that_is_not_in_the_environment_is_named(environment):
    with pytest.raises(UserError, match="the command nnUNetv2_train is not in"):
        runner.script("nnUNetv2_train")


def test_commands_are_echoed_so_that_they_can_be_pasted(capsys):
    runner.echo(["convert", "/a folder/it's"], {"nnUNet_n_proc_DA": "0"})
    assert capsys.readouterr().out == "$ nnUNet_n_proc_DA=0 convert '/a folder/it'\"'\"'s'\n"


# ---- the journal and the work folder --------------------------------------------------------------


def finished(folder, *names):
    journal = open_work_folder(folder, restart=False)
    for name in names:
        journal.begin(name, ["same"])
        journal.finish(2.0)
    return journal


def test_finished_steps_are_skipped_by_a_later_run(tmp_path):
    finished(tmp_path, "convert", "train")
    later = Journal(tmp_path)
    assert later.skip("convert", ["same"])
    assert later.skip("train", ["same"])
    assert not later.skip("predict", ["same"])
    assert later.seconds() == {"convert": 2.0, "train": 2.0}


def test_a_step_with_other_options_is_done_again_with_all_behind_it(tmp_path):
    finished(tmp_path, "convert", "train", "predict")
    later = Journal(tmp_path)
    assert later.skip("convert", ["same"])
    assert not later.skip("train", ["other"])
    assert later.begin("train", ["other"]) is False
    later.finish(1)
    assert not later.skip("predict", ["same"])


def test_a_new_first_step_is_followed_by_all_others_again(tmp_path):
    finished(tmp_path, "convert", "train")
    later = Journal(tmp_path)
    assert not later.skip("phantom", [])
    later.begin("phantom", [])
    later.finish(1)
    assert not later.skip("convert", ["same"])
    latest = Journal(tmp_path)
    assert latest.skip("phantom", [])


def test_a_step_that_was_stopped_is_known_to_have_begun(tmp_path):
    journal = finished(tmp_path, "convert")
    assert journal.begin("train", ["same"]) is False
    later = Journal(tmp_path)
    assert later.skip("convert", ["same"])
    assert not later.skip("train", ["same"])
    assert later.begin("train", ["same"]) is True


def test_a_folder_of_somebody_elses_is_refused_and_left_alone(tmp_path):
    (tmp_path / "nnUNet_raw").mkdir()
    (tmp_path / "nnUNet_raw" / "precious").touch()
    for restart in (False, True):
        with pytest.raises(UserError, match="is not empty and not a work folder"):
            open_work_folder(tmp_path, restart)
    assert (tmp_path / "nnUNet_raw" / "precious").exists()


def test_restart_removes_what_the_demonstration_wrote_and_nothing_else(tmp_path):
    finished(tmp_path, "convert")
    (tmp_path / "nnUNet_results" / "deep").mkdir(parents=True)
    (tmp_path / "notes.txt").touch()
    journal = open_work_folder(tmp_path, restart=True)
    assert not journal.skip("convert", ["same"])
    assert {path.name for path in tmp_path.iterdir()} == {JOURNAL, "logs", "notes.txt"}


def test_a_work_folder_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="is not a folder"):
            open_work_folder(folder, restart=False)


# ---- the command ----------------------------------------------------------------------------------


def options_of(*words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args([*map(str, words), "--device", "cpu"])


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ([], "is not a folder"),
        (["labelsTr/"], "dataset.json, imagesTr missing"),
        (["dataset.json", "labelsTr/a.nii.gz", "imagesTr/b.nii.gz"], "has no labelled case"),
        (["dataset.json", "labelsTr/._a.nii.gz", "imagesTr/._a.nii.gz"], "has no labelled case"),
    ],
)
def test_a_folder_that_is_no_download_is_refused_before_anything_is_written(tmp_path, made, said):
    data = tmp_path / "data"
    for name in made:
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir()
        else:
            path.touch()
    with pytest.raises(UserError, match=said):
        command.run(options_of("--data", data, "--work-dir", tmp_path / "work"))
    assert not (tmp_path / "work").exists()


def test_only_files_with_image_and_label_count_as_labelled(tmp_path):
    for name in (
        "dataset.json",
        "imagesTr/a.nii.gz",
        "imagesTr/b.nii.gz",
        "imagesTr/._a.nii.gz",
        "labelsTr/a.nii.gz",
        "labelsTr/._a.nii.gz",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert count_labelled(tmp_path) == 1


@pytest.mark.parametrize("words", [("--hold-out", 0), ("--hold-out", 12), ("--seed", -1)])
def test_options_out_of_range_are_refused(tmp_path, words):
    with pytest.raises(UserError, match=words[0]):
        command.run(options_of("--work-dir", tmp_path / "work", *words))


STAND_INS = {
    # Each writes what the real one would, at the place that the variables and arguments say.
    "nnUNetv2_eccam": """
        echo "nnUNetv2_eccam $*" >> "$CALLS"
        test "$1" = plans && exit 0
        raw="$nnUNet_raw/Dataset502_HeartPhantom"; mkdir "$raw" "$raw/imagesTs" "$raw/labelsTs" || exit 1
        cp "$3/imagesTr/phantom_002.nii.gz" "$raw/imagesTs/phantom_002_0000.nii.gz"
        cp "$3/labelsTr/phantom_002.nii.gz" "$raw/labelsTs/" """,
    "nnUNetv2_plan_and_preprocess": """
        echo "nnUNetv2_plan_and_preprocess $*" >> "$CALLS"; test -z "$nnUNet_n_proc_DA" """,
    "nnUNetv2_train": """
        echo "nnUNetv2_train $nnUNet_n_proc_DA $*" >> "$CALLS"
        fold="$nnUNet_results/Dataset502_HeartPhantom/nnUNetTrainerECCaM_5epochs__nnUNetPlans__$2/fold_0"
        test -e "$fold/checkpoint_latest.pth" && exit 0
        mkdir -p "$fold"; touch "$fold/checkpoint_latest.pth"; echo 'out of memory'; exit 9""",
    "nnUNetv2_predict": """
        echo "nnUNetv2_predict $*" >> "$CALLS"
        mkdir -p "$4"; cp "$nnUNet_raw/Dataset502_HeartPhantom/labelsTs/"* "$4/" """,
    "nnUNetv2_evaluate_folder": """
        echo "nnUNetv2_evaluate_folder $*" >> "$CALLS"; cp "$SUMMARY" "$2/summary.json" """,
}


@posix
def test_a_run_that_was_stopped_goes_on_and_ends_with_table_and_picture(environment, tmp_path, monkeypatch, capsys):
    for name, text in STAND_INS.items():
        put_script(environment, name, text)
    monkeypatch.setattr(command, "PHANTOM_LABELLED", 6)
    calls, work = tmp_path / "calls", tmp_path / "work folder"
    summary = write_summary(tmp_path / "summary.json", {"phantom_002": (90, 10, 30)})
    monkeypatch.setenv("CALLS", str(calls))
    monkeypatch.setenv("SUMMARY", str(summary))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")  # must not reach the planning
    options = options_of("--work-dir", work, "--hold-out", 1)

    with pytest.raises(UserError, match="nnUNetv2_train failed"):
        command.run(options)
    assert "out of memory" in capsys.readouterr().err
    before = calls.read_text().splitlines()
    assert [line.split()[0] for line in before] == [
        "nnUNetv2_eccam",
        "nnUNetv2_plan_and_preprocess",
        "nnUNetv2_eccam",
        "nnUNetv2_train",
    ]
    assert before[0] == (
        f"nnUNetv2_eccam convert msd-heart {work}/download/Task502_HeartPhantom --id 502 "
        "--name HeartPhantom --hold-out 1 --seed 0"
    )
    assert before[2] == "nnUNetv2_eccam plans 502 trial"
    assert before[3] == "nnUNetv2_train 0 502 2d_eccam_trial 0 -tr nnUNetTrainerECCaM_5epochs -device cpu"

    assert command.run(options) == 0
    after = calls.read_text().splitlines()[len(before) :]
    assert [line.split()[0] for line in after] == [
        "nnUNetv2_train",
        "nnUNetv2_predict",
        "nnUNetv2_evaluate_folder",
    ]
    assert after[0] == before[3] + " --c"
    shown = capsys.readouterr().out
    assert f"export nnUNet_raw='{work}/nnUNet_raw'" in shown
    assert "$ nnUNetv2_eccam plans 502 trial\n  done before" in shown
    assert [line.split() for line in shown.splitlines() if line.startswith("phantom_002")] == [
        ["phantom_002", "0.818", "0.750", "0.900"],
    ]
    assert (work / "results.csv").read_text().splitlines()[1] == "phantom_002,0.818182,0.750000,0.900000"
    hits = blocks_of_colour_family(imread(work / "demo.png"), picture.TRUE_POSITIVE)
    assert hits > 500
    assert str(work / "demo.png") in shown

    assert command.run(options) == 0
    assert len(calls.read_text().splitlines()) == len(before) + len(after)


def blocks_of_colour_family(pixels, colour):
    """Count pixels that are a colour over some grey: OPACITY * colour + (1 - OPACITY) * grey."""
    rest = pixels[..., :3] - picture.OPACITY * np.asarray(colour)
    grey = rest.mean(axis=-1)
    spread = np.ptp(rest, axis=-1)
    return int(((spread < 0.02) & (grey >= -0.01) & (grey <= 0.42)).sum())
