"""What the user chose, what is known of a data set, its cases, and the one record that a conversion fills."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunetv2_eccam.volumes import Volume

from .splits import Split

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


Work = Callable[[Case], CaseResult]
ReadCase = Callable[[Case], Scan]
Decide = Callable[[Mapping[str, CaseResult]], tuple[dict[str, Any], ReadCase]]


def advised(case: str, message: str) -> str:
    """End what is wrong with a case by the way around it."""
    return f"{message}; or leave it out with --leave-out {case}"


@dataclass
class Conversion:
    """One conversion. A converter begins it by looking at names only, the engine decides and does the rest.

    Attributes:
        read: reads one case; the survey's answer replaces it where there is a survey.
        channel_names: nnU-Net's key of that name; decides the normalisation.
        cases: labelled and unlabelled cases, in the order of their names.
        survey: a question that all labelled cases answer together before the first one is converted: what looks at
            one case, and what makes of every case's result the finding for the report and the reading that follows.
        left_out: cases or files that are not converted, and why.
        notes: what the user and a reader of the report should know, one line each.
        problems: what is wrong with the source, one line each, with the case, or "" where it is not one case's.
        options: the user's, with the data set's own choices filled in.
        labels: nnU-Net's key of that name.
        mapping: the published value of each label value that changes.
        split: which cases are trained on, validated and tested.
        folder: the data set's in nnUNet_raw.
        finding: the survey's.
        resumed: how many cases an earlier, interrupted run had finished.
        warnings: what the user should look at, one line each.
        status: at the end ``converted``, ``already converted`` or ``dry run``.
    """

    card: DatasetCard
    source: Path
    read: ReadCase
    channel_names: Mapping[str, str] = field(default_factory=lambda: {"0": "CT"})
    cases: list[Case] = field(default_factory=list)
    survey: tuple[Work, Decide] | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    options: Options = field(default_factory=Options)
    labels: Mapping[str, int | list[int]] = field(default_factory=dict)
    mapping: Mapping[int, int] = field(default_factory=dict)
    split: Split = field(default_factory=Split)
    folder: Path = field(default_factory=Path)
    finding: dict[str, Any] = field(default_factory=dict)
    resumed: int = 0
    warnings: list[str] = field(default_factory=list)
    status: str = ""

    def refuse(self, case: str, message: str) -> None:
        """Note what is wrong with a case, or with the source where ``case`` is empty."""
        self.problems.append((case, advised(case, message) if case else message))

    @property
    def labelled(self) -> list[Case]:
        """The cases that have a label."""
        return [case for case in self.cases if case.label is not None]
