"""Where CoAG-MuSFu sits: which stages it follows, where its map goes, and its identity path."""

import pytest
import torch
from torch import nn
from unet_plans import MODULE_OFF, plan, small_arguments

from nnunetv2_eccam.architectures.eccam_unet import ATTENTION_STAGES, ECCaMUNet, stages_with_attention
from nnunetv2_eccam.architectures.from_plans import CLASS_NAME, build_network, network_arguments

HALVINGS = [[1, 1]] + [[2, 2]] * 6


@pytest.mark.parametrize(
    ("where", "strides", "stages"),
    [
        ("deepest", HALVINGS, [6]),
        ("1/16", HALVINGS, [4]),
        ("both", HALVINGS, [4, 6]),
        ("from 1/16", HALVINGS, [4, 5, 6]),
        ([3, 5, 3], HALVINGS, [3, 5]),
        ("1/16", HALVINGS[:4], [3]),  # no map is as small: the deepest
        ("both", HALVINGS[:5], [4]),
        ("1/16", [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]], [4]),
        ("1/16", [[1, 1], [4, 4], [4, 4], [2, 2]], [2]),
    ],
)
def test_a_place_is_found_by_the_strides(where, strides, stages):
    assert stages_with_attention(where, strides) == stages


@pytest.mark.parametrize(("where", "word"), [("1/8", "must be one of"), ([], "from 0 to 6"), ([7], "from 0 to 6")])
def test_a_place_that_there_is_not_is_refused(where, word):
    with pytest.raises(ValueError, match=word):
        stages_with_attention(where, HALVINGS)


def built(where, **switches):
    return build_network(plan(7), [512, 384], 1, 2, True, {"attention_stages": where, **switches})


def test_rates_and_widths_are_those_of_each_place():
    network = built("both", features_per_stage=[2, 3, 4, 6, 8, 12, 16])
    by_stage = {**network.earlier_fusions, "6": network.bottleneck}
    found = {n: [branch.dilation for branch in fusion.multi_scale.dilated] for n, fusion in by_stage.items()}
    assert found == {"4": [4, 9, 14], "6": [1, 2, 3]}  # of 24 and of 6 positions along the smaller axis
    assert {n: fusion.multi_scale.pointwise.conv.out_channels for n, fusion in by_stage.items()} == {"4": 2, "6": 4}
    assert {n: fusion.attention.channel.channels for n, fusion in by_stage.items()} == {"4": 8, "6": 16}


def test_stated_rates_are_the_deepest_stages_or_given_by_stage():
    def rates(**switches):
        return network_arguments(plan(7), [512, 384], switches)["dilations"]

    assert rates() == [1, 2, 3]
    assert rates(attention_stages="1/16") == {"4": [4, 9, 14]}
    assert rates(attention_stages="1/16", dilations={"4": [3]}) == {"4": [3]}
    assert rates(attention_stages="both", dilations={"4": [3]}) == {"4": [3], "6": [1, 2, 3]}
    # The deepest stage has 8x6 positions, the fourth from 0 has 32x24: four times as many along each axis.
    assert rates(attention_stages="both", dilations=[1, 4]) == {"4": [4, 16], "6": [1, 4]}
    assert rates(attention_stages=[5], dilations=[[1, 2], 3]) == {"5": [[2, 4], 6]}
    assert rates(attention_stages=[5], dilations={"6": [2]}) == {"5": [4]}


def test_a_configuration_that_states_the_rates_of_its_deepest_stage_may_have_the_module_elsewhere():
    """As ``nnUNetv2_eccam plans`` writes it: the rates that it states are those that the place would have had."""
    written = {**plan(7), "network_class_name": CLASS_NAME}
    written["arch_kwargs"] = network_arguments(plan(7), [512, 384])
    for where in ATTENTION_STAGES:
        switches = {"attention_stages": where}
        expected = network_arguments(plan(7), [512, 384], switches)["dilations"]
        assert network_arguments(written, [512, 384], switches)["dilations"] == expected


@pytest.mark.parametrize("where", ATTENTION_STAGES)
def test_the_map_goes_on_into_the_deeper_stage_and_the_skip_connection(where):
    torch.manual_seed(0)
    network = built(where).train()
    inputs: dict[str, torch.Tensor] = {}
    outputs: dict[str, torch.Tensor] = {}
    fusions = {**network.earlier_fusions, "6": network.bottleneck}
    for name, fusion in fusions.items():
        fusion.register_forward_hook(lambda module, args, output, name=name: outputs.update({name: output}))
    for n, stage in enumerate(network.encoder.stages):
        stage.register_forward_pre_hook(lambda module, args, n=n: inputs.update({str(n): args[0]}))
    network.decoder.register_forward_pre_hook(lambda module, args: inputs.update(skips=args[0]))
    logits = network(torch.randn(1, 1, 128, 192))
    assert sorted(outputs) == sorted({str(n) for n in stages_with_attention(where, HALVINGS)} | {"6"})
    for name, output in outputs.items():
        assert inputs["skips"][int(name)] is output
        assert name == "6" or inputs[str(int(name) + 1)] is output
    sum(output.square().mean() for output in logits).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_with_an_identity_path_the_network_begins_as_the_one_without_the_module_and_learns_it():
    arguments = {**small_arguments(2, nn.InstanceNorm2d, [4, 6, 10]), "dilations": [1, 2], "attention_residual": True}
    network = ECCaMUNet(1, 2, **arguments, attention_stages=[1, 2])
    without = ECCaMUNet(1, 2, **arguments, **MODULE_OFF)
    shared = {n: w for n, w in network.state_dict().items() if not n.startswith(("bottleneck", "earlier_fusions"))}
    without.load_state_dict(shared)
    image = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(network(image), without(image), rtol=0, atol=0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):  # the first step moves the gain, the second what is behind it
        optimizer.zero_grad()
        network(image).square().mean().backward()
        optimizer.step()
    for fusion in (network.bottleneck, network.earlier_fusions["1"]):
        assert fusion.gain.abs().min() > 0
        assert fusion.multi_scale.restore.conv.weight.grad.abs().max() > 0
