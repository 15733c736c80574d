"""What only nnU-Net and PyTorch can tell before trainings start: whether trainers are found, splits, GPUs."""

import contextlib
import importlib
import io
import os
from collections.abc import Iterable, Mapping

from nnunetv2_eccam.benchmark.datasets import Dataset
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import nnunet_folder, write_json

GPUS = "nnUNet_eccam_gpus"
"""Set by ``nnUNetv2_eccam benchmark`` on one machine: the GPUs of each job that may run at once, as ``0;1``."""


def check_trainers(names: Iterable[str]) -> None:
    """Look trainers up by nnU-Net's own search.

    Raises:
        UserError: one is not found or cannot be imported, or a package that its network needs is missing.
    """
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    for name in dict.fromkeys(names):
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # nnU-Net prints where it searches
                trainer = recursive_find_trainer_class_by_name(name)
        except RuntimeError:
            raise UserError(
                f"trainers: nnU-Net finds no trainer {name}; nnUNetv2_eccam trainers lists this package's, "
                "and nnUNet_extTrainer names folders with your own"
            ) from None
        except Exception as error:  # whatever a trainer's module raises when it is imported
            raise UserError(f"trainers: {name} cannot be imported: {type(error).__name__}: {error}") from error
        network = getattr(getattr(trainer, "system", None), "network", "")
        module = importlib.import_module(network.rpartition(".")[0]) if network else None
        needed = getattr(module, "segmentation_models_pytorch", None)  # of DeepLabV3+ and SegFormer
        if needed:
            needed(name)


def make_splits(datasets: Mapping[str, Dataset]) -> None:
    """Write nnU-Net's own five folds for data sets that have no splits yet, by nnU-Net's own function.

    nnU-Net does so in the first training; of several that start at once each would write the file, and one might read
    what another has half written.

    Raises:
        UserError: there are too few cases.
    """
    for name, dataset in datasets.items():
        if dataset.splits is not None:
            continue
        from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
        from nnunetv2.utilities.crossval_split import generate_crossval_split

        folder = str(dataset.data)
        cases = sorted(infer_dataset_class(folder).get_identifiers(folder))
        if len(cases) < 5:
            raise UserError(f"datasets: {name} has {len(cases)} cases, too few for nnU-Net's five folds")
        splits = generate_crossval_split(cases, seed=12345, n_splits=5)
        write_json(nnunet_folder("nnUNet_preprocessed") / name / "splits_final.json", splits)


def gpus_of_jobs(device: str, each: int, jobs: int | None) -> list[str]:
    """Deal this machine's GPUs out to the jobs that run at once.

    Args:
        device: ``cpu``, ``cuda`` or ``mps``.
        each: GPUs of one job.
        jobs: that run at once; None: as many as there are GPUs for.

    Returns:
        ``CUDA_VISIBLE_DEVICES`` of each job; jobs share GPUs where there are more jobs than GPUs. Empty without CUDA.

    Raises:
        UserError: the device is not there, or has fewer GPUs than one job needs.
    """
    import torch

    if device == "mps" and not torch.backends.mps.is_available():
        raise UserError("device: PyTorch finds no mps on this machine; give device: cpu")
    if device != "cuda":
        return []
    number = torch.cuda.device_count()
    if not number:
        raise UserError("device: PyTorch finds no cuda on this machine; give device: cpu")
    named = [word.strip() for word in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if word.strip()]
    gpus = named[:number] or [str(index) for index in range(number)]
    if each > len(gpus):
        raise UserError(f"run.gpus is {each}, but this machine has {len(gpus)}")
    at_once = jobs or len(gpus) // each
    return [",".join(gpus[(job * each + i) % len(gpus)] for i in range(each)) for job in range(at_once)]
