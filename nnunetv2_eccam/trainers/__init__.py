"""The trainers, by the names that ``nnUNetv2_train -tr`` takes."""

from nnunetv2_eccam.trainers.eccam import nnUNetTrainerECCaM
from nnunetv2_eccam.trainers.paper import nnUNetTrainerECCaMPaper
from nnunetv2_eccam.trainers.training_length import *  # noqa: F403
from nnunetv2_eccam.trainers.training_length import __all__ as _lengths

__all__ = ["nnUNetTrainerECCaM", "nnUNetTrainerECCaMPaper", *_lengths]
