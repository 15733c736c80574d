"""Three dimensions as nnU-Net plans them: thick slices, kernels and strides of 1, a flat bottleneck."""

from __future__ import annotations

import pytest
import torch
from unet_plans import plan

from nnunetv2_eccam.architectures.from_plans import bottleneck_size, build_network, network_arguments

ANISOTROPIC = {
    # patch, strides, kernels
    "thick slices, two stages without them": (
        [8, 64, 64],
        [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2]],
        [[1, 3, 3], [1, 3, 3], [3, 3, 3], [3, 3, 3]],
    ),
    "a bottleneck of 4x8x8": (
        [8, 64, 64],
        [[1, 1, 1], [1, 2, 2], [2, 2, 2], [1, 2, 2]],
        [[1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
    ),
    "never mixed along the slices": (
        [3, 32, 32],
        [[1, 1, 1], [1, 2, 2], [1, 2, 2]],
        [[1, 3, 3], [1, 3, 3], [1, 3, 3]],
    ),
    "one slice at the bottleneck": (
        [4, 32, 48],
        [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
        [[3, 3, 3], [3, 3, 3], [3, 3, 3]],
    ),
    "coarse along the last axis": (
        [32, 32, 4],
        [[1, 1, 1], [2, 2, 1], [2, 2, 1]],
        [[3, 3, 1], [3, 3, 1], [3, 3, 3]],
    ),
}


def built(name: str, deep_supervision: bool = True, norm_op: str | None = None):
    patch, strides, kernels = ANISOTROPIC[name]
    switches = {} if norm_op is None else {"norm_op": norm_op, "norm_per_branch": True, "downsampling": "max_pool"}
    architecture = plan(len(strides), 3, strides=strides, kernel_sizes=kernels)
    return build_network(architecture, patch, 1, 3, deep_supervision, switches), patch


@pytest.mark.parametrize("norm_op", [None, "torch.nn.BatchNorm3d"], ids=["instance norm", "batch norm per branch"])
@pytest.mark.parametrize("name", ANISOTROPIC)
def test_an_anisotropic_plan_trains_every_parameter_and_gives_targets_sizes(name, norm_op):
    torch.manual_seed(0)
    network, patch = built(name, norm_op=norm_op)
    outputs = network.train()(torch.randn(2, 1, *patch))
    assert outputs[0].shape == (2, 3, *patch)
    strides = ANISOTROPIC[name][1]
    sizes = [bottleneck_size(patch, strides[: stage + 1]) for stage in range(len(strides) - 1)]
    assert [list(output.shape[2:]) for output in outputs] == sizes
    sum(output.square().mean() for output in outputs).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_the_plan_gives_them_in_jsons_types_and_the_network_takes_them():
    patch, strides, kernels = ANISOTROPIC["a bottleneck of 4x8x8"]
    assert bottleneck_size(patch, strides) == [4, 8, 8]
    arguments = network_arguments(plan(4, 3, strides=strides, kernel_sizes=kernels), patch)
    assert arguments["dilations"] == [[1, 2, 2], [2, 3, 3], [3, 4, 4]]
    network, _ = built("a bottleneck of 4x8x8")
    assert [branch.rates for branch in network.bottleneck.multi_scale.dilated] == [(1, 2, 2), (2, 3, 3), (3, 4, 4)]
