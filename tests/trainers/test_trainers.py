"""The trainers inside nnU-Net: data, loss, optimiser, checkpoints, prediction, for every kind of labels."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from small_training import make_trainer, preprocessed
from torch import nn

from nnunetv2_eccam import trainers
from nnunetv2_eccam.blocks.enhanced_convolution import EnhancedConvolution
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.trainers.eccam import nnUNetTrainerECCaM
from nnunetv2_eccam.trainers.paper import nnUNetTrainerECCaMPaper


@pytest.mark.parametrize("kind", ["labels", "regions_ignore"])
@pytest.mark.parametrize("trainer_class", [nnUNetTrainerECCaM, nnUNetTrainerECCaMPaper])
def test_a_step_of_training_and_of_validation_for_every_kind_of_labels(
    nnunet_base, small_dataset, kind, trainer_class
):
    trainer = make_trainer(trainer_class, nnunet_base, small_dataset(kind))
    trainer.initialize()
    training, validation = trainer.get_dataloaders()
    before = [p.detach().clone() for p in trainer.network.parameters()]
    trainer.network.train()
    batch = next(training)
    outputs = trainer.network(batch["data"])
    assert [o.shape[2:] for o in outputs] == [t.shape[2:] for t in batch["target"]]
    loss = trainer.train_step(batch)["loss"]
    assert np.isfinite(loss)
    missing = [n for n, p in trainer.network.named_parameters() if p.grad is None]
    assert missing == (
        ["decoder.seg_layers.0.weight", "decoder.seg_layers.0.bias"] if trainer_class is nnUNetTrainerECCaM else []
    )
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.network.parameters(), strict=True))
    trainer.network.eval()
    with torch.no_grad():
        result = trainer.validation_step(next(validation))
    n_foreground = 2
    assert len(result["tp_hard"]) == n_foreground
    assert np.isfinite(result["loss"])


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


def test_without_side_outputs_nnunet_may_switch_them_on_after_validation(nnunet_base, small_dataset):
    trainer = make_trainer(nnUNetTrainerECCaM, nnunet_base, small_dataset(), switches={"side_outputs": False})
    trainer.enable_deep_supervision = False
    trainer.initialize()
    trainer.set_deep_supervision_enabled(True)
    assert isinstance(trainer.network(torch.randn(1, 1, *trainer.configuration_manager.patch_size)), torch.Tensor)


def test_a_trained_model_is_loaded_and_predicts(nnunet_base, small_dataset):
    """As ``nnUNetv2_predict`` does."""
    trainer = make_trainer(nnUNetTrainerECCaM, nnunet_base, small_dataset("regions_ignore"))
    trainer.num_epochs = 1
    trainer.run_training()
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, use_mirroring=False)
    predictor.initialize_from_trained_model_folder(trainer.output_folder_base, (0,), "checkpoint_final.pth")
    image = torch.randn(1, 2, *trainer.configuration_manager.patch_size)
    logits = predictor.predict_sliding_window_return_logits(image)
    assert logits.shape[0] == 2
    assert torch.isfinite(logits).all()
    assert predictor.trainer_name == "nnUNetTrainerECCaM"
    final = torch.load(Path(trainer.output_folder, "checkpoint_final.pth"), weights_only=False)
    assert predictor.network.state_dict().keys() == final["network_weights"].keys()


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
    folder = preprocessed(nnunet_base, small_dataset())
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    plans["continue_training"] = False
    plans["configurations"]["2d"]["recipe"] = {"weight_decay": 2e-4}
    trainer = nnUNetTrainerECCaMPaper(
        plans, "2d", 0, json.loads((folder / "dataset.json").read_text()), torch.device("cpu")
    )
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


def test_a_3d_configuration_is_refused_by_the_2d_recipe(nnunet_base, small_dataset):
    folder = preprocessed(nnunet_base, small_dataset())
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    plans["continue_training"] = False
    with pytest.raises(UserError, match="2D recipe; configuration 3d_fullres is 3D"):
        nnUNetTrainerECCaMPaper(
            plans, "3d_fullres", 0, json.loads((folder / "dataset.json").read_text()), torch.device("cpu")
        )


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
