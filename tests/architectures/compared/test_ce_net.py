"""CE-Net's blocks against naive formulas, its encoder against torchvision's, its size against the authors' code."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from nnunetv2_eccam.architectures.compared.ce_net import CENet, DenseAtrousConvolution, ResidualMultiKernelPooling

EXACT = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return CENet(3, 1)


def sample(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive_convolution(image, conv, rate):
    """A 3x3 or 1x1 convolution, tap by tap: shifted images times each tap's matrix."""
    height, width = image.shape[2:]
    reach = conv.weight.shape[-1] // 2
    output = conv.bias.view(1, -1, 1, 1).expand(image.shape[0], -1, height, width).clone()
    for row, column in itertools.product(range(-reach, reach + 1), repeat=2):
        tap = conv.weight[:, :, row + reach, column + reach]
        for y, x in itertools.product(range(height), range(width)):
            source_y, source_x = y + row * rate, x + column * rate
            if 0 <= source_y < height and 0 <= source_x < width:
                output[:, :, y, x] += image[:, :, source_y, source_x] @ tap.T
    return output


def naive_enlargement(image, height, width):
    """Bilinear, positions at the centres of pixels, clamped at the border."""

    def weights(n, target):
        matrix = torch.zeros(target, n, dtype=torch.float64)
        for i in range(target):
            position = min(max((i + 0.5) * n / target - 0.5, 0.0), n - 1.0)
            below = int(position)
            matrix[i, below] += 1 - (position - below)
            matrix[i, min(below + 1, n - 1)] += position - below
        return matrix

    rows, columns = weights(image.shape[2], height), weights(image.shape[3], width)
    return torch.einsum("yi,bcij,xj->bcyx", rows, image, columns)


def naive_pooling(image, window):
    rows, columns = (n // k for n, k in zip(image.shape[2:], window, strict=True))
    output = torch.empty(*image.shape[:2], rows, columns, dtype=image.dtype)
    for y, x in itertools.product(range(rows), range(columns)):
        patch = image[:, :, y * window[0] : (y + 1) * window[0], x * window[1] : (x + 1) * window[1]]
        output[:, :, y, x] = patch.flatten(2).max(-1).values
    return output


@torch.no_grad()
def test_dense_atrous_convolution_sums_the_four_cascades():
    torch.manual_seed(0)
    block = DenseAtrousConvolution(3).double()
    x = sample(2, 3, 9, 8)

    def cascade(*rates):
        features = x
        for rate in rates:
            features = naive_convolution(features, getattr(block, f"rate_{rate}"), rate)
        return features

    def pointwise(features):
        return naive_convolution(features, block.pointwise, 1)

    expected = x + cascade(1).relu()
    for rates in ((3,), (1, 3), (1, 3, 5)):
        expected = expected + pointwise(cascade(*rates)).relu()
    torch.testing.assert_close(block(x), expected, **EXACT)


def test_dense_atrous_convolution_sees_19_positions():
    """The paper's receptive field of its longest cascade: 3 + 2 * 3 + 2 * 5."""
    block = DenseAtrousConvolution(1).double()
    for parameter in block.parameters():
        nn.init.constant_(parameter, 1.0)
    x = torch.ones(1, 1, 31, 31, dtype=torch.float64, requires_grad=True)
    block(x)[0, 0, 15, 15].backward()
    assert x.grad is not None
    seen = x.grad[0, 0].any(0).nonzero().flatten()
    assert (seen.min().item(), seen.max().item()) == (15 - 9, 15 + 9)


@pytest.mark.parametrize("size", [(16, 13), (7, 5), (2, 2), (1, 6)])
@torch.no_grad()
def test_multi_kernel_pooling_appends_four_summaries(size):
    """Also where the map is smaller than a window: the window is then cut to the map."""
    torch.manual_seed(0)
    block = ResidualMultiKernelPooling(3).double()
    x = sample(2, 3, *size)
    weight, bias = block.summarise.weight[:, :, 0, 0], block.summarise.bias
    maps = []
    for kernel in (2, 3, 5, 6):
        pooled = naive_pooling(x, [min(kernel, n) for n in size])
        summary = torch.einsum("oc,bcyx->boyx", weight, pooled) + bias.view(1, -1, 1, 1)
        maps.append(naive_enlargement(summary, *size))
    torch.testing.assert_close(block(x), torch.cat([*maps, x], 1), **EXACT)


def test_has_the_authors_number_of_parameters(network):
    """The authors' code (github.com/Guzaiwang/CE-Net, 3 channels, 1 class) has 29,003,093; layer by layer it is:"""

    def conv(channels, width, kernel):
        return channels * width * kernel * kernel + width

    def decoder_level(channels, width):
        inner = channels // 4
        norms = 2 * (2 * inner + width)
        return conv(channels, inner, 1) + conv(inner, inner, 3) + conv(inner, width, 1) + norms

    resnet34 = 21_797_672 - (512 * 1000 + 1000)  # torchvision's documented count, without the classifier
    atrous = 3 * conv(512, 512, 3) + conv(512, 512, 1)
    levels = sum(itertools.starmap(decoder_level, [(516, 256), (256, 128), (128, 64), (64, 64)]))
    head = conv(64, 32, 4) + conv(32, 32, 3) + conv(32, 1, 3)
    expected = resnet34 + atrous + conv(512, 1, 1) + levels + head
    assert expected == 29_003_093
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


@torch.no_grad()
def test_encoder_is_torchvisions_resnet34(network):
    """The authors' backbone: the same parameters by name, and the same maps of the same image."""
    torchvision = pytest.importorskip("torchvision")
    reference = torchvision.models.resnet34(weights=None).eval()
    encoder = CENet(3, 1).encoder.eval()
    encoder.load_state_dict({k: v for k, v in reference.state_dict().items() if not k.startswith("fc.")})
    image = sample(1, 3, 64, 96).float()
    features = reference.maxpool(reference.relu(reference.bn1(reference.conv1(image))))
    for stage, ours in zip((1, 2, 3, 4), encoder(image), strict=True):
        features = getattr(reference, f"layer{stage}")(features)
        torch.testing.assert_close(ours, features)


@torch.no_grad()
def test_adds_the_encoders_maps(network):
    """A level whose last norm gives zeros passes the skip of its size on, and nothing else."""
    inputs: list[torch.Tensor] = []
    hooks = [level.register_forward_pre_hook(lambda _, args: inputs.append(args[0])) for level in network.levels]
    kept = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for level in network.levels:
        nn.init.zeros_(level[-2].weight)
        nn.init.zeros_(level[-2].bias)
    image = sample(1, 3, 64, 64).float()
    network.eval()(image)
    skips = network.encoder(image)[:-1]
    for given, skip in zip(inputs[1:], reversed(skips), strict=True):
        torch.testing.assert_close(given, skip)
    for hook in hooks:
        hook.remove()
    network.load_state_dict(kept)
