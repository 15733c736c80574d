"""TCIA Pancreas-CT: DICOM series of 80 (once 82) patients, and labels as NIfTI files of their own.

Layout: ``Pancreas-CT/PANCREAS_0001/<study>/<series>/*.dcm`` (folders may be nested otherwise and files be
named anything) and ``TCIA_pancreas_labels-02-05-2017/label0001.nii.gz``. Cases 25 and 70 were withdrawn on
2020-09-10 since both repeat case 2, and their labels are still there. The labels' headers cannot be
trusted: programs that use them disagree on flips (OrganSegRSTN, MC-Net, deedsBCV), so the orientation is
decided by the voxels, see :mod:`.orientation_evidence`.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.volumes import read_labels
from nnunetv2_eccam.volumes.volume import by

from .cases import check_label
from .dicom_series import is_dicom, patient_of, read_series
from .model import Case, Conversion, DatasetCard, ReadCase, Scan
from .orientation_evidence import Way, decide_way, way_scores
from .source_folder import check_source

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
    labels={0: "background", 1: "pancreas"},
    default_labels="merged",
    soft_tissue=True,
    paper_counts={82: (57, 5, 20), 80: (55, 5, 20)},
)
WITHDRAWN = {25, 70}
EXPECTED = "the DICOM folders PANCREAS_0001 and so on, and the labels label0001.nii.gz and so on"
PATIENT = re.compile(r"PANCREAS_?(\d{1,4})", re.IGNORECASE)
LABEL_FILE = re.compile(r"label(\d{4})\.nii(\.gz)?", re.IGNORECASE)


def plan_tcia_pancreas(source: Path) -> Conversion:
    """Plan the conversion of TCIA Pancreas-CT.

    Args:
        source: a folder that holds the DICOM folders and the label files, nested in any way.

    Raises:
        UserError: it holds not both.
    """
    images, label_files, ignored = _found(source)
    if not (images and label_files):
        check_source(source, ("*/PANCREAS_*", "*/label*.nii*"), EXPECTED)
    plan = Conversion(CARD, source.resolve(), partial(read_case, ways={}), survey=(measure_case, _decide))
    if ignored:
        count = len(ignored)
        plan.notes.append(f"{count} files beside the slices are not DICOM and were passed over, such as {ignored[0]}")
    _pair(plan, images, label_files)
    return plan


def _found(source: Path) -> tuple[dict[int, list[Path]], dict[int, list[Path]], list[str]]:
    """Find DICOM files and labels by number, at any depth, and the names of the files that are neither."""
    images: dict[int, list[Path]] = {}
    labels: dict[int, list[Path]] = {}
    ignored = []
    for place, folders, files in os.walk(source):
        folders.sort()
        slices = []
        for path in (Path(place) / file for file in sorted(files + [f for f in folders if LABEL_FILE.fullmatch(f)])):
            if match := LABEL_FILE.fullmatch(path.name):
                labels.setdefault(int(match[1]), []).append(path)
            elif path.name.startswith(".") or path.name.endswith(".nii.gz") or not is_dicom(path):
                ignored.append(path.name)
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
    return _patient(example)


def _patient(file: Path) -> int:
    match = PATIENT.fullmatch(patient_of(file))
    return int(match[1]) if match else 0


def _pair(plan: Conversion, images: Mapping[int, list[Path]], labels: Mapping[int, list[Path]]) -> None:
    for number in sorted({*images, *labels}):
        case, label_name = f"PANCREAS_{number:04d}", f"label{number:04d}.nii.gz"
        files = labels.get(number, [])
        if number == 0:
            text = f"{(images.get(0) or files)[0]} is in no folder PANCREAS_XXXX and has no such PatientID"
            plan.refuse("", f"{text}, so its number is unknown; move it away")
        elif number not in images and number in WITHDRAWN:
            plan.left_out[label_name] = "withdrawn by TCIA, a repetition of case 2"
        elif number not in images:
            plan.refuse(case, f"{files[0]} has no image: no series of {case} was found; complete the download")
        elif not files:
            plan.refuse(case, f"{images[number][0].parent} has no {label_name}; complete the download")
        elif len(files) > 1:
            plan.refuse(case, f"{case} has two labels, {files[0]} and {files[1]}; move one of them away")
        elif files[0].name != label_name:
            remedy = f"gzip {files[0].name}" if files[0].name.endswith(".nii") else f"rename it to {label_name}"
            plan.refuse(case, f"{files[0]} is there, but {label_name} is expected, compressed by gzip: {remedy}")
        elif (patient := _patient(images[number][0])) not in (0, number):
            plan.refuse(case, f"{images[number][0].parent} has files of PANCREAS_{patient:04d}; move them away")
        else:
            plan.cases.append(Case(case, tuple(images[number]), files[0]))


def measure_case(case: Case) -> dict[str, Any]:
    """Score each way in which one label can lie on its image; see :func:`.orientation_evidence.decide_way`.

    Raises:
        UserError: the series or the label is damaged, or they have different sizes.
    """
    assert case.label is not None
    image, descending, _ = read_series(case.case, case.images)
    label = read_labels(case.label)
    check_label(case.label, label.voxels, CARD.labels)
    scores = way_scores(image.voxels, label.voxels)
    if not scores:
        raise UserError(
            f"{case.case}: {case.label} has {by(label.shape)} voxels, its series {by(image.shape)}; complete "
            f"the download"
        )
    return {"scores": scores, "descending": descending}


def _decide(measured: Mapping[str, dict[str, Any]]) -> tuple[dict[str, Any], ReadCase]:
    finding, ways = decide_way(measured)
    return finding, partial(read_case, ways=ways)


def read_case(case: Case, ways: Mapping[str, Way]) -> Scan:
    """Read a case; the label gets the image's grid, turned in the way that was found for it.

    Raises:
        UserError: a file is damaged or the case is wrong.
    """
    assert case.label is not None
    image, _, warnings = read_series(case.case, case.images)
    label, way = read_labels(case.label), ways[case.case]
    given = [float(length) for length in label.header.get_zooms()[:3]]
    if not np.allclose(sorted(given), sorted(image.spacing), rtol=0.02):
        warnings.append(
            f"the label's header gives {by(tuple(given))} mm, the series {by(image.spacing)} mm; the series' is used"
        )
    if image.orientation[2] not in "SI":
        warnings.append(f"the slices are not axial: the axes run {image.orientation}")
    # It has the image's place whatever its own header says, in which nothing else is looked at.
    placed = replace(label, voxels=way.place(label.voxels), affine=image.affine, simpleitk_error="")
    done = (f"{image.shape[2]} DICOM slices in HU", f"label {way}, header of the image")
    return Scan(image, placed, done, warnings)
