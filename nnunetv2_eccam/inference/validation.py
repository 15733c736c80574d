"""The trainer's own validation, with the batched predictor."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nnunetv2_eccam.inference.batched_predictor import BatchedPredictor


@contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """Let a module's name stand for something else within the block."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


@contextmanager
def batched_validation() -> Iterator[None]:
    """Let nnU-Net's trainer predict its validation cases with :class:`BatchedPredictor` within the block.

    ``perform_actual_validation`` makes its predictor by the name that its module imported, so that name is
    what is replaced.
    """
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module

    with replaced(module, "nnUNetPredictor", BatchedPredictor):
        yield
