"""The tasks of the Medical Segmentation Decathlon (MSD), Task02_Heart and Task07_Pancreas by name.

Layout of a download: ``imagesTr``, ``labelsTr``, ``imagesTs`` and ``dataset.json``; names as
``la_003.nii.gz``; images of several modalities have them in the fourth dimension; Apple's ``._`` files lie
in between. Task02: label 1 left atrium, MRI. Task07: labels 1 pancreas and 2 cancer, CT, 281 labelled
cases. Source: Antonelli et al., Nature Communications 13, 4128 (2022), and the tasks' dataset.json.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json
from nnunetv2_eccam.volumes import hidden_line, list_volumes, read_image, read_labels
from nnunetv2_eccam.volumes.listing import similar_file

from .cases import ENDING, header_warnings
from .labels import check_declared
from .model import Case, Conversion, DatasetCard, Options, Scan
from .source_folder import check_source

DECATHLON: dict[str, Any] = {
    "reference": "http://medicaldecathlon.com",
    "licence": "CC BY-SA 4.0",
    "citation": (
        "M. Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13, 4128 (2022), "
        "https://doi.org/10.1038/s41467-022-30695-9",
        "A. L. Simpson et al., A large annotated medical image dataset for the development and evaluation of "
        "segmentation algorithms, arXiv:1902.09063 (2019)",
    ),
}
"""What all tasks have in common."""

EXPECTED = "imagesTr, labelsTr and dataset.json (for instance Task02_Heart)"

TASKS = {
    "msd-heart": DatasetCard(
        title="MSD Task02_Heart",
        dataset_id=2,
        name="Heart",
        labels={0: "background", 1: "left atrium"},
        why_no_paper_split="the paper has no split for the Heart: it cross-validates its 20 cases in five folds, "
        "as nnU-Net does",
        **DECATHLON,
    ),
    "msd-pancreas": DatasetCard(
        title="MSD Task07_Pancreas",
        dataset_id=7,
        name="Pancreas",
        labels={0: "background", 1: "pancreas", 2: "cancer"},
        default_labels="merged",
        organ="pancreas",
        soft_tissue=True,
        paper_counts={281: (236, 5, 40)},
        **DECATHLON,
    ),
}


def plan_msd(source: Path, task: str | None, options: Options) -> Conversion:
    """Plan the conversion of a task of the Decathlon.

    Args:
        source: the unpacked folder, ``Task02_Heart``.
        task: ``msd-heart`` or ``msd-pancreas``; None for any task, recognised by its labels.
        options: the user's, which name a folder that is not called ``TaskXX_Name``.

    Raises:
        UserError: it is another folder, or its ``dataset.json`` is not a Decathlon task's.
    """
    folder = check_source(source, ("imagesTr", "labelsTr", "dataset.json"), EXPECTED)
    declared, channel_names, content = _declared(folder / "dataset.json")
    plan = Conversion(_card(folder, task, declared, content, options), folder, read_case, channel_names)
    _find_cases(plan, content)
    return plan


def _declared(file: Path) -> tuple[dict[int, str], dict[str, str], dict[str, Any]]:
    """Read labels and channels from dataset.json."""
    content = read_json(file)
    try:
        labels = {int(value): str(name) for value, name in content["labels"].items()}
        modality = {str(int(index)): str(name) for index, name in content["modality"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(
            f"{file} is not a Decathlon task's: it needs 'labels' (value to name) and 'modality' "
            f"(channel to name); take the one from the download"
        ) from None
    if sorted(modality, key=int) != [str(index) for index in range(len(modality))] or not modality:
        raise UserError(f"{file}: the channels in 'modality' must be 0, 1, 2, …, not {sorted(modality)}")
    check_declared(labels, str(file))
    return labels, modality, content


def _card(
    folder: Path, task: str | None, declared: Mapping[int, str], content: Mapping[str, Any], options: Options
) -> DatasetCard:  # fmt: skip
    """Recognise a task by its labels; what is said of any other one stands in its folder's name and dataset.json."""
    found = _foreground(declared)
    recognised = next((key for key, card in TASKS.items() if _foreground(card.labels) == found), None)
    if task not in (None, recognised):
        wanted = ", ".join(_foreground(TASKS[task].labels))
        raise UserError(
            f"{folder} is not {TASKS[task].title}: its dataset.json has the label(s) "
            f"{', '.join(found)}, not {wanted}; use {recognised or 'msd'} for this folder"
        )
    if recognised:
        return replace(TASKS[recognised], labels=declared)
    match = re.fullmatch(r"Task(\d+)_(.+)", folder.name)
    if match is None and (options.dataset_id is None or options.name is None):
        raise UserError(
            f"the folder's name {folder.name!r} is not TaskXX_Name, so it gives no id and name; "
            f"give both with --id and --name"
        )
    number, name = (int(match[1]), match[2]) if match else (0, "")
    own = {"reference": content.get("reference"), "licence": content.get("licence") or content.get("license")}
    said = DECATHLON | {key: str(value) for key, value in own.items() if value}
    return DatasetCard(f"MSD {folder.name}", number, name, labels=declared, **said)


def _foreground(labels: Mapping[int, str]) -> list[str]:
    return [name.strip().lower() for value, name in sorted(labels.items()) if value]


def _find_cases(plan: Conversion, content: Mapping[str, Any]) -> None:
    """Find the cases by the files, and hold what dataset.json lists against them."""
    parts = [plan.source / part for part in ("imagesTr", "labelsTr", "imagesTs")]
    images, labels, tests = (list_volumes(part, ENDING) if part.is_dir() else {} for part in parts)
    if line := hidden_line(*parts):
        plan.notes.append(line)
    for case in sorted({*images, *labels}):
        if case in images and case in labels:
            plan.cases.append(Case(case, (images[case],), labels[case]))
            continue
        there, what, part = (labels, "image", "imagesTr") if case in labels else (images, "label", "labelsTr")
        missing = plan.source / part / (case + ENDING)
        remedy = similar_file(missing) or "; complete the download"
        plan.refuse(case, f"{there[case]} has no {what} in {part}{remedy}")
    for case in sorted({*tests} & {*images}):
        plan.refuse("", f"{tests[case]} has the name of a case in imagesTr; move one of them away")
    plan.cases += [Case(case, (tests[case],), None, "Ts") for case in sorted({*tests} - {*images})]
    _compare_with_list(plan, content, {"training": {*images} | {*labels}, "test": {*tests}})


def _compare_with_list(plan: Conversion, content: Mapping[str, Any], found: Mapping[str, set[str]]) -> None:
    file = plan.source / "dataset.json"
    for key, cases in found.items():
        entries = content.get(key)
        if not isinstance(entries, list):
            plan.notes.append(f"dataset.json lists no '{key}' cases to compare with the files")
            continue
        listed = set()
        for number, entry in enumerate(entries, 1):
            names = entry if isinstance(entry, dict) else {"image": entry}
            if not isinstance(names.get("image"), str):
                plan.refuse("", f"{file}: entry {number} of '{key}', {entry}, has no 'image'; add it")
            listed |= {_case_of(names[part]) for part in ("image", "label") if isinstance(names.get(part), str)}
        part = "imagesTr" if key == "training" else "imagesTs"
        for case in sorted(listed - cases):
            remedy = similar_file(plan.source / part / (case + ENDING)) or "; complete the download"
            plan.refuse(case, f"{file} lists {case} under '{key}', but it is not in the folder{remedy}")
        for case in sorted(cases - listed):
            plan.refuse(case, f"{case} is in the folder, but {file} does not list it under '{key}'; add it there")


def _case_of(name: str) -> str:  # Windows programs write backslashes
    return PurePosixPath(name.replace("\\", "/")).name.removesuffix(ENDING)


def read_case(case: Case) -> Scan:
    """Read a case as it is stored.

    Raises:
        UserError: a file is damaged.
    """
    image = read_image(case.images[0])
    label = None if case.label is None else read_labels(case.label)
    return Scan(image, label, warnings=header_warnings(image))
