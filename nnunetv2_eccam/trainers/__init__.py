"""The trainers, by the names that ``nnUNetv2_train -tr`` takes: every system in two recipes, in any length.

``nnUNetv2_eccam trainers`` lists them. Most are made when they are asked for, as ``trainers.NAME`` or by
``from nnunetv2_eccam.trainers import NAME``; see :mod:`nnunetv2_eccam.trainers.by_name`.
"""

from nnunetv2_eccam.trainers.by_name import TRAINER_NAMES, make_trainer
from nnunetv2_eccam.trainers.eccam import nnUNetTrainerECCaM
from nnunetv2_eccam.trainers.paper import nnUNetTrainerECCaMPaper

__all__ = ["nnUNetTrainerECCaM", "nnUNetTrainerECCaMPaper"]
__all__ += [name for name in TRAINER_NAMES if name not in __all__]


def __getattr__(name: str) -> type[nnUNetTrainerECCaM]:
    """Give a trainer that is made when it is asked for, always the same object, as pickling needs it."""
    trainer = make_trainer(name)
    if trainer is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return trainer
