"""Architectures as nnU-Net's plans state them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import nn

MODULE_OFF = {"channel_correlation": False, "spatial_correlation": False, "multi_scale": False}
PARTS_OFF = {"enhanced_convolution": False, **MODULE_OFF}
"""Switches with which EC-CaM-UNet is nnU-Net's own network."""

CONVS = {2: nn.Conv2d, 3: nn.Conv3d}


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


def plan(n_stages: int, dimension: int = 2, **more) -> dict:
    axes = [2] * dimension
    name = "PlainConvUNet"
    convs = {"n_conv_per_stage": [2] * n_stages, "n_conv_per_stage_decoder": list(range(1, n_stages))}
    if more.pop("residual", False):
        name = "ResidualEncoderUNet"
        convs = {
            "n_blocks_per_stage": [1, 3, 4, 6, 6, 6, 6, 6][:n_stages],
            "n_conv_per_stage_decoder": [1] * (n_stages - 1),
        }
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
        "arch_kwargs": {
            "n_stages": n_stages,
            "features_per_stage": [min(2 * 2**i, 20) for i in range(n_stages)],
            "conv_op": f"torch.nn.modules.conv.Conv{dimension}d",
            "kernel_sizes": [[3] * dimension] * n_stages,
            "strides": [[1] * dimension] + [axes] * (n_stages - 1),
            **convs,
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimension}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
            **more,
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


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
