"""Each block against a naive formula, written index by index, in float64."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_formulas import (
    EXACT,
    dense,
    linear_enlargement,
    naive_batch_norm,
    naive_convolution,
    naive_layer,
    randomised,
    sample,
)
from torch import nn

from nnunetv2_eccam.blocks.channel_correlation import ChannelCorrelation
from nnunetv2_eccam.blocks.coag_musfu import CoAGMuSFu
from nnunetv2_eccam.blocks.collaborative_attention import CollaborativeAttention
from nnunetv2_eccam.blocks.compared_attention import SqueezeExcitation
from nnunetv2_eccam.blocks.convolution import LayerOps
from nnunetv2_eccam.blocks.enhanced_convolution import EnhancedConvolution
from nnunetv2_eccam.blocks.multi_scale import DilatedConvolution, MultiScale, dilations_for
from nnunetv2_eccam.blocks.spatial_correlation import SpatialCorrelation

BATCH_NORM_2D = LayerOps(nn.Conv2d, True, nn.BatchNorm2d, {"eps": 1e-5}, nonlin=nn.ReLU)
INSTANCE_NORM_2D = LayerOps(nn.Conv2d, True, nn.InstanceNorm2d, {"eps": 1e-5, "affine": True}, nonlin=nn.LeakyReLU)
BARE_2D = LayerOps(nn.Conv2d)
BARE_3D = LayerOps(nn.Conv3d)


# --- Enhanced Convolution -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ops", "size", "kernel", "n_branches"),
    [
        (BATCH_NORM_2D, (5, 7), (3, 3), 3),
        (BATCH_NORM_2D, (5, 6), (1, 3), 1),
        (BATCH_NORM_2D, (7, 6), (5, 3), 3),
        (LayerOps(nn.Conv3d, True, nn.BatchNorm3d, nonlin=nn.ReLU), (3, 5, 4), (3, 3, 3), 4),
        (LayerOps(nn.Conv3d, True, nn.BatchNorm3d, nonlin=nn.ReLU), (3, 4, 5), (1, 3, 3), 3),
    ],
)
@pytest.mark.parametrize("stride", [1, 2])
def test_folded_enhanced_convolution_is_the_sum_of_normalised_branches(ops, size, kernel, n_branches, stride):
    strides = (stride,) * len(size)
    block = randomised(EnhancedConvolution(3, 5, kernel, strides, ops, norm_per_branch=True)).eval()
    image = sample(2, 3, *size)
    convs = [block.square, *block.asymmetric]
    assert len(convs) == n_branches
    expected = sum(
        naive_batch_norm(naive_convolution(image, conv.weight, conv.bias, strides), norm)
        for conv, norm in zip(convs, block.norms, strict=True)
    ).clamp_min(0)
    torch.testing.assert_close(block(image), expected, **EXACT)


# --- Channel correlation ------------------------------------------------------------------------------


def naive_channel_weights(block: ChannelCorrelation, features: torch.Tensor) -> torch.Tensor:
    """The autoencoder, tap by tap over the channels; batch norm in eval mode, ReLU."""
    channels = features.shape[1]
    assert [conv.kernel_size for conv, *_ in block.compress] == [(3,), (7,)]
    code = features.flatten(2).mean(2)[:, None]
    for (conv, norm, _), stride in zip(block.compress, (1, 2), strict=True):
        code = naive_convolution(code, conv.weight, conv.bias, stride)
        code = (naive_batch_norm(code, norm) if isinstance(norm, nn.BatchNorm1d) else code).clamp_min(0)
    if block.upsampling == "interpolation":
        assert block.restore.kernel_size == (3,)
        wide = linear_enlargement(code, [channels])
        return naive_convolution(wide, block.restore.weight, block.restore.bias)[:, 0].sigmoid()
    restored = torch.zeros(len(features), channels, dtype=torch.float64) + block.restore.bias
    for i, t in itertools.product(range(code.shape[2]), range(7)):
        c = 2 * i + t - 3
        if 0 <= c < channels:
            restored[:, c] += code[:, :, i] @ block.restore.weight[:, 0, t]
    return restored.sigmoid()


@pytest.mark.parametrize("upsampling", ["transposed", "interpolation"])
@given(channels=st.integers(1, 20), hidden=st.integers(1, 5), batch=st.integers(1, 3))
@settings(max_examples=12, deadline=None)
def test_channel_correlation_weights_channels_by_the_autoencoder(upsampling, channels, hidden, batch):
    block = randomised(ChannelCorrelation(channels, BATCH_NORM_2D, hidden, upsampling)).eval()
    features = sample(batch, channels, 3, 4)
    weights = naive_channel_weights(block, features)
    torch.testing.assert_close(block.channel_weights(features), weights, **EXACT)
    torch.testing.assert_close(block(features), features * weights[:, :, None, None], **EXACT)


@pytest.mark.parametrize("ops", [BATCH_NORM_2D, INSTANCE_NORM_2D])
@pytest.mark.parametrize("channels", [1, 2, 3, 17])
def test_channel_correlation_trains_with_any_number_of_channels(ops, channels):
    block = ChannelCorrelation(channels, ops).train()
    block(torch.randn(1, channels, 3, 3)).sum().backward()
    assert all(p.grad is not None for p in block.parameters())


# --- Spatial correlation and CoA ----------------------------------------------------------------------


def naive_attention(features, values, scale):
    """With the softmax over all pairs of positions as a matrix."""
    e, v = features.flatten(2), values.flatten(2)
    weights = (scale * torch.einsum("bci,bcj->bij", e, e)).softmax(2)
    return torch.einsum("bij,bcj->bci", weights, v).reshape(values.shape)


@given(
    channels=st.integers(1, 9),
    size=st.lists(st.integers(1, 4), min_size=2, max_size=3),
    unit=st.booleans(),
)
@settings(max_examples=12, deadline=None)
def test_spatial_correlation_is_softmax_of_the_gram_matrix_times_values(channels, size, unit):
    features, values = sample(2, channels, *size), sample(2, channels, *size, seed=2)
    scale = 1.0 if unit else 1 / math.sqrt(channels)
    block = SpatialCorrelation(1.0 if unit else "1/sqrt(C)")
    torch.testing.assert_close(block(features, values), naive_attention(features, values, scale), **EXACT)


@pytest.mark.parametrize("scale", [1.0, "1/sqrt(C)"])
@pytest.mark.parametrize(("channels", "largest"), [(64, 20), (64, 1e4), (512, 1e4)])
def test_the_gradient_in_single_precision_is_float64s_however_large_activations_are(channels, largest, scale):
    gradients = []
    features = sample(2, channels, 6, 7)
    features *= largest / features.abs().max()
    for dtype in (torch.float32, torch.float64):
        given = features.detach().to(dtype).requires_grad_()
        output = CollaborativeAttention(None, SpatialCorrelation(scale))(given)
        (output / largest).square().mean().backward()
        gradients.append(given.grad.double())
    assert (gradients[0] - gradients[1]).norm() <= 0.03 * gradients[1].norm()


def test_an_outlier_at_one_position_changes_nothing_of_how_the_others_attend():
    features = sample(1, 16, 4, 5).float()
    features[0, :, 2, 3] *= 1e3
    attended = SpatialCorrelation(1.0)(features, features)
    expected = naive_attention(features.double(), features.double(), 1.0)
    kept = torch.ones(4, 5, dtype=torch.bool)
    kept[2, 3] = False
    torch.testing.assert_close(attended[..., kept].double(), expected[..., kept], rtol=1e-3, atol=1e-3)


def test_collaborative_attention_is_equation_4_and_its_halves():
    channel = randomised(ChannelCorrelation(5, BATCH_NORM_2D)).eval()
    spatial = SpatialCorrelation(1.0)
    features = sample(2, 5, 3, 4)
    weighted = features * naive_channel_weights(channel, features)[:, :, None, None]
    both = naive_attention(features, weighted, 1.0) + features
    torch.testing.assert_close(CollaborativeAttention(channel, spatial)(features), both, **EXACT)
    torch.testing.assert_close(CollaborativeAttention(channel, None)(features), weighted, **EXACT)
    alone = naive_attention(features, features, 1.0) + features
    torch.testing.assert_close(CollaborativeAttention(None, spatial)(features), alone, **EXACT)
    with pytest.raises(ValueError, match="needs the channel or the spatial correlation"):
        CollaborativeAttention(None, None)


# --- Multi-scale --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dilation", "size"),
    [
        (1, (1, 1)),
        (2, (2, 7)),
        (6, (6, 6)),
        (6, (7, 19)),
        (18, (18, 5)),
        (3, (2, 5, 4)),
        ((1, 2, 3), (4, 5, 6)),
        ((4, 1, 9), (4, 5, 6)),
    ],
)
def test_dilated_convolution_without_unreachable_taps_is_exact(dilation, size):
    block = randomised(DilatedConvolution(2, 3, dilation, {2: BARE_2D, 3: BARE_3D}[len(size)]))
    image = sample(1, 2, *size)
    expected = naive_convolution(image, block.conv.weight, block.conv.bias, 1, dilation)
    torch.testing.assert_close(block(image), expected, **EXACT)


def naive_multi_scale(block, features, dilations):
    scales = [features, naive_layer(block.pointwise, features)]
    scales += [naive_layer(layer, features, 1, rate) for layer, rate in zip(block.dilated, dilations, strict=True)]
    return naive_layer(block.restore, torch.cat(scales, 1))


@pytest.mark.parametrize("channels", [8, 3])
def test_multi_scale_concatenates_input_and_scales(channels):
    block = randomised(MultiScale(channels, BATCH_NORM_2D, (1, 2, 5))).eval()
    features = sample(2, channels, 6, 4)
    torch.testing.assert_close(block(features), naive_multi_scale(block, features, (1, 2, 5)), **EXACT)


@given(size=st.lists(st.integers(1, 200), min_size=2, max_size=2))
def test_scaled_dilations_increase_and_keep_the_papers_at_the_papers_size(size):
    rates = dilations_for(size)
    assert rates[0] >= 1
    assert all(a < b for a, b in itertools.pairwise(rates))
    if min(size) == 32:
        assert rates == (6, 12, 18)
    if min(size) >= 4:
        assert rates[-1] < min(size)


@given(size=st.lists(st.integers(1, 200), min_size=3, max_size=3))
def test_in_three_dimensions_each_axis_has_the_rates_of_its_own_size(size):
    rates = [[rate] * 3 if isinstance(rate, int) else list(rate) for rate in dilations_for(size)]
    assert list(zip(*rates, strict=True)) == [dilations_for([n, n]) for n in size]


# --- Fusion -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", ["concatenation", "series", "sum"])
def test_fusion_is_equation_10_and_table_iii(fusion):
    attention = CollaborativeAttention(None, SpatialCorrelation())
    scales = MultiScale(4, BATCH_NORM_2D, (1, 2, 3))
    block = randomised(CoAGMuSFu(4, BATCH_NORM_2D, attention, scales, fusion)).eval()
    features = sample(2, 4, 4, 5)
    attended = naive_attention(features, features, 0.5) + features
    if fusion == "series":
        expected = naive_multi_scale(scales, attended, (1, 2, 3))
    else:
        gathered = naive_multi_scale(scales, features, (1, 2, 3))
        expected = attended + gathered
        if fusion == "concatenation":
            expected = naive_layer(block.fuse, torch.cat((attended, gathered), 1))
    torch.testing.assert_close(block(features), expected, **EXACT)


def test_what_makes_no_block_is_refused():
    with pytest.raises(ValueError, match=r"kernel_size must be odd.*\[2, 3\]"):
        EnhancedConvolution(1, 1, [2, 3], (1, 1), BATCH_NORM_2D)
    with pytest.raises(ValueError, match=r"dilations must be.*\[0, 2\]"):
        MultiScale(4, BARE_2D, [0, 2])
    with pytest.raises(ValueError, match="'transposed' or 'interpolation'"):
        ChannelCorrelation(4, BARE_2D, upsampling="nearest")
    with pytest.raises(ValueError, match=r"1/sqrt\(C\)"):
        SpatialCorrelation("sqrt")


# --- Table V's other attentions -----------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 7, 32])
def test_squeeze_excitation_is_two_dense_layers_over_the_channel_means(channels):
    block = randomised(SqueezeExcitation(channels, BARE_3D))
    assert block.squeeze.out_channels == max(1, channels // 16)
    features = sample(2, channels, 3, 4, 5)
    weights = dense(block.excite, dense(block.squeeze, features.flatten(2).mean(2)).clamp_min(0)).sigmoid()
    torch.testing.assert_close(block(features), features * weights[..., None, None, None], **EXACT)
