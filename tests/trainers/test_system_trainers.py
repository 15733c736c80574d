"""The trainers by their names: a step of each kind inside nnU-Net, and what a name stands for."""

import json
import pickle

import numpy as np
import pytest
import torch
from small_training import make_trainer

from nnunetv2_eccam import trainers
from nnunetv2_eccam.architectures.origin import plain
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.systems import RECIPES
from nnunetv2_eccam.trainers.by_name import TRAINER_NAMES

NO_GRADIENT = {"decoder.seg_layers.0.weight", "decoder.seg_layers.0.bias"}
"""nnU-Net gives the lowest side output no weight, except under several processes."""

STEPPED = [
    *((system, "labels") for system in ("", "UNet", "UNetPlusPlus", "CENet", "MSFACSA", "UNet_BCE", "alpha_030")),
    ("", "regions_ignore"),
]
"""One of each kind: what differs otherwise is the network, and tests/systems has a step of each."""


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(("system", "kind"), STEPPED)
def test_a_step_of_training_and_of_validation(nnunet_base, small_dataset, system, kind, recipe):
    torch.manual_seed(0)
    trainer_class = getattr(trainers, "_".join(filter(None, (RECIPES[recipe], system))))
    trainer = make_trainer(trainer_class, nnunet_base, small_dataset(kind))
    trainer.initialize()
    training, validation = trainer.get_dataloaders()
    trainer.set_deep_supervision_enabled(True)  # as nnU-Net does at the start of training
    trainer.network.train()
    batch = next(training)
    before = {n: p.detach().clone() for n, p in trainer.network.named_parameters()}
    assert np.isfinite(trainer.train_step(batch)["loss"])
    missing = {n for n, p in trainer.network.named_parameters() if p.grad is None}
    assert missing <= (NO_GRADIENT if trainer.enable_deep_supervision and recipe == "nnunet" else set())
    assert any(not torch.equal(before[n], p) for n, p in trainer.network.named_parameters())
    trainer.network.eval()
    with torch.no_grad():
        result = trainer.validation_step(next(validation))
    assert np.isfinite(result["loss"])
    assert len(result["tp_hard"]) == 2
    trainer.set_deep_supervision_enabled(False)  # as nnU-Net does for the real validation
    patch = trainer.configuration_manager.patch_size
    with torch.no_grad():
        logits = trainer.network(torch.zeros(1, 1, *patch))
    assert logits.shape == (1, trainer.label_manager.num_segmentation_heads, *patch)
    trainer.set_deep_supervision_enabled(True)


def test_a_name_is_one_class_that_pickles_and_whose_switches_can_be_written():
    for name in (*TRAINER_NAMES, "nnUNetTrainerECCaM_UNet_CC_7epochs", "nnUNetTrainerECCaM_1epoch"):
        trainer = getattr(trainers, name)
        assert trainer.__name__ == trainer.__qualname__ == name
        assert trainer is getattr(trainers, name)
        assert pickle.loads(pickle.dumps(trainer)) is trainer
        assert trainer.__doc__
        assert json.loads(json.dumps(plain(trainer.network_switches))) == plain(trainer.network_switches)


@pytest.mark.parametrize(
    "name", ["nnUNetTrainerECCaM_Unet", "nnUNetTrainerECCaM_1epochs", "nnUNetTrainerECCaM_5epoch",
             "nnUNetTrainerECCaM_0epochs", "nnUNetTrainerECCaM_", "nnUNetTrainerECCaMUNet", "nnUNetTrainer"],
)  # fmt: skip
def test_another_name_is_no_trainer(name):
    assert not hasattr(trainers, name)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("nnUNetTrainerECCaM_Unet", "did you mean nnUNetTrainerECCaM_UNet "),
        ("nnUNetTrainerECCaM_1epochs", "append _1epoch or _Nepochs"),
        ("nnUNetTrainerOfSomebodyElse", ""),
    ],
)
def test_a_name_that_is_nearly_one_gets_a_hint_when_nnunet_asks(name, hint, capsys):
    from nnunetv2_eccam.ext import eccam_trainers

    assert not hasattr(eccam_trainers, name)
    said = capsys.readouterr().err
    assert hint in said
    assert bool(said) == bool(hint)


LOSSES = {
    # recipe and system: supervision, weight of Dice, weight of cross-entropy
    "nnUNetTrainerECCaM_UNet": ("dice_ce_all", 1, 1),
    "nnUNetTrainerECCaM_UNet_DiceBCE": ("dice_ce_all", 1, 1),
    "nnUNetTrainerECCaM_UNet_BCE": ("dice_ce_all", 0, 1),
    "nnUNetTrainerECCaMPaper_UNet": ("dice_main_ce_side", 1, 1),  # one output: Dice alone
    "nnUNetTrainerECCaMPaper_UNet_Dice": ("dice_ce_all", 1, 0),
    "nnUNetTrainerECCaMPaper_UNet_BCE": ("dice_ce_all", 0, 1),
    "nnUNetTrainerECCaMPaper_UNet_DiceBCE": ("dice_ce_all", 1, 1),
    "nnUNetTrainerECCaMPaper_alpha_030": ("dice_main_ce_side", 0.3, 0.7),
    "nnUNetTrainerECCaM_alpha_030": ("dice_ce_all", 0.3, 0.7),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_the_rows(nnunet_base, small_dataset, name):
    trainer = make_trainer(getattr(trainers, name), nnunet_base, small_dataset())
    loss = trainer._build_loss()
    supervision, dice, ce = LOSSES[name]
    assert loss.supervision == supervision
    assert (loss.dice_weight, loss.ce_weight) == pytest.approx((dice, ce))


def test_the_papers_unet_is_its_table_four_row_with_dice(nnunet_base, small_dataset):
    """Tables I, II and IV print the same numbers for the plain U-Net: it is trained with Dice alone."""
    losses = [
        make_trainer(getattr(trainers, f"nnUNetTrainerECCaMPaper_{name}"), nnunet_base, small_dataset())._build_loss()
        for name in ("UNet", "UNet_Dice")
    ]
    logits, target = torch.randn(2, 2, 8, 8), torch.randint(0, 2, (2, 1, 8, 8))
    assert losses[0](logits, target) == losses[1](logits, target)


@pytest.mark.parametrize(
    ("name", "kind"), [("nnUNetTrainerECCaM_MSUNet", "network"), ("nnUNetTrainerECCaMPaper", "recipe")]
)
def test_what_is_2d_refuses_a_3d_configuration(nnunet_base, small_dataset, name, kind):
    with pytest.raises(UserError, match=f"2D {kind}; configuration 3d_fullres is 3D"):
        make_trainer(getattr(trainers, name), nnunet_base, small_dataset(), "3d_fullres")
