"""One contract for all commands: help with an example, errors in one line, exit codes, nnU-Net's words."""

import argparse
import importlib

import nibabel
import numpy as np
import pytest
from conversion_phantoms import write_task
from stored_volumes import write_scored_case

from nnunetv2_eccam.arguments import OPTIONS, add_option, dataset_name
from nnunetv2_eccam.cli import COMMANDS, command_parser, main
from nnunetv2_eccam.errors import UserError

PARSED_HERE = [name for name, (module, _) in COMMANDS.items() if not hasattr(importlib.import_module(module), "main")]

WRONG_INPUT = [
    ("demo", "--data nowhere", "nowhere does not exist; give the folder with imagesTr"),
    ("convert", "msd-heart nowhere", "nowhere"),
    ("predict", "-i nowhere -o out -d 7 -c 2d -device cpu", "7"),
    ("export", "-o model.onnx -m nowhere", "there is no trained model at nowhere"),
    ("evaluate", "nowhere nowhere_else -djfile nowhere.json", "nowhere"),
    ("overlay", "-o figure.png --images nowhere --system A=nowhere", "nowhere"),
    ("attention", "spatial -i nowhere.nii.gz -o out -m nowhere -device cpu", "nowhere"),
    ("checkpoint", "nowhere.pth", "there is no checkpoint nowhere.pth"),
]
"""What a user may get wrong in each command, and what the line then names; the rest take no files."""

UNKNOWN_DATA_SET = [
    ("splits", "--by (.)", "there is no data set {}"),
    ("plans", "practical", "there is no data set {}"),
    ("predict", "-i images -o . -c 2d -device cpu", "7"),
    ("evaluate", "predictions", "there is no data set {}"),
    ("benchmark", "-c 2d -tr nnUNetTrainerECCaM", "there is no data set {}"),
    ("overlay", "-o figure.png --system A=predictions", "there is no data set {}"),
    ("attention", "spatial -i image.nii.gz -o out -c 2d -device cpu", "7"),
    ("checkpoint", "-c 2d", "7"),
]
"""The same of a data set that there is not, with what each command needs beside it."""

WRONG_INPUT += [
    (name, f"-d {given} {words}", message.format(given))
    for name, words, message in UNKNOWN_DATA_SET
    for given in ("7", "007", "Dataset007_Pancreas")
]

MEANING = {
    "-d": {"dataset", "datasets"},
    "-c": {"configuration", "configurations"},
    "-tr": {"trainer", "trainers"},
    "-p": {"plans"},
    "-f": {"fold", "folds"},
    "-i": {"input", "images", "data", "source"},
    "-o": {"output", "target", "work_dir"},
    "-m": {"model"},
    "-chk": {"checkpoint"},
    "-np": {"processes"},
    "-device": {"device"},
}
"""What each of nnU-Net's options may set, singular or plural."""


@pytest.fixture(autouse=True)
def nnunet_folders(tmp_path, monkeypatch):
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_alone_it_shows_every_command_and_an_example(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)
    assert "nnUNetv2_train 2 2d 0 -tr nnUNetTrainerECCaM" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example(name, capsys):
    with pytest.raises(SystemExit) as end:
        main([name, "-h"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert any(line.strip().startswith((f"nnUNetv2_eccam {name}", "export")) for line in out.splitlines()[1:])


@pytest.mark.parametrize("name", PARSED_HERE)
def test_an_option_of_nnunet_means_what_it_means_there(name):
    for action in command_parser(name)._actions:
        for flag in set(action.option_strings) & MEANING.keys():
            assert action.dest in MEANING[flag], flag


def test_each_command_that_takes_files_is_given_a_wrong_input():
    assert {name for name, *_ in WRONG_INPUT} == COMMANDS.keys() - {"trainers", "trainer-path"}


@pytest.mark.parametrize(("name", "words", "message"), WRONG_INPUT)
def test_wrong_input_gives_one_line_and_exit_code_1(name, words, message, capsys, nnunet_folders):
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4)), np.eye(4)), nnunet_folders / "image.nii.gz")
    before = sorted(nnunet_folders.rglob("*"))
    assert main([name, *words.split()]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"nnUNetv2_eccam {name}: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert sorted(nnunet_folders.rglob("*")) == before


@pytest.mark.parametrize("name", [*COMMANDS, None])
def test_an_option_that_there_is_not_gives_exit_code_2(name, capsys):
    with pytest.raises(SystemExit) as end:
        main([name, "--no-such-option"] if name else ["no-such-command"])
    assert end.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_stopped_by_ctrl_c_it_says_so_and_gives_130(monkeypatch, capsys):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("nnunetv2_eccam.cli.run_command", stopped)
    assert main(["trainers"]) == 130
    assert capsys.readouterr().err == "nnUNetv2_eccam trainers: interrupted\n"


@pytest.mark.parametrize("given", ["2", "Dataset002_Heart"])
def test_evaluate_and_overlay_take_a_data_sets_test_images_by_its_number_or_name(given, nnunet_folders, capsys):
    write_scored_case(nnunet_folders, shift=1)
    assert main(["evaluate", "-d", given, "predictions", "-np", "1"]) == 0
    assert "0.833" in capsys.readouterr().out
    assert main(["overlay", "-d", given, "-o", "figure.png", "--system", "A=predictions"]) == 0
    assert "A 0.833" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "folder"), [
    ("", "Dataset002_Heart"), ("-d 12", "Dataset012_Heart"), ("-d Dataset012_Atrium", "Dataset012_Atrium"),
    ("--id 12 --name Atrium", "Dataset012_Atrium"),
])  # fmt: skip
def test_a_conversion_takes_number_or_name_of_the_new_data_set(words, folder, nnunet_folders, capsys):
    write_task(nnunet_folders / "Task02_Heart", labels=("left atrium",), modality=("MRI",), prefix="la")
    for source in (["-i", "Task02_Heart"], ["Task02_Heart"]):
        assert main(["convert", "msd-heart", *source, *words.split(), "--dry-run", "-np", "1", "--no-progress"]) == 0
        assert folder in capsys.readouterr().out


def test_the_shared_options_are_those():
    assert MEANING.keys() == OPTIONS.keys()
    assert all(settings["dest"] in MEANING[flag] for flag, settings in OPTIONS.items())


def test_an_alias_and_nnunets_own_spelling_give_the_same():
    parser = argparse.ArgumentParser()
    add_option(parser, "-o", "--work-dir")
    add_option(parser, "-tr", default="nnUNetTrainerECCaM")
    assert parser.parse_args(["-o", "a"]) == parser.parse_args(["--work-dir", "a"])
    assert parser.parse_args([]).trainer == "nnUNetTrainerECCaM"


def test_a_data_set_is_given_by_number_or_name(nnunet_folders):
    (nnunet_folders / "raw" / "Dataset002_Heart").mkdir()
    (nnunet_folders / "preprocessed" / "Dataset002_Heart").mkdir()
    for given in ("2", "002", "Dataset002_Heart"):
        assert dataset_name(given) == "Dataset002_Heart"
    (nnunet_folders / "results" / "Dataset002_Other").mkdir()
    for given, message in (
        ("2", "not unique"),
        ("3", "no data set 3"),
        ("Heart", "neither a number nor a name"),
        ("Dataset002_Nothing", "there are Dataset002_Heart, Dataset002_Other"),
    ):
        with pytest.raises(UserError, match=message):
            dataset_name(given)
    assert dataset_name("2", "nnUNet_raw") == "Dataset002_Heart"
