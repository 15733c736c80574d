"""The steps of nnU-Net's integration test, with a short EC-CaM-UNet trainer in place of its five-epoch one.

Each step is one or a few of nnU-Net's own commands, as its integration test's instructions have them: derive four data
sets from Dataset004_Hippocampus, plan, add a low resolution and a cascade, preprocess, train every configuration on
every fold, find the best, and do what nnU-Net's own inference instructions say.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from hippocampus_phantom import write_dataset

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json, write_json

SCENARIOS = {
    999: "IntegrationTest_Hippocampus",
    998: "IntegrationTest_Hippocampus_ignore",
    997: "IntegrationTest_Hippocampus_regions",
    996: "IntegrationTest_Hippocampus_regions_ignore",
}
"""nnU-Net's four label scenarios: labels, ignore label, regions, regions with ignore label."""

CONFIGURATIONS = ("2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres")
PREVIOUS_STAGE = {"3d_cascade_fullres": "3d_lowres"}
PLANS = "nnUNetPlans"
TRAINERS = Path(__file__).resolve().parent / "trainers"
"""The folder that ``nnUNet_extTrainer`` names."""

CONVERSIONS = "nnunetv2.dataset_conversion.datasets_for_integration_tests"
ADD_CASCADE = "nnunetv2.tests.integration_tests.add_lowres_and_cascade"
"""nnU-Net's own scripts, run as modules."""


class Shell(Protocol):
    """What a step runs its commands with."""

    def run(self, *command: str, **settings: str) -> None:
        """Run a command of this environment, with environment variables that hold for it alone.

        Raises:
            UserError: it failed.
        """


@dataclass(frozen=True)
class IntegrationTest:
    """One integration test.

    Attributes:
        work: the work folder, absolute.
        scenarios: data set numbers, of :data:`SCENARIOS`.
        configurations: of :data:`CONFIGURATIONS`.
        folds: of nnU-Net's five.
        trainer: a trainer's name, of :data:`TRAINERS`.
        training_cases: number of training cases.
        test_cases: number of test cases.
        seed: of the data.
        narrowing: what the plans' features per stage are divided by.
    """

    work: Path
    scenarios: tuple[int, ...] = tuple(SCENARIOS)
    configurations: tuple[str, ...] = CONFIGURATIONS
    folds: tuple[int, ...] = (0, 1, 2, 3, 4)
    trainer: str = "nnUNetTrainerECCaMIntegration"
    training_cases: int = 20
    test_cases: int = 4
    seed: int = 0
    narrowing: int = 2

    def dataset(self, scenario: int) -> str:
        """Give a data set's folder name."""
        return f"Dataset{scenario:03d}_{SCENARIOS[scenario]}"

    def raw(self, scenario: int) -> Path:
        """Give a data set's raw folder."""
        return self.work / "nnUNet_raw" / self.dataset(scenario)

    def preprocessed(self, scenario: int) -> Path:
        """Give a data set's preprocessed folder."""
        return self.work / "nnUNet_preprocessed" / self.dataset(scenario)

    def results(self, scenario: int) -> Path:
        """Give the folder of a data set's trained models."""
        return self.work / "nnUNet_results" / self.dataset(scenario)

    def model(self, scenario: int, configuration: str) -> Path:
        """Give a trained model's folder."""
        return self.results(scenario) / f"{self.trainer}__{PLANS}__{configuration}"

    def predictions(self, scenario: int) -> Path:
        """Give the folder of the test cases' predictions, all stages of them."""
        return self.work / "predictions" / self.dataset(scenario)

    def variables(self) -> dict[str, str]:
        """Give the environment variables that hold for all commands."""
        bases = {name: str(self.work / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
        # Each worker process imports torch anew: for a few small cases, many of them do not pay.
        return {**bases, "nnUNet_extTrainer": str(TRAINERS), "nnUNet_def_n_proc": "1", "nnUNet_compile": "f"}


def make_data(test: IntegrationTest) -> None:
    """Write Dataset004_Hippocampus."""
    for base in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (test.work / base).mkdir(parents=True, exist_ok=True)
    shutil.rmtree(test.work / "nnUNet_raw" / "Dataset004_Hippocampus", ignore_errors=True)
    write_dataset(test.work / "nnUNet_raw", test.training_cases, test.test_cases, test.seed)


def convert(test: IntegrationTest, scenario: int, shell: Shell) -> None:
    """Derive the scenario from Dataset004_Hippocampus by nnU-Net's script, which copies the test cases too."""
    shell.run("python", "-m", f"{CONVERSIONS}.{test.dataset(scenario)}")
    raw = test.raw(scenario)
    require([raw / "dataset.json"])
    for part, number in (("imagesTr", test.training_cases), ("labelsTs", test.test_cases)):
        found = len(list((raw / part).glob("*.nii.gz")))
        if found != number:
            raise UserError(f"{raw / part} has {found} cases; there should be {number}")


def plan(test: IntegrationTest, scenario: int, shell: Shell) -> None:
    """Plan, add the low resolution and the cascade by nnU-Net's script, and narrow the networks.

    Narrower networks are ours: those of the plans are slow on a CPU.
    """
    number = str(scenario)
    shutil.rmtree(test.preprocessed(scenario), ignore_errors=True)
    shell.run("nnUNetv2_plan_and_preprocess", "-d", number, "--no_pp", "-npfp", "1")
    shell.run("python", "-m", ADD_CASCADE, "-d", number)
    file = test.preprocessed(scenario) / f"{PLANS}.json"
    plans = read_json(file)
    for configuration in plans["configurations"].values():
        if "architecture" in configuration:
            arguments = configuration["architecture"]["arch_kwargs"]
            arguments["features_per_stage"] = [n // test.narrowing for n in arguments["features_per_stage"]]
    write_json(file, plans)


def preprocess(test: IntegrationTest, scenario: int, shell: Shell) -> None:
    """Preprocess all configurations but the cascade, which takes the full resolution's data."""
    wanted = [c for c in test.configurations if c not in PREVIOUS_STAGE]
    shell.run("nnUNetv2_preprocess", "-d", str(scenario), "-c", *wanted, "-np", *["1"] * len(wanted))
    for configuration in wanted:
        folder = test.preprocessed(scenario) / f"{PLANS}_{configuration}"
        found = len(list(folder.glob("*.pkl")))
        if found != test.training_cases:
            raise UserError(f"{folder} has {found} cases; there should be {test.training_cases}")


@dataclass(frozen=True)
class Train:
    """Train one fold, validate it, and write its probabilities for the ensembles.

    Attributes:
        test: the test.
        scenario: the data set's number.
        configuration: nnU-Net's.
        fold: a number, or ``all``.
    """

    test: IntegrationTest
    scenario: int
    configuration: str
    fold: int | str

    @property
    def folder(self) -> Path:
        """The fold's folder."""
        return self.test.model(self.scenario, self.configuration) / f"fold_{self.fold}"

    def __call__(self, shell: Shell) -> None:
        """Train, and see that everything is there."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.command(shell, "--npz")
        require([self.folder / name for name in ("checkpoint_final.pth", "checkpoint_best.pth", "progress.png")])
        require(self.folder / "validation" / f"{case}{end}" for case in self.cases() for end in (".nii.gz", ".npz"))
        for stage, before in PREVIOUS_STAGE.items():
            if before == self.configuration and stage in self.test.configurations:
                folder = self.test.model(self.scenario, before) / "predicted_next_stage" / stage
                if missing := [case for case in self.cases() if not list(folder.glob(f"{case}.*"))]:
                    raise UserError(f"{folder} has no segmentation of {', '.join(missing)}")
        validation_dice(self.folder)

    def command(self, shell: Shell, *options: str) -> None:
        """Run ``nnUNetv2_train`` for this fold with further options."""
        words = (str(self.scenario), self.configuration, str(self.fold), "-tr", self.test.trainer, "-device", "cpu")
        # On a CPU that the network keeps busy, augmenting in the same process is faster; and it is seeded so.
        shell.run("nnUNetv2_train", *words, *options, nnUNet_n_proc_DA="0")

    def cases(self) -> list[str]:
        """Read the fold's validation cases."""
        splits = read_json(self.test.preprocessed(self.scenario) / "splits_final.json")
        if self.fold == "all":
            return sorted(case for split in splits for case in split["val"])
        return list(splits[int(self.fold)]["val"])


def find_best(test: IntegrationTest, scenario: int, shell: Shell) -> None:
    """Find the best configuration or ensemble of two, and its postprocessing."""
    results = test.results(scenario)
    shell.run(
        "nnUNetv2_find_best_configuration", str(scenario), "-tr", test.trainer, "-c", *test.configurations,
        "-f", *map(str, test.folds), "-np", "1",
    )  # fmt: skip
    require(results / name for name in ("inference_information.json", "inference_instructions.txt"))
    scores = best_of(test, scenario)["all_results"]
    n = len(test.configurations)
    if len(scores) != n + n * (n - 1) // 2:
        raise UserError(
            f"{results / 'inference_information.json'} compares {', '.join(scores)}; there should be {n} "
            "configurations and each pair of them"
        )


def predict(test: IntegrationTest, scenario: int, shell: Shell) -> None:
    """Do what nnU-Net's inference instructions say with the test cases, and score the result."""
    shutil.rmtree(test.predictions(scenario), ignore_errors=True)
    for command in inference_commands(test, scenario):
        shell.run(*command)
    final = test.predictions(scenario) / "OUTPUT_FOLDER_PP"
    evaluate(test, scenario, final, shell)


def inference_commands(test: IntegrationTest, scenario: int) -> Iterator[list[str]]:
    """Read the commands of nnU-Net's inference instructions, with folders and device filled in.

    The instructions give the second stage of a cascade no segmentations of the first (nnU-Net 2.8.1), without which
    ``nnUNetv2_predict`` refuses it: the first stage is predicted before.
    """
    text = (test.results(scenario) / "inference_instructions.txt").read_text()
    base = test.predictions(scenario)
    commands = [shlex.split(line) for line in text.splitlines() if line.startswith("nnUNetv2_")]
    if not commands:
        raise UserError(f"{test.results(scenario) / 'inference_instructions.txt'} has no commands")
    for command in commands:
        filled = [str(base / word) if word.startswith("OUTPUT_FOLDER") else word for word in command]
        filled = [str(test.raw(scenario) / "imagesTs") if word == "INPUT_FOLDER" else word for word in filled]
        if filled[0] != "nnUNetv2_predict":
            yield filled
            continue
        filled += ["-device", "cpu", "-npp", "1", "-nps", "1"]
        configuration = filled[filled.index("-c") + 1]
        before = PREVIOUS_STAGE.get(configuration)
        if before and "-prev_stage_predictions" not in filled:
            first = [before if word == configuration else word for word in filled if word != "--save_probabilities"]
            first[first.index("-o") + 1] = str(base / "first_stage")
            yield first
            filled += ["-prev_stage_predictions", str(base / "first_stage")]
        yield filled


def evaluate(test: IntegrationTest, scenario: int, predictions: Path, shell: Shell) -> None:
    """Check the predictions of the test cases and score them into ``summary.json`` beside them.

    Raises:
        UserError: a prediction is missing, or differs from its label in size, place or the values that may be.
    """
    import nibabel
    import numpy as np

    raw = test.raw(scenario)
    allowed = _label_values(read_json(raw / "dataset.json"))
    for label_file in sorted((raw / "labelsTs").glob("*.nii.gz")):
        file = predictions / label_file.name
        require([file])
        mask, label = nibabel.load(file), nibabel.load(label_file)
        if mask.shape != label.shape or not np.allclose(mask.affine, label.affine, atol=1e-4):
            raise UserError(f"{file} has not the size and place of {label_file}")
        if strange := set(np.unique(np.asarray(mask.dataobj)).tolist()) - allowed:
            raise UserError(f"{file} has the values {strange}; allowed are {allowed}")
    plans = test.preprocessed(scenario) / f"{PLANS}.json"
    shell.run(
        "nnUNetv2_evaluate_folder", str(raw / "labelsTs"), str(predictions), "-djfile", str(raw / "dataset.json"),
        "-pfile", str(plans), "-np", "1",
    )  # fmt: skip
    mean_dice(predictions / "summary.json")


def _label_values(description: dict[str, Any]) -> set[int]:
    """Give the values that a prediction may have: all but the ignore label's."""
    labels = {name: value for name, value in description["labels"].items() if name != "ignore"}
    return {0}.union(*(value if isinstance(value, list) else [value] for value in labels.values()))


def validation_dice(fold: Path) -> float:
    """Read a trained fold's mean foreground Dice.

    Raises:
        UserError: it is missing or not a number.
    """
    return mean_dice(fold / "validation" / "summary.json")


def mean_dice(summary: Path) -> float:
    """Read the mean foreground Dice from nnU-Net's summary.

    Raises:
        UserError: it is missing or not a number.
    """
    dice = float(json.loads(summary.read_text())["foreground_mean"]["Dice"]) if summary.is_file() else None
    if dice is None or not 0 <= dice <= 1:
        raise UserError(f"{summary} is missing or gives no Dice")
    return dice


def best_of(test: IntegrationTest, scenario: int) -> dict[str, Any]:
    """Read what ``nnUNetv2_find_best_configuration`` found."""
    information: dict[str, Any] = read_json(test.results(scenario) / "inference_information.json")
    return information


def require(files: Iterable[Path]) -> None:
    """See that files are there.

    Raises:
        UserError: some are missing; the first is named.
    """
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise UserError(f"{len(missing)} files are missing, as {missing[0]}")


OPTIONS = "integration.json"
"""The options of a test, in its work folder; the file also marks a folder as one of this script's."""


def write_options(test: IntegrationTest) -> None:
    """Write a test's options into its work folder."""
    write_json(test.work / OPTIONS, {name: value for name, value in asdict(test).items() if name != "work"})


def read_options(work: Path) -> IntegrationTest:
    """Read a test's options from its work folder."""
    given = read_json(work / OPTIONS)
    return IntegrationTest(work, **{name: tuple(v) if isinstance(v, list) else v for name, v in given.items()})


class CommandShell:
    """Runs commands as programs of this environment."""

    def run(self, *command: str, **settings: str) -> None:
        """Run a command; nothing is caught, so that its own message is the last."""
        environment = {**os.environ, **settings, "PYTHONUNBUFFERED": "1"}
        if "nnUNet_n_proc_DA" not in settings:
            environment.pop("nnUNet_n_proc_DA", None)  # 0, good for training, would break the planning
        print("$ " + shlex.join([*(f"{k}={v}" for k, v in settings.items()), *command]), flush=True)
        found = Path(sys.executable).with_name(command[0])
        if subprocess.run([str(found), *command[1:]], env=environment, check=False).returncode:
            raise UserError(f"{shlex.join(command)} failed")


def main(words: list[str]) -> None:
    """Do one step in the current folder."""
    test, shell = read_options(Path.cwd()), CommandShell()
    step, *where = words
    if step == "data":
        make_data(test)
    elif step == "train":
        Train(test, int(where[0]), where[1], int(where[2]))(shell)
    else:
        steps = {"convert": convert, "plan": plan, "preprocess": preprocess, "best": find_best, "predict": predict}
        steps[step](test, int(where[0]), shell)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
