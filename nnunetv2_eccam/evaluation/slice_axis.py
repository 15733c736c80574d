"""Along which axis nnU-Net slices a data set, from its plans."""

from __future__ import annotations

from pathlib import Path

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json

AXES = "zyx"
"""The axes of nnU-Net's arrays, 0 to 2, by their letters in the file."""


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
    if not isinstance(order, list) or sorted(order) != [0, 1, 2]:
        raise UserError(f"{plans} has no 'transpose_forward' of three axes; give nnU-Net's plans, as nnUNetPlans.json")
    return int(order[0])


def plans_beside(predictions: Path) -> Path | None:
    """Find the plans of the model that wrote a folder of predictions.

    ``nnUNetv2_predict`` leaves ``plans.json`` among its predictions; a validation folder, ``fold_0/validation``,
    has it two folders up, in the trained model's.
    """
    places = (predictions, predictions.resolve().parent.parent)
    return next((place / "plans.json" for place in places if (place / "plans.json").is_file()), None)
