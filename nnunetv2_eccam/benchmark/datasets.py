"""The data sets of a benchmark: planned, preprocessed, with splits; and which of them have a test set."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_eccam.benchmark.spec import DEFAULT_PLANS, Spec, paper_system
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.evaluation.labels import slice_axis_of_plans
from nnunetv2_eccam.files import nnunet_folder, read_json
from nnunetv2_eccam.plans.dataset_plans import DatasetPlans, find_dataset_plans
from nnunetv2_eccam.volumes import list_volumes

NNUNET_FOLDS = 5
"""How many folds nnU-Net makes of a data set that has no splits of its own."""


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


def _command(plans: DatasetPlans, configuration: str) -> str:
    name = plans.file.stem
    if name == DEFAULT_PLANS:
        return f"nnUNetv2_plan_and_preprocess -d {plans.dataset_name} -c {configuration}"
    return f"nnUNetv2_preprocess -d {plans.dataset_name} -c {configuration} -plans_name {name}"


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
    if identifier is None or not data.is_dir() or not any(data.iterdir()):
        raise UserError(f"{plans.dataset_name} is not preprocessed for {name}; run {_command(plans, name)}")
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
