"""The figures of a score file: what they are called, their unit, and which way is better."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


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


METRICS: Final[Mapping[str, Metric]] = {
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

OVERLAP: Final = tuple(metric for metric in METRICS.values() if metric.is_overlap)
"""Those of a slice and of a patient."""
