"""The trainers, re-exported by absolute import for nnU-Net's search.

nnU-Net imports every module of this folder under its bare name and forgets it afterwards; the classes
themselves live in :mod:`nnunetv2_eccam.trainers`, so workers that unpickle them get the same objects.
"""

try:
    from nnunetv2_eccam.trainers import nnUNetTrainerECCaM, nnUNetTrainerECCaMPaper  # noqa: F401
    from nnunetv2_eccam.trainers.by_name import asked_by_nnunet as __getattr__  # noqa: F401
except ModuleNotFoundError as error:
    # This folder reached another environment, by an exported nnUNet_extTrainer, in which the package
    # is not installed: there is nothing to offer there, and the search must go on.
    if error.name != "nnunetv2_eccam":
        raise
