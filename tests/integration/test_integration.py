"""nnU-Net's integration test in small: regions with an ignore label, a cascade, ``--npz``, ``--val``, ``--val_best``.

The whole of it is ``tests/integration/nnunet_integration.py``, outside CI; these tests run the steps of its hardest
data set, on fewer cases and folds.
One training is run by the command itself; elsewhere the commands' functions are called in this process, with threads in
place of nnU-Net's worker processes, since starting interpreters would take most of the time.
"""

from __future__ import annotations

import runpy
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from in_process import call
from integration_steps import (
    CONFIGURATIONS,
    PLANS,
    CommandShell,
    IntegrationTest,
    Train,
    best_of,
    convert,
    find_best,
    make_data,
    mean_dice,
    plan,
    predict,
    preprocess,
    validation_dice,
)
from nnunet_integration import main
from nnunetv2.evaluation.find_best_configuration import print_inference_instructions

from nnunetv2_eccam.files import read_json, write_json

pytestmark = pytest.mark.slow

HARDEST = 996
"""Regions with an ignore label."""

SMALL = IntegrationTest(
    Path(),
    scenarios=(HARDEST,),
    folds=(0,),
    trainer="nnUNetTrainerECCaMSmoke",
    training_cases=6,
    test_cases=2,
    narrowing=8,
)
class OwnProcess:
    """Runs nnU-Net's commands as functions, in this process."""

    def run(self, *command: str, **settings: str) -> None:
        name, *words = command
        if name == "nnUNetv2_predict":  # without worker processes
            words[words.index("-npp") + 1] = words[words.index("-nps") + 1] = "0"
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("nnUNet_n_proc_DA", raising=False)  # as the script's own shell; the planning cannot be given 0
            for variable, value in settings.items():
                patch.setenv(variable, value)
            if name == "python":
                patch.setattr(sys, "argv", words[1:])
                runpy.run_module(words[1], run_name="__main__")
            else:
                call(name, *words)


@pytest.fixture(scope="module")
def test(tmp_path_factory) -> Iterator[IntegrationTest]:
    """The data, and nnU-Net's folders in this process."""
    small = replace(SMALL, work=tmp_path_factory.mktemp("integration"))
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in small.variables().items():
            patch.setenv(variable, value)
        threads = torch.get_num_threads()
        make_data(small)
        yield small
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def shell() -> OwnProcess:
    return OwnProcess()


@pytest.fixture(scope="module")
def hardest(test, shell) -> IntegrationTest:
    """Regions with an ignore label: 2D on a plain plan, 3D and the cascade on a residual one.

    The full resolution is trained by the command itself.
    """
    convert(test, HARDEST, shell)
    plan(test, HARDEST, shell)
    make_residual(test.preprocessed(HARDEST) / f"{PLANS}.json", "3d_lowres", "3d_fullres")
    preprocess(test, HARDEST, shell)
    cases = sorted(file.name[:-7] for file in (test.raw(HARDEST) / "labelsTr").iterdir())
    halves = [cases[::2], cases[1::2]]
    splits = [{"train": halves[1 - fold], "val": halves[fold]} for fold in (0, 1)]
    write_json(test.preprocessed(HARDEST) / "splits_final.json", splits)
    for configuration in CONFIGURATIONS:
        # The cascade's training cases have their segmentations from all of the first stage's folds.
        for fold in (0, 1) if configuration == "3d_lowres" else (0,):
            Train(test, HARDEST, configuration, fold)(CommandShell() if configuration == "3d_fullres" else shell)
    find_best(test, HARDEST, shell)
    choose(test, "3d_cascade_fullres", "2d")
    predict(test, HARDEST, shell)
    return test


def make_residual(file: Path, *configurations: str) -> None:
    """Give configurations a residual encoder, as nnU-Net's ResEnc presets have it; the cascade inherits its own."""
    plans = read_json(file)
    for name in configurations:
        architecture = plans["configurations"][name]["architecture"]
        architecture["network_class_name"] = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
        arguments = architecture["arch_kwargs"]
        arguments["n_blocks_per_stage"] = [1, 3, 4, 6, 6, 6][: arguments["n_stages"]]
        arguments["n_conv_per_stage_decoder"] = [1] * (arguments["n_stages"] - 1)
        del arguments["n_conv_per_stage"]
    write_json(file, plans)


def choose(test: IntegrationTest, *configurations: str) -> None:
    """Let nnU-Net write the inference instructions for these models, whichever it has found to be the best."""
    information = best_of(test, HARDEST)
    information["best_model_or_ensemble"]["selected_model_or_models"] = [
        {"configuration": name, "trainer": test.trainer, "plans_identifier": PLANS} for name in configurations
    ]
    file = test.results(HARDEST) / "inference_information.json"
    write_json(file, information)
    print_inference_instructions(information, str(file.with_name("inference_instructions.txt")))


def check_outcome(test: IntegrationTest, scenario: int, chosen: tuple[str, ...]) -> None:
    models = best_of(test, scenario)["best_model_or_ensemble"]["selected_model_or_models"]
    assert [(model["trainer"], model["configuration"]) for model in models] == [(test.trainer, c) for c in chosen]
    assert 0 <= mean_dice(test.predictions(scenario) / "OUTPUT_FOLDER_PP" / "summary.json") <= 1


def test_regions_with_an_ignore_label_in_four_configurations_to_an_ensemble(hardest):
    check_outcome(hardest, HARDEST, ("3d_cascade_fullres", "2d"))
    assert len(best_of(hardest, HARDEST)["all_results"]) == 4 + 6
    names = {path.name for path in hardest.predictions(HARDEST).iterdir()}
    assert names == {
        "first_stage",
        "OUTPUT_FOLDER_MODEL_1",
        "OUTPUT_FOLDER_MODEL_2",
        "OUTPUT_FOLDER",
        "OUTPUT_FOLDER_PP",
    }


def test_validation_alone_gives_what_the_training_gave(hardest, shell):
    training = Train(hardest, HARDEST, "3d_lowres", 0)
    before = masks(training)
    dice = validation_dice(training.folder)
    shutil.rmtree(training.folder / "validation")
    training.command(shell, "--val")
    assert validation_dice(training.folder) == dice
    for case, mask in masks(training).items():
        np.testing.assert_array_equal(mask, before[case])


def test_val_best_validates_the_best_checkpoint(hardest, shell):
    training = Train(hardest, HARDEST, "3d_lowres", 1)
    before = masks(training)
    best = training.folder / "checkpoint_best.pth"
    checkpoint = torch.load(best, weights_only=False)
    for name, weight in checkpoint["network_weights"].items():
        if name.startswith("decoder") and torch.is_tensor(weight):
            weight.mul_(-1)
    torch.save(checkpoint, best)
    training.command(shell, "--val", "--val_best")
    assert any(not np.array_equal(mask, before[case]) for case, mask in masks(training).items())


def masks(training: Train) -> dict[str, np.ndarray]:
    """Read a fold's validated segmentations."""
    folder = training.folder / "validation"
    return {case: np.asarray(nibabel.load(folder / f"{case}.nii.gz").dataobj) for case in training.cases()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--configurations", "3d_cascade_fullres"], "3d_cascade_fullres needs 3d_lowres too, and all five folds"),
        (["--folds", "0"], "and all five folds"),
        (["--jobs", "0"], "--jobs is 0; it must be 1 or more"),
        ([], "is not empty and not of this script"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(tmp_path, capsys, options, message):
    (tmp_path / "mine.txt").write_text("something else")
    assert main(["--work-dir", str(tmp_path), *options]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
