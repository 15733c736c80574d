"""nnU-Net's own networks: with the paper's parts off this one is either of them, weight for weight and bit for bit."""

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from dynamic_network_architectures.building_blocks.residual import BasicBlockD, BottleneckD
from dynamic_network_architectures.building_blocks.residual_encoders import ResidualEncoder
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from naive_formulas import Convolutions
from torch import nn
from unet_plans import BATCH_NORMS, INSTANCE_NORMS, MODULE_OFF, PARTS_OFF, plan, renamed_weights, small_arguments

from nnunetv2_eccam.architectures.eccam_unet import ECCaMUNet
from nnunetv2_eccam.architectures.from_plans import CLASS_NAME, build_network, not_followed
from nnunetv2_eccam.blocks.enhanced_convolution import BRANCH_FORMS, EnhancedConvolution
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.systems import SYSTEMS

ANISOTROPIC = {
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 1]],
    "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 1]],
}


def stages(dimension: int, **more) -> dict:
    arguments = small_arguments(dimension, INSTANCE_NORMS[dimension], [3, 5, 6, 8])
    del arguments["n_conv_per_stage"]
    strides = [[1] * dimension] + [[2] * dimension] * 3
    return {**arguments, "strides": strides, "num_classes": 3, "deep_supervision": True, **more}


PLAIN = {"n_conv_per_stage": [2, 1, 2, 3], "n_conv_per_stage_decoder": [1, 2, 3]}
RESIDUAL = {"n_blocks_per_stage": [1, 3, 4, 2], "n_conv_per_stage_decoder": [1, 1, 1]}
BOTTLENECKS = {"block": BottleneckD, "bottleneck_channels": [2, 3, 4, 4], "stem_channels": 4}
CASES = {
    "plain 2D": stages(2, **PLAIN),
    "plain 3D": stages(3, **PLAIN),
    "plain, thick slices": stages(3, **PLAIN, **ANISOTROPIC),
    "plain, nonlinearity first": stages(2, **PLAIN, nonlin_first=True),
    "plain, batch norm": stages(2, **{**PLAIN, "norm_op": nn.BatchNorm2d, "conv_bias": False}),
    "residual 2D": stages(2, **RESIDUAL),
    "residual 3D": stages(3, **RESIDUAL),
    "residual, thick slices": stages(3, **RESIDUAL, **ANISOTROPIC),
    "residual, bottleneck blocks": stages(2, **RESIDUAL, **BOTTLENECKS),
    "residual, bottleneck blocks, thick slices": stages(3, **RESIDUAL, **BOTTLENECKS, **ANISOTROPIC),
    "residual, stem of its own": stages(2, **RESIDUAL, stem_channels=7),
    "residual, dropout, batch norm": stages(
        2, **{**RESIDUAL, "norm_op": nn.BatchNorm2d, "dropout_op": nn.Dropout2d, "dropout_op_kwargs": {"p": 0.3}}
    ),
    "residual, squeeze-excitation": stages(2, **RESIDUAL, squeeze_excitation=True),
    "residual, stochastic depth": stages(
        2, **RESIDUAL, **BOTTLENECKS, stochastic_depth_p=0.3, squeeze_excitation=True,
        squeeze_excitation_reduction_ratio=0.5,
    ),
}  # fmt: skip


def nnunets(arguments: dict) -> nn.Module:
    """The network of dynamic-network-architectures; its U-Net does not hand on all that its encoder takes."""
    if "n_blocks_per_stage" not in arguments:
        return PlainConvUNet(2, **arguments)
    of_encoder = ("stochastic_depth_p", "squeeze_excitation", "squeeze_excitation_reduction_ratio")
    network = ResidualEncoderUNet(2, **{k: v for k, v in arguments.items() if k not in of_encoder})
    if any(name in arguments for name in of_encoder):
        others = ("num_classes", "n_conv_per_stage_decoder", "deep_supervision")
        encoder = ResidualEncoder(2, **{k: v for k, v in arguments.items() if k not in others}, return_skips=True)
        network.encoder = encoder
        network.decoder = UNetDecoder(encoder, *(arguments[name] for name in others))
    return network


def ours(arguments: dict, **switches) -> ECCaMUNet:
    return ECCaMUNet(2, **{**arguments, **switches}, dilations=[1])


def with_the_same_weights(arguments: dict) -> tuple[ECCaMUNet, nn.Module]:
    torch.manual_seed(0)
    reference = nnunets(arguments)
    for parameter in reference.parameters():
        parameter.data = 0.3 * torch.randn_like(parameter)
    network = ours(arguments, **PARTS_OFF)
    given, own = renamed_weights(reference.state_dict()), network.state_dict()
    network.load_state_dict({name: given[name] for name in own})
    own_values = {value.data_ptr() for value in network.parameters()}
    assert len(own_values) == len(list(reference.parameters()))
    return network, reference


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("case", CASES)
def test_with_the_papers_parts_off_it_is_nnunets_network_exactly(case, training):
    network, reference = with_the_same_weights(CASES[case])
    size = [16, 24, 16][: len(CASES[case]["strides"][0])]
    image = torch.randn(2, 2, *size)
    outputs = []
    for each in (network, reference):
        torch.manual_seed(1)  # of dropout and stochastic depth
        outputs.append(each.train(training)(image))
    assert len(outputs[0]) == len(outputs[1]) == 3
    for output, expected in zip(*outputs, strict=True):
        assert torch.equal(output, expected)
    assert network.compute_conv_feature_map_size(size) == reference.compute_conv_feature_map_size(size)


@pytest.mark.parametrize("case", ["residual 2D", "residual, bottleneck blocks"])
def test_initialisation_is_nnunets_and_every_block_begins_as_its_skip_connection(case):
    network = ours(CASES[case], **MODULE_OFF, branch_init="he_sum")
    network.apply(network.initialize)
    blocks = [part for part in network.encoder.modules() if isinstance(part, (BasicBlockD, BottleneckD))]
    assert len(blocks) == sum(CASES[case]["n_blocks_per_stage"])
    for block in blocks:
        last = block.conv2 if isinstance(block, BasicBlockD) else block.conv3
        norm = last.norms[0] if isinstance(last, EnhancedConvolution) else last.norm
        assert not norm.weight.any()
    assert all(not m.bias.any() for m in network.modules() if isinstance(m, nn.Conv2d) and m.bias is not None)


@pytest.mark.parametrize(
    ("case", "form"),
    [("residual 2D", "sum"), ("residual, thick slices", "scale"), ("residual, bottleneck blocks", "weight_norm")],
)
def test_enhanced_convolutions_inside_the_blocks_are_those_blocks_with_the_summed_kernels(case, form):
    """What the branches learn folds into nnU-Net's own network, which gives the same."""
    torch.manual_seed(0)
    network = ours(CASES[case], **MODULE_OFF, branch_form=form).double()
    for parameter in network.parameters():
        parameter.data = 0.3 * torch.randn_like(parameter)
    reference = ours(CASES[case], **PARTS_OFF).double()
    weights = network.state_dict()
    for name, module in network.named_modules():
        if name.endswith(("conv1", "conv2")) and isinstance(module, EnhancedConvolution):
            weights[f"{name}.conv.weight"] = weights[f"{name}.all_modules.0.weight"] = module.one_kernel()[0]
            weights[f"{name}.conv.bias"] = weights[f"{name}.all_modules.0.bias"] = module.square.bias
            for part in ("weight", "bias"):
                value = getattr(module.norms[0], part)
                weights[f"{name}.norm.{part}"] = weights[f"{name}.all_modules.1.{part}"] = value
    reference.load_state_dict({name: weights[name] for name in reference.state_dict()})
    image = torch.randn(2, 2, *[16, 24, 16][: len(CASES[case]["strides"][0])], dtype=torch.float64)
    for output, expected in zip(network(image), reference(image), strict=True):
        torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("case", "form"),
    [
        *(("residual 2D", form) for form in ("norm_per_branch", *BRANCH_FORMS)),
        ("residual, bottleneck blocks", "batch_norm"),
        ("residual, thick slices", "norm_per_branch"),
    ],
)
def test_every_form_runs_as_many_convolutions_at_inference_as_nnunets_network_and_counts_those_of_training(case, form):
    arguments = CASES[case]
    dimension = len(arguments["strides"][0])
    choice = {"branch_form": form}
    if form == "norm_per_branch":
        choice = {"norm_per_branch": True, "norm_op": BATCH_NORMS[dimension]}
    network = ours({**arguments, **choice}, **MODULE_OFF)
    size = [16, 24, 16][:dimension]
    image = torch.randn(2, 2, *size)
    with Convolutions() as in_training:
        network.train()(image)
    assert network.compute_conv_feature_map_size(size) == in_training.values // 2
    with torch.no_grad(), Convolutions() as at_inference:
        network.eval()(image)
    with torch.no_grad(), Convolutions() as theirs:
        nnunets(arguments).eval()(image)
    assert at_inference.n == theirs.n


# --- from nnU-Net's plans -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["unet.ResidualEncoderUNet", "residual_unet.ResidualEncoderUNet"])  # old plans' name
@pytest.mark.parametrize("max_stages", [None, 3])
def test_a_residual_plan_keeps_its_blocks_and_its_decoder(path, max_stages):
    architecture = plan(5, residual=True)
    architecture["network_class_name"] = f"dynamic_network_architectures.architectures.{path}"
    network = build_network(architecture, [64, 64], 1, 2, True, max_stages=max_stages)
    assert [len(stage.blocks) for stage in network.encoder.stages] == [1, 3, 4, 6, 6][:max_stages]
    assert {len(level) for level in network.decoder.levels} == {1}
    assert network.encoder.stem is not None


def test_the_paper_recipe_pools_before_residual_stages():
    network = build_network(plan(4, residual=True), [32, 32], 1, 2, True, {"downsampling": "max_pool"})
    assert isinstance(network.encoder.stages[1][0], nn.MaxPool2d)
    assert network(torch.randn(1, 1, 32, 32))[0].shape == (1, 2, 32, 32)
    assert network.compute_conv_feature_map_size([32, 32]) > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"network_class_name": "dynamic_network_architectures.architectures.primus.Primus"}, "Primus, which this"),
        ({"network_class_name": CLASS_NAME, "dilation": [1]}, "the network dilation, which this package does not know"),
        ({"groups": 2}, "the network groups, which this package does not know; it knows attention_residual, "),
        ({"nonlin_first": True}, "nonlin_first is for plain convolutions"),
        ({"block": "torch.nn.Linear"}, "block must be BasicBlockD or BottleneckD, got Linear"),
        ({"block": "somewhere.Block"}, "block is somewhere.Block, which cannot be imported"),
        (
            {"block": "dynamic_network_architectures.building_blocks.residual.BottleneckD"},
            "BottleneckD needs bottleneck_channels",
        ),
        ({"n_blocks_per_stage": [1, 2]}, r"n_blocks_per_stage must have 4 entries, got 2: \[1, 2\]"),
    ],
)
def test_what_this_package_does_not_know_of_a_plan_is_named_in_one_line(change, said):
    architecture = plan(4, residual=True)
    for name, value in change.items():
        into = architecture if name == "network_class_name" else architecture["arch_kwargs"]
        into[name] = value
    with pytest.raises(UserError, match=said) as error:
        build_network(architecture, [32, 32], 1, 2, True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name or "ECCaM")
def test_a_system_says_what_of_a_residual_plan_it_does_not_follow(system):
    said = not_followed(plan(5, residual=True), system.network)
    if system.network == CLASS_NAME:
        assert said is None
    elif "backbone" in system.differs or system.name == "SegFormer":
        assert said.startswith("it has a backbone of its own")
    else:
        assert said == (
            "it does not follow the plan's residual blocks ([1, 3, 4, 6, 6] a stage): it has 2 convolutions a stage"
        )
    assert (not_followed(plan(5), system.network) is None) == (said is None or "blocks" in said)


def test_a_recipe_says_that_it_takes_fewer_stages():
    assert not_followed(plan(7), SYSTEMS[0].network, 5) == (
        "it does not follow the plan's 7 stages: it has 5, as the paper has"
    )


ABLATIONS = [system for system in SYSTEMS if system.name in ("", "UNet", "UNet_EC", "UNet_CBAM", "Sum")]


@pytest.mark.parametrize("system", ABLATIONS, ids=lambda system: system.name or "ECCaM")
def test_every_ablation_trains_on_a_residual_plan(system):
    network = build_network(plan(3, residual=True), [32, 32], 1, 2, system.side_outputs, system.switches)
    output = network(torch.randn(2, 1, 32, 32))
    sum(o.square().mean() for o in ([output] if isinstance(output, torch.Tensor) else output)).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
