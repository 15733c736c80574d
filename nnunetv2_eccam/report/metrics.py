"""The figures of a score file: what they are called, their unit, and which way is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nnunetv2_eccam.errors import UserError


@dataclass(frozen=True)
class Metric:
    """A figure of one case or slice.

    Attributes:
        column: its column in score files.
        title: as the report calls it.
        unit: as it is shown: ``%`` or ``mm``.
        factor: from the file's value to the one that is shown: files hold fractions, the report percent.
        higher_is_better: whether more is better.
        per_slice: whether it is defined on a slice.
        published: its name in the paper's tables, if it is there.
    """

    column: str
    title: str
    unit: str
    factor: float
    higher_is_better: bool
    per_slice: bool
    published: str | None = None

    @property
    def header(self) -> str:
        """Title and unit."""
        return f"{self.title} [{self.unit}]"


METRICS: Final[Mapping[str, Metric]] = {
    metric.column: metric
    for metric in (
        Metric("dsc", "DSC", "%", 100, True, True, "DSC"),
        Metric("sensitivity", "Sensitivity", "%", 100, True, True, "sensitivity"),
        Metric("precision", "Precision", "%", 100, True, True, "precision"),
        Metric("hd95", "HD95", "mm", 1, False, False),
        Metric("nsd", "NSD", "%", 100, True, False),
    )
}
"""By the column of score files, in the report's order."""

SLICE_METRICS: Final = tuple(metric for metric in METRICS.values() if metric.per_slice)
"""Those of a slice."""


def metric_named(name: str, where: str) -> Metric:
    """Give a metric by its column or title, in any case; ``hd95`` too.

    Args:
        name: what was written.
        where: the file in which it was, for the message.

    Raises:
        UserError: there is no such metric.
    """
    for metric in METRICS.values():
        if name.lower() in (metric.column, metric.title.lower()):
            return metric
    raise UserError(f"{where}: statistics.metric is {name}; it is one of {', '.join(METRICS)}")
