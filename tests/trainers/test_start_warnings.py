"""What nnU-Net does in silence is said when a training starts, once, in the log and on the console."""

import json
from pathlib import Path

import pytest
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from small_training import make_trainer

from nnunetv2_eccam.trainers import nnUNetTrainerECCaM, nnUNetTrainerECCaM_1epoch
from nnunetv2_eccam.trainers.start_warnings import (
    acquired_axis,
    boxed,
    continuation_warning,
    fold_warning,
    slicing_warning,
)


def start(trainer) -> tuple[str, str]:
    """Start a training; give what its log says, and what of it is below all that nnU-Net says, on one line each."""
    file = Path(trainer.log_file)
    before = len(file.read_text())  # the name has the time to a second: trainers of one second share the file
    trainer.on_train_start()
    log = file.read_text()[before:]
    return tuple(" ".join(text.split()) for text in (log, log.rpartition("'transpose_forward'")[2]))


def asked_to_continue(nnunet_base, dataset, fold=0):
    """A trainer as ``nnUNetv2_train --c`` makes it."""
    trainer = make_trainer(nnUNetTrainerECCaM_1epoch, nnunet_base, dataset)
    plans = {**trainer.plans_manager.plans, "continue_training": True}
    return type(trainer)(plans, "2d", fold, trainer.dataset_json, trainer.device)


# --- the fold -----------------------------------------------------------------------------------------


def test_a_fold_beyond_the_splits_is_said_aloud(nnunet_base, small_dataset, capsys):
    trainer = make_trainer(nnUNetTrainerECCaM, nnunet_base, small_dataset())
    trainer.fold = 7
    _, below = start(trainer)
    assert "WARNING: fold 7 is none of the 5 splits" in below
    assert "random 80:20 split" in below
    console = capsys.readouterr().out
    assert console.count("WARNING: fold 7") == 1
    assert console.rindex("WARNING: fold 7") > console.rindex("'transpose_forward'")


@pytest.mark.parametrize("fold", [0, 4, "all"])
def test_a_fold_of_the_splits_is_not(tmp_path, fold):
    (tmp_path / "splits_final.json").write_text(json.dumps([{}] * 5))
    assert fold_warning(fold, tmp_path) is None


def test_a_split_file_of_ones_own_counts(tmp_path):
    (tmp_path / "splits_final.json").write_text(json.dumps([{}] * 4))
    assert "which are 0 to 3" in fold_warning(4, tmp_path)
    (tmp_path / "splits_final.json").unlink()
    assert fold_warning(4, tmp_path) is None


# --- to continue --------------------------------------------------------------------------------------


def test_continuing_nothing_is_said_aloud_and_continuing_something_is_not(nnunet_base, small_dataset, capsys):
    trainer = asked_to_continue(nnunet_base, small_dataset(), 1)
    _, below = start(trainer)
    assert f"WARNING: --c was given, but {trainer.output_folder} has no checkpoint_final.pth" in below
    assert capsys.readouterr().out.count("WARNING: --c was given") == 1
    trainer.current_epoch = 0
    trainer.save_checkpoint(str(Path(trainer.output_folder, "checkpoint_latest.pth")))
    again = asked_to_continue(nnunet_base, small_dataset(), 1)
    again.num_epochs = 5
    again.load_checkpoint(str(Path(trainer.output_folder, "checkpoint_latest.pth")))
    assert "WARNING" not in start(again)[1]


def test_a_plain_training_has_nothing_to_say(nnunet_base, small_dataset):
    assert "WARNING" not in start(make_trainer(nnUNetTrainerECCaM, nnunet_base, small_dataset()))[0]


def test_a_training_that_is_done_says_that_nothing_is_trained():
    assert "had its 20 epochs" in continuation_warning(True, True, "fold_0", 20, 20)
    assert continuation_warning(True, True, "fold_0", 19, 20) is None
    assert continuation_warning(False, False, "fold_0", 0, 20) is None


def test_only_one_of_several_processes_speaks(nnunet_base, small_dataset, capsys):
    trainer = make_trainer(nnUNetTrainerECCaM, nnunet_base, small_dataset())
    capsys.readouterr()
    trainer.local_rank = 1
    trainer._say_aloud("one", None)
    assert capsys.readouterr().out == ""
    trainer.local_rank = 0
    trainer._say_aloud(None, "two")
    assert "WARNING: two" in capsys.readouterr().out


def test_a_warning_stands_apart_and_no_path_in_it_is_broken():
    path = "/a" * 80
    lines = boxed(f"there is nothing at {path} to continue").splitlines()
    assert lines[1] == lines[-1] == "#" * 100
    assert path in lines


# --- the slices ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spacing", "axis"),
    [
        ((3, 0.8, 0.8), 0),
        ((0.8, 3, 0.8), 1),
        ((0.8, 0.8, 3), 2),
        ((0.5, 0.9, 0.9), 0),  # slices closer than pixels, as in 31 cases of KiTS19
        ((1, 1, 1), None),
        ((1, 1.005, 0.995), None),  # rounded
        ((1, 2, 3), None),
    ],
)
def test_slices_are_of_square_pixels(spacing, axis):
    assert acquired_axis(spacing) == axis


def plans_of(forward, spacing) -> dict:
    """Of nnU-Net's plans what is read; ``spacing`` in mm, axes z, y, x."""
    turned = [spacing[axis] for axis in forward]
    return {"transpose_forward": list(forward), "configurations": {"3d_fullres": {"spacing": turned}}}


THICK, CUBES = (3.0, 0.8, 0.8), (1.25, 1.37, 1.25)


@pytest.mark.parametrize(
    ("forward", "patch", "spacings"),
    [
        ((0, 1, 2), (64, 64), [THICK]),
        ((1, 0, 2), (64, 64), [(0.8, 3.0, 0.8)] * 3 + [THICK]),  # stored otherwise, and sliced as acquired
        ((0, 1, 2), (64, 64), [(1, 1, 1)]),
        ((1, 0, 2), (16, 64, 64), [THICK]),  # three dimensions have no slices
        ((1, 0, 2), (64, 64), []),
    ],
)
def test_plans_that_slice_as_the_scanner_did_are_right(forward, patch, spacings):
    assert slicing_warning(plans_of(forward, THICK), patch, spacings) is None


def test_plans_that_slice_across_the_scanners_slices_say_the_evidence_and_the_way_out():
    said = slicing_warning(plans_of((1, 0, 2), CUBES), (64, 64), [THICK] * 3 + [(1, 1, 1)])
    assert "slice the images along y, but they seem to be acquired in slices along z" in said
    assert "3 of 4 cases have square pixels across z" in said
    assert "here 1.25 1.37 1.25 mm for z, y, x" in said
    assert "-overwrite_target_spacing 1.371 1.37 1.25 " in said


def test_cubes_are_taken_to_be_stored_as_they_were_acquired():
    said = slicing_warning(plans_of((2, 0, 1), (1, 1, 1.001)), (64, 64), [(1, 1, 1.001)] * 2)
    assert "along x, but" in said
    assert "voxels are cubes, and the files store their slices along z" in said


def test_the_way_out_is_one(small_dataset):
    """With the spacing that a warning gives, nnU-Net's planner slices along the axis that it names."""

    def sliced_along(*spacing) -> list[int]:
        forward, _ = ExperimentPlanner(small_dataset(), overwrite_target_spacing=list(spacing)).determine_transpose()
        return forward

    spacing = (1.0, 3.0, 1.0)
    plans = {**plans_of((1, 0, 2), spacing), "transpose_forward": sliced_along(*spacing)}
    said = slicing_warning(plans, (64, 64), [(3.0, 1.0, 1.0)])
    advised = said.partition("-overwrite_target_spacing ")[2].split()[:3]
    assert advised == ["3.003", "3", "1"]
    assert plans["transpose_forward"][0] == 1
    assert sliced_along(*map(float, advised))[0] == 0


def test_it_is_said_when_a_training_starts(nnunet_base, small_dataset):
    trainer = make_trainer(nnUNetTrainerECCaM, nnunet_base, small_dataset())
    trainer.plans_manager.plans["transpose_forward"] = [1, 0, 2]
    log, _ = start(trainer)
    assert "slice the images along y" in log
