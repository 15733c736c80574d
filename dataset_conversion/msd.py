"""The tasks of the Medical Segmentation Decathlon (MSD), Task02_Heart and Task07_Pancreas by name.

Layout of a download: ``imagesTr``, ``labelsTr``, ``imagesTs`` and ``dataset.json``; names as
``la_003.nii.gz``; images of several modalities have them in the fourth dimension; Apple's ``._`` files lie
in between. Task02: label 1 left atrium, MRI. Task07: labels 1 pancreas and 2 cancer, CT, 281 labelled
cases. Source: Antonelli et al., Nature Communications 13, 4128 (2022), and the tasks' dataset.json.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json

from .case_checks import check_image, check_label, check_label_on_tissue, check_same_grid
from .checksums import source_name
from .engine import convert
from .geometry import Geometry, header_warnings, simpleitk_geometry
from .labels import label_policy, relabelled
from .model import Case, CaseResult, DatasetCard, LabelPolicy, Options, Outcome, Plan, Problem, case_result
from .nifti import Nifti, read_both, write_nifti
from .parallel import default_processes
from .placing import place_unchanged
from .source_folder import check_source

if TYPE_CHECKING:
    from numpy.typing import NDArray

LICENCE = "CC BY-SA 4.0"
REFERENCE = "http://medicaldecathlon.com"
CITATION = (
    "M. Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13, 4128 (2022), "
    "https://doi.org/10.1038/s41467-022-30695-9",
    "A. L. Simpson et al., A large annotated medical image dataset for the development and evaluation of "
    "segmentation algorithms, arXiv:1902.09063 (2019)",
)
ENDING = ".nii.gz"
EXPECTED = "imagesTr, labelsTr and dataset.json (for instance Task02_Heart)"


@dataclass(frozen=True)
class KnownTask:
    """What is known of a task by name.

    Attributes:
        card: its description.
        labels: the foreground labels in its dataset.json.
        default_labels: the label policy that the paper uses.
        organ: the whole of which labels 1 and 2 are parts; None where there are no parts.
        paper_counts: the paper's train, validation and test counts by the number of labelled cases.
        why_no_paper_split: said where there are none.
    """

    card: DatasetCard
    labels: Mapping[int, str]
    default_labels: str
    organ: str | None
    paper_counts: Mapping[int, tuple[int, int, int]]
    why_no_paper_split: str = ""


TASKS = {
    "msd-heart": KnownTask(
        DatasetCard("MSD Task02_Heart", 2, "Heart", REFERENCE, LICENCE, CITATION),
        {1: "left atrium"},
        "apart",
        None,
        {},
        "the paper has no split for the Heart: it cross-validates its 20 cases in five folds, as nnU-Net does",
    ),
    "msd-pancreas": KnownTask(
        DatasetCard("MSD Task07_Pancreas", 7, "Pancreas", REFERENCE, LICENCE, CITATION, soft_tissue=True),
        {1: "pancreas", 2: "cancer"},
        "merged",
        "pancreas",
        {281: (236, 5, 40)},
    ),
}


def convert_msd(
    source: Path | str,
    *,
    task: str | None = None,
    dataset_id: int | None = None,
    name: str | None = None,
    labels: str | None = None,
    split: str = "cv",
    hold_out: int = 0,
    seed: int = 12345,
    leave_out: tuple[str, ...] = (),
    processes: int | None = None,
    dry_run: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Outcome:
    """Convert a task of the Decathlon to ``$nnUNet_raw/DatasetXXX_Name``.

    Args:
        source: the unpacked folder, ``Task02_Heart``.
        task: ``msd-heart`` or ``msd-pancreas``; None for any task, recognised by its labels.
        dataset_id: None for the task's own number.
        name: None for the task's own name.
        labels: ``merged``, ``apart`` or ``regions``; None for the paper's choice, else ``apart``.
        split: ``cv`` (nnU-Net's five folds) or ``paper``.
        hold_out: labelled cases to hold out for testing, with ``cv``.
        seed: decides which cases are held out.
        leave_out: names of cases not to convert.
        processes: None for eight, or the number of cores if less.
        dry_run: only find and print every problem.
        overwrite: replace an existing data set, once the new one is complete.
        progress: show a progress bar.

    Raises:
        UserError: the source, an option or the target is wrong; the target is as it was.
    """
    folder = check_source(Path(source), _looks_right, EXPECTED)
    declared, channel_names, content = _declared(folder)
    known = _known_task(folder, task, declared)
    card = known.card if known else _unknown_card(folder, content, dataset_id, name)
    options = Options(
        dataset_id=card.dataset_id if dataset_id is None else dataset_id,
        name=card.name if name is None else name,
        labels=labels or (known.default_labels if known else "apart"),
        split=split,
        hold_out=hold_out,
        seed=seed,
        leave_out=tuple(leave_out),
        processes=processes or default_processes(),
        dry_run=dry_run,
        overwrite=overwrite,
        progress=progress,
    )
    policy = label_policy(options.labels, declared, known.organ if known else None)
    plan = Plan(
        card,
        folder,
        channel_names,
        policy,
        [],
        partial(convert_case, policy=policy, channels=tuple(channel_names.values()), soft_tissue=card.soft_tissue),
        paper_counts=known.paper_counts if known else {},
        why_no_paper_split=known.why_no_paper_split if known else "the paper does not use this task",
    )
    _find_cases(plan, content)
    return convert(plan, options)


def _looks_right(folder: Path) -> bool:
    return all((folder / part).exists() for part in ("imagesTr", "labelsTr", "dataset.json"))


def _declared(folder: Path) -> tuple[dict[int, str], dict[str, str], dict[str, Any]]:
    """Read labels and channels from dataset.json."""
    file = folder / "dataset.json"
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
    return labels, modality, content


def _known_task(folder: Path, task: str | None, declared: Mapping[int, str]) -> KnownTask | None:
    found = {value: name.strip().lower() for value, name in declared.items() if value != 0}
    recognised = next((key for key, known in TASKS.items() if dict(known.labels) == found), None)
    if task is not None and recognised != task:
        wanted = ", ".join(TASKS[task].labels.values())
        advice = f"use {recognised}" if recognised else "use msd"
        raise UserError(
            f"{folder} is not {TASKS[task].card.title}: its dataset.json has the label(s) "
            f"{', '.join(found.values())}, not {wanted}; {advice} for this folder"
        )
    return TASKS[recognised] if recognised else None


def _unknown_card(folder: Path, content: Mapping[str, Any], dataset_id: int | None, name: str | None) -> DatasetCard:
    match = re.fullmatch(r"Task(\d+)_(.+)", folder.name)
    if match is None and (dataset_id is None or name is None):
        raise UserError(
            f"the folder's name {folder.name!r} is not TaskXX_Name, so it gives no id and name; "
            f"give both with --id and --name"
        )
    number, title = (int(match[1]), match[2]) if match else (int(dataset_id or 0), str(name))
    return DatasetCard(
        f"MSD {folder.name}",
        number,
        title,
        str(content.get("reference") or REFERENCE),
        str(content.get("licence") or content.get("license") or LICENCE),
        CITATION,
    )


def _find_cases(plan: Plan, content: Mapping[str, Any]) -> None:
    """Find the cases by the files, and hold what dataset.json lists against them."""
    ignored: list[str] = []
    images = _files(plan.source / "imagesTr", ignored)
    labels = _files(plan.source / "labelsTr", ignored)
    tests = _files(plan.source / "imagesTs", ignored)
    for case in sorted({*images, *labels}):
        if case not in labels:
            plan.problems.append(
                Problem(
                    case,
                    f"{images[case]} has no label in labelsTr; complete the download, "
                    f"or leave the case out with --leave-out {case}",
                )
            )
        elif case not in images:
            plan.problems.append(
                Problem(
                    case,
                    f"{labels[case]} has no image in imagesTr; complete the download, "
                    f"or leave the case out with --leave-out {case}",
                )
            )
        else:
            plan.cases.append(Case(case, (images[case],), labels[case]))
    for case in sorted({*tests} & {*images}):
        plan.problems.append(Problem("", f"{tests[case]} has the name of a case in imagesTr; move one of them away"))
    plan.cases += [Case(case, (tests[case],), None, "Ts") for case in sorted({*tests} - {*images})]
    if ignored:
        plan.notes.append(f"{len(ignored)} hidden file(s) ignored, such as {ignored[0]}")
    _compare_with_list(plan, content, {"training": {*images} | {*labels}, "test": {*tests}})


def _files(folder: Path, ignored: list[str]) -> dict[str, Path]:
    """Give the ``.nii.gz`` files by case; Apple's ``._`` files and other hidden ones go to ``ignored``."""
    found = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith((".", "_")):
            ignored.append(f"{folder.name}/{path.name}")
        elif path.name.endswith(ENDING):
            found[path.name[: -len(ENDING)]] = path
    return found


def _compare_with_list(plan: Plan, content: Mapping[str, Any], found: Mapping[str, set[str]]) -> None:
    file = plan.source / "dataset.json"
    for key, cases in found.items():
        entries = content.get(key)
        if not isinstance(entries, list):
            plan.notes.append(f"dataset.json lists no '{key}' cases to compare with the files")
            continue
        names = [str(entry["image"] if isinstance(entry, Mapping) and "image" in entry else entry) for entry in entries]
        for name in names:
            if ".." in Path(name).parts or Path(name).is_absolute():
                plan.problems.append(
                    Problem(
                        "",
                        f"{file}: '{key}' lists {name!r}, which leads out of the folder; "
                        f"take the dataset.json from the download",
                    )
                )
        listed = {Path(name).name.removesuffix(ENDING) for name in names}
        for case in sorted(listed - cases):
            plan.problems.append(
                Problem(
                    case,
                    f"{file} lists {case} under '{key}', but it is not in the folder; "
                    f"complete the download, or leave it out with --leave-out {case}",
                )
            )
        for case in sorted(cases - listed):
            plan.problems.append(
                Problem(
                    case,
                    f"{case} is in the folder, but {file} does not list it under "
                    f"'{key}'; leave it out with --leave-out {case}, or add it",
                )
            )


def convert_case(
    case: Case, folder: Path | None, *, policy: LabelPolicy, channels: tuple[str, ...], soft_tissue: bool
) -> CaseResult:
    """Check one case and publish it; files that need no change are linked, else copied.

    Args:
        case: the case.
        folder: the data set's folder; None only checks.
        policy: its labels.
        channels: modalities in order; more than one are in the image's fourth dimension.
        soft_tissue: see :class:`DatasetCard`.

    Raises:
        UserError: a file is damaged or the case is wrong.
    """
    path = case.images[0]
    image, label = read_both(path, case.label)
    volumes = _channels(path, image.voxels, channels)
    geometry = simpleitk_geometry(path)
    checks: dict[str, Any] = {
        "size": list(geometry.size),
        "spacing": list(geometry.spacing),
        "orientation": geometry.orientation,
    }
    warnings = header_warnings(image.header.get_best_affine(), geometry)
    for volume, channel in zip(volumes, channels, strict=True):
        found, more = check_image(path, volume.T, channel)
        warnings += more
        checks = _wider(checks, found)
    sources = {source_name(path): image.sha256}
    published = _publish_image(case, folder, image, volumes)
    if case.label is not None and label is not None:
        sources[source_name(case.label)] = label.sha256
        checks |= _check_label(case.label, label, path, geometry, policy)
        if channels[0] == "CT":
            found, more = check_label_on_tissue(
                volumes[0].T,
                label.voxels.reshape(geometry.size, order="F").T,
                case.label,
                checks["label_box"],
                soft_tissue,
            )
            checks |= found
            warnings += more
        published |= _publish_label(case, folder, label, policy)
    return case_result(case, checks, sources, published, warnings)


def _channels(path: Path, voxels: NDArray[Any], channels: tuple[str, ...]) -> list[NDArray[Any]]:
    """Split ``(x, y, z)`` or ``(x, y, z, channel)`` into one ``(x, y, z)`` for each declared modality."""
    while voxels.ndim > 3 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    if voxels.ndim == 3 and len(channels) == 1:
        return [voxels]
    if voxels.ndim == 4 and voxels.shape[3] == len(channels) > 1:
        return [voxels[..., index] for index in range(len(channels))]
    raise UserError(
        f"{path} has {voxels.ndim} dimensions ({' x '.join(map(str, voxels.shape))}), but dataset.json "
        f"declares {len(channels)} modality/modalities ({', '.join(channels)}); "
        f"correct 'modality' or replace the image by the original"
    )


def _wider(checks: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Join the channels' findings: the range over all, and the box that holds all."""
    ranges = [entry["intensity"] for entry in (checks, found) if "intensity" in entry]
    sizes = [entry["nonzero_size"] for entry in (checks, found) if "nonzero_size" in entry]
    return {
        **checks,
        "intensity": [min(low for low, _ in ranges), max(high for _, high in ranges)],
        "nonzero_size": [max(lengths) for lengths in zip(*sizes, strict=True)],
    }


def _check_label(path: Path, label: Nifti, image_path: Path, geometry: Geometry, policy: LabelPolicy) -> dict[str, Any]:
    shape = label.voxels.shape
    if len(shape) < 3 or any(length != 1 for length in shape[3:]):
        raise UserError(
            f"{path} has {len(shape)} dimensions ({' x '.join(map(str, shape))}); a label has three; "
            f"replace it by the original download"
        )
    check_same_grid(image_path, geometry, path, simpleitk_geometry(path))
    return check_label(path, label.voxels.reshape(shape[:3], order="F").T, policy.declared)


def _publish_image(case: Case, folder: Path | None, image: Nifti, volumes: list[NDArray[Any]]) -> dict[str, str]:
    names = [f"images{case.subset}/{case.case}_{index:04d}{ENDING}" for index in range(len(volumes))]
    unchanged = len(volumes) == 1
    if folder is not None:
        for name, volume in zip(names, volumes, strict=True):
            if unchanged:
                place_unchanged(case.images[0], folder / name)
            else:
                write_nifti(folder / name, volume, image.header)
    return dict.fromkeys(names, "unchanged" if unchanged else "channel of a 4D image")


def _publish_label(case: Case, folder: Path | None, label: Nifti, policy: LabelPolicy) -> dict[str, str]:
    assert case.label is not None
    name = f"labels{case.subset}/{case.case}{ENDING}"
    if folder is not None:
        if policy.keeps_values:
            place_unchanged(case.label, folder / name)
        else:
            voxels = label.voxels.reshape(label.voxels.shape[:3], order="F")
            write_nifti(folder / name, relabelled(voxels, policy), label.header)
    return {name: "unchanged" if policy.keeps_values else f"labels {policy.policy}"}
