"""Architectures as nnU-Net's plans state them."""

import re
from collections.abc import Sequence

import torch
from torch import nn

from benchmarks.model_folder import unet_architecture

MODULE_OFF = {"channel_correlation": False, "spatial_correlation": False, "multi_scale": False}
PARTS_OFF = {"enhanced_convolution": False, **MODULE_OFF}
"""Switches with which EC-CaM-UNet is nnU-Net's own network."""

CONVS = {2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORMS = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE_NORMS = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


def small_arguments(dimension: int, norm_op: type[nn.Module], widths: Sequence[int]) -> dict:
    """What this package's plan and nnU-Net's own U-Net both take."""
    return {
        "n_stages": len(widths),
        "features_per_stage": list(widths),
        "conv_op": CONVS[dimension],
        "kernel_sizes": 3,
        "strides": [1] + [2] * (len(widths) - 1),
        "n_conv_per_stage": 2,
        "n_conv_per_stage_decoder": 2,
        "conv_bias": True,
        "norm_op": norm_op,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
    }


def plan(n_stages: int, dimension: int = 2, residual: bool = False, **more) -> dict:
    """As nnU-Net states it, with few features and another number of convolutions at each level of a plain decoder."""
    strides = [[1] * dimension] + [[2] * dimension] * (n_stages - 1)
    made = unet_architecture([min(2 * 2**i, 20) for i in range(n_stages)], strides, residual)
    if not residual:
        made["arch_kwargs"]["n_conv_per_stage_decoder"] = list(range(1, n_stages))
    made["arch_kwargs"].update(more)
    return made


def renamed_weights(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of nnU-Net's networks under the names of this one."""
    names = (
        (r"decoder\.transpconvs\.", "decoder.upsamplings."),
        (r"decoder\.stages\.(\d+)\.convs\.", r"decoder.levels.\1."),
        (r"encoder\.stages\.(\d+)\.0\.convs\.", r"encoder.stages.\1."),
    )
    outcome = {}
    for name, value in weights.items():
        for theirs, own in names:
            name = re.sub(f"^{theirs}", own, name)
        outcome[name] = value
    return outcome
