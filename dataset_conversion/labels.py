"""The label policies: what becomes of an organ's parts, and what nnU-Net asks of labels."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from nnunetv2_eccam.errors import UserError

IGNORE = "ignore"
"""nnU-Net's name for voxels that nobody labelled; its value must be the highest."""

REGIONS_CLASS_ORDER = [1, 2]
"""nnU-Net paints the regions in this order, so the lesion is painted over the organ."""


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
    names = [declared[value].strip() for value in values]
    for value, name in enumerate(names[1:], start=1):
        first = names.index(name)
        if first < value:
            raise UserError(f"{file}: the values {first} and {value} are both called {name!r}; give each its own name")
        if name.lower() == "background":
            raise UserError(f"{file}: the value {value} is called {name!r}, which is 0 in nnU-Net; rename it")
        if name.lower() == IGNORE and value != values[-1]:
            raise UserError(
                f"{file}: the value {value} is called {name!r}, which must be the highest value in nnU-Net "
                f"({values[-1]} is there); number them anew there and in the label files"
            )


def published_labels(
    policy: str, declared: Mapping[int, str], organ: str | None
) -> tuple[dict[str, int | list[int]], dict[int, int]]:
    """Work out the published labels.

    Args:
        policy: ``merged`` (one label for the whole organ, as in the paper), ``apart`` (as in the source)
            or ``regions`` (nnU-Net's region-based training: the whole organ, and its lesion inside).
        declared: source values and names, as :func:`check_declared` accepts them.
        organ: the name of the whole, where label 1 is its healthy part and label 2 its lesion; None where
            the labels are not parts of one organ.

    Returns:
        ``labels`` of nnU-Net's dataset.json: a value, or a list of values for a region; and the published value of
        each source value that changes.

    Raises:
        UserError: the policy makes no sense for these labels.
    """
    foreground = {value: name for value, name in sorted(declared.items()) if value}
    highest = max(foreground)
    ignored = foreground[highest].strip().lower() == IGNORE
    if ignored:
        del foreground[highest]
    labels: dict[str, int | list[int]] = {"background": 0}
    mapping = dict.fromkeys(foreground, 1) | ({highest: 2} if ignored else {}) if policy == "merged" else {}
    if policy == "merged":
        labels[organ or (next(iter(foreground.values())) if len(foreground) == 1 else "foreground")] = 1
    elif policy == "regions":
        if organ is None or len(foreground) != 2:
            raise UserError(
                f"--labels regions needs an organ with a lesion inside it; this data set's labels are "
                f"{', '.join(foreground.values())}: use --labels apart or --labels merged"
            )
        labels |= {organ: [1, 2], foreground[2]: [2]}
    else:
        labels |= {name: value for value, name in foreground.items()}
    if ignored:
        labels[IGNORE] = mapping.get(highest, highest)
    return labels, {value: published for value, published in mapping.items() if value != published}


def relabelled(voxels: NDArray[np.generic], mapping: Mapping[int, int]) -> NDArray[np.uint8]:
    """Map source values to published ones, as uint8, keeping shape and axis order."""
    values = voxels.astype(np.uint8, copy=False)
    table = np.arange(256, dtype=np.uint8)
    for source, published in mapping.items():
        table[source] = published
    return table[values] if mapping else values
