"""What this package takes for granted of nnU-Net: it fails here, by name, when upstream changes it."""

from __future__ import annotations

import inspect

import pytest
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_eccam import trainers
from nnunetv2_eccam.plans import batch_size

TRAINERS = [getattr(trainers, name) for name in trainers.__all__]

SIGNATURES = {
    "__init__": ["self", "plans", "configuration", "fold", "dataset_json", "device"],
    "build_network_architecture": [
        "plans_manager", "configuration_manager", "num_input_channels", "num_output_channels",
        "enable_deep_supervision",
    ],
    "initialize": ["self"],
    "on_train_start": ["self"],
    "load_checkpoint": ["self", "filename_or_checkpoint"],
    "_get_deep_supervision_scales": ["self"],
    "set_deep_supervision_enabled": ["self", "enabled"],
    "_build_loss": ["self"],
    "configure_optimizers": ["self"],
    "configure_rotation_dummyDA_mirroring_and_inital_patch_size": ["self"],
    "get_training_transforms": [
        "patch_size", "rotation_for_DA", "deep_supervision_scales", "mirror_axes", "do_dummy_2d_data_aug",
        "use_mask_for_norm", "is_cascaded", "foreground_labels", "regions", "ignore_label",
    ],
    "get_tr_and_val_datasets": ["self"],
    "perform_actual_validation": ["self", "save_probabilities"],
    "on_validation_epoch_end": ["self", "val_outputs"],
    "on_train_end": ["self"],
}  # fmt: skip
"""Every method of ``nnUNetTrainer`` that a trainer here overrides, with upstream's parameters."""


def test_every_overridden_method_is_listed():
    overridden = {
        name
        for trainer in TRAINERS
        for cls in trainer.__mro__
        if cls.__module__.startswith("nnunetv2_eccam")
        for name in vars(cls)
        if inspect.isfunction(getattr(nnUNetTrainer, name, None))
    }
    assert overridden == set(SIGNATURES)


@pytest.mark.parametrize("method", SIGNATURES)
def test_upstreams_signature_is_the_one_that_was_overridden(method):
    assert list(inspect.signature(getattr(nnUNetTrainer, method)).parameters) == SIGNATURES[method]


@pytest.mark.parametrize("trainer", [trainers.nnUNetTrainerECCaM, trainers.nnUNetTrainerECCaMPaper])
@pytest.mark.parametrize("method", SIGNATURES)
def test_the_override_can_be_called_as_upstream_is(trainer, method):
    ours = inspect.signature(getattr(trainer, method))
    positional = [p for p in SIGNATURES[method] if p in ours.parameters]
    assert positional == list(ours.parameters)[: len(positional)]
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in ours.parameters.values())
    assert takes_any or positional == SIGNATURES[method]


def test_the_constructor_is_nnunets_since_it_reads_its_arguments_by_name():
    for trainer in TRAINERS:
        assert list(inspect.signature(trainer.__init__).parameters) == SIGNATURES["__init__"]


def test_predictor_builds_the_network_through_the_trainers_method():
    source = inspect.getsource(nnUNetPredictor.initialize_from_trained_model_folder)
    assert "trainer_class.build_network_architecture(" in source
    assert "enable_deep_supervision=False" in source


def test_soft_dice_takes_the_arguments_that_are_given():
    expected = ["self", "apply_nonlin", "batch_dice", "do_bg", "smooth", "ddp"]
    assert list(inspect.signature(MemoryEfficientSoftDiceLoss.__init__).parameters) == expected


def test_the_planners_constants_are_those_of_the_estimate():
    from nnunetv2.experiment_planning.experiment_planners import default_experiment_planner as planner

    source = inspect.getsource(planner.ExperimentPlanner.__init__)
    for dimension in (2, 3):
        values, batch = batch_size.REFERENCE_VALUES[dimension], batch_size.REFERENCE_BATCH[dimension]
        assert f"self.UNet_reference_val_{dimension}d = {values}" in source
        assert f"self.UNet_reference_val_corresp_bs_{dimension}d = {batch}" in source
    assert f"self.UNet_reference_val_corresp_GB = {batch_size.REFERENCE_GB:.0f}" in source
    assert f"self.UNet_min_batch_size = {batch_size.SMALLEST_BATCH}" in source
    assert f"self.max_dataset_covered = {batch_size.LARGEST_SHARE_OF_DATASET}" in source


def test_every_trainer_is_found_under_its_name_and_no_built_in_hides_it():
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    from nnunetv2_eccam.ext import eccam_trainers

    assert recursive_find_trainer_class_by_name("nnUNetTrainerECCaMPaper_UNet_3epochs").epochs == 3
    for trainer in TRAINERS:
        assert getattr(eccam_trainers, trainer.__name__) is trainer
        assert not hasattr(nnUNetTrainer, trainer.__name__)
