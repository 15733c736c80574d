"""DeepLabV3+: what is set and what is replaced in segmentation_models_pytorch's network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunetv2_eccam.architectures.compared.deeplab_v3_plus import DeepLabV3Plus, PooledBatchNorm2d
from nnunetv2_eccam.architectures.compared.network import segmentation_layer

smp = pytest.importorskip("segmentation_models_pytorch")


def parameters_of(network):
    return sum(p.numel() for p in network.parameters())


@pytest.fixture(scope="module")
def small():
    """The network with a small backbone."""
    return DeepLabV3Plus(1, 2, backbone="resnet18")


def test_number_of_parameters():
    # No paper states it for ResNet-50: torchvision's ResNet-50 without its classifier, and the rest by hand.
    resnet = 25_557_032 - (2048 * 1000 + 1000)
    norm = 2 * 256

    def separable(inputs):
        return inputs * 9 + inputs * 256 + norm

    aspp = (2048 * 256 + norm) + 3 * separable(2048) + (2048 * 256 + norm) + (5 * 256 * 256 + norm) + separable(256)
    decoder = (256 * 48 + 2 * 48) + separable(256 + 48) + (256 * 19 + 19)
    assert parameters_of(DeepLabV3Plus(3, 19)) == resnet + aspp + decoder == 26_682_211


def test_it_has_the_authors_rates_and_dropout_and_a_dilated_last_stage(small):
    dilations = {m.dilation for m in small.model.decoder.modules() if isinstance(m, nn.Conv2d)}
    assert dilations == {(1, 1), (6, 6), (12, 12), (18, 18)}
    assert [m.p for m in small.modules() if isinstance(m, nn.Dropout)] == [0.1]
    with torch.no_grad():
        sizes = [tuple(f.shape[2:]) for f in small.model.encoder(torch.zeros(1, 1, 64, 96))]
    assert sizes[2] == (16, 24)  # 1/4, for the decoder
    assert sizes[-2:] == [(4, 6), (4, 6)]  # 1/16


def test_only_the_pooled_maps_norm_is_replaced(small):
    replaced = [name for name, m in small.named_modules() if isinstance(m, PooledBatchNorm2d)]
    assert len(replaced) == 1
    pooling, _, position = replaced[0].rpartition(".")
    assert isinstance(small.get_submodule(pooling)[int(position) - 2], nn.AdaptiveAvgPool2d)
    original = smp.DeepLabV3Plus("resnet18", encoder_weights=None, in_channels=1, classes=2)
    original.segmentation_head[0] = segmentation_layer(original.segmentation_head[0])
    assert original.state_dict().keys() == small.model.state_dict().keys()


def test_with_larger_batches_it_is_segmentation_models_pytorchs_network(small):
    original = smp.DeepLabV3Plus(
        "resnet18",
        encoder_weights=None,
        in_channels=1,
        classes=2,
        decoder_atrous_rates=(6, 12, 18),
        decoder_aspp_dropout=0.0,
    )
    ours = DeepLabV3Plus(1, 2, backbone="resnet18")
    original.segmentation_head[0] = segmentation_layer(original.segmentation_head[0])  # another name, the same layer
    ours.model.load_state_dict(original.state_dict())
    for layer in ours.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    image = torch.randn(2, 1, 64, 64)
    for mode in (True, False):  # after a training step, the running statistics agree as well
        torch.testing.assert_close(ours.train(mode)(image), original.train(mode)(image))


class TestPooledBatchNorm:
    def test_is_batch_norm_where_there_are_values_to_normalise_by(self):
        ours, plain = PooledBatchNorm2d(3), nn.BatchNorm2d(3)
        for shape in [(2, 3, 1, 1), (1, 3, 2, 1)]:
            features = torch.randn(shape)
            torch.testing.assert_close(ours(features), plain(features))
        torch.testing.assert_close(ours.running_var, plain.running_var)
        torch.testing.assert_close(ours.eval()(features), plain.eval()(features))

    def test_uses_the_running_statistics_for_single_values_and_keeps_them(self):
        norm = PooledBatchNorm2d(2).double()
        norm.running_mean.copy_(torch.tensor([1.0, -2.0]))
        norm.running_var.copy_(torch.tensor([4.0, 9.0]))
        nn.init.constant_(norm.weight, 3.0)
        nn.init.constant_(norm.bias, 0.5)
        output = norm(torch.tensor([5.0, 1.0], dtype=torch.float64).view(1, 2, 1, 1))
        expected = torch.tensor([3 * 4 / (4 + 1e-5) ** 0.5 + 0.5, 3 * 3 / (9 + 1e-5) ** 0.5 + 0.5], dtype=torch.float64)
        torch.testing.assert_close(output.flatten(), expected)
        assert norm.running_mean.tolist() == [1, -2]
        assert norm.running_var.tolist() == [4, 9]
        output.sum().backward()
        assert norm.weight.grad.all()
