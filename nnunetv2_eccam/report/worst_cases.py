"""Pictures of the worst cases: what each system did there, beside image and reference."""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json
from nnunetv2_eccam.report.case_list import CaseKey
from nnunetv2_eccam.report.case_values import Measured
from nnunetv2_eccam.report.collect import SUBSETS, Part, nnunet_folder_or_none
from nnunetv2_eccam.report.formatting import number, shown
from nnunetv2_eccam.report.read_spec import Benchmark
from nnunetv2_eccam.report.table import slug

if TYPE_CHECKING:
    from pandas import DataFrame

MOST_CASES = 6
"""Of each data set."""
SYSTEMS_ACROSS = 5
"""How many systems stand beside each other; more go into a further picture."""
MOST_SYSTEMS = 15
"""Of so many systems there are pictures at most: those that are worst in the case."""
CROP_MM = 25.0
"""How much is shown around the structure."""
DPI = 150
QUALITY = 88
"""Of the pictures' compression (WebP), of 100."""


@dataclass(frozen=True)
class WorstCase:
    """A case that systems did badly on.

    Attributes:
        name: its id on the page.
        key: data set, subset, case and label.
        title: in words.
        unit: of the scores, with the metric's title.
        scores: of each system, the worst first: title and value as text.
        pictures: as data URIs.
        alt: what they show, in words.
        remarks: what is not shown, and why.
    """

    name: str
    key: CaseKey
    title: str
    unit: str
    scores: tuple[tuple[str, str], ...]
    pictures: tuple[str, ...]
    alt: str
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class _Files:
    """The files of a case, as the overlay takes them."""

    image: Path
    reference: Path
    labels: tuple[int, ...]


def worst_cases(measured: Measured) -> list[WorstCase]:
    """Draw the worst cases of each data set by the mean over systems of the metric of the spec."""
    metric = measured.benchmark.metric
    found = []
    for dataset in measured.benchmark.datasets:
        rows = measured.cases[measured.cases["dataset"] == dataset]
        means = rows.groupby(["subset", "case", "label"])[metric.column].mean().dropna()
        ordered = means.sort_values(ascending=metric.higher_is_better, kind="stable")
        for place, (subset, case, label) in enumerate(ordered.index[:MOST_CASES]):
            own = rows[(rows["subset"] == subset) & (rows["case"] == case) & (rows["label"] == label)]
            key = (dataset, str(subset), str(case), str(label))
            found.append(_worst_case(measured.benchmark, key, own, slug("worst", dataset, str(place + 1))))
    return found


def _worst_case(benchmark: Benchmark, key: CaseKey, rows: DataFrame, name: str) -> WorstCase:
    metric, (dataset, subset, case, label) = benchmark.metric, key
    ordered = rows.sort_values(metric.column, ascending=metric.higher_is_better, kind="stable", na_position="first")
    scores = tuple(
        (str(row["system"]), shown(number(float(row[metric.column]) * metric.factor))) for row in
        ordered.to_dict("records")
    )  # fmt: skip
    pictures: tuple[str, ...] = ()
    remarks: list[str] = []
    drawn: list[str] = []
    try:
        files = _files(key)
        predictions = _predictions(benchmark, key, ordered, remarks)
        drawn = list(predictions)
        pictures = _pictures(case, files, predictions)
    except UserError as error:
        remarks.append(f"No picture: {error}")
    said = ", ".join(f"{title} {value} {metric.unit}" for title, value in scores if title in drawn)
    alt = (
        f"{case}, {label}: image, reference, and true positives, false positives and false negatives of {said} "
        f"({metric.title}), on the slice where they differ most from the reference."
    )
    title = f"{dataset}, {SUBSETS[subset]}: {case}, {label}"
    return WorstCase(name, key, title, metric.header, scores, pictures, alt, tuple(remarks))


def _files(key: CaseKey) -> _Files:
    """Find a case's image and reference, and its label's numbers.

    Raises:
        UserError: one of them is not there.
    """
    from nnunetv2_eccam.pictures.volume_files import find_image, find_mask

    dataset, subset, case, label = key
    raw, preprocessed = nnunet_folder_or_none("nnUNet_raw"), nnunet_folder_or_none("nnUNet_preprocessed")
    if raw is None:
        raise UserError("the environment variable nnUNet_raw is not set, so the images are not known")
    images = raw / dataset / ("imagesTs" if subset == "test" else "imagesTr")
    references = raw / dataset / ("labelsTs" if subset == "test" else "labelsTr")
    if subset != "test" and preprocessed is not None and (preprocessed / dataset / "gt_segmentations").is_dir():
        references = preprocessed / dataset / "gt_segmentations"
    numbers = _label_numbers(raw / dataset / "dataset.json", label)
    return _Files(find_image(images, case), find_mask(references, case, "reference"), numbers)


def _label_numbers(path: Path, label: str) -> tuple[int, ...]:
    """Give the numbers of a label or region of ``dataset.json``."""
    content: Any = read_json(path)
    labels = content.get("labels", {}) if isinstance(content, dict) else {}
    numbers = labels.get(label) if isinstance(labels, dict) else None
    if isinstance(numbers, int):
        return (numbers,)
    if isinstance(numbers, list) and numbers and all(isinstance(each, int) for each in numbers):
        return tuple(numbers)
    raise UserError(f"{path} has no label {label}")


def _predictions(benchmark: Benchmark, key: CaseKey, rows: DataFrame, remarks: list[str]) -> Mapping[str, Path]:
    """Find the predictions of the case by the first training that has one; remark on those that are not there."""
    from nnunetv2_eccam.pictures.volume_files import find_mask

    dataset, subset, case, _ = key
    systems = {system.title: system for system in benchmark.systems}
    found: dict[str, Path] = {}
    for row in rows.to_dict("records"):
        title = str(row["system"])
        folds = [None] if subset == "test" else [int(fold) for fold in str(row["fold"]).split("; ")]
        parts = [Part(repeat, dataset, systems[title], fold) for repeat in range(benchmark.repeats) for fold in folds]
        for part in parts:
            folder = _prediction_folder(benchmark, part)
            if folder is not None and title not in found:
                try:
                    found[title] = find_mask(folder, case, title)
                except UserError:
                    continue
    absent = [title for title in rows["system"] if title not in found]
    if absent:
        remarks.append(f"The predictions of {', '.join(absent)} are no longer there.")
    if not found:
        raise UserError("no prediction of it is there")
    if len(found) > MOST_SYSTEMS:
        remarks.append(f"Shown are the {MOST_SYSTEMS} worst of {len(found)} systems.")
    chosen = list(found)[:MOST_SYSTEMS]
    return {title: found[title] for title in benchmark.titles if title in chosen}


def _prediction_folder(benchmark: Benchmark, part: Part) -> Path | None:
    if part.fold is None:
        return part.folder(benchmark.work_dir / "predictions") / "test"
    folder = part.model_folder(benchmark)
    return None if folder is None else folder / "validation"


def _pictures(case: str, files: _Files, predictions: Mapping[str, Path]) -> tuple[str, ...]:
    """Draw a few systems at a time.

    Raises:
        UserError: a file cannot be read, or does not fit the image.
    """
    from nnunetv2_eccam.pictures.overlay import Overlay, write_overlay

    titles = list(predictions)
    groups: Sequence[list[str]] = [titles[start : start + SYSTEMS_ACROSS]
                                   for start in range(0, len(titles), SYSTEMS_ACROSS)]  # fmt: skip
    pictures = []
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "picture.png"
        for group in groups:
            overlay = Overlay(
                images=files.image, reference=files.reference, systems={title: predictions[title] for title in group},
                cases=(case,), slices="disagreement", style="errors", labels=files.labels, crop_mm=CROP_MM, dpi=DPI,
            )  # fmt: skip
            write_overlay(overlay, target)
            pictures.append(_data_uri(target))
    return tuple(pictures)


def _data_uri(picture: Path) -> str:
    """Give a picture as a part of the page, a third as large as the PNG."""
    from PIL import Image

    content = io.BytesIO()
    with Image.open(picture) as image:
        image.convert("RGB").save(content, "WEBP", quality=QUALITY, method=6)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"
