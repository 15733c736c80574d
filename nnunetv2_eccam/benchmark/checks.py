"""What is looked up before trainings start: data sets and their splits, trainers by nnU-Net's own search, GPUs."""

import contextlib
import io
import os
import pydoc
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_eccam.benchmark.spec import DEFAULT_PLANS, Spec, paper_system
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.evaluation.labels import slice_axis_of_plans
from nnunetv2_eccam.files import nnunet_folder, read_json, write_json
from nnunetv2_eccam.inference.trained_model import check_device
from nnunetv2_eccam.plans.dataset_plans import DatasetPlans, find_dataset_plans
from nnunetv2_eccam.volumes import list_volumes

NNUNET_FOLDS = 5
"""How many folds nnU-Net makes of a data set that has no splits of its own."""

GPUS = "nnUNet_eccam_gpus"
"""Set by ``nnUNetv2_eccam benchmark`` on one machine: the GPUs of each job that may run at once, as ``0;1``."""


@dataclass(frozen=True)
class Dataset:
    """What is known of a data set.

    Args:
        name: ``DatasetXXX_Name``.
        splits: the validation cases of each fold, or None where nnU-Net has not made its splits yet.
        data: the folder with preprocessed cases from which these are made.
        test_cases: those that are scored: of ``labelsTs``, all of which have their images in ``imagesTs``.
        is_predicted: whether ``imagesTs`` is predicted.
    """

    name: str
    splits: tuple[tuple[str, ...], ...] | None
    data: Path
    test_cases: tuple[str, ...]
    is_predicted: bool


def find_datasets(spec: Spec) -> tuple[Spec, dict[str, Dataset]]:
    """Look up a benchmark's data sets.

    Returns:
        The specification with the data sets' full names, and what is known of each.

    Raises:
        UserError: a data set is not planned or preprocessed, a configuration is not in its plans or not for this
            benchmark, or a fold is not among its splits.
    """
    found = {}
    for word in spec.datasets:
        dataset = _dataset(word, spec)
        found[dataset.name] = dataset
    return spec.model_copy(update={"datasets": tuple(found)}), found


def _dataset(word: str, spec: Spec) -> Dataset:
    plans_of = {name: find_dataset_plans(word, name) for name in dict.fromkeys(each.plans for each in spec.trainers)}
    for system in spec.trainers:
        _check_configuration(plans_of[system.plans], system.configuration, system.trainer)
    first = spec.trainers[0]
    plans = plans_of[first.plans]
    axes = {name: slice_axis_of_plans(each.file) for name, each in plans_of.items() if spec.evaluation.slices}
    if len(set(axes.values())) > 1:
        raise UserError(
            f"trainers: {', '.join(axes)} of {plans.dataset_name} slice along different axes, so slices cannot be "
            "compared; set slices: false in evaluation"
        )
    folder = plans.file.parent
    file_ending = str(plans.dataset_json["file_ending"])
    test_cases = _test_cases(plans.dataset_name, file_ending) if spec.predict_test else ()
    images = nnunet_folder("nnUNet_raw") / plans.dataset_name / "imagesTs"
    return Dataset(
        name=plans.dataset_name,
        splits=_splits(folder, spec.folds),
        data=folder / str(_field(plans, first.configuration, "data_identifier")),
        test_cases=test_cases,
        is_predicted=bool(test_cases) or (spec.predict_unlabelled and any(images.glob(f"[!.]*{file_ending}"))),
    )


def _field(plans: DatasetPlans, configuration: str, field: str) -> Any:
    """Give a field of a configuration, its own or that of the one it inherits from."""
    present = plans.plans["configurations"]
    name: str | None = configuration
    while name is not None and name in present:
        if field in present[name]:
            return present[name][field]
        name = present[name].get("inherits_from")
    return None


def _check_configuration(plans: DatasetPlans, name: str, trainer: str) -> None:
    present = plans.plans["configurations"]
    if name not in present:
        raise UserError(
            f"configurations: {plans.file} has no configuration {name} (it has {', '.join(present)}); "
            f"nnUNetv2_eccam plans {plans.dataset_name} NAME adds this package's"
        )
    if _field(plans, name, "previous_stage"):
        raise UserError(
            f"configurations: {name} of {plans.dataset_name} is a cascade, whose first stage would have to be trained "
            "before; a benchmark compares single stages"
        )
    identifier = _field(plans, name, "data_identifier")
    data = plans.file.parent / str(identifier)
    # Copied when all cases are preprocessed; what is validated is scored against it.
    complete = (data.parent / "gt_segmentations").is_dir()
    if identifier is None or not complete or not data.is_dir() or not any(data.iterdir()):
        own = plans.file.stem
        command = "plan_and_preprocess" if own == DEFAULT_PLANS else f"preprocess -plans_name {own}"
        raise UserError(
            f"{plans.dataset_name} is not preprocessed for {name}; run nnUNetv2_{command} "
            f"-d {plans.dataset_name} -c {name}"
        )
    axes, system = len(_field(plans, name, "patch_size") or ()), paper_system(trainer)
    if axes and system and axes not in system.dimensions:
        raise UserError(f"trainers: {trainer} has no network of {axes} dimensions, which {name} asks for")


def _splits(folder: Path, folds: tuple[int, ...]) -> tuple[tuple[str, ...], ...] | None:
    file = folder / "splits_final.json"
    splits = read_json(file) if file.is_file() else None
    number, where = (NNUNET_FOLDS, "nnU-Net makes") if splits is None else (len(splits), f"{file} has")
    beyond = [str(fold) for fold in folds if fold >= number]
    if beyond:
        raise UserError(
            f"folds: {', '.join(beyond)} of {folder.name} {'is' if len(beyond) == 1 else 'are'} beyond the {number} "
            f"folds that {where} (0 to {number - 1}); nnU-Net would split at random there, 80:20, and say so in its "
            "log only"
        )
    return None if splits is None else tuple(tuple(map(str, split["val"])) for split in splits)


def _test_cases(name: str, file_ending: str) -> tuple[str, ...]:
    """List the cases of ``labelsTs``; none where images or labels for testing are not there."""
    raw = nnunet_folder("nnUNet_raw") / name
    labels, images = raw / "labelsTs", raw / "imagesTs"
    if not labels.is_dir() or not images.is_dir():
        return ()
    cases = tuple(list_volumes(labels, file_ending))
    missing = [case for case in cases if not (images / f"{case}_0000{file_ending}").is_file()]
    if missing:
        raise UserError(
            f"{labels} has labels without an image in {images}: {', '.join(missing[:5])}; "
            "add the images, or leave the test set out (predict_test: false)"
        )
    return cases


def check_trainers(names: Iterable[str]) -> None:
    """Look trainers up by nnU-Net's own search.

    Raises:
        UserError: one is not found or cannot be imported, or a package that its network needs is missing.
    """
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    from nnunetv2_eccam.architectures.compared.network import LibraryNetwork

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
        path = getattr(getattr(trainer, "system", None), "network", None)
        network: Any = pydoc.locate(path) if path else object
        if issubclass(network, LibraryNetwork):
            network.library()


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
        if len(cases) < NNUNET_FOLDS:
            raise UserError(f"datasets: {name} has {len(cases)} cases, too few for nnU-Net's five folds")
        splits = generate_crossval_split(cases, seed=12345, n_splits=NNUNET_FOLDS)
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

    check_device(device)
    if device != "cuda":
        return []
    number = torch.cuda.device_count()
    named = [word.strip() for word in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if word.strip()]
    gpus = named[:number] or [str(index) for index in range(number)]
    if each > len(gpus):
        raise UserError(f"run.gpus is {each}, but this machine has {len(gpus)}")
    at_once = jobs or len(gpus) // each
    return [",".join(gpus[(job * each + i) % len(gpus)] for i in range(each)) for job in range(at_once)]
