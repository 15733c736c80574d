"""The label policies: what becomes of an organ's parts, and what nnU-Net asks of labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2_eccam.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

POLICIES = ("merged", "apart", "regions")
IGNORE = "ignore"
"""nnU-Net's name for voxels that nobody labelled; its value must be the highest."""


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


def check_declared(declared: Mapping[int, str], file: str) -> None:
    """Check the values and names of labels that a file declares.

    Raises:
        UserError: values have gaps, two have one name, or the background or ``ignore`` is where nnU-Net does not
            allow it.
    """
    values = sorted(declared)
    if values != list(range(len(values))):
        raise UserError(
            f"{file}: nnU-Net needs the label values 0, 1, 2, … without a gap, but 'labels' declares "
            f"{', '.join(map(str, values))}; number them anew there and in the label files"
        )
    if len(values) < 2:
        raise UserError(f"{file}: 'labels' declares nothing but the background; there is nothing to segment")
    names = {value: name.strip() for value, name in declared.items()}
    for value in values[1:]:
        same = [other for other in values if names[other] == names[value]]
        if len(same) > 1:
            raise UserError(
                f"{file}: the values {' and '.join(map(str, same))} are both called {names[value]!r}; give each its "
                f"own name"
            )
        if names[value].lower() == "background":
            raise UserError(f"{file}: the value {value} is called {names[value]!r}, which is 0 in nnU-Net; rename it")
        if names[value].lower() == IGNORE and value != values[-1]:
            raise UserError(
                f"{file}: the value {value} is called {names[value]!r}, which must be the highest value in nnU-Net "
                f"({values[-1]} is there); number them anew there and in the label files"
            )


def label_policy(policy: str, declared: Mapping[int, str], organ: str | None) -> LabelPolicy:
    """Work out the published labels.

    Args:
        policy: ``merged`` (one label for the whole organ, as in the paper), ``apart`` (as in the source)
            or ``regions`` (nnU-Net's region-based training: the whole organ, and its lesion inside).
        declared: source values and names, as :func:`check_declared` accepts them.
        organ: the name of the whole, where label 1 is its healthy part and label 2 its lesion; None where
            the labels are not parts of one organ.

    Raises:
        UserError: the policy is unknown or makes no sense for these labels.
    """
    highest = max(declared)
    ignored = declared[highest].strip().lower() == IGNORE
    foreground = {value: name for value, name in sorted(declared.items()) if 0 < value < highest + 1 - ignored}
    background: dict[str, int | list[int]] = {"background": 0}
    same = {value: value for value in declared}
    if policy == "apart":
        labels = {**background, **{name: value for value, name in foreground.items()}}
        return LabelPolicy(policy, declared, {**labels, **({IGNORE: highest} if ignored else {})}, same)
    if policy == "merged":
        name = organ or (next(iter(foreground.values())) if len(foreground) == 1 else "foreground")
        labels = {**background, name: 1, **({IGNORE: 2} if ignored else {})}
        mapping = {value: 1 if value in foreground else 0 for value in declared} | ({highest: 2} if ignored else {})
        return LabelPolicy(policy, declared, labels, mapping)
    if policy == "regions":
        if organ is None or len(foreground) != 2:
            raise UserError(
                f"--labels regions needs an organ with a lesion inside it; this data set's labels are "
                f"{', '.join(foreground.values())}: use --labels apart or --labels merged"
            )
        # nnU-Net paints the regions in this order, so the lesion is painted over the organ.
        labels = {**background, organ: [1, 2], foreground[2]: [2], **({IGNORE: highest} if ignored else {})}
        return LabelPolicy(policy, declared, labels, same, regions_class_order=(1, 2))
    raise UserError(f"--labels {policy} is unknown; the policies are {', '.join(POLICIES)}")


def relabelled(voxels: NDArray[np.generic], policy: LabelPolicy) -> NDArray[np.uint8]:
    """Map source values to published ones, as uint8, keeping shape and axis order."""
    values = voxels.astype(np.uint8, copy=False)
    if policy.keeps_values:
        return values
    table = np.zeros(max(policy.mapping) + 1, dtype=np.uint8)
    for source, published in policy.mapping.items():
        table[source] = published
    return table[values]
