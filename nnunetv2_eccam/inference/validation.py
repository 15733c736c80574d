"""The trainer's own validation, with the batched predictor."""

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from nnunetv2_eccam.inference.batched_predictor import BatchedPredictor


def batched_validation() -> AbstractContextManager[Any]:
    """Let nnU-Net's trainer predict its validation cases with :class:`BatchedPredictor` within the block.

    ``perform_actual_validation`` makes its predictor by the name that its module imported, so that name is
    what is replaced.
    """
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module

    return patch.object(module, "nnUNetPredictor", BatchedPredictor)
