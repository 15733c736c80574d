"""What nnU-Net does in silence that a study must know, found when a training starts."""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2_eccam.files import read_json

AXES = "zyx"
"""The axes of nnU-Net's arrays, by which the files' are named."""

_SAME = 0.01  # relative; spacings are rounded when a header is written
_RULE = "#" * 100


def boxed(warning: str) -> str:
    """Set a warning apart from the rest of a log."""
    lines = textwrap.wrap(f"WARNING: {warning}", len(_RULE), break_long_words=False, break_on_hyphens=False)
    return "\n".join(["", _RULE, *lines, _RULE, ""])


def fold_warning(fold: int | str, preprocessed: Path) -> str | None:
    """Say that nnU-Net has made a split of its own, since the fold is beyond those of the split file.

    Args:
        fold: the trainer's, a number or ``all``.
        preprocessed: the data set's folder, with ``splits_final.json``.
    """
    file = preprocessed / "splits_final.json"
    if fold == "all" or not file.is_file():
        return None
    n_splits = len(read_json(file))
    if int(fold) < n_splits:
        return None
    return (
        f"fold {fold} is none of the {n_splits} splits of {file}, which are 0 to {n_splits - 1}. nnU-Net has drawn a "
        "random 80:20 split for it instead: its validation cases are other folds' validation cases too, so it is "
        f"not part of the cross-validation. Train folds 0 to {n_splits - 1}, or add a split to the file."
    )


def continuation_warning(
    asked: bool, loaded: bool, output_folder: str, current_epoch: int, num_epochs: int
) -> str | None:
    """Say that ``--c`` has begun anew, or has nothing left to train.

    Args:
        asked: whether ``--c`` was given.
        loaded: whether a checkpoint was loaded.
        output_folder: the fold's.
        current_epoch: where the training begins.
        num_epochs: its length.
    """
    if not asked:
        return None
    if not loaded:
        return (
            f"--c was given, but {output_folder} has no checkpoint_final.pth, checkpoint_latest.pth or "
            "checkpoint_best.pth: there is nothing to continue, and this training begins anew. If there was one, "
            "check data set, configuration, fold, -tr, -p and nnUNet_results."
        )
    if current_epoch >= num_epochs:
        return (
            f"--c was given, but this training has had its {num_epochs} epochs: nothing more is trained. nnU-Net "
            "cannot make a finished training longer; a longer one is another trainer (as "
            "nnUNetTrainerECCaM_300epochs), from the beginning."
        )
    return None


def slicing_warning(
    plans: Mapping[str, Any], patch_size: Sequence[int], spacings: Sequence[Sequence[float]]
) -> str | None:
    """Say that a 2D configuration slices the images across the slices that the scanner took.

    nnU-Net slices all cases along the axis of the largest target spacing. Where voxels are nearly cubes that may be
    any axis.

    Args:
        plans: nnU-Net's.
        patch_size: the configuration's.
        spacings: of each training case, in mm, axes z, y, x.
    """
    if len(patch_size) != 2 or not spacings:
        return None
    sliced = int(plans["transpose_forward"][0])
    told = Counter(axis for axis in map(acquired_axis, spacings) if axis is not None)
    acquired, votes = told.most_common(1)[0] if told else (0, 0)
    if sliced == acquired:
        return None
    evidence = (
        f"{votes} of {len(spacings)} cases have square pixels across {AXES[acquired]} and another distance between them"
        if votes
        else f"voxels are cubes, and the files store their slices along {AXES[acquired]}"
    )
    target = _target_spacing(plans)
    wanted = [1.001 * max(target) if axis == acquired else n for axis, n in enumerate(target)]
    return (
        f"the plans slice the images along {AXES[sliced]}, but they seem to be acquired in slices along "
        f"{AXES[acquired]}: {evidence}. The network sees, and per-slice results are of, another plane. nnU-Net slices "
        f"along the axis of the largest target spacing, here {_mm(target)} mm for z, y, x. To have it along "
        f"{AXES[acquired]}: nnUNetv2_plan_and_preprocess ... -overwrite_target_spacing {_mm(wanted)} "
        "-overwrite_plans_name NAME, then -p NAME."
    )


def acquired_axis(spacing: Sequence[float]) -> int | None:
    """Tell the axis along which slices were acquired, which are of square pixels, or give None where all are alike.

    Args:
        spacing: mm, axes z, y, x.

    >>> acquired_axis([0.8, 3.0, 0.8])
    1
    """
    odd = [
        axis
        for axis in range(3)
        if _alike(*(n for other, n in enumerate(spacing) if other != axis))
        and not any(_alike(spacing[axis], n) for other, n in enumerate(spacing) if other != axis)
    ]
    return odd[0] if odd else None


def _alike(one: float, other: float) -> bool:
    return abs(one - other) <= _SAME * max(one, other)


def _target_spacing(plans: Mapping[str, Any]) -> list[float]:
    """Give the spacing that the plans were made for, axes z, y, x."""
    configurations = plans["configurations"]
    forward = plans["transpose_forward"]
    whole = configurations.get("3d_fullres", {}).get("spacing")
    turned = [float(n) for n in whole or plans["original_median_spacing_after_transp"]]
    return [turned[forward.index(axis)] for axis in range(3)]


def _mm(spacing: Sequence[float]) -> str:
    return " ".join(f"{n:.4g}" for n in spacing)
