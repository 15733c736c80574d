"""The trainers inside nnU-Net: targets, the paper's recipe, threads, length."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import make_trainer
from torch import nn

from nnunetv2_eccam import trainers
from nnunetv2_eccam.blocks.enhanced_convolution import EnhancedConvolution
from nnunetv2_eccam.trainers.eccam import nnUNetTrainerECCaM
from nnunetv2_eccam.trainers.paper import nnUNetTrainerECCaMPaper


@pytest.mark.parametrize("max_stages", [None, 3])
def test_the_targets_are_those_of_the_stages_used(nnunet_base, small_dataset, max_stages):
    trainer = make_trainer(nnUNetTrainerECCaM, nnunet_base, small_dataset())
    trainer.max_stages = max_stages
    n_stages = trainer.configuration_manager.network_arch_init_kwargs["n_stages"]
    assert n_stages > 3
    scales = trainer._get_deep_supervision_scales()
    assert len(scales) == (max_stages or n_stages) - 1
    assert scales[0] == [1, 1]
    trainer.enable_deep_supervision = False
    assert trainer._get_deep_supervision_scales() is None


# --- the paper's recipe -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paper_trainer(nnunet_base, small_dataset):
    trainer = make_trainer(nnUNetTrainerECCaMPaper, nnunet_base, small_dataset())
    trainer.initialize()
    return trainer


def test_the_papers_numbers(paper_trainer):
    """IV.C: Adam, 1e-5, cosine annealing, 150 epochs, weight decay 1e-4, no foreground oversampling."""
    optimizer, schedule = paper_trainer.optimizer, paper_trainer.lr_scheduler
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.param_groups[0]["lr"] == 1e-5
    assert optimizer.param_groups[0]["weight_decay"] == 1e-4
    assert paper_trainer.num_epochs == 150
    assert paper_trainer.oversample_foreground_percent == 0
    rates = []
    for epoch in (0, 75, 149):
        schedule.step(epoch)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-5 * (1 + math.cos(math.pi * e / 150)) / 2 for e in (0, 75, 149)])
    assert paper_trainer.loss.supervision == "dice_main_ce_side"


def test_the_papers_network(paper_trainer):
    network = paper_trainer.network
    blocks = [m for m in network.modules() if isinstance(m, EnhancedConvolution)]
    assert blocks
    assert all(block.norm_per_branch and len(block.norms) == 3 for block in blocks)
    assert not any(isinstance(m, (nn.InstanceNorm2d, nn.LeakyReLU)) for m in network.modules())
    assert network.plan.downsampling == "max_pool"
    assert network.bottleneck.attention.spatial.scale == 1.0


def test_weight_decay_comes_from_the_configuration(nnunet_base, small_dataset):
    trainer = make_trainer(nnUNetTrainerECCaMPaper, nnunet_base, small_dataset(), recipe={"weight_decay": 2e-4})
    assert trainer.weight_decay == 2e-4


def test_one_epoch_is_one_pass_over_the_slices_and_every_slice_is_as_likely(paper_trainer):
    training, validation = paper_trainer.get_tr_and_val_datasets()
    slices = {case: training.load_case(case)[0].shape[1] for case in set(training.identifiers)}
    assert len(set(slices.values())) > 1  # cases of several lengths, or the next line would prove nothing
    assert {case: training.identifiers.count(case) for case in slices} == slices
    batch = paper_trainer.configuration_manager.batch_size
    assert paper_trainer.num_iterations_per_epoch == math.ceil(sum(slices.values()) / batch)
    assert paper_trainer.num_val_iterations_per_epoch == math.ceil(len(validation.identifiers) / batch)


def test_the_papers_augmentation_flips_along_x_turns_by_at_most_ten_degrees_and_blurs_half(paper_trainer):
    rotation, _, initial_patch, axes = paper_trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    assert axes == (1,)
    assert paper_trainer.inference_allowed_mirroring_axes is None  # prediction is without mirroring
    assert rotation == pytest.approx((-math.pi / 18, math.pi / 18))
    size = 65
    transforms = paper_trainer.get_training_transforms(
        (size, size), rotation, None, axes, False, regions=None, ignore_label=None
    )
    y, x = np.indices((size + 20, size + 20)) - (size + 19) / 2
    marker = ((x - 25) ** 2 + y**2 < 3**2).astype(np.int16)  # to the right of the centre
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.normal(size=marker.shape).astype(np.float32))[None]
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - what the library draws from
    angles, flips, roughness = [], 0, []
    for _ in range(120):
        sample = transforms(image=noise.clone(), segmentation=torch.from_numpy(marker)[None])
        ys, xs = np.nonzero(sample["segmentation"][0].numpy())
        dy, dx = ys.mean() - (size - 1) / 2, xs.mean() - (size - 1) / 2
        flips += dx < 0
        angles.append(math.degrees(math.atan2(dy, abs(dx))))
        roughness.append(float(sample["image"].std()))
    assert 0.35 < flips / 120 < 0.65
    assert max(map(abs, angles)) < 11
    assert np.percentile(np.abs(angles), 50) == pytest.approx(5, abs=1.2)  # uniform in [-10, 10]
    blurred = np.array(roughness) < (min(roughness) + max(roughness)) / 2
    assert 0.3 < blurred.mean() < 0.7
    assert np.all(np.asarray(initial_patch) >= paper_trainer.configuration_manager.patch_size)


def test_the_best_epoch_by_its_own_dice_becomes_the_final_checkpoint(nnunet_base, small_dataset, monkeypatch):
    trainer = make_trainer(nnUNetTrainerECCaMPaper, nnunet_base, small_dataset())
    monkeypatch.setattr(trainer, "get_tr_and_val_datasets", lambda: nnUNetTrainerECCaM.get_tr_and_val_datasets(trainer))
    monkeypatch.setattr(trainer.logger, "plot_progress_png", lambda _: None)
    trainer.num_epochs = 4
    dices = iter([0.2, 0.9, 0.5, 0.6])  # a moving average would choose the last
    weights = []

    def validate(_outputs):
        dice = next(dices)
        weights.append({k: v.clone() for k, v in trainer.network.state_dict().items()})
        trainer.logger.log("mean_fg_dice", dice, trainer.current_epoch)
        trainer.logger.log("dice_per_class_or_region", [dice], trainer.current_epoch)
        trainer.logger.log("val_losses", 0.0, trainer.current_epoch)

    monkeypatch.setattr(nnUNetTrainerECCaM, "on_validation_epoch_end", lambda self, outputs: validate(outputs))
    trainer.run_training()
    final = torch.load(Path(trainer.output_folder, "checkpoint_final.pth"), weights_only=False)["network_weights"]
    assert all(torch.equal(final[k], weights[1][k]) for k in final)
    assert any(not torch.equal(final[k], weights[3][k]) for k in final)


def test_on_a_cpu_it_takes_the_threads_that_the_user_gives(nnunet_base, small_dataset, monkeypatch):
    """nnU-Net's command sets as many as there are cores before it makes the trainer."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        make_trainer(nnUNetTrainerECCaM, nnunet_base, small_dataset())
        assert torch.get_num_threads() == 3
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        make_trainer(nnUNetTrainerECCaM, nnunet_base, small_dataset())
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


# --- length -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "epochs"),
    [("nnUNetTrainerECCaM", 1), ("nnUNetTrainerECCaMPaper", 20), ("nnUNetTrainerECCaM_UNet_SE", 250)],
)
def test_short_trainers_are_as_long_as_their_names_say_and_can_be_resumed(nnunet_base, small_dataset, recipe, epochs):
    name = f"{recipe}_{epochs}epoch{'s' if epochs > 1 else ''}"
    trainer = make_trainer(getattr(trainers, name), nnunet_base, small_dataset())
    assert trainer.num_epochs == epochs
    assert trainer.save_every <= max(1, epochs // 20)
    assert Path(trainer.output_folder_base).name.startswith(f"{name}__")
