"""TCIA Pancreas-CT: DICOM series of 80 (once 82) patients, and labels as NIfTI files of their own.

Layout: ``Pancreas-CT/PANCREAS_0001/<study>/<series>/*.dcm`` (folders may be nested otherwise and files be
named anything) and ``TCIA_pancreas_labels-02-05-2017/label0001.nii.gz``. Cases 25 and 70 were withdrawn on
2020-09-10 since both repeat case 2, and their labels are still there. The labels' headers cannot be
trusted: programs that use them disagree on flips (OrganSegRSTN, MC-Net, deedsBCV), so the orientation is
decided by the voxels, see :mod:`.orientation_evidence`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_eccam.errors import UserError

from .case_checks import check_image, check_label, check_label_on_tissue
from .checksums import SERIES, series_checksum, source_name
from .dicom_series import Series, is_dicom, patient_of, read_series
from .engine import convert
from .geometry import LPS_TO_RAS, Geometry
from .labels import label_policy, relabelled
from .model import (
    Case,
    CaseResult,
    ConvertCase,
    DatasetCard,
    LabelPolicy,
    Options,
    Outcome,
    Plan,
    Problem,
    Survey,
    case_result,
)
from .nifti import Nifti, read_nifti, sha256_of
from .orientation_evidence import Way, decide_way, way_scores
from .parallel import default_processes
from .source_folder import check_source
from .volumes import publish_volume, smallest_type

CARD = DatasetCard(
    title="TCIA Pancreas-CT",
    dataset_id=282,
    name="PancreasCT",
    reference="https://doi.org/10.7937/K9/TCIA.2016.tNB1kqBU",
    licence="CC BY 3.0",
    citation=(
        "H. R. Roth et al., Data From Pancreas-CT (Version 2), The Cancer Imaging Archive (2016), "
        "https://doi.org/10.7937/K9/TCIA.2016.tNB1kqBU",
        "H. R. Roth et al., DeepOrgan: Multi-level Deep Convolutional Networks for Automated Pancreas "
        "Segmentation, MICCAI 2015, LNCS 9349, 556-564",
        "K. Clark et al., The Cancer Imaging Archive (TCIA), Journal of Digital Imaging 26, 1045-1057 (2013)",
    ),
    soft_tissue=True,
)
LABELS = {0: "background", 1: "pancreas"}
PAPER_COUNTS = {82: (57, 5, 20), 80: (55, 5, 20)}
WITHDRAWN = {25, 70}
EXPECTED = "the DICOM folders PANCREAS_0001 and so on, and the labels label0001.nii.gz and so on"
PATIENT = re.compile(r"PANCREAS_?(\d{1,4})", re.IGNORECASE)
LABEL_FILE = re.compile(r"label(\d{4})\.nii\.gz")


def convert_tcia_pancreas(
    source: Path | str,
    *,
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
    """Convert TCIA Pancreas-CT to ``$nnUNet_raw/Dataset282_PancreasCT``.

    Args:
        source: a folder that holds the DICOM folders and the label files, nested in any way.
        dataset_id: None for 282.
        name: None for PancreasCT.
        labels: ``merged`` and ``apart`` are the same here, since there is one label.
        split: ``cv`` (nnU-Net's five folds) or ``paper`` (57/5/20 of 82 cases, 55/5/20 of today's 80).
        hold_out: labelled cases to hold out for testing, with ``cv``.
        seed: decides which cases are held out.
        leave_out: names of cases not to convert, ``PANCREAS_0007``.
        processes: None for eight, or the number of cores if less.
        dry_run: only find and print every problem.
        overwrite: replace an existing data set, once the new one is complete.
        progress: show a progress bar.

    Raises:
        UserError: the source, an option or the target is wrong, or the labels' orientation cannot be decided;
            the target is as it was.
    """
    images, label_files, ignored = _found(Path(source))
    if not (images and label_files):
        check_source(Path(source), _looks_right, EXPECTED)
    options = Options(
        dataset_id=CARD.dataset_id if dataset_id is None else dataset_id,
        name=CARD.name if name is None else name,
        labels=labels or "merged",
        split=split,
        hold_out=hold_out,
        seed=seed,
        leave_out=tuple(leave_out),
        processes=processes or default_processes(),
        dry_run=dry_run,
        overwrite=overwrite,
        progress=progress,
    )
    policy = label_policy(options.labels, LABELS, None)
    plan = Plan(
        CARD,
        Path(source).resolve(),
        {"0": "CT"},
        policy,
        [],
        partial(convert_case, policy=policy, ways={}),
        paper_counts=PAPER_COUNTS,
    )
    plan.survey = Survey("orientation", measure_case, partial(_decide, policy))
    if ignored:
        plan.notes.append(f"{ignored} files beside the slices are not DICOM and were ignored.")
    _pair(plan, images, label_files)
    return convert(plan, options)


def _looks_right(folder: Path) -> bool:
    """Look at the upper levels only: this is asked of the neighbours of a wrong folder, too."""
    patients = any(PATIENT.fullmatch(path.name) for depth in ("", "*/", "*/*/") for path in folder.glob(depth + "*_*"))
    return patients and any(
        LABEL_FILE.fullmatch(path.name) for depth in ("", "*/", "*/*/") for path in folder.glob(depth + "label*")
    )


def _found(source: Path) -> tuple[dict[int, list[Path]], dict[int, list[Path]], int]:
    """Find DICOM files and labels by number, at any depth, and count the files that are neither."""
    images: dict[int, list[Path]] = {}
    labels: dict[int, list[Path]] = {}
    ignored = 0
    for place, folders, files in os.walk(source):
        folders.sort()
        slices = []
        for path in (Path(place) / file for file in sorted(files)):
            match = LABEL_FILE.fullmatch(path.name)
            if match:
                labels.setdefault(int(match[1]), []).append(path)
            elif path.name.startswith(".") or path.name.endswith(".nii.gz") or not is_dicom(path):
                ignored += 1
            else:
                slices.append(path)
        if slices:
            images.setdefault(_number(Path(place).relative_to(source), slices[0]), []).extend(slices)
    return images, labels, ignored


def _number(place: Path, example: Path) -> int:
    """Give the patient's number from the folder's name, or else from the file; 0 where neither tells it."""
    for part in reversed(place.parts):
        if match := PATIENT.fullmatch(part):
            return int(match[1])
    match = PATIENT.fullmatch(patient_of(example))
    return int(match[1]) if match else 0


def _pair(plan: Plan, images: Mapping[int, list[Path]], labels: Mapping[int, list[Path]]) -> None:
    for number in sorted({*images, *labels}):
        case = f"PANCREAS_{number:04d}"
        if number not in images:
            why = "withdrawn by TCIA, a repetition of case 2" if number in WITHDRAWN else "no image has this number"
            plan.left_out[f"label{number:04d}"] = f"label without image: {why}"
        elif number == 0:
            plan.problems.append(
                Problem(
                    "",
                    f"{images[0][0]} is in no folder PANCREAS_XXXX and has no such PatientID, "
                    f"so its number is unknown; move it away",
                )
            )
        elif number not in labels:
            plan.problems.append(
                Problem(
                    case,
                    f"{images[number][0].parent} has no label{number:04d}.nii.gz; complete "
                    f"the download, or leave the case out with --leave-out {case}",
                )
            )
        elif len(labels[number]) > 1:
            plan.problems.append(
                Problem(
                    case,
                    f"{case} has two labels, {labels[number][0]} and {labels[number][1]}; move one of them away",
                )
            )
        else:
            plan.cases.append(Case(case, tuple(images[number]), labels[number][0]))


def measure_case(case: Case) -> dict[str, Any]:
    """Score each way in which one label can lie on its image; see :func:`.orientation_evidence.decide_way`.

    Raises:
        UserError: the series or the label is damaged, or they have different sizes.
    """
    series, label = _read(case)
    scores = way_scores(series.voxels, label.voxels)
    if not scores:
        raise UserError(
            f"{case.case}: {case.label} has {' x '.join(map(str, label.voxels.shape))} voxels, its series "
            f"{' x '.join(map(str, series.voxels.shape))}; complete the download, or leave the case out "
            f"with --leave-out {case.case}"
        )
    return {"scores": scores, "descending": series.descending}


def _decide(policy: LabelPolicy, measured: Mapping[str, dict[str, Any]]) -> tuple[dict[str, Any], ConvertCase]:
    finding, ways = decide_way(measured)
    return finding, partial(convert_case, policy=policy, ways=ways)


def _read(case: Case) -> tuple[Series, Nifti]:
    assert case.label is not None
    series = read_series(case.case, case.images)
    match = PATIENT.fullmatch(series.patient)
    if match and int(match[1]) != int(case.case[-4:]):
        raise UserError(
            f"{case.case}: the files in {case.images[0].parent} are of {series.patient}; move them to "
            f"that patient's folder"
        )
    label = read_nifti(case.label)
    if label.voxels.ndim != 3:
        raise UserError(
            f"{case.label} has {label.voxels.ndim} dimensions "
            f"({' x '.join(map(str, label.voxels.shape))}), not three; download it again"
        )
    check_label(case.label, label.voxels.T, LABELS)
    return series, label


def convert_case(case: Case, folder: Path | None, *, policy: LabelPolicy, ways: Mapping[str, Way]) -> CaseResult:
    """Check one case and publish it; the label gets the image's grid.

    Args:
        case: the case.
        folder: the data set's folder; None only checks.
        policy: its labels.
        ways: for each case how its label lies on its image.

    Raises:
        UserError: a file is damaged or the case is wrong.
    """
    assert case.label is not None
    series, label = _read(case)
    way = ways[case.case]
    mask = way.place(label.voxels)
    spacing = tuple(float(length) for length in np.linalg.norm(series.affine_ras[:3, :3], axis=0))
    geometry = Geometry(
        series.voxels.shape,
        spacing,
        tuple(LPS_TO_RAS @ series.affine_ras[:3, 3]),
        tuple((LPS_TO_RAS @ series.affine_ras[:3, :3] / spacing).ravel()),
    )
    checks: dict[str, Any] = {
        "size": list(geometry.size),
        "spacing": list(spacing),
        "orientation": geometry.orientation,
    }
    warnings = [*series.warnings, *_other_spacing(label, spacing)]
    if "S" not in geometry.orientation[2] and "I" not in geometry.orientation[2]:
        warnings.append(f"the slices are not axial: the axes run {geometry.orientation}")
    found, more = check_image(case.images[0].parent, series.voxels.T, "CT")
    warnings += more
    checks |= found | check_label(case.label, mask.T, policy.declared)
    found, _ = check_label_on_tissue(series.voxels.T, mask.T, case.label, checks["label_box"], soft_tissue=True)
    checks |= found
    names = (f"images{case.subset}/{case.case}_0000.nii.gz", f"labels{case.subset}/{case.case}.nii.gz")
    if folder is not None:
        seen = publish_volume(folder / names[0], smallest_type(series.voxels), series.affine_ras)
        checks["spacing"] = list(seen.spacing)
        publish_volume(folder / names[1], relabelled(mask, policy), series.affine_ras)
    sources = {
        SERIES: series_checksum(sha256_of(path) for path in case.images),
        source_name(case.label): label.sha256,
    }
    published = {
        names[0]: f"{series.voxels.shape[2]} DICOM slices in HU",
        names[1]: f"label {way}, header of the image",
    }
    return case_result(case, checks, sources, published, warnings)


def _other_spacing(label: Nifti, spacing: tuple[float, ...]) -> list[str]:
    """Say where the label's header has another voxel size than the series, whose own is used."""
    given = [float(length) for length in label.header.get_zooms()[:3]]
    if np.allclose(sorted(given), sorted(spacing), rtol=0.02):
        return []
    return [
        f"the label's header gives {' x '.join(f'{value:.3g}' for value in given)} mm, the series "
        f"{' x '.join(f'{value:.3g}' for value in spacing)} mm; the series' is used"
    ]
