"""The network: shapes, gradients, refusals, and what it makes of nnU-Net's plans."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from unet_plans import BATCH_NORMS, INSTANCE_NORMS, plan, small_arguments

from nnunetv2_eccam.architectures.eccam_unet import ECCaMUNet
from nnunetv2_eccam.architectures.from_plans import build_network, network_arguments

NORMS = {"batch": BATCH_NORMS, "instance": INSTANCE_NORMS}


def make(dimension=2, norm="instance", input_channels=1, num_classes=2, features=(4, 6, 10), **switches):
    arguments = {**small_arguments(dimension, NORMS[norm][dimension], features), "dilations": [1, 2, 3]}
    return ECCaMUNet(input_channels, num_classes, **{**arguments, **switches})


STRIDES, KERNELS = (st.tuples(*[st.sampled_from(each)] * 3) for each in ([1, 2], [1, 3]))
SWITCHES = {
    "norm_per_branch": True,
    "downsampling": "max_pool",
    "correlation_upsampling": "interpolation",
    "multi_scale_channels": 3,
    "conv_bias": False,
}


@given(
    dimension=st.sampled_from([2, 3]),
    blocks=st.lists(st.integers(1, 5), min_size=3, max_size=3),
    strides=st.tuples(STRIDES, STRIDES),
    kernels=st.tuples(KERNELS, KERNELS, KERNELS),
    features=st.lists(st.integers(1, 9), min_size=3, max_size=3),
    channels=st.integers(1, 3),
    classes=st.integers(1, 4),
    batch=st.integers(1, 2),
    norm=st.sampled_from(["batch", "instance"]),
    switches=st.fixed_dictionaries({}, optional={name: st.just(value) for name, value in SWITCHES.items()}),
)
@settings(max_examples=30, deadline=None)
def test_any_plan_gives_logits_of_the_images_size_and_trains_every_parameter(
    dimension, blocks, strides, kernels, features, channels, classes, batch, norm, switches
):
    if max(blocks[:dimension]) == 1:
        blocks = [2, *blocks[1:]]  # one position has no variance; refused, see below
    strides = [(1,) * dimension, *(stride[-dimension:] for stride in strides)]
    kernels = [kernel[-dimension:] for kernel in kernels]
    network = make(dimension, norm, channels, classes, features, strides=strides, kernel_sizes=kernels, **switches)
    size = [n * math.prod(axis) for n, axis in zip(blocks, zip(*strides, strict=True), strict=False)]
    image = torch.randn(batch, channels, *size)
    network.decoder.deep_supervision = True
    outputs = network.train()(image)
    assert [list(o.shape[2:]) for o in outputs] == [size, [n // s for n, s in zip(size, strides[1], strict=True)]]
    sum(output.square().mean() for output in outputs).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    network.decoder.deep_supervision = False
    assert network.eval()(image).shape == (batch, classes, *size)


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


def test_arguments_that_do_not_fit_each_other_are_refused():
    with pytest.raises(ValueError, match=r"features_per_stage must have 3 entries, got 2"):
        make(n_stages=3, features_per_stage=[4, 4])
    with pytest.raises(ValueError, match="give n_conv_per_stage, for a plain encoder, or n_blocks_per_stage"):
        make(n_conv_per_stage=None)
    with pytest.raises(ValueError, match=r"strides must have 3 entries of 2 numbers"):
        make(strides=[[1, 1], [2, 2], [2, 2, 2]])
    with pytest.raises(ValueError, match="deep_supervision needs side_outputs"):
        make(side_outputs=False, deep_supervision=True)


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


def test_initialisation_is_nnunets():
    network = build_network(plan(4), [64, 64], 1, 2, deep_supervision=True)
    wide = network.decoder.levels[0][0].conv.weight
    he = math.sqrt(2 / (1 + 0.01**2) / math.prod(wide.shape[1:]))
    assert wide.std().item() == pytest.approx(he, rel=0.1)
