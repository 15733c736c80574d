"""The network: shapes, gradients, switches, and nnU-Net's own U-Net as its reference."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from unet_plans import PARTS_OFF, plan, small_arguments

from nnunetv2_eccam.architectures.eccam_unet import ECCaMUNet
from nnunetv2_eccam.architectures.from_plans import build_network, network_arguments
from nnunetv2_eccam.errors import UserError

NORMS = {
    2: {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d},
    3: {"batch": nn.BatchNorm3d, "instance": nn.InstanceNorm3d},
}


def make(dimension=2, norm="instance", input_channels=1, num_classes=2, features=(4, 6, 10), **switches):
    arguments = {**small_arguments(dimension, NORMS[dimension][norm], features), "dilations": [1, 2, 3]}
    return ECCaMUNet(input_channels, num_classes, **{**arguments, **switches})


@given(
    dimension=st.sampled_from([2, 3]),
    blocks=st.lists(st.integers(1, 5), min_size=3, max_size=3),
    features=st.lists(st.integers(1, 9), min_size=3, max_size=3),
    channels=st.integers(1, 3),
    classes=st.integers(1, 4),
    batch=st.integers(1, 2),
    norm=st.sampled_from(["batch", "instance"]),
    norm_per_branch=st.booleans(),
    downsampling=st.sampled_from(["stride", "max_pool"]),
)
@settings(max_examples=15, deadline=None)
def test_any_divisible_size_and_any_channel_count_give_logits_of_the_images_size(
    dimension, blocks, features, channels, classes, batch, norm, norm_per_branch, downsampling
):
    if max(blocks[:dimension]) == 1 and norm == "instance":
        blocks = [2, *blocks[1:]]  # one position has no variance; refused, see below
    network = make(
        dimension, norm, channels, classes, features, norm_per_branch=norm_per_branch, downsampling=downsampling
    ).eval()
    size = [4 * n for n in blocks[:dimension]]
    image = torch.randn(batch, channels, *size)
    assert network(image).shape == (batch, classes, *size)
    network.decoder.deep_supervision = True
    assert [list(o.shape[2:]) for o in network(image)] == [size, [n // 2 for n in size]]


VARIANTS = [
    {},
    {"norm_per_branch": True},
    {"enhanced_convolution": False},
    {"channel_correlation": False},
    {"spatial_correlation": False},
    {"channel_correlation": False, "spatial_correlation": False},
    {"multi_scale": False},
    {"fusion": "series"},
    {"fusion": "sum"},
    {"correlation_upsampling": "interpolation"},
    {"attention_scale": 1.0},
    {"downsampling": "max_pool"},
    {"multi_scale_channels": 3},
    {"conv_bias": False},
    PARTS_OFF,
]


@pytest.mark.parametrize(
    ("dimension", "norm", "switches"),
    [*((2, "instance", switches) for switches in VARIANTS), (2, "batch", {}), (3, "instance", {}), (3, "batch", {})],
    ids=str,
)
def test_every_parameter_gets_a_gradient(dimension, norm, switches):
    network = make(dimension, norm, deep_supervision=True, **switches).train()
    outputs = network(torch.randn(2, 1, *[16, 24, 16][:dimension]))
    sum(output.square().mean() for output in outputs).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("training", [True, False])
def test_whoever_watches_a_decoder_level_sees_its_output(training):
    """Class activation and attention maps ask for a layer by its name."""
    network, seen = make(features=(4, 6, 8)).train(training), {}
    for name, module in network.decoder.levels.named_children():

        def see(_module, inputs, output, name=name):
            seen[name] = len(inputs), output.shape

        module.register_forward_hook(see)
    network(torch.randn(2, 1, 16, 16))
    assert seen == {"0": (2, (2, 6, 8, 8)), "1": (2, (2, 4, 16, 16))}


def test_without_side_outputs_there_is_one_head_and_it_gets_a_gradient():
    network = make(side_outputs=False)
    assert len(network.decoder.seg_layers) == 1
    network(torch.randn(1, 1, 16, 16)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    with pytest.raises(ValueError, match="deep_supervision needs side_outputs"):
        make(side_outputs=False, deep_supervision=True)


def test_paper_network_has_the_papers_widths_and_bottleneck():
    with torch.device("meta"):
        network = ECCaMUNet(
            1, 2, **small_arguments(2, nn.BatchNorm2d, [64, 128, 256, 512, 1024]), norm_per_branch=True,
            downsampling="max_pool", attention_scale=1.0,
        )  # fmt: skip
        assert [m.shape[1:] for m in network.encoder(torch.zeros(1, 1, 512, 512))][-1] == (1024, 32, 32)
    assert network.bottleneck.multi_scale.pointwise.conv.out_channels == 256  # DeepLab's
    assert [branch.dilation for branch in network.bottleneck.multi_scale.dilated] == [6, 12, 18]
    assert len(network.decoder.seg_layers) == 4


@pytest.mark.parametrize("deep_supervision", [False, True])
def test_a_size_that_the_strides_do_not_divide_is_padded_with_zeros_and_cropped(deep_supervision):
    network = make(deep_supervision=deep_supervision).double().eval()
    image = torch.randn(1, 1, 30, 33, dtype=torch.float64)
    padded = torch.zeros(1, 1, 32, 36, dtype=torch.float64)
    padded[..., :30, :33] = image
    outputs, expected = network(image), network(padded)
    if not deep_supervision:
        outputs, expected = [outputs], [expected]
    # nnU-Net's targets have round(n * scale) positions: half of 33 is 16.
    for output, whole, size in zip(outputs, expected, [(30, 33), (15, 16)], strict=False):
        assert output.shape[2:] == size
        torch.testing.assert_close(output, whole[..., : size[0], : size[1]])


def test_an_image_of_another_dimension_is_refused():
    with pytest.raises(ValueError, match=r"the network has 2 spatial axes, the image 3: \[1, 1, 8, 8, 8\]"):
        make()(torch.randn(1, 1, 8, 8, 8))


def test_a_bottleneck_of_one_position_is_refused_where_it_cannot_be_normalised():
    with pytest.raises(ValueError, match=r"\[4, 4\] leaves one position"):
        make(norm="instance").eval()(torch.randn(2, 1, 4, 4))
    with pytest.raises(ValueError, match="one position"):
        make(norm="batch").train()(torch.randn(1, 1, 4, 4))
    assert make(norm="batch").eval()(torch.randn(1, 1, 4, 4)).shape == (1, 2, 4, 4)


def test_lists_of_the_wrong_length_are_refused():
    with pytest.raises(ValueError, match=r"features_per_stage must have 3 entries, got 2"):
        make(n_stages=3, features_per_stage=[4, 4])
    with pytest.raises(ValueError, match="give n_conv_per_stage, for a plain encoder, or n_blocks_per_stage"):
        make(n_conv_per_stage=None)
    with pytest.raises(ValueError, match=r"strides must have 3 entries of 2 numbers"):
        make(strides=[[1, 1], [2, 2], [2, 2, 2]])


# --- from nnU-Net's plans -----------------------------------------------------------------------------


@pytest.mark.parametrize("max_stages", [None, 5])
@pytest.mark.parametrize(("n_stages", "dimension"), [(2, 2), (5, 3), (6, 2), (8, 2)])
@pytest.mark.parametrize("residual", [False, True])
def test_any_plan_keeps_all_its_stages_or_as_many_as_are_wanted(n_stages, dimension, residual, max_stages):
    stages = min(n_stages, max_stages or n_stages)
    patch = [2 * 2 ** (stages - 1)] * dimension
    architecture = plan(n_stages, dimension, residual=residual)
    network = build_network(architecture, patch, 2, 3, deep_supervision=False, max_stages=max_stages).eval()
    assert len(network.encoder.stages) == stages
    if dimension == 2:
        assert network(torch.randn(1, 2, *patch)).shape == (1, 3, *patch)


def test_the_decoders_convolutions_are_those_of_the_levels_that_remain():
    arguments = network_arguments(plan(7), [64, 64], max_stages=5)
    assert arguments["n_conv_per_stage_decoder"] == [3, 4, 5, 6]  # of 1..6, the two deepest levels' are gone
    assert network_arguments(plan(7), [64, 64])["n_conv_per_stage_decoder"] == [1, 2, 3, 4, 5, 6]


def test_dilations_are_scaled_to_the_bottleneck_unless_given():
    assert network_arguments(plan(5), [160, 192])["dilations"] == [2, 4, 6]
    assert network_arguments(plan(6), [160, 192])["dilations"] == [1, 2, 3]
    assert network_arguments(plan(6), [512, 512], max_stages=5)["dilations"] == [6, 12, 18]
    assert network_arguments(plan(5), [160, 192], {"dilations": [1, 3]})["dilations"] == [1, 3]


def test_an_argument_that_the_network_does_not_know_is_named():
    architecture = plan(5)
    architecture["network_class_name"] = "nnunetv2_eccam.architectures.eccam_unet.ECCaMUNet"
    architecture["arch_kwargs"]["dilation"] = [1]
    with pytest.raises(UserError, match="give the network dilation, which EC-CaM-UNet does not know"):
        network_arguments(architecture, [64, 64])


def test_initialisation_is_nnunets():
    network = build_network(plan(4), [64, 64], 1, 2, deep_supervision=True)
    convs = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    assert all(conv.bias is None or not conv.bias.any() for conv in convs)
    wide = network.decoder.levels[0][0].conv.weight
    he = math.sqrt(2 / (1 + 0.01**2) / math.prod(wide.shape[1:]))
    assert wide.std().item() == pytest.approx(he, rel=0.1)
