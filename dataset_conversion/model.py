"""What the user chose, what a converter knows of its data set, and what it hands to the engine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from nnunetv2_eccam.volumes import Volume

CaseResult = dict[str, Any]
"""One case's entry in the report, in JSON's types."""


@dataclass(frozen=True)
class Options:
    """What the user chose, as ``nnUNetv2_eccam convert -h`` explains it; None is the data set's own choice."""

    dataset_id: int | None = None
    name: str | None = None
    labels: str | None = None
    split: str = "cv"
    hold_out: int = 0
    seed: int = 12345
    leave_out: tuple[str, ...] = ()
    processes: int | None = None
    dry_run: bool = False
    overwrite: bool = False
    progress: bool = True

    def deciding(self) -> dict[str, Any]:
        """Give the options that decide the output, for the report and to tell equal runs apart."""
        chosen = {name: getattr(self, name) for name in ("name", "labels", "split", "hold_out", "seed")}
        return {"id": self.dataset_id, **chosen, "leave_out": sorted(set(self.leave_out))}


@dataclass(frozen=True)
class DatasetCard:
    """What is known of a data set before looking at it.

    Attributes:
        title: its full name, as on the download page, which is the reference; the licence is as given there.
        dataset_id, name: the default number and name in ``DatasetXXX_Name``.
        labels: the source's values and names, background included.
        default_labels: the label policy that the paper uses, else ``apart``.
        organ: the whole of which labels 1 and 2 are parts; None where there are no parts.
        soft_tissue: every label is soft tissue in CT, so a label that lies in air is an error.
        paper_counts: the paper's train, validation and test counts by the number of labelled cases.
        why_no_paper_split: said where there are none.
    """

    title: str
    dataset_id: int
    name: str
    reference: str
    licence: str
    citation: tuple[str, ...]
    labels: Mapping[int, str]
    default_labels: str = "apart"
    organ: str | None = None
    soft_tissue: bool = False
    paper_counts: Mapping[int, tuple[int, int, int]] = field(default_factory=dict)
    why_no_paper_split: str = "the paper does not use this data set"


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


@dataclass(frozen=True)
class Scan:
    """A case in memory, as its converter read it.

    Attributes:
        image: with a channel for each modality.
        label: whole numbers, with the place that its own header or the converter gives it; None for an unlabelled
            case.
        done: what was done to image and label beside reading them; where nothing was, the files can be linked.
        warnings: what is worth a look.
        checks: more for the report.
    """

    image: Volume
    label: Volume | None
    done: tuple[str, str] = ("", "")
    warnings: Sequence[str] = ()
    checks: Mapping[str, Any] = field(default_factory=dict)


class Problem(NamedTuple):
    """What is wrong with the source's layout; ``case`` is empty where it is not one case's."""

    case: str
    message: str

    def __str__(self) -> str:
        return self.message + (f"; or leave it out with --leave-out {self.case}" if self.case else "")


ReadCase = Callable[[Case], Scan]


@dataclass(frozen=True)
class Survey:
    """A question that all cases answer together before the first one is converted.

    Attributes:
        measure: looks at one case; the result is JSON.
        decide: from every labelled case's result, the finding for the report and the reading of a case that
            follows from it; raises UserError when there is no answer.
    """

    title: str
    measure: Callable[[Case], dict[str, Any]]
    decide: Callable[[Mapping[str, dict[str, Any]]], tuple[dict[str, Any], ReadCase]]


@dataclass
class Plan:
    """Everything that is to be done for one data set, found by looking at names only.

    Attributes:
        read: reads one case; the survey's answer replaces it where there is a survey.
        channel_names: nnU-Net's key of that name; decides the normalisation.
        cases: labelled and unlabelled cases, in the order of their names.
        left_out: cases or files that are not converted, and why.
        notes: what a reader of the report should know.
        problems: what is wrong with the source's layout.
    """

    card: DatasetCard
    source: Path
    read: ReadCase
    channel_names: Mapping[str, str] = field(default_factory=lambda: {"0": "CT"})
    cases: list[Case] = field(default_factory=list)
    survey: Survey | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def refuse(self, case: str, message: str) -> None:
        """Note what is wrong with a case, or with the source where ``case`` is empty."""
        self.problems.append(Problem(case, message))


@dataclass(frozen=True)
class Outcome:
    """What a conversion did.

    Attributes:
        folder: the data set's folder in nnUNet_raw.
        status: ``converted``, ``already converted`` or ``dry run``.
        cases: number of published (or, in a dry run, checked) cases.
        warnings, notes: what the user should look at, and know, one line each.
        left_out: what was not converted, and why.
        resumed: how many cases an earlier, interrupted run had finished.
    """

    folder: Path
    status: str
    cases: int
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    resumed: int = 0
