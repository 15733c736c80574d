"""MCDALNet: its modules against naive formulas, what it holds in memory, and its size."""

from __future__ import annotations

import itertools
import warnings

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from unet_plans import CONVS, small_arguments

from nnunetv2_eccam.architectures.compared.mcdal_net import (
    ChannelAttention,
    DualAttention,
    MCDALNet,
    MultiScaleContextualLearning,
    PooledPositionAttention,
)
from nnunetv2_eccam.architectures.unet_plan import UNetPlan
from nnunetv2_eccam.blocks.convolution import LayerOps

EXACT = {"rtol": 1e-10, "atol": 1e-10}
NORMS = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
WIDTHS = (4, 6, 8, 10)


def arguments(dimension=2, widths=WIDTHS):
    return small_arguments(dimension, NORMS[dimension], widths)


def network_of(dimension=2, channels=1, classes=3, **more):
    torch.manual_seed(0)
    return MCDALNet(UNetPlan.of(**arguments(dimension)), channels, classes, **more)


def ops_of(dimension):
    return LayerOps(CONVS[dimension])


def sample(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense(conv, vectors):
    """A 1x1 convolution as a matrix, over ``(..., channels)``."""
    return vectors @ conv.weight.flatten(1).T + conv.bias


def naive_means(features, edges):
    """Means over the windows from floor(i n / e) to ceil((i + 1) n / e), as ``(B, cells, C)``."""
    spans = [
        [(i * n // e, -(-(i + 1) * n // e)) for i in range(e)] for n, e in zip(features.shape[2:], edges, strict=True)
    ]
    cells = []
    for window in itertools.product(*spans):
        part = features[(..., *(slice(low, high) for low, high in window))]
        cells.append(part.flatten(2).mean(2))
    return torch.stack(cells, 1)


@pytest.mark.parametrize(
    ("size", "most", "edges"),
    [
        ((7, 5), 16, (4, 4)),
        ((9, 2), 17, (4, 2)),
        ((4, 3), 256, (4, 3)),  # smaller than the grid: every position, DA-Net's own form
        ((5, 4, 3), 27, (3, 3, 3)),
        ((5, 4, 3), 26, (2, 2, 2)),
    ],
)
@torch.no_grad()
def test_position_attention_is_a_softmax_over_the_grids_means(size, most, edges):
    attention = PooledPositionAttention(9, ops_of(len(size)), most).double()
    features = sample(2, 9, *size)
    positions, grid = features.flatten(2).transpose(1, 2), naive_means(features, edges)
    energies = torch.einsum("bnc,bmc->bnm", dense(attention.query, positions), dense(attention.key, grid))
    weights = energies.exp() / energies.exp().sum(2, keepdim=True)
    expected = torch.einsum("bnm,bmc->bcn", weights, dense(attention.value, grid)).reshape(features.shape)
    torch.testing.assert_close(attention(features), expected, **EXACT)


@pytest.mark.parametrize(("dimension", "edge"), [(2, 16), (3, 6)])
def test_the_grid_has_at_most_256_means(dimension, edge):
    assert PooledPositionAttention(8, ops_of(dimension)).edge == edge


def test_position_attention_runs_on_a_kernel_that_does_not_hold_the_map():
    attention = PooledPositionAttention(32, ops_of(2))
    features = torch.randn(1, 32, 40, 40, requires_grad=True)
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        warnings.simplefilter("error")  # says why a kernel is refused
        attention(features).sum().backward()
    assert torch.isfinite(features.grad).all()


@torch.no_grad()
def test_channel_attention_gathers_channels_by_their_mean_product():
    features = sample(2, 5, 3, 4)
    expected = torch.zeros_like(features)
    for b in range(2):
        for c in range(5):
            energies = torch.stack([(features[b, c] * features[b, d]).mean() for d in range(5)]).exp()
            for d in range(5):
                expected[b, c] += energies[d] / energies.sum() * features[b, d]
    torch.testing.assert_close(ChannelAttention()(features), expected, **EXACT)


def test_channel_attention_is_as_sharp_for_a_larger_image():
    features = sample(1, 6, 4, 4)
    attended = ChannelAttention()(features)
    tiled = ChannelAttention()(features.repeat(1, 1, 3, 2))
    torch.testing.assert_close(tiled, attended.repeat(1, 1, 3, 2), **EXACT)


@torch.no_grad()
def test_dual_attention_starts_as_the_identity_and_adds_both():
    attention = DualAttention(6, ops_of(2)).double()
    features = sample(2, 6, 5, 4)
    assert torch.equal(attention(features), features)
    attention.position_factor.fill_(2)
    attention.channel_factor.fill_(-3)
    expected = features + 2 * attention.position_attention(features) - 3 * attention.channel_attention(features)
    torch.testing.assert_close(attention(features), expected, **EXACT)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_dual_attention_of_large_half_precision_features_is_finite_and_keeps_the_type(dtype):
    attention = DualAttention(16, ops_of(2))
    attention.position_factor.fill_(1)
    attention.channel_factor.fill_(1)
    features = (1000 * torch.randn(1, 16, 8, 8)).to(dtype)  # their products pass 65504
    with torch.autocast("cpu", dtype):
        output = attention(features)
    assert output.dtype == dtype
    assert torch.isfinite(output).all()


@pytest.mark.parametrize("size", [(6, 5), (4, 3, 5)])
@torch.no_grad()
def test_mcl_weights_its_branches_per_channel(size):
    dimension = len(size)
    ops = LayerOps(CONVS[dimension], True, NORMS[dimension], {"affine": True}, nonlin=nn.ReLU)
    mcl = MultiScaleContextualLearning(7, ops, (1, 2, 3)).double()
    features = sample(2, 7, *size)
    scales = []
    for branch, rate in zip(mcl.branches, (1, 2, 3), strict=True):
        conv = CONVS[dimension](7, 7, 3, padding=rate, dilation=rate).double()
        conv.load_state_dict(branch.conv.state_dict())
        scales.append(branch.norm(conv(features)).clamp(min=0))
    means = sum(scales).flatten(2).mean(2)
    energies = dense(mcl.select, dense(mcl.describe, means).clamp(min=0))
    expected = torch.zeros_like(features)
    for b, c in itertools.product(range(2), range(7)):
        weights = torch.stack([energies[b, k * 7 + c] for k in range(3)]).exp()
        for k in range(3):
            expected[b, c] += weights[k] / weights.sum() * scales[k][b, c]
    torch.testing.assert_close(mcl(features), expected, **EXACT)


@torch.no_grad()
def test_mcl_adapts_its_receptive_field_to_the_input():
    torch.manual_seed(0)
    mcl = MultiScaleContextualLearning(8, ops_of(2))
    one, other = (
        mcl.branch_weights([branch(scale * torch.randn(1, 8, 6, 6)) for branch in mcl.branches]) for scale in (1, 9)
    )
    torch.testing.assert_close(one.sum(1), torch.ones(1, 8))
    assert (one - other).abs().max() > 0.01


@pytest.mark.parametrize("dilations", [(), (2,), (1, 0)])
def test_refuses_dilations_that_leave_no_choice(dilations):
    with pytest.raises(ValueError, match="two or more numbers"):
        MultiScaleContextualLearning(4, ops_of(2), dilations)


def test_refuses_an_empty_grid():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        PooledPositionAttention(4, ops_of(2), 0)


@pytest.mark.parametrize("dimension", [2, 3])
def test_size_is_the_u_nets_and_what_the_parts_add(dimension):
    """No count is known of the paper; the U-Net's comes from nnU-Net's own network."""
    u_net = PlainConvUNet(1, num_classes=3, **arguments(dimension))
    spare = sum(p.numel() for head in u_net.decoder.seg_layers[:-1] for p in head.parameters())
    added = 0
    for width in WIDTHS[:-1]:
        added += 3 * (width * width * 3**dimension + 3 * width)  # MCL's convolutions with bias and norm
        added += (width + 1) * 32 + 33 * 3 * width  # its descriptor, and the selection of three
        query = max(1, width // 8)
        added += 2 * (width + 1) * query + (width + 1) * width + 2  # the position attention, the two factors
    count = sum(p.numel() for p in network_of(dimension).parameters())
    assert count == sum(p.numel() for p in u_net.parameters()) - spare + added


@torch.no_grad()
def test_each_decoder_level_ends_with_dual_attention_and_each_skip_passes_mcl():
    network = network_of().eval()
    assert [type(level[-1]) for level in network.decoder.levels] == [DualAttention] * 3
    image = torch.randn(1, 1, 32, 32)
    maps = network.encoder(image)
    expected = network.decoder([*(mcl(m) for mcl, m in zip(network.skips, maps[:-1], strict=True)), maps[-1]])
    assert torch.equal(network(image), expected)
