"""A data set of nnU-Net's raw format, small enough to plan, preprocess and train in seconds."""

import json
import os
from pathlib import Path
from unittest.mock import patch

import numpy as np
from in_process import threads_for_processes
from stored_volumes import write_simpleitk

LABELS = {
    "labels": {"background": 0, "organ": 1, "lesion": 2},
    "ignore": {"background": 0, "organ": 1, "lesion": 2, "ignore": 3},
    "regions": {"background": 0, "whole": [1, 2], "lesion": [2]},
    "regions_ignore": {"background": 0, "whole": [1, 2], "lesion": [2], "ignore": 3},
}


def write_raw_dataset(raw: Path, name: str, kind: str = "labels", n_cases: int = 6, n_channels: int = 1) -> Path:
    """Write a data set whose lesion is a bright spot in a grey organ; slices are 3 mm apart, pixels 1 mm."""
    folder = raw / name
    for case in range(n_cases):
        rng = np.random.default_rng(case)
        shape = (9 + case % 3, 38, 44)
        z, y, x = np.indices(shape)
        cy, cx = 18 + rng.integers(-3, 4), 22 + rng.integers(-4, 5)
        label = (((z - 4) * 3) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 < 12**2).astype(np.uint8)
        label[(z - 4) ** 2 + (y - cy - 3) ** 2 + (x - cx + 2) ** 2 < 4**2] = 2
        image = rng.normal(0, 20, (n_channels, *shape)) + 100 * (label == 1) + 200 * (label == 2)
        if "ignore" in kind:
            label[:, :, : 10 + case] = 3
        for channel, voxels in enumerate(image.astype(np.float32)):
            write_simpleitk(folder / "imagesTr" / f"case_{case}_{channel:04d}.nii.gz", voxels)
        write_simpleitk(folder / "labelsTr" / f"case_{case}.nii.gz", label)
    description = {
        "channel_names": {str(channel): "MRI" for channel in range(n_channels)},
        "labels": LABELS[kind],
        "numTraining": n_cases,
        "file_ending": ".nii.gz",
    }
    if "regions" in kind:
        description["regions_class_order"] = [1, 2]
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def plan_and_preprocess(dataset_id: int) -> None:
    """Plan and preprocess the 2d configuration, as ``nnUNetv2_plan_and_preprocess`` does."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    # The planner takes nnUNet_n_proc_DA for its number of threads, which cannot be 0.
    with threads_for_processes(), patch.dict(os.environ, nnUNet_n_proc_DA="1"):
        api.extract_fingerprints([dataset_id], num_processes=1, check_dataset_integrity=True)
        api.plan_experiments([dataset_id])
        api.preprocess([dataset_id], configurations=("2d",), num_processes=(1,))
