"""What a benchmark compares and how it is run: one model, of the YAML file, of ``spec.json`` and of the report."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json
from nnunetv2_eccam.systems import RECIPES, SYSTEMS, System

try:
    from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
except ModuleNotFoundError:
    raise UserError("a benchmark needs pydantic: pip install 'nnunetv2-eccam[benchmark]'") from None

PUBLISHED_AS: Mapping[str, str] = {"Heart": "Cardiac", "Pancreas": "MSD", "PancreasCT": "TCIA", "KiTS19": "KiTS"}
"""The paper's name of a data set, by what ``nnUNetv2_eccam convert`` calls it after the number."""

DEFAULT_PLANS = "nnUNetPlans"


def _as_name(value: Any) -> Any:
    text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", text):
        raise ValueError("should be a name of letters, digits and . _ + -, as it becomes part of folder names")
    return text


def _as_tuple(value: Any) -> tuple[Any, ...]:
    """Take a single value for a list of one, and each value once."""
    if isinstance(value, (str, int, Mapping)):
        value = [value]
    if not isinstance(value, Sequence) or not value:
        raise ValueError("should be a list with something in it")
    return tuple(item for place, item in enumerate(value) if item not in value[:place])


Name = Annotated[str, BeforeValidator(_as_name)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
PaperName = Literal["TCIA", "MSD", "KiTS", "Cardiac"] | None


class _Part(BaseModel):
    """A part of the specification: no field that is not known, no text for a number; null is the default."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, content: Any) -> Any:
        if content is None:
            return {}
        return {k: v for k, v in content.items() if v is not None} if isinstance(content, Mapping) else content


class Entry(_Part):
    """A system of the benchmark: a trainer with plans and a configuration of them.

    Attributes:
        trainer: its name, as nnU-Net's ``-tr``.
        plans: the identifier of nnU-Net's plans, ``-p``.
        configuration: of these plans.
        title: as the report calls it; no two systems have the same.
    """

    trainer: Name
    plans: Name
    configuration: Name
    title: str

    @property
    def model(self) -> str:
        """The folder of its trainings in ``nnUNet_results/DATASET``."""
        return f"{self.trainer}__{self.plans}__{self.configuration}"

    @property
    def folder(self) -> str:
        """Its folder in the parts of a work folder: configuration and trainer, with plans that are not the default."""
        plans = "" if self.plans == DEFAULT_PLANS else f"__{self.plans}"
        return f"{self.configuration}/{self.trainer}{plans}"

    @property
    def paper(self) -> System | None:
        """What it is in the paper's tables, or None."""
        return paper_system(self.trainer)


class Evaluation(_Part):
    """How predictions are scored.

    Attributes:
        nsd_tolerance_mm: of the normalised surface Dice; pixels, where images have no mm.
        slices: whether slices are scored too.
        group: regular expression of cases' names whose group is the patient, where a patient has several cases, such
            as slices; the report then compares systems by patient.
        empty: the 95% Hausdorff distance of a structure that was missed altogether: ``undefined``, or the
            image's ``diagonal``.
        ignore_geometry: compare voxel by voxel though headers differ, as nnU-Net does.
    """

    nsd_tolerance_mm: Positive = 2.0
    slices: bool = True
    group: re.Pattern[str] | None = None
    empty: Literal["undefined", "diagonal"] = "undefined"
    ignore_geometry: bool = False


class Statistics(_Part):
    """What the report compares, and how.

    Attributes:
        metric: by which systems are compared.
        confidence: of the intervals, between 0 and 1.
        bootstrap: resamples.
        seed: of the bootstrap.
        reference_system: the title or trainer that the others are compared with, or None for the best one.
    """

    metric: Literal["dsc", "sensitivity", "precision", "hd95", "nsd"] = "dsc"
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    bootstrap: Count = 10000
    seed: Annotated[int, Field(ge=0)] = 0
    reference_system: str | None = None


class Run(_Part):
    """Where the jobs run.

    Attributes:
        engine: ``local`` or ``slurm``.
        jobs: at most so many at once; with SLURM, in its queue. None: one for each GPU, and one without GPUs.
        gpus: of one training or prediction.
        cpus: cores of one job; None: this machine's shared among its jobs, or one with SLURM.
        hours: SLURM's time limit of a job; a training that needs more goes on in another job.
        memory_gb: that SLURM is asked for.
        partition: of SLURM.
        cpu_partition: of SLURM, for scoring, which needs no GPU; None: the same.
        slurm: any further option of sbatch, by its long name.
    """

    engine: Literal["local", "slurm"] = "local"
    jobs: Count | None = None
    gpus: Annotated[int, Field(ge=0)] = 0
    cpus: Count | None = None
    hours: Positive | None = None
    memory_gb: Positive | None = None
    partition: str | None = None
    cpu_partition: str | None = None
    slurm: dict[str, Any] = {}


class Spec(_Part):
    """A benchmark.

    In YAML, ``trainers`` may be names, which take ``plans`` and each of ``configurations``, or mappings with plans,
    a configuration and a title of their own. Single values stand for lists.

    Attributes:
        name: for the report's title.
        datasets: folder names, ``Dataset002_Heart``; numbers until they are looked up.
        trainers: the systems that are compared.
        folds: of nnU-Net's splits.
        repeats: trainings of each system and fold.
        plans: identifier of the plans of the trainers that name none of their own.
        device: ``cpu``, ``cuda`` or ``mps``.
        predict_test: whether test images with labels are predicted and scored.
        predict_unlabelled: whether test images are predicted where there are no labels.
        evaluation: how predictions are scored.
        statistics: what the report compares.
        published: the paper's name of a data set, where it is not clear from its own, or None for none.
        run: where the jobs run.
    """

    name: str = "benchmark"
    datasets: Annotated[tuple[Name, ...], BeforeValidator(_as_tuple)]
    trainers: tuple[Entry, ...]
    folds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_as_tuple)] = (0, 1, 2, 3, 4)
    repeats: Count = 1
    plans: Name = DEFAULT_PLANS
    device: Literal["cpu", "cuda", "mps"] = "cuda"
    predict_test: bool = True
    predict_unlabelled: bool = False
    evaluation: Evaluation = Evaluation()
    statistics: Statistics = Statistics()
    published: dict[str, PaperName] = {}
    run: Run = Run()

    @model_validator(mode="before")
    @classmethod
    def _written_out(cls, content: Any) -> Any:
        """Give each trainer its plans, its configurations and a title, and the run the defaults of its engine."""
        if not isinstance(content, Mapping):
            return content
        content = {name: value for name, value in content.items() if value is not None}
        shared = content.pop("configurations", ())
        if "trainers" in content:
            content["trainers"] = _entries(content["trainers"], shared, content.get("plans", DEFAULT_PLANS))
        run = content.get("run", {})
        if isinstance(run, Mapping):
            slurm = {"jobs": 64, "hours": 24.0} if run.get("engine") == "slurm" else {}
            gpus = {"gpus": 1} if content.get("device", "cuda") == "cuda" else {}
            content["run"] = {**slurm, **gpus, **{k: v for k, v in run.items() if v is not None}}
        return content

    @model_validator(mode="after")
    def _fits_together(self) -> Spec:
        wanted = self.statistics.reference_system
        if wanted is not None and self.reference is None:
            raise ValueError(f"statistics.reference_system is {wanted!r}; it should be one of {', '.join(self.titles)}")
        if (self.device == "cuda") != (self.run.gpus > 0):
            needed = "1 or more" if self.device == "cuda" else "0"
            raise ValueError(f"run.gpus is {self.run.gpus}; it should be {needed} with device: {self.device}")
        return self

    @property
    def titles(self) -> tuple[str, ...]:
        """The systems' titles, in order."""
        return tuple(entry.title for entry in self.trainers)

    @property
    def reference(self) -> str | None:
        """The title of the system that the others are compared with; None for the best one."""
        word = self.statistics.reference_system
        return next((entry.title for entry in self.trainers if word in (entry.title, entry.trainer)), None)

    @property
    def paper_names(self) -> dict[str, str]:
        """The paper's name of each data set that it has."""
        names = {dataset: PUBLISHED_AS.get(dataset.partition("_")[2]) for dataset in self.datasets} | self.published
        return {dataset: name for dataset in self.datasets if (name := names[dataset]) is not None}


def paper_system(trainer: str) -> System | None:
    """Give what a trainer is in the paper's tables, or None where it is none of this package's."""
    name = re.sub(r"_[1-9]\d*epochs?$", "", trainer)
    return next((each for each in SYSTEMS for recipe in RECIPES if each.trainer_name(recipe) == name), None)


def read_spec(content: Any, source: str) -> Spec:
    """Check a specification and put defaults where it is silent.

    Args:
        content: as read from YAML or JSON, with what the options change.
        source: the file, or ``the options``; errors begin with it.

    Raises:
        UserError: something in it is missing, wrong or not known; each is named with its field.
    """
    try:
        return Spec.model_validate(content)
    except ValidationError as error:
        raise UserError("; ".join(f"{source}: {_said(each)}" for each in error.errors())) from None


def read_spec_of(work_dir: Path) -> Spec:
    """Read ``spec.json`` of a benchmark's work folder.

    Raises:
        UserError: it is missing, or something in it is wrong.
    """
    path = work_dir / "spec.json"
    if not path.is_file():
        raise UserError(f"{path} is missing, so {work_dir} is not the work folder of a benchmark")
    return read_spec(read_json(path), str(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a specification's file.

    Raises:
        UserError: it is not YAML, or holds no mapping.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_bytes())
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a specification: it holds no mapping of names to values")
    return content


def _entries(trainers: Any, configurations: Any, plans: Any) -> tuple[Any, ...]:
    """Write out the trainers, each a name or a mapping, as one entry for each configuration, with plans and titles.

    Args:
        trainers: as they are written.
        configurations: of those that name none.
        plans: of those that name none.
    """
    if not trainers:
        raise ValueError("trainers is empty; it should be a list of trainers, as nnUNetv2_train -tr takes them")
    entries: dict[tuple[str, str, str], dict[str, Any]] = {}
    for trainer in _as_tuple(trainers):
        entry = dict(trainer) if isinstance(trainer, Mapping) else {"trainer": trainer}
        entry["plans"] = entry.get("plans") or plans
        name = str(entry.get("trainer"))
        own = [entry.pop(field, None) for field in ("configurations", "configuration")]
        if not (own[0] or own[1] or configurations):
            raise ValueError(f"configurations is missing, and {name} has none of its own")
        for configuration in _as_tuple(own[0] or own[1] or configurations):
            key = (name, str(configuration), str(entry["plans"]))
            entries.setdefault(key, {**entry, "configuration": configuration})
    titles = []
    for (name, _, own_plans), entry in entries.items():
        system = paper_system(name)
        title = system.title if system else name
        if any(other == name and of_other != str(plans) for other, _, of_other in entries):  # as in nnU-Net's folders
            title = f"{name}__{own_plans}"
        titles.append(str(entry.get("title") or title))
    for differing in (1, 0):  # systems of the same title get their configuration in it, or else their trainer
        times = Counter(titles)
        titles = [
            f"{title} ({key[differing]})" if times[title] > 1 else title
            for title, key in zip(titles, entries, strict=True)
        ]
    return tuple({**entry, "title": title} for entry, title in zip(entries.values(), titles, strict=True))


def _said(error: Mapping[str, Any]) -> str:
    """Say what is wrong with a field: where it is, what it is, what it should be."""
    field, message = ".".join(map(str, error["loc"])), str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{field} is missing"
    if error["type"] == "extra_forbidden":
        known = [name for part in (Spec, Entry, Evaluation, Statistics, Run) for name in part.model_fields]
        near = difflib.get_close_matches(str(error["loc"][-1]), known, 1)
        return f"{field} is not known" + (f" (did you mean {near[0]}?)" if near else "")
    if not field:
        return message
    message = message.replace("Input should", "should").partition(" or instance of")[0]
    return f"{field} is {error['input']!r}; it {message}"
