"""HR-Net: its sizes as stated, its fusion and its head."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nnunetv2_eccam.architectures.compared.hr_net import WIDTHS, HRNet, HRNetV2Head


def conv_bn(inputs: int, outputs: int, kernel: int, bias: bool = False) -> int:
    return inputs * outputs * kernel**2 + bias * outputs + 2 * outputs


def hrnetv2_parameters(
    width: int, channels: int, classes: int, bottlenecks=4, squeezed=64, modules=(1, 4, 3), blocks=4
) -> int:
    """Count an HRNetV2 from its structure alone: stem, bottlenecks, transitions, branches, fusions, head."""
    total = conv_bn(channels, 64, 3) + conv_bn(64, 64, 3) + conv_bn(64, 4 * squeezed, 1)
    for inputs in [64, *[4 * squeezed] * (bottlenecks - 1)]:
        total += conv_bn(inputs, squeezed, 1) + conv_bn(squeezed, squeezed, 3) + conv_bn(squeezed, 4 * squeezed, 1)
    widths = [width * 2**branch for branch in range(4)]
    total += conv_bn(4 * squeezed, width, 3) + conv_bn(4 * squeezed, 2 * width, 3)
    total += sum(conv_bn(widths[branch - 1], widths[branch], 3) for branch in (2, 3))
    for repeats, branches in zip(modules, (2, 3, 4), strict=True):
        here = widths[:branches]
        module = sum(2 * blocks * conv_bn(w, w, 3) for w in here)
        for target in range(branches):
            for source in range(branches):
                if source > target:
                    module += conv_bn(here[source], here[target], 1)
                elif source < target:  # strided 3x3 convolutions, of which the last one widens
                    module += (target - source - 1) * conv_bn(here[source], here[source], 3)
                    module += conv_bn(here[source], here[target], 3)
        total += repeats * module
    mixed = sum(widths)
    return total + conv_bn(mixed, mixed, 1, bias=True) + mixed * classes + classes


def n_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("stated", "structure"),
    [
        # HRNetV2-W48 on Cityscapes: Wang et al., TPAMI 2021.
        (65.9, {"width": 48}),
        # The small ones on Cityscapes: README of the authors' HRNet-Semantic-Segmentation.
        (3.9, {"width": 18, "bottlenecks": 2, "modules": (1, 3, 2), "blocks": 2}),
        (1.5, {"width": 16, "bottlenecks": 1, "squeezed": 32, "modules": (1, 1, 1), "blocks": 2}),
    ],
)
def test_the_counting_formula_gives_what_the_authors_state(stated, structure):
    assert round(hrnetv2_parameters(channels=3, classes=19, **structure) / 1e6, 1) == stated


def test_w48_has_the_stated_65_9_million_parameters():
    """HRNetV2-W48 with the 19 classes of Cityscapes: Wang et al., TPAMI 2021."""
    with torch.device("meta"):
        assert round(n_parameters(HRNet(3, 19, width=48)) / 1e6, 1) == 65.9


@pytest.mark.parametrize("width", WIDTHS)
def test_every_width_has_the_parameters_of_its_structure(width):
    with torch.device("meta"):
        assert n_parameters(HRNet(1, 4, width)) == hrnetv2_parameters(width, 1, 4)


def test_the_fusions_enlarge_bilinearly_by_pixel_areas():
    with torch.device("meta"):
        network = HRNet(1, 2)
    enlargements = [module for module in network.modules() if isinstance(module, nn.Upsample)]
    assert len(enlargements) == 1 * 1 + 4 * 3 + 3 * 6
    assert {(module.mode, module.align_corners) for module in enlargements} == {("bilinear", False)}


def test_the_head_is_a_linear_map_of_all_branches_at_the_highest_resolution():
    torch.manual_seed(0)
    channels = (2, 4, 8, 16)
    head = HRNetV2Head(channels, 3).double().eval()
    norm = head.mixing.norm
    with torch.no_grad():
        for values in (norm.weight, norm.bias, norm.running_mean):
            values.normal_()
        norm.running_var.uniform_(0.5, 2)
    branches = [torch.randn(2, c, 16 // 2**i, 24 // 2**i, dtype=torch.float64) for i, c in enumerate(channels)]

    enlarged = [F.interpolate(branch, (16, 24), mode="bilinear") for branch in branches]
    mixed = torch.einsum("oc,bchw->bohw", head.mixing.conv.weight[:, :, 0, 0], torch.cat(enlarged, 1))
    mixed = mixed + head.mixing.conv.bias[:, None, None]
    deviation = (norm.running_var + norm.eps).sqrt()
    mixed = (mixed - norm.running_mean[:, None, None]) / deviation[:, None, None]
    mixed = (mixed * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp(min=0)
    expected = torch.einsum("oc,bchw->bohw", head.classifier.seg_layers.weight[:, :, 0, 0], mixed)
    torch.testing.assert_close(head(branches), expected + head.classifier.seg_layers.bias[:, None, None])


def test_the_four_branches_reach_the_head_before_any_classifier():
    network = HRNet(1, 2).eval()
    seen = []
    network.head.register_forward_pre_hook(lambda _, inputs: seen.extend(branch.shape for branch in inputs[0]))
    with torch.no_grad():
        assert network(torch.zeros(1, 1, 96, 65)).shape == (1, 2, 96, 65)
    assert [tuple(shape) for shape in seen] == [(1, 18, 24, 24), (1, 36, 12, 12), (1, 72, 6, 6), (1, 144, 3, 3)]


def test_refuses_a_width_without_backbone():
    with pytest.raises(ValueError, match=r"width must be one of 18, 30.*got 20"):
        HRNet(1, 2, width=20)
