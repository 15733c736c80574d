"""nnU-Net's integration test with this package's trainer: raw data to postprocessed predictions of an ensemble.

The steps are those of nnU-Net's own integration test, by its commands and scripts: derive a data set from
Dataset004_Hippocampus, plan, add a low resolution and a cascade, preprocess, train every configuration on every fold,
find the best, do what nnU-Net's inference instructions say. 2D has its plain plan, 3D and the cascade a residual one.
CI runs the hardest data set, regions with an ignore label, on few cases; ``pytest tests/integration --full`` runs all
(docs/reference/integration.md). The commands' functions are called in this process, since starting interpreters would
take most of the time.
"""

import os
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import nibabel
import numpy as np
import pytest
import torch
from in_process import call
from nnunetv2.evaluation.find_best_configuration import print_inference_instructions
from scipy.ndimage import gaussian_filter

from nnunetv2_eccam.files import read_json, write_json

pytestmark = pytest.mark.slow

SCENARIOS = {999: "", 998: "_ignore", 997: "_regions", 996: "_regions_ignore"}
"""nnU-Net's four data sets, by the end of their names."""

CONFIGURATIONS = ("2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres")
PLANS, FIRST_STAGE, CASCADE = "nnUNetPlans", "3d_lowres", "3d_cascade_fullres"
TEST_CASES = 2

TRAINERS = """
import numpy, torch
from nnunetv2_eccam import trainers

class nnUNetTrainerECCaMSmoke(trainers.nnUNetTrainerECCaM):
    # At nnU-Net's learning rate of 0.01 and momentum of 0.99 so few steps teach only that nearly all is background.
    epochs = 1

    def initialize(self):
        self.initial_lr, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 0.1, 16, 2
        torch.manual_seed(self.fold)  # so that no bar is missed by chance
        numpy.random.seed(self.fold)
        super().initialize()

    def configure_optimizers(self):
        optimizer, schedule = super().configure_optimizers()
        optimizer.param_groups[0]["momentum"] = 0.9
        return optimizer, schedule

class nnUNetTrainerECCaMIntegration(nnUNetTrainerECCaMSmoke):
    epochs = 5
"""


class Size(NamedTuple):
    """How much is trained: of which length, cases, folds of the first stage (which must predict all cases) and of
    the other configurations, what the plans' widths are divided by, and what each Dice must reach."""

    trainer: str
    cases: int
    first_stage_folds: int
    folds: int
    narrowing: int
    bar: float


SMALL = Size("nnUNetTrainerECCaMSmoke", 6, 2, 1, 8, 0)
FULL = Size("nnUNetTrainerECCaMIntegration", 20, 5, 5, 4, 0.3)


@dataclass(frozen=True)
class Run:
    """The folders of one data set's run."""

    work: Path
    scenario: int
    size: Size

    @property
    def dataset(self) -> str:
        return f"Dataset{self.scenario}_IntegrationTest_Hippocampus{SCENARIOS[self.scenario]}"

    def base(self, name: str) -> Path:
        return self.work / name / self.dataset

    def fold(self, configuration: str, fold: int) -> Path:
        return self.base("nnUNet_results") / f"{self.size.trainer}__{PLANS}__{configuration}" / f"fold_{fold}"

    def folds(self, configuration: str) -> range:
        return range(self.size.first_stage_folds if configuration == FIRST_STAGE else self.size.folds)

    def validated(self, fold: int) -> list[str]:
        return read_json(self.base("nnUNet_preprocessed") / "splits_final.json")[fold]["val"]

    def train(self, configuration: str, fold: int, *options: str) -> None:
        run("nnUNetv2_train", str(self.scenario), configuration, str(fold), "-tr", self.size.trainer,
            "-device", "cpu", *options, nnUNet_n_proc_DA="0")  # fmt: skip

    def masks(self, configuration: str, fold: int) -> dict[str, np.ndarray]:
        folder = self.fold(configuration, fold) / "validation"
        return {case: read(folder / f"{case}.nii.gz") for case in self.validated(fold)}


def run(name: str, *words: str, **settings: str) -> None:
    """Run a command of nnU-Net's, or one of its modules, as a function, with variables that hold for it alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("nnUNet_n_proc_DA", raising=False)  # 0, good for training, would break the planning
        for variable, value in settings.items():
            patch.setenv(variable, value)
        if name.startswith("nnunetv2."):
            patch.setattr(sys, "argv", [name, *words])
            runpy.run_module(name, run_name="__main__")
        else:
            call(name, *words)


def read(file: Path) -> np.ndarray:
    return np.asarray(nibabel.load(file).dataobj)


def dice(summary: Path) -> float:
    return float(read_json(summary)["foreground_mean"]["Dice"])


def write_hippocampus(raw: Path, training: int) -> None:
    """Write Dataset004_Hippocampus, of the real one's size and labels: a dark ellipsoid whose front is less dark."""
    folder = raw / "Dataset004_Hippocampus"
    for number in range(training + TEST_CASES):
        rng = np.random.default_rng(number)
        size = rng.integers((32, 46, 32), (39, 55, 39))
        centre, radii = size / 2 + rng.normal(0, 2, 3), rng.uniform((6, 14, 6), (9, 18, 9))
        x, y, z = (axis - middle for axis, middle in zip(np.indices(size), centre, strict=True))
        inside = (x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2 < 1
        label = np.where(y + 0.2 * x > 3, 1, 2).astype(np.uint8) * inside
        image = gaussian_filter(np.choose(label, (140.0, 100.0, 80.0)), 0.7) + rng.normal(0, 6, size)
        part = "Tr" if number < training else "Ts"
        for kind, ending, voxels in (("images", "_0000", image.astype(np.float32)), ("labels", "", label)):
            file = folder / f"{kind}{part}" / f"hippocampus_{number:03d}{ending}.nii.gz"
            file.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), file)
    labels = {"background": 0, "Anterior": 1, "Posterior": 2}
    write_json(folder / "dataset.json", {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": training,
                                         "file_ending": ".nii.gz"})  # fmt: skip


def plan(test: Run) -> None:
    """Plan and preprocess; narrower networks, since those of the plans are slow on a CPU; 3D with residual blocks."""
    run("nnUNetv2_plan_and_preprocess", "-d", str(test.scenario), "--no_pp", "-npfp", "1")
    run("nnunetv2.tests.integration_tests.add_lowres_and_cascade", "-d", str(test.scenario))
    file = test.base("nnUNet_preprocessed") / f"{PLANS}.json"
    plans = read_json(file)
    for name, configuration in plans["configurations"].items():
        if "architecture" in configuration:
            arguments = configuration["architecture"]["arch_kwargs"]
            arguments["features_per_stage"] = [n // test.size.narrowing for n in arguments["features_per_stage"]]
            if name in ("3d_lowres", "3d_fullres"):  # as nnU-Net's ResEnc presets; the cascade inherits it
                configuration["architecture"]["network_class_name"] = (
                    "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
                )
                arguments["n_blocks_per_stage"] = [1, 3, 4, 6, 6, 6][: arguments["n_stages"]]
                arguments["n_conv_per_stage_decoder"] = [1] * (arguments["n_stages"] - 1)
                del arguments["n_conv_per_stage"]
    write_json(file, plans)
    wanted = [name for name in CONFIGURATIONS if name != CASCADE]  # which takes the full resolution's data
    run("nnUNetv2_preprocess", "-d", str(test.scenario), "-c", *wanted, "-np", *["1"] * len(wanted))
    if test.size is SMALL:
        cases = sorted(file.name[:-7] for file in (test.base("nnUNet_raw") / "labelsTr").iterdir())
        halves = [cases[::2], cases[1::2]]
        splits = [{"train": halves[1 - fold], "val": halves[fold]} for fold in (0, 1)]
        write_json(test.base("nnUNet_preprocessed") / "splits_final.json", splits)


def inference_commands(test: Run) -> Iterator[list[str]]:
    """Read the commands of nnU-Net's inference instructions, with folders and device filled in.

    The instructions give the second stage of a cascade no segmentations of the first (nnU-Net 2.8.1), without which
    ``nnUNetv2_predict`` refuses it: the first stage is predicted before.
    """
    text = (test.base("nnUNet_results") / "inference_instructions.txt").read_text()
    base, images = test.base("predictions"), test.base("nnUNet_raw") / "imagesTs"
    for command in (shlex.split(line) for line in text.splitlines() if line.startswith("nnUNetv2_")):
        filled = [str(base / word) if word.startswith("OUTPUT_FOLDER") else word for word in command]
        filled = [str(images) if word == "INPUT_FOLDER" else word for word in filled]
        if filled[0] == "nnUNetv2_predict":
            filled += ["-device", "cpu", "-npp", "0", "-nps", "0"]
            if CASCADE in filled and "-prev_stage_predictions" not in filled:
                before = str(base / "first_stage")
                first = [FIRST_STAGE if word == CASCADE else word for word in filled if word != "--save_probabilities"]
                first[first.index("-o") + 1] = before
                yield first
                filled += ["-prev_stage_predictions", before]
        yield filled


@pytest.fixture(scope="module")
def finished(request, tmp_path_factory) -> Iterator[Run]:
    """A data set on which all steps were done."""
    size = FULL if request.config.getoption("--full", default=False) else SMALL
    test = Run(tmp_path_factory.mktemp("integration"), request.param, size)
    (test.work / "trainers").mkdir()
    (test.work / "trainers" / "short_trainers.py").write_text(TRAINERS)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            (test.work / name).mkdir()
            patch.setenv(name, str(test.work / name))
        patch.setenv("nnUNet_extTrainer", str(test.work / "trainers"))
        patch.setenv("nnUNet_def_n_proc", "1")
        threads = torch.get_num_threads()
        write_hippocampus(test.work / "nnUNet_raw", size.cases)
        run(f"nnunetv2.dataset_conversion.datasets_for_integration_tests.{test.dataset}")
        plan(test)
        for configuration in CONFIGURATIONS:
            for fold in test.folds(configuration):
                test.train(configuration, fold, "--npz")
        run("nnUNetv2_find_best_configuration", str(test.scenario), "-tr", size.trainer, "-c", *CONFIGURATIONS,
            "-f", *map(str, range(size.folds)), "-np", "1")  # fmt: skip
        if size is SMALL:
            choose(test, CASCADE, "2d")
        for command in inference_commands(test):
            run(*command)
        yield test
        torch.set_num_threads(threads)


def choose(test: Run, *configurations: str) -> None:
    """Let nnU-Net write the inference instructions for these models, whichever it has found to be the best."""
    file = test.base("nnUNet_results") / "inference_information.json"
    information = read_json(file)
    information["best_model_or_ensemble"]["selected_model_or_models"] = [
        {"configuration": name, "trainer": test.size.trainer, "plans_identifier": PLANS} for name in configurations
    ]
    write_json(file, information)
    print_inference_instructions(information, str(file.with_name("inference_instructions.txt")))


def test_every_training_leaves_all_its_files_and_has_learnt(finished):
    for configuration in CONFIGURATIONS:
        found = []
        for fold in finished.folds(configuration):
            folder, cases = finished.fold(configuration, fold), finished.validated(fold)
            files = {str(file.relative_to(folder)) for file in folder.rglob("*")}
            assert {"checkpoint_final.pth", "checkpoint_best.pth", "progress.png"} < files
            assert {f"validation/{case}{ending}" for case in cases for ending in (".nii.gz", ".npz")} < files
            if configuration == FIRST_STAGE:
                before = {file.name.split(".")[0] for file in (folder.parent / "predicted_next_stage").rglob("h*")}
                assert set(cases) <= before
            found.append(dice(folder / "validation" / "summary.json"))
        print(f"\n{finished.scenario} {configuration}: Dice {mean(found):.3f} ({min(found):.3f} to {max(found):.3f})")
        assert finished.size.bar <= mean(found) <= 1


def test_the_best_model_predicts_the_test_cases_on_their_grid(finished):
    folder = finished.base("predictions")
    information = read_json(finished.base("nnUNet_results") / "inference_information.json")
    assert len(information["all_results"]) == 4 + 6, "four configurations and each pair of them"
    if finished.size is SMALL:
        parts = {"first_stage", "OUTPUT_FOLDER_MODEL_1", "OUTPUT_FOLDER_MODEL_2", "OUTPUT_FOLDER", "OUTPUT_FOLDER_PP"}
        assert set(os.listdir(folder)) == parts
    raw, final = finished.base("nnUNet_raw"), folder / "OUTPUT_FOLDER_PP"
    labels = sorted((raw / "labelsTs").glob("*.nii.gz"))
    assert len(labels) == TEST_CASES
    for label in labels:
        mask = nibabel.load(final / label.name)
        assert mask.shape == nibabel.load(label).shape
        np.testing.assert_allclose(mask.affine, nibabel.load(label).affine, atol=1e-4)
        assert set(np.unique(read(final / label.name))) <= {0, 1, 2}, "none has the ignore label"
    run("nnUNetv2_evaluate_folder", str(raw / "labelsTs"), str(final), "-djfile", str(raw / "dataset.json"),
        "-pfile", str(finished.base("nnUNet_preprocessed") / f"{PLANS}.json"), "-np", "1")  # fmt: skip
    print(f"\n{finished.scenario} test cases: Dice {dice(final / 'summary.json'):.3f}")
    assert finished.size.bar <= dice(final / "summary.json") <= 1


def test_validation_alone_gives_what_the_training_gave(finished):
    before, folder = finished.masks(FIRST_STAGE, 0), finished.fold(FIRST_STAGE, 0) / "validation"
    score = dice(folder / "summary.json")
    shutil.rmtree(folder)
    finished.train(FIRST_STAGE, 0, "--val")
    assert dice(folder / "summary.json") == score
    for case, mask in finished.masks(FIRST_STAGE, 0).items():
        np.testing.assert_array_equal(mask, before[case])


def test_val_best_validates_the_best_checkpoint(finished):
    before, best = finished.masks(FIRST_STAGE, 1), finished.fold(FIRST_STAGE, 1) / "checkpoint_best.pth"
    checkpoint = torch.load(best, weights_only=False)
    for name, weight in checkpoint["network_weights"].items():
        if name.startswith("decoder") and torch.is_tensor(weight):
            weight.mul_(-1)
    torch.save(checkpoint, best)
    finished.train(FIRST_STAGE, 1, "--val", "--val_best")
    assert any(not np.array_equal(mask, before[case]) for case, mask in finished.masks(FIRST_STAGE, 1).items())
