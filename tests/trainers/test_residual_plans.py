"""nnU-Net's residual presets, as nnU-Net plans them: network, what is said in the log, old weights, the plans verb."""

import json
import os

import pytest
import torch
from dynamic_network_architectures.building_blocks.residual import BasicBlockD
from nnunetv2.experiment_planning import plan_and_preprocess_api
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from small_training import make_trainer, preprocessed
from unet_plans import plan

from nnunetv2_eccam import trainers
from nnunetv2_eccam.architectures.from_plans import build_network
from nnunetv2_eccam.architectures.origin import KEY, CheckpointMismatch
from nnunetv2_eccam.blocks.enhanced_convolution import EnhancedConvolution
from nnunetv2_eccam.cli import main


@pytest.fixture(scope="module")
def planned(nnunet_base, small_dataset) -> dict:
    """The plans of a preset for the small data set; the other presets differ in the GPU that they are made for."""
    number = small_dataset()
    workers, os.environ["nnUNet_n_proc_DA"] = os.environ["nnUNet_n_proc_DA"], "1"
    plan_and_preprocess_api.plan_experiments([number], "nnUNetPlannerResEncM")
    os.environ["nnUNet_n_proc_DA"] = workers
    return json.loads((preprocessed(nnunet_base, number) / "nnUNetResEncUNetMPlans.json").read_text())


def test_the_blocks_hold_enhanced_convolutions_and_all_of_the_plan_is_followed(
    planned, nnunet_base, small_dataset, capsys
):
    trainer = make_trainer(
        trainers.nnUNetTrainerECCaM, nnunet_base, small_dataset(), plans_name="nnUNetResEncUNetMPlans"
    )
    trainer.initialize()
    kinds = [type(module) for module in trainer.network.modules()]
    assert kinds.count(EnhancedConvolution) == 2 * kinds.count(BasicBlockD) > 0
    assert "does not follow" not in capsys.readouterr().out


def test_a_compared_system_says_in_the_log_that_it_cannot_follow_the_blocks(
    planned, nnunet_base, small_dataset, capsys
):
    trainer = make_trainer(
        trainers.nnUNetTrainerECCaM_UNetPlusPlus, nnunet_base, small_dataset(), plans_name="nnUNetResEncUNetMPlans"
    )
    trainer.initialize()
    said = [line for line in capsys.readouterr().out.splitlines() if "does not follow the plan's residual" in line]
    assert len(said) == 1
    assert "U-Net++ on these plans: " in said[0]


def test_weights_of_0_1_0_are_refused_with_what_changed():
    architecture = plan(4, residual=True)
    before = {"n_conv_per_stage": 2, "n_conv_per_stage_decoder": 2, "n_blocks_per_stage": None}  # as 0.1.0 built it
    weights = build_network(architecture, [32, 32], 1, 2, True, before).state_dict()
    del weights._metadata[""][KEY]["arguments"]["n_blocks_per_stage"]
    network = build_network(architecture, [32, 32], 1, 2, True)
    with pytest.raises(CheckpointMismatch, match=r"Up to 0\.1\.0 this package put two convolutions a stage") as error:
        network.load_state_dict(weights)
    assert "\n" not in str(error.value)
    assert "nnunetv2-eccam 0.1.0" in str(error.value)


def test_the_plans_verb_adds_residual_configurations_to_residual_plans(planned, nnunet_base, small_dataset, capsys):
    number = str(small_dataset())
    assert main(["plans", number, "practical", "trial", "practical_3d", "-p", "nnUNetResEncUNetMPlans"]) == 0
    file = preprocessed(nnunet_base, small_dataset()) / "nnUNetResEncUNetMPlans.json"
    plans = PlansManager(json.loads(file.read_text()))
    for name in ("2d_eccam", "2d_eccam_trial", "2d_unet_trial", "3d_fullres_eccam"):
        architecture = plans.get_configuration(name).configuration["architecture"]
        arguments = architecture["arch_kwargs"]
        assert arguments["n_blocks_per_stage"][:3] == [1, 3, 4]
        own = "ResidualEncoderUNet" if name == "2d_unet_trial" else "ECCaMUNet"
        assert architecture["network_class_name"].endswith(own)
        with torch.device("meta"):  # as nnU-Net builds it
            network = get_network_from_plans(
                architecture["network_class_name"], arguments, architecture["_kw_requires_import"], 1, 3, False, True
            )
        assert len(network.encoder.stages[1].blocks) == 3
