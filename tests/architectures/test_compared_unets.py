"""The compared networks of the U-Net family: each one's own part against a formula written out, and the rest of it
against the plain U-Net. What all networks have to do is in ``tests/systems``."""

import itertools
import warnings

import pytest
import torch
import torch.nn.functional as F
from naive_formulas import EXACT, dense, linear_enlargement, naive_convolution, naive_layer, randomised, sample
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from unet_plans import CONVS, INSTANCE_NORMS, PARTS_OFF, small_arguments

from nnunetv2_eccam.architectures.compared import mcdal_net
from nnunetv2_eccam.architectures.compared.attention_unet import AttentionGate, AttentionUNet
from nnunetv2_eccam.architectures.compared.dual_branch_attention import (
    DualBranchAttentionUNet,
    DualBranchMultiScaleAttention,
)
from nnunetv2_eccam.architectures.compared.msf_acsa import MSFACSA, AdditiveChannelSpatialAttention
from nnunetv2_eccam.architectures.compared.msu_net import MSUNet, MultiScaleSequences
from nnunetv2_eccam.architectures.compared.unet_plus_plus import UNetPlusPlus
from nnunetv2_eccam.architectures.eccam_unet import ECCaMUNet
from nnunetv2_eccam.architectures.unet_plan import UNetPlan
from nnunetv2_eccam.blocks.convolution import LayerOps

BATCH_NORM = LayerOps(nn.Conv2d, True, nn.BatchNorm2d, nonlin=nn.ReLU)
BARE = {dimension: LayerOps(conv) for dimension, conv in CONVS.items()}
WIDTHS = (4, 6, 8, 10)


def arguments(dimension=2, widths=WIDTHS, **more):
    return {**small_arguments(dimension, INSTANCE_NORMS[dimension], widths), **more}


def network_of(cls, dimension=2, channels=1, classes=3, **more):
    torch.manual_seed(0)
    return cls(UNetPlan(**arguments(dimension, **more)), channels, classes)


def switched_off(network: nn.Module) -> None:
    """Make each network's own part pass its input on."""
    with torch.no_grad():
        if isinstance(network, AttentionUNet):
            for gate in network.decoder.gates:
                gate.score.bias.fill_(1e4)
        elif isinstance(network, DualBranchAttentionUNet):
            network.bottleneck = nn.Identity()
        elif isinstance(network, mcdal_net.MCDALNet):
            network.skips = nn.ModuleList(nn.Identity() for _ in network.skips)  # dual attention begins as nothing
        else:
            for attention in network.decoder.attentions:
                for energy in (attention.position_energy, attention.channel_energy):
                    energy.energy.weight.zero_()
                    energy.energy.bias.fill_(100)


@pytest.mark.parametrize("cls", [AttentionUNet, DualBranchAttentionUNet, mcdal_net.MCDALNet, MSFACSA])
def test_without_its_own_part_it_is_the_plain_unet(cls):
    """Of MSF-ACSA the outputs below the first, which is fused."""
    network, several = network_of(cls).double(), cls is MSFACSA
    plain = ECCaMUNet(1, 3, several, side_outputs=several, **PARTS_OFF, **arguments()).double()
    image = sample(2, 1, 32, 24)
    missing, unexpected = network.load_state_dict(plain.state_dict(), strict=False)
    assert unexpected == []
    assert missing
    if several:
        network.decoder.deep_supervision = True
    switched_off(network)
    outputs, expected = network(image), plain(image)
    for output, right in zip(outputs[1:], expected[1:], strict=True) if several else [(outputs, expected)]:
        torch.testing.assert_close(output, right, **EXACT)


# --- Attention U-Net ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("stride", "grid"), [((2, 3), (3, 4)), ((1, 4), (2, 2)), ((1, 2, 2), (2, 3, 2))])
def test_attention_unets_gate_is_equations_1_and_2(stride, grid):
    axes = len(stride)
    gate = AttentionGate(3, 5, stride, BARE[axes]).double()
    size = [n * s for n, s in zip(grid, stride, strict=True)]
    skip, gating = sample(2, 3, *size), sample(2, 5, *grid)
    blocks = skip  # (B, C, *grid, *stride): the positions of x at each position of g
    for axis, step in enumerate(stride):
        blocks = blocks.unfold(2 + axis, step, step)
    w_x = gate.skip_transform.weight.flatten(2)
    inner = torch.einsum("oik,bi...k->b...o", w_x, blocks.flatten(-axes))
    inner = inner + dense(gate.gating_transform, gating.movedim(1, -1))
    alpha = linear_enlargement(dense(gate.score, inner.clamp(min=0)).sigmoid().movedim(-1, 1), size)
    torch.testing.assert_close(gate.attention_coefficients(skip, gating), alpha)
    torch.testing.assert_close(gate(skip, gating), alpha * skip)


def test_attention_unet_gates_every_skip_but_the_first_and_the_coefficients_can_be_read():
    network, coefficients = network_of(AttentionUNet), []
    for gate in network.decoder.gates:
        gate.register_forward_pre_hook(lambda gate, inputs: coefficients.append(gate.attention_coefficients(*inputs)))
    network(torch.randn(2, 1, 16, 24))
    assert [c.shape for c in coefficients] == [(2, 1, 4, 6), (2, 1, 8, 12)]
    with pytest.raises(ValueError, match=r"three stages or more, the plan has 2"):
        network_of(AttentionUNet, widths=(4, 6))


# --- dual-branch attention ----------------------------------------------------------------------------


@torch.no_grad()
def test_dual_branch_module_adds_attended_features_and_three_growing_scales():
    module = randomised(DualBranchMultiScaleAttention(8, BATCH_NORM)).eval()
    features = sample(2, 8, 5, 4, seed=2)
    scales = [features]
    for layer in module.scales:
        scales.append(naive_layer(layer, scales[-1]))
    assert scales[1].shape[1] == 2
    squeeze, _, excite = module.attention.mlp
    pooled = (features.flatten(2).mean(2), features.flatten(2).amax(2))
    energies = sum(dense(excite, dense(squeeze, part).clamp(min=0)) for part in pooled)
    weighted = features * energies.sigmoid()[..., None, None]
    positions = torch.stack((weighted.mean(1), weighted.amax(1)), 1)
    attended = weighted * naive_convolution(positions, module.attention.spatial.weight, None).sigmoid()
    expected = attended + naive_layer(module.restore, torch.cat(scales[1:], 1))
    torch.testing.assert_close(module(features), expected, **EXACT)


# --- MCDALNet -----------------------------------------------------------------------------------------


def naive_means(features, edges):
    """Means over the windows from floor(i n / e) to ceil((i + 1) n / e), as ``(B, cells, C)``."""
    spans = [
        [(i * n // e, -(-(i + 1) * n // e)) for i in range(e)] for n, e in zip(features.shape[2:], edges, strict=True)
    ]
    parts = (features[(..., *(slice(*span) for span in window))] for window in itertools.product(*spans))
    return torch.stack([part.flatten(2).mean(2) for part in parts], 1)


@pytest.mark.parametrize(
    ("size", "most", "edges"),
    [
        ((7, 5), 16, (4, 4)),
        ((4, 3), 256, (4, 3)),  # smaller than the grid: every position, DA-Net's own form
        ((5, 4, 3), 26, (2, 2, 2)),
    ],
)
@torch.no_grad()
def test_mcdal_position_attention_is_a_softmax_over_the_grids_means(size, most, edges):
    attention = mcdal_net.PooledPositionAttention(9, BARE[len(size)], most).double()
    features = sample(2, 9, *size)
    positions, grid = features.flatten(2).transpose(1, 2), naive_means(features, edges)
    weights = torch.einsum("bnc,bmc->bnm", dense(attention.query, positions), dense(attention.key, grid)).softmax(2)
    expected = torch.einsum("bnm,bmc->bcn", weights, dense(attention.value, grid)).reshape(features.shape)
    torch.testing.assert_close(attention(features), expected, **EXACT)


def test_mcdal_position_attention_runs_on_a_kernel_that_does_not_hold_the_map():
    features = torch.randn(1, 32, 40, 40, requires_grad=True)
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        warnings.simplefilter("error")  # says why a kernel is refused
        mcdal_net.PooledPositionAttention(32, BARE[2])(features).sum().backward()
    assert torch.isfinite(features.grad).all()


@torch.no_grad()
def test_mcdal_dual_attention_adds_both_attentions_by_factors_that_begin_at_zero():
    attention, features = mcdal_net.DualAttention(6, BARE[2]).double(), sample(2, 6, 5, 4)
    assert torch.equal(attention(features), features)
    attention.position_factor.fill_(2)
    attention.channel_factor.fill_(-3)
    channels = features.flatten(2)
    energies = torch.einsum("bcn,bdn->bcd", channels, channels) / 20  # the mean over the positions
    by_channel = torch.einsum("bcd,bdn->bcn", energies.softmax(2), channels).reshape(features.shape)
    expected = features + 2 * attention.position_attention(features) - 3 * by_channel
    torch.testing.assert_close(attention(features), expected, **EXACT)


@pytest.mark.parametrize("size", [(6, 5), (4, 3, 5)])
@torch.no_grad()
def test_mcdal_mcl_weights_its_branches_per_channel(size):
    ops = LayerOps(CONVS[len(size)], True, INSTANCE_NORMS[len(size)], {"affine": True}, nonlin=nn.ReLU)
    mcl = mcdal_net.MultiScaleContextualLearning(7, ops).double()
    features = sample(2, 7, *size)
    convolved = [naive_convolution(features, b.conv.weight, b.conv.bias, 1, b.dilation) for b in mcl.branches]
    scales = [branch.norm(part).clamp(min=0) for branch, part in zip(mcl.branches, convolved, strict=True)]
    energies = dense(mcl.select, dense(mcl.describe, sum(scales).flatten(2).mean(2)).clamp(min=0))
    weights = energies.reshape(2, 3, 7).softmax(1)
    expected = torch.einsum("bkc,kbc...->bc...", weights, torch.stack(scales))
    torch.testing.assert_close(mcl(features), expected, **EXACT)


# --- MSF-ACSA -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(3, 5), (2, 3, 4)])
@torch.no_grad()
def test_msf_acsa_weights_positions_and_channels_by_additive_energies(size):
    attention = AdditiveChannelSpatialAttention(7, BARE[len(size)]).double()
    skip, gate = sample(2, 7, *size), sample(2, 7, *size, seed=2)

    def energy(of, x, g):
        """Attention U-Net's eq. 1, over ``(..., channels)``."""
        return dense(of.energy, (x @ of.of_skip.weight.flatten(1).T + dense(of.of_gate, g)).clamp(min=0))

    positions = energy(attention.position_energy, skip.movedim(1, -1), gate.movedim(1, -1)).sigmoid().movedim(-1, 1)
    channels = energy(attention.channel_energy, skip.flatten(2).mean(2), gate.flatten(2).mean(2)).sigmoid()
    expected = channels.view(2, 7, *[1] * len(size)) * positions * skip
    torch.testing.assert_close(attention(skip, gate), expected, **EXACT)


@torch.no_grad()
def test_msf_acsa_predicts_a_pointwise_combination_of_all_levels_logits():
    network = network_of(MSFACSA, classes=2).double().eval()
    decoder = network.decoder
    logits = [sample(1, 2, n, n + 1, seed=n) for n in (2, 4, 8)]
    every = torch.cat([linear_enlargement(level, [8, 9]) for level in logits], 1)
    expected = dense(decoder.fusion.seg_layers, every.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(decoder.fuse(logits), expected, **EXACT)
    image = sample(1, 1, 32, 24)
    decoder.deep_supervision = True
    outputs = network(image)
    decoder.deep_supervision = False
    assert torch.equal(network(image), outputs[0])


# --- MSU-Net ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [(1, 1), (1, 2)])
@torch.no_grad()
def test_msu_net_block_fuses_a_3x3_and_a_7x7_sequence(stride):
    block = randomised(MultiScaleSequences(2, 3, [[3, 3], [7, 7]], 2, stride, BATCH_NORM)).eval()
    x = sample(2, 2, 8, 6)
    maps = [naive_layer(second, naive_layer(first, x, stride)) for first, second in block.sequences]
    expected = dense(block.fuse, torch.cat(maps, 1).movedim(1, -1)).movedim(-1, 1)
    assert (expected < 0).any()  # no nonlinearity follows the fusion
    torch.testing.assert_close(block(x), expected, **EXACT)


@pytest.mark.parametrize("downsampling", ["stride", "max_pool"])
def test_msu_net_takes_kernels_of_1_and_uneven_strides_from_the_plan(downsampling):
    network = network_of(
        MSUNet, widths=(3, 4, 5), kernel_sizes=[[1, 3], [3, 3], [3, 3]], strides=[[1, 1], [1, 2], [2, 2]],
        n_conv_per_stage_decoder=3, downsampling=downsampling,
    )  # fmt: skip
    kernels = [sequence[0].conv.kernel_size for sequence in network.stages[0].sequences]
    assert kernels == [(1, 3), (1, 7)]
    assert [len(sequence) for sequence in network.levels[0].sequences] == [3, 3]
    assert network(torch.zeros(2, 1, 9, 7)).shape == (2, 3, 9, 7)


# --- U-Net++ ------------------------------------------------------------------------------------------


def test_unet_plus_plus_is_equation_1():
    network = network_of(UNetPlusPlus, channels=2, norm_op=None, norm_op_kwargs=None).double()
    nodes = dict(zip(network.places, network.nodes, strict=True))

    def convolve(layers, features, stride=1):
        for layer, step in zip(layers, (stride, 1), strict=True):
            convolved = F.conv2d(features, layer.conv.weight, layer.conv.bias, stride=step, padding=1)
            features = F.leaky_relu(convolved, 0.01)
        return features

    def x(i, j):
        if j == 0:
            return convolve(network.encoder.stages[i], x(i - 1, 0) if i else image, stride=2 if i else 1)
        node = nodes[i, j]
        above = F.conv_transpose2d(x(i + 1, j - 1), node.upsampling.weight, node.upsampling.bias, stride=2)
        return convolve(node.convs, torch.cat([*(x(i, k) for k in range(j)), above], 1))

    image, head = sample(2, 2, 16, 24), network.head.seg_layers
    torch.testing.assert_close(network(image), F.conv2d(x(0, 3), head.weight, head.bias))
