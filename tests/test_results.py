"""What docs/results.md says to run: its specifications, configurations and trainers fit the package as it is."""

import json
import zipfile
from pathlib import Path

import pytest
import yaml
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find
from small_training import make_trainer

from nnunetv2_eccam.benchmark.spec import read_spec

RESULTS = Path(__file__).parents[1] / "docs" / "results"
SPECS = sorted(RESULTS.glob("*.yaml"))


@pytest.fixture
def trainer_folder(monkeypatch):
    """The folder of these trainers where nnU-Net searches, as the page says to set it."""
    monkeypatch.setenv("nnUNet_extTrainer", str(RESULTS / "trainers"))


def specification(file):
    return read_spec(yaml.safe_load(file.read_text()), file.name)


@pytest.mark.parametrize("file", SPECS, ids=lambda file: file.stem)
def test_every_trainer_is_found_and_every_configuration_is_there(file, trainer_folder):
    files = [*RESULTS.glob("*_plans.json"), RESULTS.parents[1] / "plans_overrides" / "trial.json"]
    added = {name for plans in files for name in json.loads(plans.read_text())["configurations"]}
    for system in specification(file).trainers:
        assert find(system.trainer).__name__ == system.trainer
        assert system.configuration in added


@pytest.mark.parametrize(
    "name",
    [
        "_25x50",
        "ECCaM_25x50",
        "ECCaM_25x50_EC",
        "ECCaM_25x50_CaM",
        "ECCaM_25x50_zero_residual",
        "_40x90",
        "ECCaM_40x90",
        "ECCaM_100x50",
    ],
)
def test_the_annealed_trainers_end_at_a_small_step(name, trainer_folder, nnunet_base, small_dataset):
    trainer = make_trainer(find(f"nnUNetTrainer{name}"), nnunet_base, small_dataset())
    trainer.initialize()
    epochs, *others = {"40x90": (40, 90, 2), "100x50": (100, 50, 5)}.get(name.split("_")[1], (25, 50, 5))
    assert trainer.num_epochs == epochs
    assert [trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch] == others
    trainer.lr_scheduler.step(epochs - 1)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * (1 / epochs) ** 0.9)
    if "zero" in name:
        fresh = [kernel for key, kernel in trainer.network.named_parameters() if ".asymmetric." in key]
        assert fresh
        assert not any(kernel.any() for kernel in fresh)
        assert type(trainer.network.bottleneck).__name__ == "Residual"


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*/*/*.zip")), ids=lambda file: file.stem)
def test_a_file_of_predictions_is_named_for_its_trainer_and_holds_label_files_only(file, trainer_folder):
    trainer, plans = file.stem.split("__")
    assert find(trainer).__name__ == trainer
    compared = map(specification, SPECS)
    known = {(*spec.datasets, each.plans) for spec in compared for each in spec.trainers if each.trainer == trainer}
    assert (file.parent.name, plans) in known
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
    assert names
    ending = ".png" if "2D" in file.parent.name else ".nii.gz"
    assert all(name.endswith(ending) and "/" not in name for name in names)
