"""Pictures of the worst cases: what each system did there, beside image and reference."""

import base64
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_eccam.benchmark.records import Part, known_folder
from nnunetv2_eccam.errors import UserError, words_of
from nnunetv2_eccam.evaluation.labels import read_dataset_json
from nnunetv2_eccam.report.measured import SUBSETS, CaseKey, Measured
from nnunetv2_eccam.report.table import UNDEFINED, slug, value_text

MOST_CASES = 6
"""Of each data set."""
SYSTEMS_ACROSS = 5
"""How many systems stand beside each other; more go into a further picture."""
CROP_MM = 25.0
"""How much is shown around the structure."""


@dataclass
class WorstCase:
    """A case that systems did badly on.

    Attributes:
        name: its id on the page.
        key: data set, subset, label and case.
        title: these in words.
        scores: each system's, the worst first, in words.
        pictures: as data URIs.
        remarks: what is not shown, and why.
    """

    name: str
    key: CaseKey
    title: str
    scores: str
    pictures: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def worst_cases(measured: Measured) -> list[WorstCase]:
    """Draw the worst cases of each data set by the mean over systems of the metric of the spec."""
    metric, volumes = measured.metric, measured.levels["volume"]
    found = []
    for dataset in measured.spec.datasets:
        rows = volumes[volumes["dataset"] == dataset]
        means = rows.groupby(["subset", "label", "case"])[metric.column].mean().dropna()
        ordered = means.sort_values(ascending=metric.higher_is_better, kind="stable")
        for number, (subset, label, case) in enumerate(ordered.index[:MOST_CASES]):
            own = rows[(rows["subset"] == subset) & (rows["case"] == case) & (rows["label"] == label)]
            values = own.groupby("system")[metric.column].mean() * metric.factor
            values = values.sort_values(ascending=metric.higher_is_better, na_position="first", kind="stable")
            said = ", ".join(f"{title} {value_text(float(value)) or UNDEFINED}" for title, value in values.items())
            scores = f"{metric.title} [{measured.unit(metric, dataset)}]: {said}"
            name = slug("worst", dataset, str(number + 1))
            title = f"{dataset}, {SUBSETS[subset]}: {case}, {label}"
            worst = WorstCase(name, (dataset, str(subset), str(label), str(case)), title, scores)
            folds = dict(zip(own["system"], own["fold"], strict=True))
            try:
                _draw(measured, worst, folds)
            except (UserError, OSError) as error:
                worst.remarks.append(f"No picture: {words_of(error)}")
            found.append(worst)
    return found


def _draw(measured: Measured, worst: WorstCase, folds: Mapping[str, str]) -> None:
    """Draw image, reference and errors of a few systems at a time, on the slice with the most errors of all.

    They are the predictions of each system's first training; ``folds`` tells by which fold a system predicted the case.

    Raises:
        UserError: a file is not there, cannot be read, or does not fit the image.
    """
    from nnunetv2_eccam.overlay.overlay import Overlay, write_overlay

    dataset, subset, label, case = worst.key
    predictions = {}
    for system in measured.spec.trainers:
        if system.title in folds:
            part = Part(0, dataset, system, int(folds[system.title]) if folds[system.title] else None)
            predictions[system.title] = part.predictions(measured.work_dir)
    absent = [title for title, folder in predictions.items() if not any(folder.glob(f"{case}.*"))]
    if absent:
        worst.remarks.append(f"The predictions of {', '.join(absent)} are no longer there.")
    titles = [title for title in predictions if title not in absent]
    if not titles:
        raise UserError("no prediction of it is there")
    raw, preprocessed = known_folder("nnUNet_raw"), known_folder("nnUNet_preprocessed")
    ending = "Ts" if subset == "test" else "Tr"
    images, references = raw / dataset / f"images{ending}", raw / dataset / f"labels{ending}"
    if subset != "test" and (preprocessed / dataset / "gt_segmentations").is_dir():
        references = preprocessed / dataset / "gt_segmentations"
    labels = read_dataset_json(raw / dataset / "dataset.json").scored.get(label, ())
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "picture.webp"  # a third as large as a PNG
        for start in range(0, len(titles), SYSTEMS_ACROSS):
            options = Overlay(
                images, references, {title: predictions[title] for title in titles[start : start + SYSTEMS_ACROSS]},
                cases=(case,), slices="disagreement", style="errors", labels=labels, crop_mm=CROP_MM, dpi=150,
            )  # fmt: skip
            write_overlay(options, target)
            worst.pictures.append(f"data:image/webp;base64,{base64.b64encode(target.read_bytes()).decode()}")
