"""A benchmark's work folder with made-up scores, records, logs and images, as the jobs would leave it."""

import csv
import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stored_volumes import write_simpleitk

from nnunetv2_eccam.evaluation.case_scores import Counts
from nnunetv2_eccam.evaluation.score_files import SLICE_COLUMNS, VOLUME_COLUMNS, score_table, write_scores

Row = dict[str, Any]
SYSTEMS: tuple[tuple[str, str, str | None], ...] = (
    ("nnUNetTrainerECCaM_10epochs", "2d_eccam_trial", None),
    ("nnUNetTrainerECCaM_UNet_10epochs", "2d_eccam_trial", None),
    ("nnUNetTrainer_10epochs", "2d_unet_trial", "nnU-Net"),
)
EVIL = "<script>window.evil=1</script><img src=x onerror=\"window.evil=1\"> & 'q' | 50%_$x$ \\textbf{#}"
"""A name from a nightmare."""
EVIL_CASE = "la_<b>&\"'|$x_%#^~\\1"


@dataclass
class Dataset:
    """A data set that does not exist: its labels, and its cases by fold."""

    name: str
    labels: tuple[str, ...]
    folds: tuple[tuple[str, ...], ...]
    test: tuple[str, ...] = ()


HEART = Dataset("Dataset002_Heart", ("left <i>atrium",), ((EVIL_CASE, "la_2", "la_10"), ("la_4", "la_5", "la_6")))
PANCREAS = Dataset("Dataset007_Pancreas", ("pancreas", "cancer"), (("p_1", "p_2"), ("p_3", "p_4")), ("p_8", "p_9"))
SMALL = Dataset("Dataset002_Heart", ("left_atrium",), (("la_0", "la_1", "la_2"), ("la_3", "la_4", "la_5")))


@dataclass
class WorkFolder:
    """Writes the folder; a test changes what it is about before or after."""

    base: Path
    datasets: Sequence[Dataset] = (HEART, PANCREAS)
    systems: Sequence[tuple[str, str, str | None]] = SYSTEMS
    levels: Sequence[float] = (0.91, 0.88, 0.86)
    repeats: int = 1
    statistics: dict[str, Any] = field(default_factory=lambda: {"bootstrap": 200})
    spec: dict[str, Any] = field(default_factory=dict)
    host: str = "node01"

    @property
    def work(self) -> Path:
        return self.base / "work"

    def write(self, change: Callable[[Row], Row] | None = None) -> None:
        """Write everything but images; ``change`` may alter each row of volume scores."""
        for name in ("raw", "preprocessed", "results"):
            (self.base / name).mkdir(parents=True, exist_ok=True)
        self.work.mkdir(exist_ok=True)
        self.write_spec()
        for dataset in self.datasets:
            for place, repeat in itertools.product(range(len(self.systems)), range(self.repeats)):
                self._write_system(dataset, place, repeat, change or (lambda row: row))

    def write_spec(self) -> None:
        folds = list(range(max(len(dataset.folds) for dataset in self.datasets)))
        trainers = [{"trainer": trainer, "configurations": [configuration], "title": title}
                    for trainer, configuration, title in self.systems]  # fmt: skip
        content = {
            "name": "Synthetic benchmark", "datasets": [dataset.name for dataset in self.datasets],
            "trainers": trainers, "folds": folds, "repeats": self.repeats, "device": "cpu",
            "statistics": self.statistics, **self.spec,
        }  # fmt: skip
        (self.work / "spec.json").write_text(json.dumps(content))

    def table(self, name: str) -> list[dict[str, str]]:
        """Read a table of the report."""
        with (self.work / "report" / "tables" / f"{name}.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    def scores(self, dataset: Dataset, system: int, stem: str, unit: str = "volume", repeat: int = 0) -> Path:
        return self._folder("scores", dataset, system, repeat) / f"{stem}_{unit}.csv"

    def record(self, dataset: Dataset, system: int, stem: str, repeat: int = 0) -> Path:
        return self._folder("records", dataset, system, repeat) / f"{stem}.json"

    def model(self, dataset: Dataset, system: int, repeat: int = 0) -> Path:
        trainer, configuration, _ = self.systems[system]
        results = self.base / "results" if repeat == 0 else self.work / f"repeat_{repeat}" / "nnUNet_results"
        return results / dataset.name / f"{trainer}__nnUNetPlans__{configuration}"

    def _folder(self, kind: str, dataset: Dataset, system: int, repeat: int) -> Path:
        trainer, configuration, _ = self.systems[system]
        return self.work / kind / f"repeat_{repeat}" / dataset.name / configuration / trainer

    def _write_system(self, dataset: Dataset, place: int, repeat: int, change: Callable[[Row], Row]) -> None:
        parts = [(f"fold_{number}", cases) for number, cases in enumerate(dataset.folds)]
        parts += [("test", dataset.test)] if dataset.test else []
        for number, (stem, cases) in enumerate(parts):
            rng = np.random.default_rng([len(dataset.name), place, repeat, number])
            rows = [change(volume_row(rng, case, label, self.levels[place] - 0.2 * order) | {"system": place})
                    for case in cases for order, label in enumerate(dataset.labels)]  # fmt: skip
            write_scores(score_table(rows, VOLUME_COLUMNS), self.scores(dataset, place, stem, "volume", repeat))
            slices = [row for each in rows for row in slice_rows(rng, each)]
            write_scores(score_table(slices, SLICE_COLUMNS), self.scores(dataset, place, stem, "slice", repeat))
            seconds = {"predict_seconds": 30.0} if stem == "test" else {
                "train_seconds": 3600.0 + 600 * place, "epochs": 10, "parameters": 5_100_000 + 700_000 * place,
                "energy_joules": 1.8e6 if place else None,
            }  # fmt: skip
            record = self.record(dataset, place, stem, repeat)
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text(json.dumps({
                **seconds, "device": "cuda", "gpu": "NVIDIA A100", "hostname": self.host,
                "versions": {"nnunetv2": "2.8.1", "torch": "2.14.0", "nnunetv2-eccam": "0.1.0"},
                "started": "2026-11-24T13:58:51+00:00", "finished": "2026-11-24T14:58:51+00:00",
                "commands": [f"nnUNetv2_train {dataset.name} {stem} {self.systems[place][0]}"],
            }))  # fmt: skip
            if stem != "test":
                folder = self.model(dataset, place, repeat) / stem
                folder.mkdir(parents=True, exist_ok=True)
                write_checkpoint(folder, 10, 0.3 + 0.05 * place, rng)

    def write_images(self, dataset: Dataset) -> None:
        """Write images, references and predictions: a ball, and the same ball moved."""
        raw, references = self.base / "raw" / dataset.name, self.base / "preprocessed" / dataset.name
        numbers = {"background": 0, **{label: number + 1 for number, label in enumerate(dataset.labels)}}
        raw.mkdir(parents=True, exist_ok=True)
        content = {"channel_names": {"0": "MRI"}, "labels": numbers, "file_ending": ".nii.gz", "numTraining": 1}
        (raw / "dataset.json").write_text(json.dumps(content))
        for number, cases in enumerate([*dataset.folds, dataset.test]):
            is_test = number == len(dataset.folds)
            for case in cases:
                rng = np.random.default_rng([number, len(case), sum(map(ord, case))])
                truth = ball(0, len(dataset.labels))
                image = (rng.normal(0, 12, truth.shape) + 60 * (truth > 0) + 40 * (truth > 1)).astype(np.float32)
                write_simpleitk(raw / ("imagesTs" if is_test else "imagesTr") / f"{case}_0000.nii.gz", image)
                labels = raw / "labelsTs" if is_test else references / "gt_segmentations"
                write_simpleitk(labels / f"{case}.nii.gz", truth)
                for place in range(len(self.systems)):
                    folder = (self._folder("predictions", dataset, place, 0) / "test" if is_test
                              else self.model(dataset, place) / f"fold_{number}" / "validation")  # fmt: skip
                    write_simpleitk(folder / f"{case}.nii.gz", ball(2 + place, len(dataset.labels)))


def volume_row(rng: np.random.Generator, case: str, label: str, level: float) -> Row:
    dsc = float(np.clip(rng.beta(30 * level, 30 * (1 - level)), 0.05, 0.99))
    reference = int(rng.integers(20_000, 60_000))
    tp = int(reference * dsc)
    fn = reference - tp
    fp = int(rng.uniform(0.6, 1.4) * fn)
    return {
        "case": case, "label": label, **Counts(tp, fp, fn).row(), "hd95": float(rng.gamma(2, 3) / level),
        "nsd": float(np.clip(dsc + rng.normal(0, 0.03), 0, 1)), "nsd_tolerance": 2.0, "unit": "mm",
        "reference_ml": reference / 1000, "prediction_ml": (tp + fp) / 1000,
    }  # fmt: skip


def empty_prediction(row: Row) -> Row:
    """Make a row that of a prediction in which the structure is missing."""
    return row | Counts(0, 0, row["tp"] + row["fn"]).row() | {"hd95": math.nan, "nsd": 0.0, "prediction_ml": 0.0}


def slice_rows(rng: np.random.Generator, volume: Row) -> list[Row]:
    rows = []
    for number in range(int(rng.integers(3, 7))):
        tp = int(volume["tp"] * rng.uniform(0.1, 0.2))
        fp, fn = (int(volume[name] * rng.uniform(0.05, 0.3)) for name in ("fp", "fn"))
        if tp + fp + fn:
            place = {"case": volume["case"], "label": volume["label"], "slice": 10 + number}
            rows.append(place | Counts(tp, fp, fn).row())
    return rows


def write_checkpoint(folder: Path, epochs: int, speed: float, rng: np.random.Generator) -> None:
    """Write a checkpoint with what nnU-Net 2.8 logs in it, and no weights."""
    progress = 1 - np.exp(-speed * (np.arange(epochs) + 1))
    ends = np.cumsum(30 + rng.uniform(0, 5, epochs))
    logged = {
        "train_losses": 0.5 - 1.3 * progress, "val_losses": 0.5 - 1.2 * progress, "mean_fg_dice": 0.9 * progress,
        "epoch_start_timestamps": np.concatenate([[0.0], ends[:-1]]), "epoch_end_timestamps": ends,
    }  # fmt: skip
    content = {"network_weights": {}, "logging": {name: values.tolist() for name, values in logged.items()}}
    torch.save(content, folder / "checkpoint_final.pth")


def ball(shift: int, labels: int) -> np.ndarray:
    z, y, x = np.indices((7, 40, 48))
    inside = ((z - 3) * 3) ** 2 + (y - 20) ** 2 + (x - 22 - shift) ** 2
    mask = (inside < 12**2).astype(np.uint8)
    if labels > 1:
        mask[inside < 5**2] = 2
    return mask
