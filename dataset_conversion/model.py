"""What a converter hands to the engine, and what a case's conversion hands back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

CaseResult = dict[str, Any]
"""One case's entry in the report, in JSON's types; see :func:`case_result`."""


@dataclass(frozen=True)
class DatasetCard:
    """What is known of a data set before looking at it.

    Attributes:
        title: its full name, as on the download page.
        dataset_id: the default number in ``DatasetXXX_Name``.
        name: the default name in ``DatasetXXX_Name``.
        reference: where it is downloaded.
        licence: the terms, as the download page gives them.
        citation: what to cite.
        soft_tissue: every label is soft tissue in CT, so a label that lies in air is an error.
    """

    title: str
    dataset_id: int
    name: str
    reference: str
    licence: str
    citation: tuple[str, ...]
    soft_tissue: bool = False


@dataclass(frozen=True)
class LabelPolicy:
    """Which label values are read, and what is published.

    Attributes:
        policy: ``merged``, ``apart`` or ``regions``.
        declared: the source's values and their names, background included.
        labels: ``labels`` of nnU-Net's dataset.json: a value, or a list of values for a region.
        mapping: published value of each source value.
        regions_class_order: nnU-Net's key of that name, for ``regions`` only.
    """

    policy: str
    declared: Mapping[int, str]
    labels: Mapping[str, int | list[int]]
    mapping: Mapping[int, int]
    regions_class_order: tuple[int, ...] | None = None

    @property
    def keeps_values(self) -> bool:
        """Whether the labels can be published as they are."""
        return all(source == published for source, published in self.mapping.items())


@dataclass(frozen=True)
class Options:
    """What the user chose; the first part decides the output, the second only how it is made."""

    dataset_id: int
    name: str
    labels: str
    split: str = "cv"
    hold_out: int = 0
    seed: int = 12345
    leave_out: tuple[str, ...] = ()

    processes: int = 1
    dry_run: bool = False
    overwrite: bool = False
    progress: bool = True

    @property
    def folder_name(self) -> str:
        """``DatasetXXX_Name``."""
        return f"Dataset{self.dataset_id:03d}_{self.name}"

    def deciding(self) -> dict[str, Any]:
        """Give the options that decide the output, for the report and to tell equal runs apart."""
        return {
            "id": self.dataset_id,
            "name": self.name,
            "labels": self.labels,
            "split": self.split,
            "hold_out": self.hold_out,
            "seed": self.seed,
            "leave_out": sorted(set(self.leave_out)),
        }


@dataclass(frozen=True)
class Case:
    """One patient: its files in the source and where it goes.

    Attributes:
        case: the published identifier, ``la_003``.
        images: the image's files; many for a DICOM series.
        label: the label's file, None for an unlabelled case.
        subset: ``Tr`` or ``Ts``, the ending of ``imagesTr`` and ``labelsTr``.
    """

    case: str
    images: tuple[Path, ...]
    label: Path | None
    subset: str = "Tr"

    @property
    def sources(self) -> tuple[Path, ...]:
        """Every file whose bytes decide the published ones."""
        return self.images if self.label is None else (*self.images, self.label)


class Problem(NamedTuple):
    """What is wrong with the source's layout; ``case`` is empty where it is not one case's."""

    case: str
    message: str


ConvertCase = Callable[[Case, "Path | None"], CaseResult]
"""Check one case and, unless the folder is None, publish it there. Must be picklable."""


@dataclass(frozen=True)
class Survey:
    """A question that all cases answer together before the first one is converted.

    Attributes:
        title: shown with the progress bar.
        measure: looks at one case; the result is JSON. Must be picklable.
        decide: from every labelled case's result, the finding for the report and the conversion that
            follows from it; raises UserError when there is no answer.
    """

    title: str
    measure: Callable[[Case], dict[str, Any]]
    decide: Callable[[Mapping[str, dict[str, Any]]], tuple[dict[str, Any], ConvertCase]]


@dataclass
class Plan:
    """Everything that is to be done for one data set, found by looking at names only.

    Attributes:
        card: what is known of the data set.
        source: the folder given by the user.
        channel_names: nnU-Net's key of that name; decides the normalisation.
        policy: the labels.
        cases: labelled and unlabelled cases, in the order of their names.
        convert: converts one case; replaced by the survey's answer where there is a survey.
        paper_counts: train, validation and test counts of the paper by the number of labelled cases.
        why_no_paper_split: said when there are none.
        left_out: cases or files that are not converted, and why.
        notes: what a reader of the report should know.
        problems: what is wrong with the source's layout.
    """

    card: DatasetCard
    source: Path
    channel_names: Mapping[str, str]
    policy: LabelPolicy
    cases: list[Case]
    convert: ConvertCase
    paper_counts: Mapping[int, tuple[int, int, int]] = field(default_factory=dict)
    why_no_paper_split: str = ""
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    survey: Survey | None = None


@dataclass(frozen=True)
class Outcome:
    """What a conversion did.

    Attributes:
        folder: the data set's folder in nnUNet_raw.
        status: ``converted``, ``already converted`` or ``dry run``.
        cases: number of published (or, in a dry run, checked) cases.
        warnings: what the user should look at, one line each.
        resumed: how many cases an earlier, interrupted run had finished.
    """

    folder: Path
    status: str
    cases: int
    warnings: Sequence[str] = ()
    resumed: int = 0


def case_result(
    case: Case,
    checks: Mapping[str, Any],
    sources: Mapping[str, str],
    published: Mapping[str, str],
    warnings: Sequence[str] = (),
) -> CaseResult:
    """Put one case's entry of the report together.

    Args:
        case: the case.
        checks: sizes in voxels (x, y, z), spacing in mm (x, y, z), label counts and so on.
        sources: SHA-256 of each source, by its name.
        published: for each published file, relative to the data set's folder, ``unchanged`` or what was
            done to it.
        warnings: what is worth a look.
    """
    return {
        "case": case.case,
        "subset": case.subset,
        "labelled": case.label is not None,
        **checks,
        "warnings": list(warnings),
        "files": dict(published),
        "sources": dict(sources),
    }
