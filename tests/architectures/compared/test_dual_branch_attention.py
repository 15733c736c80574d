"""The dual-branch multi-scale attention module against a naive formula, and the network's size."""

from __future__ import annotations

import itertools

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn
from unet_plans import CONVS, small_arguments

from nnunetv2_eccam.architectures.compared.dual_branch_attention import (
    DualBranchAttentionUNet,
    DualBranchMultiScaleAttention,
)
from nnunetv2_eccam.architectures.unet_plan import UNetPlan
from nnunetv2_eccam.blocks.convolution import LayerOps

EXACT = {"rtol": 1e-10, "atol": 1e-10}
NORMS = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
WIDTHS = (4, 6, 8, 10)


def arguments(dimension=2, widths=WIDTHS):
    return small_arguments(dimension, NORMS[dimension], widths)


def network_of(dimension=2, channels=1, classes=3, **more):
    torch.manual_seed(0)
    return DualBranchAttentionUNet(UNetPlan.of(**arguments(dimension)), channels, classes, **more)


def sample(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive_layer(image, layer):
    """Convolution tap by tap, batch norm by its running statistics, ReLU, in two dimensions."""
    weight, norm = layer.conv.weight, layer.norm
    output = layer.conv.bias.view(1, -1, 1, 1).repeat(image.shape[0], 1, *image.shape[2:])
    reach = weight.shape[2] // 2
    for y, x in itertools.product(*map(range, image.shape[2:])):
        for row, column in itertools.product(range(-reach, reach + 1), repeat=2):
            if 0 <= y + row < image.shape[2] and 0 <= x + column < image.shape[3]:
                tap = weight[:, :, row + reach, column + reach]
                output[:, :, y, x] += image[:, :, y + row, x + column] @ tap.T
    mean, variance, scale, shift = (
        tensor.view(1, -1, 1, 1) for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return ((output - mean) / (variance + norm.eps).sqrt() * scale + shift).clamp(min=0)


@torch.no_grad()
def test_module_adds_attended_features_and_three_growing_scales():
    ops = LayerOps(nn.Conv2d, True, nn.BatchNorm2d, nonlin=nn.ReLU)
    module = DualBranchMultiScaleAttention(8, ops).double()
    module(sample(4, 8, 5, 4))  # moves the running statistics
    module.eval()
    features = sample(2, 8, 5, 4, seed=2)
    first = naive_layer(features, module.scales[0])
    second = naive_layer(first, module.scales[1])
    third = naive_layer(second, module.scales[2])
    scales = naive_layer(torch.cat((first, second, third), 1), module.restore)

    squeeze, _, excite = module.attention.mlp
    hidden = [
        (pooled @ squeeze.weight.flatten(1).T + squeeze.bias).clamp(min=0)
        for pooled in (features.flatten(2).mean(2), features.flatten(2).amax(2))
    ]
    energies = sum(h @ excite.weight.flatten(1).T + excite.bias for h in hidden)
    weighted = features / (1 + torch.exp(-energies))[..., None, None]
    pooled = torch.stack((weighted.mean(1), weighted.amax(1)), 1)
    position_energies = torch.nn.functional.conv2d(pooled, module.attention.spatial.weight, padding=3)
    torch.testing.assert_close(module(features), scales + weighted / (1 + torch.exp(-position_energies)), **EXACT)


@pytest.mark.parametrize("dimension", [2, 3])
def test_the_three_scales_see_3_5_and_7_positions(dimension):
    module = DualBranchMultiScaleAttention(4, LayerOps(CONVS[dimension])).double()
    image = torch.zeros(1, 4, *[11] * dimension, dtype=torch.float64)
    image[(0, slice(None), *[5] * dimension)] = 1
    silence, features = torch.zeros_like(image), image
    for seen, scale in zip((3, 5, 7), module.scales, strict=True):
        features, silence = scale(features), scale(silence)
        reached = (features - silence).abs().sum((0, 1)) > 1e-12
        assert reached.sum() == seen**dimension


def test_branch_width_is_a_quarter_unless_given():
    ops = LayerOps(nn.Conv2d)
    widths = [
        [scale.output_channels for scale in module.scales]
        for module in (DualBranchMultiScaleAttention(12, ops), DualBranchMultiScaleAttention(12, ops, 5))
    ]
    assert widths == [[3, 3, 3], [5, 5, 5]]
    with pytest.raises(ValueError, match="at least 1, or None"):
        DualBranchMultiScaleAttention(12, ops, 0)


@torch.no_grad()
def test_without_the_module_it_is_nnu_nets_u_net():
    ours = network_of().double().eval()
    ours.bottleneck = nn.Identity()
    theirs = PlainConvUNet(1, num_classes=3, **arguments()).double().eval()
    theirs_parts = [theirs.encoder, theirs.decoder.transpconvs, theirs.decoder.stages, theirs.decoder.seg_layers[-1:]]
    targets = [v for part in theirs_parts for n, v in part.state_dict().items() if ".all_modules." not in n]
    for target, value in zip(targets, ours.state_dict().values(), strict=True):
        target.copy_(value)
    image = sample(1, 1, 32, 24)
    torch.testing.assert_close(ours(image), theirs(image), **EXACT)


@pytest.mark.parametrize("dimension", [2, 3])
def test_size_is_the_u_nets_and_what_the_module_adds(dimension):
    """No count is stated by the paper's abstract; the U-Net's comes from nnU-Net's own network."""
    u_net = PlainConvUNet(1, num_classes=3, **arguments(dimension))
    spare = sum(p.numel() for head in u_net.decoder.seg_layers[:-1] for p in head.parameters())
    deepest, taps = WIDTHS[-1], 3**dimension
    width = deepest // 4
    added = deepest * width * taps + 2 * width * width * taps + 3 * width * deepest  # the convolutions
    added += 3 * 3 * width + 3 * deepest  # their biases and norms
    added += 2 * deepest + 1 + deepest + 2 * 7**dimension  # CBAM, whose hidden layer has one unit here
    count = sum(p.numel() for p in network_of(dimension).parameters())
    assert count == sum(p.numel() for p in u_net.parameters()) - spare + added
