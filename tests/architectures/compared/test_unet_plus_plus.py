"""U-Net++: eq. 1 written out, and the parameters that its authors' code states."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nnunetv2_eccam.architectures.compared.unet_plus_plus import UNetPlusPlus
from nnunetv2_eccam.architectures.unet_plan import UNetPlan

NORMS = {
    None: (None, None),
    "batch": (nn.BatchNorm2d, nn.BatchNorm3d),
    "instance": (nn.InstanceNorm2d, nn.InstanceNorm3d),
}


def make_plan(widths=(4, 6, 8), conv_op=nn.Conv2d, strides=None, norm=None, kernel_sizes=3, n_convs=2, **more):
    return UNetPlan.of(
        len(widths),
        list(widths),
        conv_op,
        kernel_sizes,
        strides or [1] + [2] * (len(widths) - 1),
        n_convs,
        n_convs,
        norm_op=NORMS[norm][conv_op is nn.Conv3d],
        norm_op_kwargs={"affine": True} if norm else None,
        nonlin=nn.LeakyReLU,
        **more,
    )


def parameters_of(network):
    return sum(p.numel() for p in network.parameters())


def test_the_authors_setting_has_exactly_their_number_of_parameters():
    # Source: "Total params: 9,041,601" in keras/helper_functions.py of the authors' code, for one channel and
    # one class, without deep supervision; 9.04 million in the DLMIA paper's table. No norm, a bias everywhere,
    # two 3x3 convolutions per node, transposed 2x2 convolutions to the row's width, max pooling.
    plan = make_plan([32, 64, 128, 256, 512], downsampling="max_pool")
    assert parameters_of(UNetPlusPlus(plan, 1, 1)) == 9_041_601


@pytest.mark.parametrize("widths", [(5, 7), (4, 6, 8), (3, 5, 4, 6), (3, 3, 4, 4, 5, 5)])
def test_number_of_parameters_for_any_number_of_stages(widths):
    expected = sum(9 * (a * b + b * b) + 2 * b for a, b in zip((2, *widths[:-1]), widths, strict=True))
    for i, width in enumerate(widths[:-1]):
        for j in range(1, len(widths) - i):
            expected += 4 * widths[i + 1] * width + width  # U
            expected += 9 * ((j + 1) * width * width + width * width) + 2 * width  # H
    expected += 3 * widths[0] + 3
    assert parameters_of(UNetPlusPlus(make_plan(widths), 2, 3)) == expected


def convolve(layers, features, stride=1):
    for position, layer in enumerate(layers):
        step = stride if position == 0 else 1
        features = F.leaky_relu(F.conv2d(features, layer.conv.weight, layer.conv.bias, stride=step, padding=1), 0.01)
    return features


def test_it_is_equation_1():
    network = UNetPlusPlus(make_plan((4, 6, 8, 5)), 2, 3).double()
    nodes = dict(zip(network.places, network.nodes, strict=True))

    def x(i, j):
        if j == 0:
            return convolve(network.encoder.stages[i], x(i - 1, 0) if i else image, stride=2 if i else 1)
        node = nodes[i, j]
        above = F.conv_transpose2d(x(i + 1, j - 1), node.upsampling.weight, node.upsampling.bias, stride=2)
        return convolve(node.convs, torch.cat([*(x(i, k) for k in range(j)), above], 1))

    image = torch.randn(2, 2, 16, 24, dtype=torch.float64)
    head = network.head.seg_layers
    torch.testing.assert_close(network(image), F.conv2d(x(0, 3), head.weight, head.bias))


@pytest.mark.parametrize("n_stages", [2, 3, 4, 6])
def test_every_node_counts_for_any_number_of_stages(n_stages):
    network = UNetPlusPlus(make_plan([4] * n_stages), 1, 2)  # without a norm, which would cancel the biases
    assert len(network.nodes) == n_stages * (n_stages - 1) // 2
    network(torch.randn(1, 1, 64, 64)).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_refuses_a_plan_of_one_stage():
    with pytest.raises(ValueError, match=r"two stages or more, the plan has 1"):
        UNetPlusPlus(make_plan((4,)), 1, 2)
