"""``nnUNetTrainerECCaMPaper``: the paper's training recipe (IV.C), inside nnU-Net's pipeline."""

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.distributed
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from torch.optim import Adam

from nnunetv2_eccam.architectures.from_plans import PAPER_STAGES
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.losses.side_output import Supervision
from nnunetv2_eccam.trainers.checkpoints import unwrapped
from nnunetv2_eccam.trainers.eccam import nnUNetTrainerECCaM

ROTATION = math.radians(10)
"""Largest rotation, in radians (IV.C: "[-10, 10]")."""

BLUR_SIGMA = (0.5, 1.0)
"""Standard deviation of the blur in pixels: nnU-Net's range, since the paper gives none."""


class nnUNetTrainerECCaMPaper(nnUNetTrainerECCaM):
    """Train as the paper says: optimiser, schedule, length, augmentation, sampling, choice of the epoch.

    =====================  ============================================================================
    network                five stages, batch norm per EC branch, ReLU, max-pooling, the dot products as eq. 9
                           has them
    loss                   Dice on the prediction, cross-entropy on the side outputs (III.B)
    optimiser              Adam, learning rate 1e-5, cosine annealing over 150 epochs
    weight decay           1e-4 (MSD, KiTS19), 2e-4 (TCIA, Cardiac): the configurations of
                           ``nnUNetv2_eccam plans`` carry it; 1e-4 on any other
    augmentation           horizontal flip p=0.5, rotation in [-10, 10] degrees, Gaussian blur p=0.5
    epoch                  as many slices as the training cases have, each slice as likely as any other,
                           without foreground oversampling
    result                 the best epoch on the validation cases is ``checkpoint_final.pth``
    prediction             without mirroring, which the paper does not use
    =====================  ============================================================================

    Batch (4), patch and widths (64 to 1024) are the configuration's: add it with ``nnUNetv2_eccam plans
    DATASET paper_msd_pancreas`` (or ``paper_tcia_pancreas``, ``paper_kits19``, ``paper_cardiac``). Under
    ``-num_gpus 2`` nnU-Net synchronises the batch norm, as the paper does on its two GPUs.

    Raises:
        UserError: the configuration is not two-dimensional.
    """

    epochs: ClassVar[int | None] = 150
    max_stages: ClassVar[int | None] = PAPER_STAGES
    supervision: ClassVar[Supervision] = "dice_main_ce_side"
    network_switches = {
        "norm_per_branch": True,
        "downsampling": "max_pool",
        "attention_scale": 1.0,
        "norm_op": "torch.nn.BatchNorm2d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": "torch.nn.ReLU",
        "nonlin_kwargs": {"inplace": True},
    }

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's signature, read by name
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        if len(self.configuration_manager.patch_size) != 2:
            raise UserError(
                f"{type(self).__name__} is the paper's 2D recipe; configuration {configuration} is 3D. "
                "Use a 2D configuration, or nnUNetTrainerECCaM"
            )
        recipe = self.configuration_manager.configuration.get("recipe", {})
        self.initial_lr = 1e-5
        self.weight_decay = float(recipe.get("weight_decay", 1e-4))
        self.oversample_foreground_percent = 0.0

    def configure_optimizers(self) -> tuple[Adam, Any]:
        """Give Adam with L2 weight decay and cosine annealing to 0 (IV.C).

        torch's own ``CosineAnnealingLR`` counts its steps, and warns when it is told the epoch as nnU-Net does.
        """
        from timm.scheduler import CosineLRScheduler  # slow to import

        optimizer = Adam(self.network.parameters(), lr=self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, CosineLRScheduler(optimizer, self.num_epochs)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(
        self,
    ) -> tuple[tuple[float, float], bool, np.ndarray[Any, Any], tuple[int, ...]]:
        """Give the rotation, the patch to load for it, and the axis of the horizontal flip."""
        rotation = (-ROTATION, ROTATION)
        patch_size = self.configuration_manager.patch_size
        initial_patch_size = get_patch_size(patch_size, rotation, rotation, rotation, (1, 1))
        self.inference_allowed_mirroring_axes = None
        return rotation, False, initial_patch_size, (1,)

    @staticmethod
    def get_training_transforms(
        patch_size: Any,
        rotation_for_DA: Any,
        deep_supervision_scales: Any,
        mirror_axes: Any,
        do_dummy_2d_data_aug: bool,  # noqa: ARG004
        **kwargs: Any,
    ) -> BasicTransform:
        """Give the paper's augmentation, then what nnU-Net needs behind any augmentation."""
        augmentation: list[BasicTransform] = [
            SpatialTransform(
                patch_size,
                patch_center_dist_from_border=0,
                random_crop=False,
                p_rotation=1,
                rotation=rotation_for_DA,
                border_mode_seg="constant",
                padding_value_seg=-1,
            ),
            MirrorTransform(allowed_axes=mirror_axes),
            RandomTransform(GaussianBlurTransform(blur_sigma=BLUR_SIGMA, p_per_channel=1), apply_probability=0.5),
        ]
        kwargs.pop("use_mask_for_norm", None)
        conversion = nnUNetTrainerECCaM.get_validation_transforms(deep_supervision_scales, **kwargs)
        return ComposeTransforms([*augmentation, conversion])

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """Give the data sets with every case listed once per slice, and set the epoch to one pass over them.

        nnU-Net draws a case and then one of its slices; a case listed by its slices is drawn by them, so
        that every slice is as likely as any other.
        """
        training, validation = super().get_tr_and_val_datasets()
        batch_size = self.configuration_manager.batch_size  # of all GPUs together
        for dataset in (training, validation):
            dataset.identifiers = [
                case for case in dataset.identifiers for _ in range(dataset.load_case(case)[0].shape[1])
            ]
        self.num_iterations_per_epoch = math.ceil(len(training.identifiers) / batch_size)
        self.num_val_iterations_per_epoch = math.ceil(len(validation.identifiers) / batch_size)
        self.print_to_log_file(
            f"One epoch is {self.num_iterations_per_epoch} iterations over {len(training.identifiers)} training "
            f"slices and {self.num_val_iterations_per_epoch} over {len(validation.identifiers)} validation slices"
        )
        return training, validation

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        """Let nnU-Net choose ``checkpoint_best.pth`` by the epoch's own Dice, not by a moving average."""
        super().on_validation_epoch_end(val_outputs)
        moving_average = self.logger.get_value("ema_fg_dice", step=None)
        moving_average[-1] = self.logger.get_value("mean_fg_dice", step=-1)

    def on_train_end(self) -> None:
        """Make the best epoch's weights the final ones (IV.C), which nnU-Net validates and predicts with."""
        self._load_best_weights()
        super().on_train_end()

    def _load_best_weights(self) -> None:
        if self.is_ddp:  # one process writes the file, all read it: not before it is whole
            torch.distributed.barrier()
        best = Path(self.output_folder, "checkpoint_best.pth")
        if self.disable_checkpointing or not best.is_file():
            self.print_to_log_file("No checkpoint_best.pth: the last epoch's weights are the final ones")
            return
        weights = torch.load(best, map_location=self.device, weights_only=False)["network_weights"]
        unwrapped(self.network).load_state_dict(weights)
        self.print_to_log_file(f"The weights of the best validation epoch are the final ones ({best.name})")
