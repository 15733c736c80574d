"""Short variants of ``nnUNetTrainerECCaM``, found by nnU-Net as a user's own trainers are: by ``nnUNet_extTrainer``.

They differ from it in length, and in two numbers of the optimiser. At nnU-Net's learning rate of 0.01 and momentum of
0.99, which averages over a hundred steps, a hundred steps only teach a network that nearly everything is background;
0.1 and 0.9 make steps of the same size without the delay. nnU-Net does not seed a training; these do, so that a bar
for their Dice is not missed by chance.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from nnunetv2_eccam.trainers import nnUNetTrainerECCaM


class nnUNetTrainerECCaMIntegration(nnUNetTrainerECCaM):
    """Five epochs, as nnU-Net's integration test has them, of 16 steps in place of 250."""

    epochs = 5
    steps = 16
    validation_steps = 2

    def initialize(self) -> None:
        """Build all, of the same seed for the same fold."""
        self.initial_lr = 0.1
        self.num_iterations_per_epoch = self.steps
        self.num_val_iterations_per_epoch = self.validation_steps
        seed = 0 if self.fold == "all" else int(self.fold)
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the generator that nnU-Net's data loading draws from
        super().initialize()

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """Make nnU-Net's optimiser and schedule, with less momentum."""
        optimizer, schedule = super().configure_optimizers()
        for group in optimizer.param_groups:
            group["momentum"] = 0.9
        return optimizer, schedule


class nnUNetTrainerECCaMSmoke(nnUNetTrainerECCaMIntegration):
    """One epoch of a few steps, for continuous integration."""

    epochs = 1
    steps = 16
    validation_steps = 1
