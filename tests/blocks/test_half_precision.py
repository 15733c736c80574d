"""The bottleneck's blocks in half precision: activations up to 1e4 stay finite and close to single precision."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nnunetv2_eccam.blocks.channel_correlation import ChannelCorrelation
from nnunetv2_eccam.blocks.coag_musfu import CoAGMuSFu
from nnunetv2_eccam.blocks.collaborative_attention import CollaborativeAttention
from nnunetv2_eccam.blocks.convolution import LayerOps
from nnunetv2_eccam.blocks.multi_scale import MultiScale
from nnunetv2_eccam.blocks.spatial_correlation import SpatialCorrelation

CHANNELS = 64
LARGEST = 1e4
ORDINARY = 20.0

LOSS_SCALE = 2.0**16
"""What nnU-Net's gradient scaler begins with, without which half precision loses small gradients."""

NORMS = {"instance": (nn.InstanceNorm2d, nn.LeakyReLU), "batch": (nn.BatchNorm2d, nn.ReLU)}
TOLERANCE = {torch.float16: 0.02, torch.bfloat16: 0.08}
"""Of the largest value: some ten roundings of 2**-11 and of 2**-8."""


def ops(norm: str) -> LayerOps:
    norm_op, nonlin = NORMS[norm]
    return LayerOps(nn.Conv2d, True, norm_op, {"eps": 1e-5, "affine": True}, nonlin=nonlin)


BLOCKS: dict[str, Callable[[LayerOps], nn.Module]] = {
    "SC": lambda ops: CollaborativeAttention(None, SpatialCorrelation()),
    "SC, scale 1": lambda ops: CollaborativeAttention(None, SpatialCorrelation(1.0)),
    "CC": lambda ops: ChannelCorrelation(CHANNELS, ops),
    "CoA": lambda ops: CollaborativeAttention(ChannelCorrelation(CHANNELS, ops), SpatialCorrelation()),
    "CoA, scale 1": lambda ops: CollaborativeAttention(ChannelCorrelation(CHANNELS, ops), SpatialCorrelation(1.0)),
    "MuS": lambda ops: MultiScale(CHANNELS, ops, (1, 2, 3)),
    "CoAG-MuSFu": lambda ops: CoAGMuSFu(CHANNELS, ops, BLOCKS["CoA"](ops), BLOCKS["MuS"](ops)),
}


def activations(kind: str, largest: float) -> Tensor:
    """Maps with a given largest value.

    ``one-sided`` is what a ReLU leaves, the worst for sums; ``one outlier`` is a single such value among ordinary ones.
    """
    features = torch.randn(2, CHANNELS, 8, 8, generator=torch.Generator().manual_seed(0))
    if kind == "one-sided":
        features = features.abs()
    if kind == "one outlier":
        features[0, 3, 2, 5] = largest
        return features
    return features * (largest / features.abs().max())


def outcome(block: nn.Module, features: Tensor, dtype: torch.dtype) -> tuple[Tensor, dict[str, Tensor]]:
    """The output, and the gradients of its mean square in units of its largest value, by way of the scaled loss."""
    block.zero_grad()
    features = features.clone().requires_grad_()
    half = dtype is not torch.float32
    with torch.autocast("cpu", dtype=dtype if half else torch.bfloat16, enabled=half):
        output = block(features.to(dtype))  # in half precision, as from the layer before
    unit = output.detach().float().abs().max()
    ((output.float() / unit).square().mean() * LOSS_SCALE).backward()
    gradients = {name: p.grad / LOSS_SCALE for name, p in block.named_parameters() if p.grad is not None}
    assert features.grad is not None
    return output.detach().float(), {"features": features.grad / LOSS_SCALE, **gradients}


def both(name: str, norm: str, kind: str, largest: float, dtype: torch.dtype):
    """Output and gradients in single and in half precision; the rounding of the input is not the block's."""
    torch.manual_seed(1)
    block = BLOCKS[name](ops(norm)).train()
    features = activations(kind, largest).to(dtype).float()
    return outcome(block, features, torch.float32), outcome(block, features, dtype)


@pytest.mark.parametrize("kind", ["one-sided", "one outlier", "ordinary", "two-sided"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_activations_of_ten_thousand_give_what_single_precision_gives(dtype, name, norm, kind):
    """Output and gradients; of the kinds that are not even on both sides of zero the gradients are finite."""
    largest = ORDINARY if kind == "ordinary" else LARGEST
    (expected, right), (output, gradients) = both(name, norm, kind, largest, dtype)
    assert torch.isfinite(output).all()
    assert (output - expected).abs().max() <= TOLERANCE[dtype] * expected.abs().max()
    assert gradients.keys() == right.keys()
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
    if kind.startswith("one"):
        return
    weights = [weight for weight in gradients if weight != "features"]
    # A bias in front of a norm has no gradient but rounding, so weights are compared with the largest of all.
    largest = max((float(right[weight].norm()) for weight in weights), default=0)
    for weight in weights:
        assert (gradients[weight] - right[weight]).norm() <= 4 * TOLERANCE[dtype] * largest, weight
    assert (gradients["features"] - right["features"]).norm() <= 4 * TOLERANCE[dtype] * right["features"].norm()
