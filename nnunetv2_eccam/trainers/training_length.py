"""Shorter trainings, named as nnU-Net names its own (``nnUNetTrainer_5epochs``)."""

from __future__ import annotations

from nnunetv2_eccam.trainers.eccam import nnUNetTrainerECCaM
from nnunetv2_eccam.trainers.paper import nnUNetTrainerECCaMPaper

__all__ = [
    "nnUNetTrainerECCaMPaper_1epoch",
    "nnUNetTrainerECCaMPaper_5epochs",
    "nnUNetTrainerECCaMPaper_10epochs",
    "nnUNetTrainerECCaMPaper_20epochs",
    "nnUNetTrainerECCaMPaper_50epochs",
    "nnUNetTrainerECCaM_1epoch",
    "nnUNetTrainerECCaM_5epochs",
    "nnUNetTrainerECCaM_10epochs",
    "nnUNetTrainerECCaM_20epochs",
    "nnUNetTrainerECCaM_50epochs",
    "nnUNetTrainerECCaM_100epochs",
    "nnUNetTrainerECCaM_250epochs",
]


class nnUNetTrainerECCaM_1epoch(nnUNetTrainerECCaM):
    """nnUNetTrainerECCaM for 1 epoch."""

    epochs = 1


class nnUNetTrainerECCaM_5epochs(nnUNetTrainerECCaM):
    """nnUNetTrainerECCaM for 5 epochs."""

    epochs = 5


class nnUNetTrainerECCaM_10epochs(nnUNetTrainerECCaM):
    """nnUNetTrainerECCaM for 10 epochs."""

    epochs = 10


class nnUNetTrainerECCaM_20epochs(nnUNetTrainerECCaM):
    """nnUNetTrainerECCaM for 20 epochs."""

    epochs = 20


class nnUNetTrainerECCaM_50epochs(nnUNetTrainerECCaM):
    """nnUNetTrainerECCaM for 50 epochs."""

    epochs = 50


class nnUNetTrainerECCaM_100epochs(nnUNetTrainerECCaM):
    """nnUNetTrainerECCaM for 100 epochs."""

    epochs = 100


class nnUNetTrainerECCaM_250epochs(nnUNetTrainerECCaM):
    """nnUNetTrainerECCaM for 250 epochs."""

    epochs = 250


class nnUNetTrainerECCaMPaper_1epoch(nnUNetTrainerECCaMPaper):
    """The paper's recipe for 1 epoch."""

    epochs = 1


class nnUNetTrainerECCaMPaper_5epochs(nnUNetTrainerECCaMPaper):
    """The paper's recipe for 5 epochs."""

    epochs = 5


class nnUNetTrainerECCaMPaper_10epochs(nnUNetTrainerECCaMPaper):
    """The paper's recipe for 10 epochs."""

    epochs = 10


class nnUNetTrainerECCaMPaper_20epochs(nnUNetTrainerECCaMPaper):
    """The paper's recipe for 20 epochs."""

    epochs = 20


class nnUNetTrainerECCaMPaper_50epochs(nnUNetTrainerECCaMPaper):
    """The paper's recipe for 50 epochs."""

    epochs = 50
