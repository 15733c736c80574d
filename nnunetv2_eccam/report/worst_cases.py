"""Pictures of the worst cases: what each system did there, beside image and reference."""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.evaluation.labels import read_dataset_json
from nnunetv2_eccam.report.case_tables import CaseKey
from nnunetv2_eccam.report.collect import SUBSETS, Collected, Part, nnunet_folder_or_none
from nnunetv2_eccam.report.measured import Measured
from nnunetv2_eccam.report.table import UNDEFINED, slug, value_text

if TYPE_CHECKING:
    from pandas import DataFrame

MOST_CASES = 6
"""Of each data set."""
SYSTEMS_ACROSS = 5
"""How many systems stand beside each other; more go into a further picture."""
CROP_MM = 25.0
"""How much is shown around the structure."""


@dataclass(frozen=True)
class WorstCase:
    """A case that systems did badly on.

    Attributes:
        name: its id on the page.
        key: data set, subset, label and case.
        title: in words.
        scores: each system's, the worst first, in words.
        pictures: as data URIs.
        remarks: what is not shown, and why.
    """

    name: str
    key: CaseKey
    title: str
    scores: str
    pictures: tuple[str, ...]
    remarks: tuple[str, ...]


def worst_cases(collected: Collected, measured: Measured) -> list[WorstCase]:
    """Draw the worst cases of each data set by the mean over systems of the metric of the spec."""
    metric, volumes = measured.metric, measured.levels["volume"]
    found = []
    for dataset in collected.spec.datasets:
        rows = volumes[volumes["dataset"] == dataset]
        means = rows.groupby(["subset", "label", "case"])[metric.column].mean().dropna()
        ordered = means.sort_values(ascending=metric.higher_is_better, kind="stable")
        for number, (subset, label, case) in enumerate(ordered.index[:MOST_CASES]):
            own = rows[(rows["subset"] == subset) & (rows["case"] == case) & (rows["label"] == label)]
            key = (dataset, str(subset), str(label), str(case))
            found.append(_worst_case(collected, measured, key, own, slug("worst", dataset, str(number + 1))))
    return found


def _worst_case(collected: Collected, measured: Measured, key: CaseKey, rows: DataFrame, name: str) -> WorstCase:
    metric, (dataset, subset, label, case) = measured.metric, key
    values = rows.groupby("system")[metric.column].mean() * metric.factor
    values = values.sort_values(ascending=metric.higher_is_better, na_position="first", kind="stable")
    said = ", ".join(f"{title} {value_text(float(value)) or UNDEFINED}" for title, value in values.items())
    pictures: tuple[str, ...] = ()
    remarks: list[str] = []
    try:
        titles = [title for title in collected.spec.titles if title in values.index]
        predictions = _predictions(collected, key, titles, remarks)
        pictures = _pictures(key, predictions)
    except UserError as error:
        remarks.append(f"No picture: {error}")
    scores = f"{metric.title} [{measured.unit(metric, dataset)}]: {said}"
    return WorstCase(name, key, f"{dataset}, {SUBSETS[subset]}: {case}, {label}", scores, pictures, tuple(remarks))


def _predictions(collected: Collected, key: CaseKey, titles: list[str], remarks: list[str]) -> dict[str, Path]:
    """Find the predictions of each system's first training.

    Raises:
        UserError: there is none.
    """
    spec, (dataset, subset, _, case) = collected.spec, key
    rows = collected.volumes[(collected.volumes["dataset"] == dataset) & (collected.volumes["case"] == case)]
    folds = {str(row["system"]): str(row["fold"]) for row in rows[rows["subset"] == subset].to_dict("records")}
    found: dict[str, Path] = {}
    for title in titles:
        system = next(each for each in spec.trainers if each.title == title)
        part = Part(0, dataset, system, int(folds[title]) if folds[title] else None)
        folder = part.predictions(collected.work_dir)
        found |= {title: folder} if folder is not None and any(folder.glob(f"{case}.*")) else {}
    if absent := [title for title in titles if title not in found]:
        remarks.append(f"The predictions of {', '.join(absent)} are no longer there.")
    if not found:
        raise UserError("no prediction of it is there")
    return found


def _pictures(key: CaseKey, predictions: Mapping[str, Path]) -> tuple[str, ...]:
    """Draw image, reference and errors of a few systems at a time, on the slice with the most errors of all.

    Raises:
        UserError: a file is not there, cannot be read, or does not fit the image.
    """
    from nnunetv2_eccam.overlay.overlay import Overlay, write_overlay

    dataset, subset, label, case = key
    raw, preprocessed = nnunet_folder_or_none("nnUNet_raw"), nnunet_folder_or_none("nnUNet_preprocessed")
    if raw is None:
        raise UserError("the environment variable nnUNet_raw is not set, so the images are not known")
    ending = "Ts" if subset == "test" else "Tr"
    images, references = raw / dataset / f"images{ending}", raw / dataset / f"labels{ending}"
    if subset != "test" and preprocessed is not None and (preprocessed / dataset / "gt_segmentations").is_dir():
        references = preprocessed / dataset / "gt_segmentations"
    scored = read_dataset_json(raw / dataset / "dataset.json").scored
    labels = next((each.labels for each in scored if each.name == label), ())
    titles = list(predictions)
    pictures = []
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "picture.png"
        for start in range(0, len(titles), SYSTEMS_ACROSS):
            options = Overlay(
                images, references, {title: predictions[title] for title in titles[start : start + SYSTEMS_ACROSS]},
                cases=(case,), slices="disagreement", style="errors", labels=labels, crop_mm=CROP_MM, dpi=150,
            )  # fmt: skip
            write_overlay(options, target)
            pictures.append(_data_uri(target))
    return tuple(pictures)


def _data_uri(picture: Path) -> str:
    """Give a picture as a part of the page, a third as large as the PNG."""
    from PIL import Image

    content = io.BytesIO()
    with Image.open(picture) as image:
        image.convert("RGB").save(content, "WEBP", quality=88, method=6)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"
