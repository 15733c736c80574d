"""What is scored, as nnU-Net evaluates it: the labels or regions of ``dataset.json``, along the axis of the plans."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json

AXES = "zyx"
"""The axes of nnU-Net's arrays, 0 to 2, by their letters in the file."""


@dataclass(frozen=True)
class Labels:
    """All that is scored in a data set.

    Attributes:
        scored: each label or region (several labels taken together) by its name in ``dataset.json``, with the values
            that its voxels have; without the background, in nnU-Net's order: that of the labels' values, or that in
            which ``dataset.json`` has the regions.
        declared: every value that a mask may have, background and ignore label included.
        ignore_label: value of the voxels of a reference that count for nothing, or None.
        file_ending: of references and predictions.
        source: the ``dataset.json``.
        turned: nnU-Net's reader of this data set turns volumes to right, anterior, superior, so its axes are those.
    """

    scored: dict[str, tuple[int, ...]]
    declared: frozenset[int]
    ignore_label: int | None
    file_ending: str
    source: Path
    turned: bool = False


def read_dataset_json(path: Path) -> Labels:
    """Read what a ``dataset.json`` of nnU-Net's says about labels.

    nnU-Net's own LabelManager decides whether regions or labels are evaluated, and which.

    Raises:
        UserError: the file is missing, or nnU-Net would not take it.
    """
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    content = read_json(path)
    for key in ("labels", "file_ending"):
        if not isinstance(content, dict) or key not in content:
            raise UserError(f"{path} has no '{key}'; give the dataset.json of a raw data set of nnU-Net's")
    names = content["labels"]
    try:
        manager = LabelManager(names, content.get("regions_class_order"))
        declared = {0, *(int(value) for value in manager.all_labels)}
        values = {str(name): tuple(map(int, np.ravel(value))) for name, value in names.items() if name != "ignore"}
    except (AssertionError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} has 'labels' that nnU-Net does not take: {error}") from error
    scored = {name: labels for name, labels in values.items() if set(labels) != {0}}
    if not scored:
        raise UserError(f"{path} declares no label but the background; there is nothing to score")
    if not manager.has_regions:
        scored = dict(sorted(scored.items(), key=lambda item: item[1]))
        if len(set(scored.values())) < len(scored):
            named = ", ".join(f"{name} {labels[0]}" for name, labels in scored.items())
            raise UserError(f"{path} gives two labels the same value ({named}); give each its own")
    ignore = manager.ignore_label
    return Labels(
        scored=scored,
        declared=frozenset(declared if ignore is None else {*declared, ignore}),
        ignore_label=ignore,
        file_ending=str(content["file_ending"]),
        source=path,
        turned=str(content.get("overwrite_image_reader_writer")).endswith("WithReorient"),
    )


def slice_axis_of_plans(plans: Path) -> int:
    """Read the axis along which a 2D configuration of these plans goes slice by slice.

    nnU-Net brings the axis with the largest target spacing to the front (``transpose_forward``), and cuts along
    the front.

    Returns:
        Axis of the array that nnU-Net's reader gives, (z, y, x): 0 for slices along z.

    Raises:
        UserError: the file is missing or holds no plans of nnU-Net's.
    """
    content = read_json(plans)
    order = content.get("transpose_forward") if isinstance(content, dict) else None
    if not isinstance(order, list) or sorted(map(str, order)) != ["0", "1", "2"]:
        raise UserError(f"{plans} has no 'transpose_forward' of three axes; give nnU-Net's plans, as nnUNetPlans.json")
    return int(order[0])


def plans_beside(predictions: Path) -> Path | None:
    """Find the plans of the model that wrote a folder of predictions.

    ``nnUNetv2_predict`` leaves ``plans.json`` among its predictions; a validation folder, ``fold_0/validation``,
    has it two folders up, in the trained model's.
    """
    folders = (predictions, predictions.resolve().parent.parent)
    return next((folder / "plans.json" for folder in folders if (folder / "plans.json").is_file()), None)
