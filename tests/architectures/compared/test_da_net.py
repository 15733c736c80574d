"""DA-Net: its attentions against explicit sums, their pictures, and its structure."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nnunetv2_eccam.architectures.compared.da_net import ChannelAttention, DANet, PositionAttention


@pytest.fixture
def features() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 16, 5, 7, dtype=torch.float64)


@pytest.fixture
def position_attention() -> PositionAttention:
    torch.manual_seed(1)
    attention = PositionAttention(16).double()
    nn.init.constant_(attention.scale, 0.7)
    return attention


@pytest.fixture
def channel_attention() -> ChannelAttention:
    attention = ChannelAttention().double()
    nn.init.constant_(attention.scale, -0.4)
    return attention


def position_weights(attention: PositionAttention, features: torch.Tensor) -> torch.Tensor:
    """The whole N x N map, row j being what position j gathers from."""
    query = torch.einsum("dc,bchw->bdhw", attention.query.weight[:, :, 0, 0], features)
    key = torch.einsum("dc,bchw->bdhw", attention.key.weight[:, :, 0, 0], features)
    query = (query + attention.query.bias[:, None, None]).flatten(2)
    key = (key + attention.key.bias[:, None, None]).flatten(2)
    energy = torch.einsum("bdj,bdi->bji", query, key).exp()
    return energy / energy.sum(-1, keepdim=True)


def test_position_attention_is_the_explicit_sum(position_attention, features):
    value = torch.einsum("dc,bchw->bdhw", position_attention.value.weight[:, :, 0, 0], features)
    value = (value + position_attention.value.bias[:, None, None]).flatten(2)
    gathered = torch.einsum("bji,bci->bcj", position_weights(position_attention, features), value)
    torch.testing.assert_close(position_attention(features), 0.7 * gathered.reshape(features.shape) + features)


def test_position_attention_holds_no_map_of_all_pairs(position_attention, features):
    """The fused kernel, which never has the map in memory, refuses inputs that it cannot take."""
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
        fused = position_attention.float()(features.float())
    torch.testing.assert_close(fused.double(), position_attention.double()(features), rtol=1e-4, atol=1e-4)


def test_the_position_map_is_the_chosen_points_row(position_attention, features):
    rows = position_weights(position_attention, features).reshape(2, 5, 7, 5, 7)
    for point in [(0, 0), (3, 6), (4, 1)]:
        seen = position_attention.attention_map(features, point)
        torch.testing.assert_close(seen, rows[:, point[0], point[1]])
        torch.testing.assert_close(seen.sum((1, 2)), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("point", [(5, 0), (0, 7), (-1, 0), (1,)])
def test_the_position_map_refuses_a_point_outside(position_attention, features, point):
    with pytest.raises(ValueError, match=r"row and a column of a map of size \[5, 7\]"):
        position_attention.attention_map(features, point)


def test_channel_attention_is_the_explicit_sum_over_the_least_alike(channel_attention, features):
    flat = features.flatten(2)
    energy = torch.einsum("bjn,bin->bji", flat, flat)
    weights = (-energy).softmax(-1)  # the maximum that the authors add to it cancels
    torch.testing.assert_close(channel_attention.attention_matrix(features), weights)
    gathered = torch.einsum("bji,bin->bjn", weights, flat).reshape(features.shape)
    torch.testing.assert_close(channel_attention(features), -0.4 * gathered + features)


def test_channel_matrix_has_rows_that_sum_to_one(channel_attention, features):
    matrix = channel_attention.attention_matrix(features)
    assert matrix.shape == (2, 16, 16)
    torch.testing.assert_close(matrix.sum(-1), torch.ones(2, 16, dtype=torch.float64))


@pytest.mark.parametrize("attention", [PositionAttention(16), ChannelAttention()])
def test_attention_starts_as_the_identity(attention, features):
    torch.testing.assert_close(attention(features.float()), features.float())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["position", "channel"])
def test_large_activations_stay_finite_in_half_precision(position_attention, channel_attention, features, kind, dtype):
    attention = {"position": position_attention, "channel": channel_attention}[kind].to(dtype)
    large = (1000 * features).to(dtype).requires_grad_()
    output = attention(large)
    output.float().mean().backward()
    assert output.dtype == dtype
    assert output.isfinite().all()
    assert large.grad.isfinite().all()


def test_the_pictures_take_what_a_hook_catches_under_autocast():
    network = DANet(1, 2, "resnet18").eval()
    caught = {}
    for name in ("position_attention", "channel_attention"):
        getattr(network, name).register_forward_pre_hook(lambda _, inputs, at=name: caught.update({at: inputs[0]}))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        network(torch.randn(1, 1, 48, 40))
    seen = network.position_attention.attention_map(caught["position_attention"], (47 // network.reduction, 0))
    assert seen.shape == (1, 6, 5)
    assert seen.dtype == torch.float32
    assert network.channel_attention.attention_matrix(caught["channel_attention"]).shape == (1, 128, 128)


def test_the_backbone_is_dilated_to_an_eighth_of_the_image():
    with torch.device("meta"):
        network = DANet(1, 2)
        features = network.backbone(torch.zeros(1, 1, 64, 96))[-1]
    assert features.shape == (1, 2048, 8, 12)
    backbone = network.backbone
    # The first block of a dilated stage keeps the last stage's dilation, as in the authors' backbone.
    assert [block.conv2.dilation[0] for block in backbone.layer3] == [1, 2, 2, 2, 2, 2]
    assert [block.conv2.dilation[0] for block in backbone.layer4] == [2, 4, 4]


def test_resnet50_has_the_parameters_of_its_structure():
    """torchvision documents 25557032 parameters for ResNet-50, of which its classifier has 2048 * 1000 + 1000."""
    backbone = 25_557_032 - 2_049_000
    attentions = 2 * (512 * 64 + 64) + (512 * 512 + 512) + 2
    convolutions = 2 * (9 * 2048 * 512 + 2 * 512) + 2 * (9 * 512 * 512 + 2 * 512)
    with torch.device("meta"):
        network = DANet(3, 19)
    counted = sum(parameter.numel() for parameter in network.parameters())
    assert counted == backbone + attentions + convolutions + 512 * 19 + 19


def linear_interpolation(coarse: int, fine: int) -> torch.Tensor:
    """The matrix of linear interpolation that keeps the first and the last value in their places."""
    at = torch.arange(fine, dtype=torch.float64) * (coarse - 1) / (fine - 1)
    return (1 - (at[:, None] - torch.arange(coarse)).abs()).clamp(min=0)


def test_the_two_attentions_are_added_classified_and_enlarged():
    torch.manual_seed(0)
    network = DANet(1, 3, "resnet18").double().eval()
    nn.init.constant_(network.position_attention.scale, 0.5)
    nn.init.constant_(network.channel_attention.scale, 0.5)
    image = torch.randn(1, 1, 32, 48, dtype=torch.float64)
    with torch.no_grad():
        features = network.backbone(image)[-1]
        branches = [
            getattr(network, f"{name}_conv")(
                getattr(network, f"{name}_attention")(getattr(network, f"{name}_reduction")(features))
            )
            for name in ("position", "channel")
        ]
        head = network.classifier[1].seg_layers
        coarse = F.conv2d(branches[0] + branches[1], head.weight, head.bias)
        logits = network(image)
    rows, columns = linear_interpolation(4, 32), linear_interpolation(6, 48)
    torch.testing.assert_close(logits, torch.einsum("yh,bchw,xw->bcyx", rows, coarse, columns))


def test_no_residual_branch_starts_switched_off():
    network = DANet(1, 2, "resnet18")
    assert all(module.weight.all() for module in network.modules() if isinstance(module, nn.BatchNorm2d))


def test_refuses_an_unknown_backbone():
    with pytest.raises(ValueError, match=r"backbone must be one of resnet18.*got 'vgg16'"):
        DANet(1, 2, "vgg16")


def test_refuses_channels_that_do_not_divide():
    with pytest.raises(ValueError, match="multiple of reduction 8, got 12"):
        PositionAttention(12)
