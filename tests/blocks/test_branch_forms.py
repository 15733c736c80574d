"""Enhanced Convolution's forms: each against plain autograd and as one convolution at inference, and its start."""

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from dynamic_network_architectures.building_blocks.helper import get_matching_batchnorm
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from naive_formulas import Convolutions, randomised
from torch import nn
from unet_plans import CONVS, INSTANCE_NORMS, small_arguments

from nnunetv2_eccam.architectures.eccam_unet import ECCaMUNet
from nnunetv2_eccam.blocks.convolution import LayerOps
from nnunetv2_eccam.blocks.enhanced_convolution import BRANCH_FORMS, BRANCH_INITS, EnhancedConvolution

EXACT = {"rtol": 1e-9, "atol": 1e-9}
CONVOLUTIONS = {2: F.conv2d, 3: F.conv3d}
OPS = {
    dimension: LayerOps(conv, True, INSTANCE_NORMS[dimension], {"affine": True}, nonlin=nn.LeakyReLU)
    for dimension, conv in CONVS.items()
}


def block_of(form: str, dimension: int = 2, init: str = "he_each", stride: int = 1):
    kernel, strides = [3] * dimension, [stride] * dimension
    return randomised(EnhancedConvolution(3, 4, kernel, strides, OPS[dimension], False, form, init))


def branch_by_branch(block: EnhancedConvolution, features: torch.Tensor) -> torch.Tensor:
    """The block as three or four convolutions, by torch's own operations alone."""
    convolution = CONVOLUTIONS[features.ndim - 2]
    summed = 0
    for index, conv in enumerate([block.square, *block.asymmetric]):
        kernel, per_output = conv.weight, (-1, *[1] * (features.ndim - 1))
        if block.branch_form == "weight_norm":
            kernel = kernel / kernel.flatten(1).norm(dim=1).view(per_output)
        if block.branch_form in ("scale", "weight_norm"):
            kernel = kernel * block.scales[index].view(per_output)
        branch = convolution(features, kernel, conv.bias, block.stride, conv.padding)
        if block.branch_form == "batch_norm":
            norm = block.branch_norms[index]
            mean, variance = (None, None) if norm.training else (norm.running_mean, norm.running_var)
            branch = F.batch_norm(branch, mean, variance, norm.weight, norm.bias, training=norm.training, eps=norm.eps)
        summed = summed + branch
    return F.leaky_relu(F.instance_norm(summed, weight=block.norms[0].weight, bias=block.norms[0].bias))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("form", BRANCH_FORMS)
def test_a_form_trains_as_its_branches_run_apart_and_is_one_convolution_at_inference(form, dimension, stride):
    block = block_of(form, dimension, stride=stride).train()
    features = torch.randn(2, 3, *[6, 5, 4][:dimension], dtype=torch.float64, requires_grad=True)
    with Convolutions() as in_training:
        output = block(features)
    assert in_training.n == (1 + dimension if form == "batch_norm" else 1)
    expected = branch_by_branch(block, features)
    torch.testing.assert_close(output, expected, **EXACT)
    weights = torch.randn_like(output)
    of = [features, *block.parameters()]
    found, right = (torch.autograd.grad((o * weights + o**3).sum(), of) for o in (output, expected))
    for one, other in zip(found, right, strict=True):
        torch.testing.assert_close(one, other, **EXACT)
    with torch.no_grad(), Convolutions() as at_inference:
        output = block.eval()(features)
    assert at_inference.n == 1
    torch.testing.assert_close(output, branch_by_branch(block, features), **EXACT)


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("form", [*BRANCH_FORMS, "norm_per_branch"])
def test_the_sum_begins_as_nnunets_one_kernel_or_longer_or_as_a_cross(form, dimension):
    torch.manual_seed(0)
    batch_norm = get_matching_batchnorm(dimension=dimension)
    choice = {"norm_per_branch": True, "norm_op": batch_norm} if form == "norm_per_branch" else {"branch_form": form}
    by_position: dict[str, torch.Tensor] = {}
    for init in BRANCH_INITS:
        arguments = {**small_arguments(dimension, OPS[dimension].norm_op, [24, 64]), "n_conv_per_stage": 1, **choice}
        network = ECCaMUNet(1, 2, **arguments, dilations=[1], branch_init=init)
        network.apply(network.initialize)
        block = network.encoder.stages[1][0]
        norms = block._norms_of_branches()
        if norms is None:
            kernel = block.one_kernel()[0]
        else:  # on white noise each branch's norm divides by its kernel's length
            scales = [n.weight / c.weight.flatten(1).norm(dim=1) for n, c in zip(norms, block._convs(), strict=True)]
            kernel = 0
            for conv, scale in zip(block._convs(), scales, strict=True):
                around = [(3 - size) // 2 for size in reversed(conv.kernel_size) for _ in range(2)]
                kernel = kernel + F.pad(conv.weight * scale.view(-1, *[1] * (dimension + 1)), around)
            kernel = kernel * math.sqrt(2 / (1 + 0.01**2))
        by_position[init] = kernel.detach().var((0, 1)) * 24 * 3**dimension * (1 + 0.01**2) / 2
    ones = torch.ones([3] * dimension)
    # A norm in each branch takes no notice of a kernel's length.
    longer = 1 if form in ("batch_norm", "norm_per_branch") else 1 + dimension * 3 / 3**dimension
    torch.testing.assert_close(by_position["he_sum"], ones, rtol=0.2, atol=0)
    torch.testing.assert_close(by_position["he_rate"], ones * longer, rtol=0.2, atol=0)
    assert by_position["he_each"][(1,) * dimension] > 3 * by_position["he_each"][(0,) * dimension]


@pytest.mark.parametrize("dimension", [2, 3])
def test_he_rate_learns_at_the_rate_of_nnunets_convolution(dimension):
    torch.manual_seed(0)
    features = torch.randn(8, 24, *[12] * dimension)
    target = torch.randn(8, 64, *[12] * dimension)

    def rate(layer: nn.Module) -> float:
        """How fast a step of SGD lowers the loss: the squared length of the kernels' gradient."""
        output = F.instance_norm(layer(features))
        kernels = [parameter for parameter in layer.parameters() if parameter.ndim > 1]
        return sum(float(grad.square().sum()) for grad in torch.autograd.grad((output * target).sum(), kernels))

    def block(init: str) -> EnhancedConvolution:
        ops = LayerOps(CONVS[dimension], True, nn.Identity, nonlin=nn.Identity)
        return EnhancedConvolution(24, 64, [3] * dimension, [1] * dimension, ops, branch_init=init)

    layers = {init: block(init) for init in BRANCH_INITS} | {"plain": CONVS[dimension](24, 64, 3, padding=1)}
    for layer in layers.values():
        layer.apply(InitWeights_He(1e-2))
        if isinstance(layer, EnhancedConvolution):
            layer.begin()
    found = {name: rate(layer) / rate(layers["plain"]) for name, layer in layers.items()}
    assert found["he_rate"] == pytest.approx(1, rel=0.05)
    assert found["he_sum"] == pytest.approx({2: 5 / 3, 3: 4 / 3}[dimension], rel=0.05)
    assert found["he_each"] == pytest.approx({2: 5 / 9, 3: 1 / 3}[dimension], rel=0.05)


@pytest.mark.parametrize("form", ["norm_per_branch", *BRANCH_FORMS])
def test_the_kernel_that_inference_keeps_follows_every_change(form):
    ops = LayerOps(nn.Conv2d, True, nn.BatchNorm2d, nonlin=nn.ReLU)
    choice: dict[str, Any] = {"norm_per_branch": True} if form == "norm_per_branch" else {"branch_form": form}
    block, other = (EnhancedConvolution(3, 4, [3, 3], [1, 1], ops, **choice) for _ in range(2))
    assert block.branch_init == ("he_each" if form == "norm_per_branch" else "he_sum")
    features = torch.randn(2, 3, 6, 5)

    def is_its_own(kept_by) -> torch.Tensor:
        with kept_by():
            output = block.eval()(features)
            torch.testing.assert_close(output, block(features))
        with torch.enable_grad():  # makes the kernel anew
            torch.testing.assert_close(output, block(features).detach())
        return output.clone()

    outputs = [is_its_own(torch.no_grad)]
    block.load_state_dict(other.state_dict())
    outputs.append(is_its_own(torch.inference_mode))
    with torch.no_grad():
        block.square.weight.add_(1)
    outputs.append(is_its_own(torch.no_grad))
    block.asymmetric[0].weight.data = torch.randn(4, 3, 3, 1)
    outputs.append(is_its_own(torch.no_grad))
    block.train()(features + 3).sum().backward()
    torch.optim.SGD(block.parameters(), 0.1).step()
    outputs.append(is_its_own(torch.no_grad))
    for one, following in itertools.pairwise(outputs):
        assert not torch.allclose(one, following)


def test_an_unknown_or_a_doubled_form_is_refused():
    with pytest.raises(ValueError, match=r"branch_form must be one of sum, scale, weight_norm, batch_norm, got 'mean'"):
        block_of("mean")
    with pytest.raises(ValueError, match="branch_init must be one of he_each, he_sum, he_rate, got 'zero'"):
        block_of("sum", init="zero")
    with pytest.raises(ValueError, match="norm_per_branch is a form of its own"):
        EnhancedConvolution(1, 1, [3, 3], [1, 1], OPS[2], True, "scale")
