"""The label policies: what becomes of an organ's parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2_eccam.errors import UserError

from .model import LabelPolicy

if TYPE_CHECKING:
    from numpy.typing import NDArray

POLICIES = ("merged", "apart", "regions")


def label_policy(policy: str, declared: Mapping[int, str], organ: str | None) -> LabelPolicy:
    """Work out the published labels.

    Args:
        policy: ``merged`` (one label for the whole organ, as in the paper), ``apart`` (as in the source)
            or ``regions`` (nnU-Net's region-based training: the whole organ, and its lesion inside).
        declared: source values and names, consecutive from 0, the background.
        organ: the name of the whole, where label 1 is its healthy part and label 2 its lesion; None where
            the labels are not parts of one organ.

    Raises:
        UserError: the policy is unknown or makes no sense for these labels.
    """
    foreground = {value: name for value, name in sorted(declared.items()) if value != 0}
    background = {"background": 0}
    if sorted(declared) != list(range(len(declared))):
        raise UserError(f"label values must be 0, 1, 2, … for nnU-Net; the source declares {sorted(declared)}")
    if not foreground:
        raise UserError("the source declares no label but the background; there is nothing to segment")
    if policy == "apart":
        labels: dict[str, int | list[int]] = {
            **background,
            **{name: value for value, name in foreground.items()},
        }
        return LabelPolicy(policy, dict(declared), labels, {value: value for value in declared})
    if policy == "merged":
        only_name = next(iter(foreground.values())) if len(foreground) == 1 else "foreground"
        mapping = {value: int(value != 0) for value in declared}
        return LabelPolicy(policy, dict(declared), {**background, organ or only_name: 1}, mapping)
    if policy == "regions":
        if organ is None or len(foreground) != 2:
            raise UserError(
                f"--labels regions needs an organ with a lesion inside it; this data set's labels are "
                f"{', '.join(foreground.values())}: use --labels apart or --labels merged"
            )
        # nnU-Net paints the regions in this order, so the lesion is painted over the organ.
        return LabelPolicy(
            policy,
            dict(declared),
            {**background, organ: [1, 2], foreground[2]: [2]},
            {value: value for value in declared},
            regions_class_order=(1, 2),
        )
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
