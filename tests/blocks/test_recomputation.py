"""What training computes anew instead of keeping it, against plain autograd, which keeps everything, in float64."""

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_formulas import EXACT, randomised
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from unet_plans import BATCH_NORMS, CONVS, INSTANCE_NORMS

from benchmarks.measuring import training_memory
from benchmarks.speed import networks
from nnunetv2_eccam.blocks import enhanced_convolution
from nnunetv2_eccam.blocks.convolution import ConvNormNonlin, LayerOps
from nnunetv2_eccam.blocks.enhanced_convolution import EnhancedConvolution

sizes = st.lists(st.integers(2, 7), min_size=2, max_size=3)
channels = st.integers(1, 5)


def ops(dimension: int, norm: type[nn.Module] | None = None, nonlin: type[nn.Module] | None = None, **norm_kwargs):
    return LayerOps(CONVS[dimension], True, norm, norm_kwargs, nonlin=nonlin)


def gradients(output: Tensor, of: list[Tensor]) -> list[Tensor]:
    """The gradients of a loss that weighs every value differently."""
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(9), dtype=output.dtype)
    return list(torch.autograd.grad((output * weights + output.square()).sum(), of))


def plainly_branched(block: EnhancedConvolution, features: Tensor) -> Tensor:
    """EC with a norm per branch by torch's own layers, before the nonlinearity."""
    convs = [block.square, *block.asymmetric]
    return sum(norm(conv(features)) for conv, norm in zip(convs, block.norms, strict=True))


def compared(block: nn.Module, plain: Callable[[nn.Module, list[Tensor]], Tensor], maps: list[Tensor]) -> None:
    """Outputs, gradients of inputs and of all parameters, and buffers after three passes."""
    reference = copy.deepcopy(block)
    for _ in range(3):
        output, expected = block(*maps), plain(reference, maps)
        torch.testing.assert_close(output, expected, **EXACT)
        found = gradients(output, [*maps, *block.parameters()])
        right = gradients(expected, [*maps, *reference.parameters()])
        for one, other in zip(found, right, strict=True):
            # A bias in front of a norm has no gradient but rounding.
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10 * max(1.0, float(other.abs().max())))
    for (name, buffer), (_, right_one) in zip(block.named_buffers(), reference.named_buffers(), strict=True):
        torch.testing.assert_close(buffer, right_one, **EXACT, msg=name)


@given(
    size=sizes,
    width=st.tuples(channels, channels),
    batch=st.integers(1, 3),
    stride=st.integers(1, 2),
    momentum=st.sampled_from([0.1, 0.7, None]),
    affine=st.booleans(),
    tracked=st.booleans(),
    flat=st.booleans(),
    seed=st.integers(0, 9),
)
@settings(max_examples=20, deadline=None)
def test_branches_that_are_not_kept_train_as_those_that_are(
    size, width, batch, stride, momentum, affine, tracked, flat, seed
):
    dimension = len(size)
    kernel = [1 if flat and dimension == 3 else 3, *[3] * (dimension - 1)]
    norm = {"eps": 1e-3, "momentum": momentum, "affine": affine, "track_running_stats": tracked}
    layers = ops(dimension, BATCH_NORMS[dimension], **norm)
    block = EnhancedConvolution(*width, kernel, [stride] * dimension, layers, norm_per_branch=True)
    block = randomised(block, seed).train()
    features = torch.randn(batch, width[0], *[n + 2 for n in size], dtype=torch.float64, requires_grad=True)
    compared(block, lambda reference, maps: plainly_branched(reference, *maps), [features])


@given(
    size=sizes,
    widths=st.lists(channels, min_size=2, max_size=5),
    out=channels,
    kernel=st.sampled_from([1, 3]),
    bias=st.booleans(),
)
@settings(max_examples=12, deadline=None)
def test_a_concatenation_that_is_not_kept_trains_as_one_that_is(size, widths, out, kernel, bias):
    dimension = len(size)
    layers = LayerOps(CONVS[dimension], bias)
    layer = ConvNormNonlin(sum(widths), out, [kernel] * dimension, [1] * dimension, layers)
    maps = [torch.randn(2, width, *size, dtype=torch.float64, requires_grad=True) for width in widths]
    compared(randomised(layer), lambda reference, parts: reference.conv(torch.cat(parts, 1)), maps)


def test_only_the_gradients_that_are_asked_for_are_computed():
    layer = randomised(ConvNormNonlin(5, 3, [3, 3], [1, 1], ops(2)))
    maps = [torch.randn(1, width, 4, 5, dtype=torch.float64) for width in (2, 3)]
    maps[1].requires_grad_()
    layer.requires_grad_(False)
    layer(*maps).sum().backward()
    expected = torch.autograd.grad(layer.conv(torch.cat(maps, 1)).sum(), maps[1])[0]
    torch.testing.assert_close(maps[1].grad, expected, **EXACT)
    layer.conv.bias.requires_grad_(True)
    layer(maps[0], maps[1].detach()).sum().backward()
    assert layer.conv.bias.grad.tolist() == [20, 20, 20]


def test_gradients_of_gradients_are_right():
    """What is computed in the backward pass is itself differentiable."""
    block = randomised(EnhancedConvolution(2, 2, [3, 3], [1, 1], ops(2, None, nn.Tanh)))
    features = torch.randn(2, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradgradcheck(block, features)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_a_norm_whose_branches_must_be_kept_keeps_them(norm):
    """Instance norm per branch, and batch norm over several processes, run by their own modules."""
    layers = ops(2, INSTANCE_NORMS[2], affine=True) if norm == "instance" else ops(2, nn.BatchNorm2d)
    block = EnhancedConvolution(2, 3, [3, 3], [1, 1], layers, norm_per_branch=True)
    if norm == "batch":
        block = nn.SyncBatchNorm.convert_sync_batchnorm(block)
        called: list[nn.Module] = []
        for module in block.norms:
            module.register_forward_pre_hook(lambda module, _: called.append(module))
            module.forward = lambda features: features
        block.train()(torch.randn(2, 2, 5, 5))
        assert called == list(block.norms)
    else:
        features = torch.randn(2, 2, 5, 5, dtype=torch.float64, requires_grad=True)
        compared(randomised(block).train(), lambda reference, maps: plainly_branched(reference, *maps), [features])


@pytest.mark.parametrize(("dtype", "compiled"), [(torch.float16, False), (torch.bfloat16, True)])
@pytest.mark.parametrize("per_branch", [False, True])
def test_mixed_precision_is_that_of_torchs_layers(per_branch, dtype, compiled):
    """In autocast; against float64, as near as plain layers in the same autocast are, up to a factor."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    block = EnhancedConvolution(6, 8, [3, 3], [1, 1], ops(2, nn.BatchNorm2d), per_branch).train()
    features = torch.randn(2, 6, 9, 11, requires_grad=True)

    def plain(module: EnhancedConvolution, maps: Tensor) -> Tensor:
        if per_branch:
            return plainly_branched(module, maps)
        return module.norms[0](sum(conv(maps) for conv in [module.square, *module.asymmetric]))

    run = torch.compile(block, backend="aot_eager") if compiled else block
    names = ["features", *(name for name, p in block.named_parameters() if name != "square.bias")]

    def outcome(function: Callable[..., Tensor], module: nn.Module, maps: Tensor, enabled: bool) -> list[Tensor]:
        with torch.autocast("cpu", dtype, enabled=enabled):
            output = function(maps)
        parameters = dict(module.named_parameters())
        return [output, *gradients(output, [maps if name == "features" else parameters[name] for name in names])]

    half = outcome(run, block, features, True)
    theirs = outcome(lambda maps: plain(block, maps), block, features, True)
    exact = copy.deepcopy(block).double()
    right = outcome(lambda maps: plain(exact, maps), exact, features.detach().double().requires_grad_(), False)
    for name, mine, other, true in zip(["output", *names], half, theirs, right, strict=True):
        assert mine.dtype == other.dtype, name
        allowed = 3 * (other - true).norm() + 4 * torch.finfo(dtype).eps * true.norm()
        assert (mine - true).norm() <= allowed, name


# --- memory -------------------------------------------------------------------------------------------


def kept_for_the_backward_pass(module: nn.Module, *maps: Tensor) -> int:
    """Bytes of storages beside parameters and inputs."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        module(*maps)
    known = {tensor.untyped_storage().data_ptr() for tensor in (*maps, *module.parameters())}
    return sum(size for pointer, size in kept.items() if pointer not in known)


def test_an_enhanced_convolution_keeps_one_map_and_statistics():
    features = torch.randn(2, 8, 32, 32, requires_grad=True)
    one_map = 4 * 2 * 16 * 32 * 32
    per_branch = EnhancedConvolution(8, 16, [3, 3], [1, 1], ops(2, nn.BatchNorm2d), True).train()
    summed = EnhancedConvolution(8, 16, [3, 3], [1, 1], ops(2, nn.BatchNorm2d), False).train()
    for block, n_norms in ((per_branch, 3), (summed, 1)):
        assert 0 <= kept_for_the_backward_pass(block, features) - one_map <= n_norms * 4 * 4 * 16


def test_branches_of_many_channels_are_kept_since_they_are_dear(monkeypatch):
    features = torch.randn(2, 8, 32, 32, requires_grad=True)
    block = EnhancedConvolution(8, 16, [3, 3], [1, 1], ops(2, nn.BatchNorm2d), True).train()
    monkeypatch.setattr(enhanced_convolution, "RECOMPUTED_UP_TO", 7)
    assert kept_for_the_backward_pass(block, features) >= 3 * 4 * 2 * 16 * 32 * 32


def test_a_concatenation_is_not_kept():
    maps = [torch.randn(2, 8, 32, 32, requires_grad=True) for _ in range(3)]
    assert kept_for_the_backward_pass(ConvNormNonlin(24, 4, [3, 3], [1, 1], ops(2)), *maps) == 0


def test_the_networks_need_no_more_memory_than_was_set_out():
    """Of the U-Net with the same norm: 1.10 times for the practical network, 1.25 times for the paper's."""
    allowed = {"EC-CaM-UNet, practical": 1.10, "EC-CaM-UNet, paper": 1.25}
    found: dict[str, int] = {}
    for name, reference, network in networks([16, 32, 64, 128, 256], [128, 128]):
        network.decoder.deep_supervision = True
        found[name] = training_memory(network, torch.randn(4, 1, 128, 128))
        if reference:
            assert found[name] <= allowed[name] * found[reference], name
