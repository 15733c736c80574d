"""Cosine annealing (IV.C) with the interface of nnU-Net's schedules, which are told the epoch."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class CosineAnnealing(LRScheduler):
    """``lr(t) = initial_lr * (1 + cos(pi * t / T)) / 2`` at epoch t of T.

    torch's own ``CosineAnnealingLR`` counts its steps, and warns when it is told the epoch as nnU-Net
    does, at the start of each epoch and, after a resumed training, from the epoch reached.

    Args:
        optimizer: whose learning rates are set.
        initial_lr: at epoch 0.
        n_epochs: T.
    """

    def __init__(self, optimizer: Optimizer, initial_lr: float, n_epochs: int) -> None:
        self.initial_lr = initial_lr
        self.n_epochs = n_epochs
        super().__init__(optimizer)

    def step(self, epoch: int | None = None) -> None:
        """Set the learning rate of ``epoch``, or of the next one."""
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        rate = self.initial_lr * (1 + math.cos(math.pi * self.last_epoch / self.n_epochs)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self._last_lr = [rate for _ in self.optimizer.param_groups]
