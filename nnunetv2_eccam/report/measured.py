"""What a benchmark has measured so far: every system's scores by case and training; summaries and comparisons."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pandas import DataFrame, MultiIndex, concat

from nnunetv2_eccam.benchmark.records import KEYS, Part, parts_of, read_epochs
from nnunetv2_eccam.benchmark.spec import Spec, read_spec_of
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.evaluation.score_files import (
    SLICE_COLUMNS,
    VOLUME_COLUMNS,
    patients_of,
    pool_patients,
    read_scores,
)
from nnunetv2_eccam.files import read_json
from nnunetv2_eccam.statistics import Comparison, Summary, compare, holm, summarise

SUBSETS = {"val": "validation", "test": "test"}
"""Subsets, and what the report calls them."""

CaseKey = tuple[str, str, str, str]
"""Data set, subset, label, case."""


@dataclass(frozen=True)
class Metric:
    """A figure of one case or slice.

    Attributes:
        column: its column in score files.
        title: as the report calls it.
        factor: from the file's value to the one that is shown: 100 for fractions, which the report has in percent.
        higher_is_better: whether more is better.
        is_overlap: whether it is made of counted voxels, so that slices and patients have it too.
        published: its name in the paper's tables, if it is there.
    """

    column: str
    title: str
    factor: float = 100
    higher_is_better: bool = True
    is_overlap: bool = True
    published: str | None = None


METRICS = {
    metric.column: metric
    for metric in (
        Metric("dsc", "DSC", published="DSC"),
        Metric("sensitivity", "Sensitivity", published="sensitivity"),
        Metric("precision", "Precision", published="precision"),
        Metric("hd95", "HD95", factor=1, higher_is_better=False, is_overlap=False),
        Metric("nsd", "NSD", is_overlap=False),
    )
}
"""By the column of score files, in the report's order."""

OVERLAP = tuple(metric for metric in METRICS.values() if metric.is_overlap)
"""Those of a slice and of a patient."""


class Where(NamedTuple):
    """Of what a mean is taken: data set, subset (val or test) and label."""

    dataset: str
    subset: str
    label: str

    def __str__(self) -> str:
        """Say it in words."""
        return f"{self.dataset}, {SUBSETS[self.subset]}, {self.label}"


class Tested(NamedTuple):
    """A comparison, and its p value adjusted by Holm's procedure over its family; NaN where there is none."""

    comparison: Comparison
    adjusted: float


class Measured:
    """What a benchmark has measured so far, read from its work folder and nnU-Net's.

    Attributes:
        work_dir: its work folder.
        spec: what was asked for.
        metric: by which systems are compared.
        records: each part's record, as it was written.
        epochs: each trained fold's epochs, where it has a checkpoint.
        levels: the scores by ``volume``, ``slice`` (those that hold the structure in the reference) and ``patient``
            (where the specification has a ``group``). Rows have :data:`KEYS`, ``part``, the volume, slice or patient
            that is scored, and ``unit``, what is independent of the others: the patient, or else the case.

    Raises:
        UserError: this is not a benchmark's work folder, or a file is there but cannot be read.
    """

    def __init__(self, work_dir: Path) -> None:
        self.work_dir, self.spec = work_dir, read_spec_of(work_dir)
        asked = self.spec.statistics
        self.metric = METRICS[asked.metric]
        self._interval: dict[str, Any] = {
            "confidence": asked.confidence,
            "n_bootstrap": asked.bootstrap,
            "seed": asked.seed,
        }
        self.records: dict[Part, dict[str, Any]] = {}
        self.epochs: dict[Part, DataFrame] = {}
        for each in parts_of(self.spec):
            record = each.folder(work_dir / "records") / f"{each.stem}.json"
            if record.is_file():
                self.records[each] = read_json(record)
                if not isinstance(self.records[each], dict):
                    raise UserError(f"{record} is not a record; delete it and run nnUNetv2_eccam benchmark again")
            if len(epochs := read_epochs(each.model_folder(work_dir))):
                self.epochs[each] = epochs
        pattern = self.spec.evaluation.group
        group = None if pattern is None else pattern.pattern
        volumes = _scores(work_dir, self.spec, "volume", VOLUME_COLUMNS)
        slices = _scores(work_dir, self.spec, "slice", SLICE_COLUMNS)
        slices = slices[(slices["tp"] + slices["fn"]) > 0]
        part = slices["case"].astype(str) + " " + slices["slice"].astype(str)
        self.distance_units = {
            str(dataset): "/".join(dict.fromkeys(rows["unit"])) for dataset, rows in volumes.groupby("dataset")
        }
        self.levels = {
            "volume": volumes.assign(part=volumes["case"], unit=_units(volumes, group)),
            "slice": slices.assign(part=part, unit=_units(slices, group)),
        }
        if group is not None and len(volumes):
            keys = list(KEYS)
            pooled = [pool_patients(rows, group).assign(**{name: rows[name].iloc[0] for name in keys})
                      for _, rows in volumes.groupby(keys, sort=False)]  # fmt: skip
            patients = concat(pooled, ignore_index=True)
            self.levels["patient"] = patients.assign(part=patients["patient"], unit=patients["patient"])

    def unit(self, metric: Metric, *datasets: str) -> str:
        """Give the unit in which a metric is shown: %, or the images' mm or px."""
        if metric.factor == 100:
            return "%"
        units = [unit for dataset, unit in self.distance_units.items() if not datasets or dataset in datasets]
        return "/".join(dict.fromkeys(units)) or "mm"

    def level_of(self, metric: Metric) -> str:
        """Give the level at which systems are compared: patients, where there are any and the metric has them."""
        return "patient" if metric.is_overlap and "patient" in self.levels else "volume"

    @property
    def blocks(self) -> list[tuple[str, str]]:
        """The data sets and subsets that have scores."""
        every = ((dataset, subset) for dataset in self.spec.datasets for subset in SUBSETS)
        return [block for block in every if self.labels(*block)]

    def labels(self, dataset: str, subset: str) -> list[Where]:
        """Give the labels that have scores, in the order of the score files, which is that of dataset.json."""
        volumes = self.levels["volume"]
        rows = volumes[(volumes["dataset"] == dataset) & (volumes["subset"] == subset)]
        return [Where(dataset, subset, str(label)) for label in dict.fromkeys(rows["label"])]

    @cache  # noqa: B019 - lives as long as one report is written
    def rows(self, level: str, where: Where, system: str | None = None) -> DataFrame:
        """Give the scores of a data set, subset and label, and of a system."""
        if system is not None:
            rows = self.rows(level, where)
            return rows[rows["system"] == system]
        frame = self.levels[level]
        chosen = (frame["dataset"] == where.dataset) & (frame["subset"] == where.subset)
        return frame[chosen & (frame["label"] == where.label)]

    def systems(self, where: Where) -> list[str]:
        """Give the titles of the systems that have scores, in the order of the specification."""
        present = set(self.rows("volume", where)["system"])
        return [title for title in self.spec.titles if title in present]

    def complete(self, where: Where) -> list[str]:
        """Give the systems that have every case that any system has."""
        rows = self.rows("volume", where)
        counts = rows.groupby("system")["case"].nunique()
        return [title for title in self.systems(where) if counts[title] == rows["case"].nunique()]

    def by_training(self, level: str, where: Where, system: str, metric: Metric, key: str = "part") -> DataFrame:
        """Give a system's values: a row for each part (or unit), by it, its unit and fold; a column a repeat."""
        rows = self.rows(level, where, system)
        wide = rows.groupby([key, "repeat"])[metric.column].mean().unstack("repeat") * metric.factor
        first = rows.drop_duplicates(key).set_index(key, drop=False).loc[wide.index]
        wide.index = MultiIndex.from_arrays([wide.index, first["unit"], first["fold"]], names=["part", "unit", "fold"])
        return wide

    def means(self, where: Where, metric: Metric) -> DataFrame:
        """Give a metric as cases (or patients) by systems, each the mean over repeats; NaN where it is undefined."""
        rows = self.rows(self.level_of(metric), where)
        wide = rows.groupby(["unit", "system"])[metric.column].mean().unstack("system") * metric.factor
        return wide.reindex(columns=self.systems(where)).astype(float)

    @cache  # noqa: B019
    def summary(self, level: str, where: Where, system: str, metric: Metric) -> Summary:
        """Summarise a system's scores, in the metric's unit."""
        wide = self.by_training(level, where, system, metric)
        units, folds = wide.index.get_level_values("unit"), wide.index.get_level_values("fold")
        return summarise(wide.to_numpy(), units.tolist(), folds.tolist(), **self._interval)

    @cache  # noqa: B019
    def compare(self, where: Where, first: str, second: str, metric: Metric) -> Comparison:
        """Compare two systems, first minus second, over the cases (or patients) that both have."""
        level = self.level_of(metric)
        a, b = (self.by_training(level, where, each, metric, "unit") for each in (first, second))
        both = a.index.intersection(b.index)
        folds = both.get_level_values("fold").tolist()
        return compare(a.loc[both].to_numpy(), b.loc[both].to_numpy(), folds, **self._interval)

    def reference(self, where: Where) -> str | None:
        """Choose the system that the others are compared with: the spec's, else the one with the best mean.

        Of systems that lack cases none is the best, unless all do.
        """
        present = self.systems(where)
        if self.spec.reference is not None:
            return self.spec.reference if self.spec.reference in present else None
        means = self.means(where, self.metric)[self.complete(where) or present].mean().dropna()
        if not len(means):
            return None
        return str(means.idxmax() if self.metric.higher_is_better else means.idxmin())

    def against(self, where: Where, metric: Metric) -> dict[str, Tested]:
        """Compare each system with the reference; one family of tests. Nothing where there is no reference."""
        reference = self.reference(where)
        others = [] if reference is None else [each for each in self.systems(where) if each != reference]
        return adjusted({other: self.compare(where, other, str(reference), metric) for other in others})


Key = TypeVar("Key")


def adjusted(compared: dict[Key, Comparison]) -> dict[Key, Tested]:
    """Add p values adjusted over a family of comparisons."""
    p_values = holm([each.p_value for each in compared.values()])
    return {key: Tested(each, p) for (key, each), p in zip(compared.items(), p_values, strict=True)}


def _units(rows: DataFrame, group: str | None) -> list[str]:
    cases = rows["case"].tolist()
    return cases if group is None else patients_of(cases, group)


def _scores(work_dir: Path, spec: Spec, unit: str, columns: tuple[str, ...]) -> DataFrame:
    found = [DataFrame(columns=[*KEYS, *columns])]
    for part in parts_of(spec):
        path = part.folder(work_dir / "scores") / f"{part.stem}_{unit}.csv"
        if path.is_file() and (unit == "volume" or spec.evaluation.slices):
            found.append(read_scores(path, columns).assign(**part.keys))
    return concat(found[1:] or found, ignore_index=True)[[*KEYS, *columns]]
