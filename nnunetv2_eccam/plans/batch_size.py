"""The batch that fits a GPU, estimated as nnU-Net's planner estimates it.

Source: nnU-Net's ``default_experiment_planner.py`` (2.8): the memory of a training step is taken to grow
with the values that the convolutions write; the constants say how many a batch of 12 (2D) or 2 (3D) may
write on 8 GB; and a batch holds at most 5% of the data set's voxels, and at least 2 samples.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

REFERENCE_VALUES = {2: 85_000_000, 3: 560_000_000}
REFERENCE_BATCH = {2: 12, 3: 2}
REFERENCE_GB = 8.0
LARGEST_SHARE_OF_DATASET = 0.05
SMALLEST_BATCH = 2


def estimate_batch_size(
    feature_map_size: int, patch_size: Sequence[int], dataset_voxels: float, gpu_memory_gb: float
) -> int:
    """Estimate the batch.

    Args:
        feature_map_size: values that the network's convolutions write for one sample
            (``compute_conv_feature_map_size``).
        patch_size: voxels per axis.
        dataset_voxels: voxels of the training cases together, after resampling.
        gpu_memory_gb: the GPU memory to plan for, in GB; nnU-Net's ``-gpu_memory_target``.
    """
    dimension = len(patch_size)
    reference = REFERENCE_VALUES[dimension] * gpu_memory_gb / REFERENCE_GB
    fits = round(reference / feature_map_size * REFERENCE_BATCH[dimension])
    share = round(dataset_voxels * LARGEST_SHARE_OF_DATASET / math.prod(patch_size))
    return max(min(fits, share), SMALLEST_BATCH)


def dataset_voxels(plans: Mapping[str, Any], configuration: Mapping[str, Any], n_training_cases: int) -> float:
    """Approximate the voxels of the training cases together, from the medians in the plans."""
    median = list(configuration["median_image_size_in_voxels"])
    if len(median) == 2:  # the slices, which a 2D configuration does not resample
        median.insert(0, plans["original_median_shape_after_transp"][0])
    return float(math.prod(median)) * n_training_cases
