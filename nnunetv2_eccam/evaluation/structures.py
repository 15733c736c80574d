"""What is scored: the labels or regions of ``dataset.json``, as nnU-Net evaluates them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json


@dataclass(frozen=True)
class Structure:
    """One label, or one region, which is several labels taken together.

    Attributes:
        name: as in ``dataset.json``.
        labels: the values that its voxels have.
    """

    name: str
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Structures:
    """All that is scored in a data set.

    Attributes:
        scored: without the background, in nnU-Net's order: that of the labels' values, or that in which
            ``dataset.json`` has the regions.
        declared: every value that a mask may have, background and ignore label included.
        ignore_label: value of the voxels of a reference that count for nothing, or None.
        file_ending: of references and predictions.
        source: the ``dataset.json``.
        content: what it holds.
    """

    scored: tuple[Structure, ...]
    declared: frozenset[int]
    ignore_label: int | None
    file_ending: str
    source: Path
    content: Mapping[str, Any]


def read_structures(dataset_json: Path) -> Structures:
    """Read what a ``dataset.json`` of nnU-Net's says about labels.

    nnU-Net's own LabelManager decides whether regions or labels are evaluated, and which.

    Raises:
        UserError: the file is missing, or nnU-Net would not take it.
    """
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    content = read_json(dataset_json)
    for key in ("labels", "file_ending"):
        if not isinstance(content, dict) or key not in content:
            raise UserError(f"{dataset_json} has no '{key}'; give the dataset.json of a raw data set of nnU-Net's")
    names = content["labels"]
    try:
        manager = LabelManager(names, content.get("regions_class_order"))
        declared = {0, *(int(value) for value in manager.all_labels)}
    except (AssertionError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{dataset_json} has 'labels' that nnU-Net does not take: {error}") from error
    foreground = [(name, _values(value)) for name, value in names.items() if name != "ignore"]
    foreground = [(name, labels) for name, labels in foreground if set(labels) != {0}]
    if manager.has_regions:
        scored = [Structure(str(name), labels) for name, labels in foreground]
    else:
        named = {labels[0]: str(name) for name, labels in reversed(foreground)}
        scored = [Structure(named[int(label)], (int(label),)) for label in manager.foreground_labels]
    if not scored:
        raise UserError(f"{dataset_json} declares no label but the background; there is nothing to score")
    ignore = manager.ignore_label
    return Structures(
        scored=tuple(scored),
        declared=frozenset(declared if ignore is None else {*declared, ignore}),
        ignore_label=ignore,
        file_ending=str(content["file_ending"]),
        source=dataset_json,
        content=content,
    )


def _values(value: Any) -> tuple[int, ...]:
    return tuple(int(each) for each in value) if isinstance(value, (list, tuple)) else (int(value),)
