"""MSF-ACSA: its gate and its fusion against naive formulas, what is supervised, and its size."""

from __future__ import annotations

import itertools

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from nnunetv2_eccam.architectures.compared.msf_acsa import MSFACSA, AdditiveChannelSpatialAttention
from nnunetv2_eccam.architectures.unet_plan import UNetPlan
from nnunetv2_eccam.blocks.convolution import LayerOps

EXACT = {"rtol": 1e-10, "atol": 1e-10}
CONVS = {2: nn.Conv2d, 3: nn.Conv3d}
NORMS = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
WIDTHS = (4, 6, 8, 10)


def arguments(dimension=2, widths=WIDTHS, strides=None, norm=True):
    """What this package's plan and nnU-Net's own U-Net both take."""
    return {
        "n_stages": len(widths),
        "features_per_stage": list(widths),
        "conv_op": CONVS[dimension],
        "kernel_sizes": 3,
        "strides": strides or [1] + [2] * (len(widths) - 1),
        "n_conv_per_stage": 2,
        "n_conv_per_stage_decoder": 2,
        "conv_bias": True,
        "norm_op": NORMS[dimension] if norm else None,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True} if norm else None,
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
    }


def network_of(deep_supervision=False, classes=3, channels=1, **plan):
    torch.manual_seed(0)
    return MSFACSA.from_plan(UNetPlan.of(**arguments(**plan)), channels, classes, deep_supervision)


def sample(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive_energy(energy, skip, gate):
    """Attention U-Net's eq. 1 for one position's two vectors."""
    hidden = energy.of_skip.weight.flatten(1) @ skip + energy.of_gate.weight.flatten(1) @ gate + energy.of_gate.bias
    return energy.energy.weight.flatten(1) @ hidden.clamp(min=0) + energy.energy.bias


@pytest.mark.parametrize("size", [(3, 5), (2, 3, 4)])
@torch.no_grad()
def test_attention_weights_positions_and_channels_by_additive_energies(size):
    attention = AdditiveChannelSpatialAttention(7, LayerOps(CONVS[len(size)])).double()
    skip, gate = sample(2, 7, *size), sample(2, 7, *size, seed=2)
    expected = torch.empty_like(skip)
    for b in range(2):
        means = skip[b].flatten(1).mean(1), gate[b].flatten(1).mean(1)
        channels = 1 / (1 + torch.exp(-naive_energy(attention.channel_energy, *means)))
        for position in itertools.product(*map(range, size)):
            at = (b, slice(None), *position)
            position_weight = 1 / (1 + torch.exp(-naive_energy(attention.position_energy, skip[at], gate[at])))
            expected[at] = channels * position_weight * skip[at]
    torch.testing.assert_close(attention(skip, gate), expected, **EXACT)


def naive_bilinear(image, size):
    """Half-pixel centres, clamped at the border, one axis after the other."""
    for axis, n in enumerate(size, start=2):
        was = image.shape[axis]
        rows = []
        for i in range(n):
            at = min(max((i + 0.5) * was / n - 0.5, 0), was - 1)
            low = int(at)
            high = min(low + 1, was - 1)
            rows.append(image.select(axis, low) * (1 - (at - low)) + image.select(axis, high) * (at - low))
        image = torch.stack(rows, axis)
    return image


@torch.no_grad()
def test_prediction_is_a_pointwise_combination_of_all_levels_logits():
    decoder = network_of(classes=2).decoder.double()
    logits = [sample(1, 2, n, n + 1, seed=n) for n in (2, 4, 8)]
    every = torch.cat([naive_bilinear(level, [8, 9]) for level in logits], 1)
    expected = torch.einsum("ok,bkyx->boyx", decoder.fusion.seg_layers.weight.flatten(1), every)
    expected += decoder.fusion.seg_layers.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(decoder.fuse(logits), expected, **EXACT)


@pytest.mark.parametrize("dimension", [2, 3])
@torch.no_grad()
def test_side_outputs_are_the_levels_below_and_the_prediction_does_not_change(dimension):
    network = network_of(deep_supervision=True, dimension=dimension).eval()
    size = [32, 24, 16][:dimension]
    image = torch.randn(2, 1, *size)
    outputs = network(image)
    assert [list(o.shape) for o in outputs] == [[2, 3, *(n // step for n in size)] for step in (1, 2, 4)]
    network.decoder.deep_supervision = False
    assert torch.equal(network(image), outputs[0])


@torch.no_grad()
def test_with_open_gates_the_side_outputs_are_the_u_nets():
    """nnU-Net's own network, fed the same weights: the encoder, the decoder and the heads below the last."""
    ours = network_of(deep_supervision=True).double().eval()
    for attention in ours.decoder.attentions:
        for energy in (attention.position_energy, attention.channel_energy):
            energy.energy.weight.zero_()
            energy.energy.bias.fill_(100)
    theirs = PlainConvUNet(1, num_classes=3, deep_supervision=True, **arguments()).double().eval()
    extra = [f"decoder.{name}" for name in ("attentions", "fusion")]
    kept = [value for name, value in ours.state_dict().items() if not name.startswith(tuple(extra))]
    stages = [[p for n, p in theirs.encoder.named_parameters() if ".all_modules." not in n]]
    parts = [theirs.decoder.transpconvs, theirs.decoder.stages, theirs.decoder.seg_layers]
    for part in parts:
        stages.append([p for n, p in part.named_parameters() if ".all_modules." not in n])
    targets = [p for stage in stages for p in stage]
    assert [p.shape for p in targets] == [value.shape for value in kept]
    for target, value in zip(targets, kept, strict=True):
        target.copy_(value)
    image = sample(1, 1, 32, 32)
    for output, expected in zip(ours(image)[1:], theirs(image)[1:], strict=True):
        torch.testing.assert_close(output, expected, **EXACT)


@pytest.mark.parametrize("dimension", [2, 3])
def test_size_is_the_u_nets_and_what_the_parts_add(dimension):
    """No count is stated by the paper's abstract; the U-Net's comes from nnU-Net's own network."""
    classes, levels = 3, len(WIDTHS) - 1
    u_net = PlainConvUNet(1, num_classes=classes, deep_supervision=True, **arguments(dimension))
    added = (levels * classes + 1) * classes  # the fusion
    for width in WIDTHS[:-1]:
        half = width // 2
        added += 2 * (2 * width * half + half)  # the projections of skip and gate, for positions and channels
        added += (half + 1) + (half + 1) * width  # the energies
    count = sum(p.numel() for p in network_of(dimension=dimension).parameters())
    assert count == sum(p.numel() for p in u_net.parameters()) + added
