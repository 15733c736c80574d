"""Attention U-Net: the gate against eq. 1-2 written out, and what its authors' table counts."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from nnunetv2_eccam.architectures.compared.attention_unet import AttentionGate, AttentionUNet
from nnunetv2_eccam.architectures.eccam_unet import ECCaMUNet
from nnunetv2_eccam.architectures.unet_plan import UNetPlan
from nnunetv2_eccam.blocks.convolution import LayerOps

AUTHORS_WIDTHS = [16, 32, 64, 128, 256]


def make_plan(widths=(4, 6, 8), conv_op=nn.Conv2d, strides=None, norm_op=None, **more):
    strides = strides or [1] + [2] * (len(widths) - 1)
    return UNetPlan.of(
        len(widths), list(widths), conv_op, 3, strides, 2, 2, norm_op=norm_op, nonlin=nn.LeakyReLU, **more
    )


def parameters_of(network):
    return sum(p.numel() for p in network.parameters())


def linear_interpolation(n, factor):
    """The matrix (n * factor, n) of linear interpolation between positions' centres, constant beyond the ends."""
    matrix = torch.zeros(n * factor, n, dtype=torch.float64)
    for row in range(n * factor):
        centre = min(max((row + 0.5) / factor - 0.5, 0.0), n - 1.0)
        below = min(int(centre), n - 1)
        above = min(below + 1, n - 1)
        matrix[row, below] += 1 - (centre - below)
        matrix[row, above] += centre - below
    return matrix


@pytest.mark.parametrize(
    ("conv_op", "stride", "grid"),
    [(nn.Conv2d, (2, 3), (3, 4)), (nn.Conv2d, (1, 4), (2, 2)), (nn.Conv3d, (1, 2, 2), (2, 3, 2))],
)
def test_the_gate_is_equations_1_and_2(conv_op, stride, grid):
    axes = len(stride)
    gate = AttentionGate(3, 5, stride, LayerOps(conv_op)).double()
    skip = torch.randn(2, 3, *(n * s for n, s in zip(grid, stride, strict=True)), dtype=torch.float64)
    gating = torch.randn(2, 5, *grid, dtype=torch.float64)

    blocks = skip  # (B, C, *grid, *stride): the positions of x at each position of g
    for axis, step in enumerate(stride):
        blocks = blocks.unfold(2 + axis, step, step)
    blocks = blocks.flatten(-axes)
    w_x = gate.skip_transform.weight.flatten(2)
    w_g, b_g = gate.gating_transform.weight.flatten(1), gate.gating_transform.bias
    psi, b_psi = gate.score.weight.flatten(), gate.score.bias
    inner = torch.einsum("oik,bi...k->b...o", w_x, blocks) + torch.einsum("oi,bi...->b...o", w_g, gating) + b_g
    alpha = 1 / (1 + torch.exp(-(inner.clamp(min=0) @ psi + b_psi)))
    for axis, step in enumerate(stride):
        matrix = linear_interpolation(grid[axis], step)
        alpha = torch.tensordot(alpha, matrix, dims=([1 + axis], [1])).movedim(-1, 1 + axis)

    torch.testing.assert_close(gate.attention_coefficients(skip, gating), alpha.unsqueeze(1))
    torch.testing.assert_close(gate(skip, gating), alpha.unsqueeze(1) * skip)


def test_with_coefficients_of_one_it_is_the_plain_unet():
    # Normalised, as any plan is: the maps of a small network that is not are nearly constant.
    network = AttentionUNet(make_plan((4, 6, 8, 10), norm_op=nn.InstanceNorm2d), 2, 3).double()
    switches = dict.fromkeys(
        ("enhanced_convolution", "channel_correlation", "spatial_correlation", "multi_scale", "side_outputs"), False
    )
    plain = ECCaMUNet(
        2, 4, [4, 6, 8, 10], nn.Conv2d, 3, [1, 2, 2, 2], 2, 3, 2, norm_op=nn.InstanceNorm2d, nonlin=nn.LeakyReLU,
        **switches,
    ).double()  # fmt: skip
    missing, unexpected = network.load_state_dict(plain.state_dict(), strict=False)
    assert unexpected == []
    assert all(".gates." in name for name in missing)
    image = torch.randn(2, 2, 16, 24, dtype=torch.float64)
    assert not torch.allclose(network(image), plain(image))
    for gate in network.decoder.gates:
        nn.init.constant_(gate.score.bias, 1e4)
    torch.testing.assert_close(network(image), plain(image))


def test_every_skip_but_the_first_is_gated_by_the_level_below():
    gates = AttentionUNet(make_plan((4, 6, 8, 10)), 1, 2).decoder.gates
    assert [(g.skip_transform.in_channels, g.gating_transform.in_channels) for g in gates] == [(8, 10), (6, 8)]


@pytest.mark.parametrize(("conv_op", "size"), [(nn.Conv2d, (16, 24)), (nn.Conv3d, (8, 8, 16))])
def test_the_coefficients_can_be_read_during_a_forward_pass(conv_op, size):
    network = AttentionUNet(make_plan((4, 6, 8, 10), conv_op), 1, 2)
    coefficients = []
    for gate in network.decoder.gates:
        gate.register_forward_pre_hook(lambda gate, inputs: coefficients.append(gate.attention_coefficients(*inputs)))
    network(torch.randn(2, 1, *size))
    assert [c.shape for c in coefficients] == [(2, 1, *(n // step for n in size)) for step in (4, 2)]
    assert all(c.min() > 0 and c.max() < 1 for c in coefficients)


def authors_unet_parameters(n_classes):
    """Of ``unet_CT_dsv_3D`` in the authors' code, one input channel: trilinear decoder, multi-scale logits."""
    total, channels = 0, 1
    for width in AUTHORS_WIDTHS:  # convolutions with bias, and batch norm
        total += 27 * (channels * width + width * width) + 6 * width
        channels = width
    for skip, below in itertools.pairwise(AUTHORS_WIDTHS):
        total += 27 * ((skip + below) * skip + skip * skip) + 6 * skip
        total += (skip + 1) * n_classes
    return total + (4 * n_classes + 1) * n_classes


def test_the_gates_account_for_the_parameters_of_the_authors_table():
    # Source: 5.88 million for the U-Net and 6.40 for the Attention U-Net in the paper's table on CT-150 (both
    # cut, not rounded), at widths 16 to 256 and four output maps (the authors' configs/config_unet_ct_*.json).
    # The difference is two of our gates per skip and the extras that we leave out: after each gate a 1x1
    # convolution with batch norm, and a 1x1 convolution with batch norm from both gates to one map. The 1x1
    # convolution of the gating signal, which the public code has too, would make it 6.47.
    unet = authors_unet_parameters(4)
    assert unet // 10_000 == 588
    gates = AttentionUNet(make_plan(AUTHORS_WIDTHS, nn.Conv3d), 1, 4).decoder.gates
    extras = sum(2 * (c * c + 3 * c) + 2 * c * c + 3 * c for c in AUTHORS_WIDTHS[1:-1])
    assert (unet + 2 * parameters_of(gates) + extras) // 10_000 == 640


def test_refuses_a_plan_whose_only_skip_is_the_first():
    with pytest.raises(ValueError, match=r"three stages or more, the plan has 2"):
        AttentionUNet(make_plan((4, 6)), 1, 2)
