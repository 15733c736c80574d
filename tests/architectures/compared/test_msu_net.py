"""MSU-Net's block against a naive formula, its size against the authors' code, and what it takes from the plan."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from nnunetv2_eccam.architectures.compared.msu_net import MSUNet, MultiScaleSequences
from nnunetv2_eccam.architectures.unet_plan import UNetPlan
from nnunetv2_eccam.blocks.convolution import LayerOps

EXACT = {"rtol": 1e-10, "atol": 1e-10}
BATCH_NORM = LayerOps(nn.Conv2d, True, nn.BatchNorm2d, nonlin=nn.ReLU)


def sample(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plan_of(
    widths=(3, 4, 5), conv_op=nn.Conv2d, kernels=3, strides=None, norm_op=nn.BatchNorm2d, downsampling="stride", convs=2
):
    strides = [1] + [2] * (len(widths) - 1) if strides is None else strides
    return UNetPlan.of(
        len(widths),
        list(widths),
        conv_op,
        kernels,
        strides,
        convs,
        convs,
        norm_op=norm_op,
        nonlin=nn.ReLU,
        downsampling=downsampling,
    )


def naive_layer(image, layer, stride):
    """Convolution tap by tap, batch norm by its running statistics, ReLU."""
    weight, norm = layer.conv.weight, layer.norm
    size = [(n - 1) // step + 1 for n, step in zip(image.shape[2:], stride, strict=True)]
    output = layer.conv.bias.view(1, -1, 1, 1).repeat(image.shape[0], 1, *size)
    for y, x in itertools.product(*map(range, size)):
        for row, column in itertools.product(*map(range, weight.shape[2:])):
            source_y = y * stride[0] + row - weight.shape[2] // 2
            source_x = x * stride[1] + column - weight.shape[3] // 2
            if 0 <= source_y < image.shape[2] and 0 <= source_x < image.shape[3]:
                output[:, :, y, x] += image[:, :, source_y, source_x] @ weight[:, :, row, column].T
    mean, variance, scale, shift = (
        tensor.view(1, -1, 1, 1) for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return ((output - mean) / (variance + norm.eps).sqrt() * scale + shift).clamp(min=0)


@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 2)])
@torch.no_grad()
def test_block_fuses_a_3x3_and_a_7x7_sequence(stride):
    torch.manual_seed(0)
    block = MultiScaleSequences(2, 3, [[3, 3], [7, 7]], 2, stride, BATCH_NORM).double().eval()
    for name, tensor in block.state_dict().items():
        if "norm" in name and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    nn.init.constant_(block.fuse.bias, -1.0)  # negative results: no nonlinearity follows the fusion
    x = sample(2, 2, 8, 6)
    maps = [naive_layer(naive_layer(x, first, stride), second, (1, 1)) for first, second in block.sequences]
    weight, bias = block.fuse.weight[:, :, 0, 0], block.fuse.bias
    expected = torch.einsum("oc,bcyx->boyx", weight, torch.cat(maps, 1)) + bias.view(1, -1, 1, 1)
    assert (expected < 0).any()
    torch.testing.assert_close(block(x), expected, **EXACT)


def test_has_the_authors_number_of_parameters():
    """The authors' code (github.com/CN-zdy/MSU_Net, 1 channel, 1 class) has 47,084,545; layer by layer it is:"""
    widths = [32, 64, 128, 256, 512]

    def conv(channels, width, kernel):
        return channels * width * kernel * kernel + width

    def block(channels, width):
        sequences = sum(conv(channels, width, k) + conv(width, width, k) + 2 * 2 * width for k in (3, 7))
        return sequences + conv(2 * width, width, 1)

    encoder = sum(itertools.starmap(block, zip([1, *widths[:-1]], widths, strict=True)))
    decoder = sum(conv(2 * width, width, 2) + block(2 * width, width) for width in widths[:-1])
    expected = encoder + decoder + conv(32, 1, 1)
    assert expected == 47_084_545
    with torch.device("meta"):
        network = MSUNet(plan_of(widths, downsampling="max_pool"), 1, 1)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_takes_kernels_of_1_and_uneven_strides_from_the_plan():
    plan = plan_of((3, 4, 5), kernels=[[1, 3], [3, 3], [3, 3]], strides=[[1, 1], [1, 2], [2, 2]], convs=3)
    network = MSUNet(plan, 1, 2)
    kernels = [sequence[0].conv.kernel_size for sequence in network.stages[0].sequences]
    assert kernels == [(1, 3), (1, 7)]
    assert [len(sequence) for sequence in network.levels[0].sequences] == [3, 3]
    assert network.divisors == [2, 4]
    assert network(torch.zeros(2, 1, 9, 7)).shape == (2, 2, 9, 7)


def test_sees_three_times_as_far_as_a_3x3_network():
    """Each layer reaches 3 positions instead of 1, so that a stage of two layers reaches 6 instead of 2."""

    def reach(kernels):
        network = MSUNet(plan_of((2, 2), strides=[1, 1], norm_op=None), 1, 1, kernels).double()
        for parameter in network.parameters():
            nn.init.constant_(parameter, 1.0)
        x = torch.ones(1, 1, 51, 51, dtype=torch.float64, requires_grad=True)
        network(x)[0, 0, 25, 25].backward()
        assert x.grad is not None
        return 25 - x.grad[0, 0].any(0).nonzero().min().item()

    assert (reach([3]), reach([3, 7])) == (6, 18)


@pytest.mark.parametrize("kernels", [[], [4], [3, 0]])
def test_refuses_kernels_that_are_not_odd(kernels):
    with pytest.raises(ValueError, match="odd numbers"):
        MSUNet(plan_of(), 1, 2, kernels)
