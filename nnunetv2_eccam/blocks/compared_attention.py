"""The attentions that Table V compares with: squeeze-and-excitation, SE, and convolutional block attention, CBAM."""

from typing import Literal

import torch
from torch import Tensor, nn

from nnunetv2_eccam.blocks.convolution import LayerOps

ComparedAttention = Literal["SE", "CBAM"]

REDUCTION = 16
"""The reduction that SE's paper (section 6.1) and CBAM's use throughout."""

KERNEL = 7
"""Width of CBAM's spatial attention's kernel (its paper, section 3, eq. 3)."""


class SqueezeExcitation(nn.Module):
    """``sigmoid(W2 relu(W1 mean(F))) * F``: channel weights from two dense layers (Hu et al., CVPR 2018, eq. 2-4).

    Args:
        channels: C of the input and the output.
        ops: the operators; only their number of dimensions matters.
        reduction: C over the width of the hidden layer, which is at least 1.

    Shape:
        ``(B, C, *spatial)`` to the same.
    """

    def __init__(self, channels: int, ops: LayerOps, reduction: int = REDUCTION) -> None:
        super().__init__()
        ones = [1] * ops.dimension
        hidden = max(1, channels // reduction)
        self.squeeze = ops.conv(channels, hidden, ones, bias=True)
        self.nonlin = nn.ReLU()
        self.excite = ops.conv(hidden, channels, ones, bias=True)

    def channel_weights(self, features: Tensor) -> Tensor:
        """Give the channels' weights, in (0, 1), ``(B, C)``."""
        axes = list(range(2, features.ndim))
        weights: Tensor = self.excite(self.nonlin(self.squeeze(features.mean(axes, keepdim=True)))).sigmoid()
        return weights.flatten(1)

    def forward(self, features: Tensor) -> Tensor:
        """Weight each channel."""
        weights = self.channel_weights(features)
        return features * weights.view(*weights.shape, *[1] * (features.ndim - 2))


class CBAM(nn.Module):
    """Channel attention from mean and maximum, then spatial attention from both (Woo et al., ECCV 2018).

    ``F' = sigmoid(MLP(mean F) + MLP(max F)) * F`` with one shared two-layer MLP (eq. 2), then
    ``F'' = sigmoid(conv7([mean_c F'; max_c F'])) * F'`` over the channels' mean and maximum (eq. 3).
    The convolution has no normalisation: eq. 3 has none; the authors' code adds a batch norm there.

    Args:
        channels: C of the input and the output.
        ops: the operators; only their number of dimensions matters.
        reduction: C over the width of the MLP's hidden layer, which is at least 1.

    Shape:
        ``(B, C, *spatial)`` to the same.
    """

    def __init__(self, channels: int, ops: LayerOps, reduction: int = REDUCTION) -> None:
        super().__init__()
        ones = [1] * ops.dimension
        hidden = max(1, channels // reduction)
        self.mlp = nn.Sequential(
            ops.conv(channels, hidden, ones, bias=True), nn.ReLU(), ops.conv(hidden, channels, ones, bias=True)
        )
        self.spatial = ops.conv(2, 1, [KERNEL] * ops.dimension, bias=False)

    def channel_weights(self, features: Tensor) -> Tensor:
        """Give the channels' weights, in (0, 1), ``(B, C)``."""
        axes = list(range(2, features.ndim))
        weights: Tensor = self.mlp(features.mean(axes, keepdim=True)) + self.mlp(features.amax(axes, keepdim=True))
        return weights.sigmoid().flatten(1)

    def spatial_weights(self, features: Tensor) -> Tensor:
        """Give the positions' weights for channel-weighted features, in (0, 1), ``(B, 1, *spatial)``."""
        pooled = torch.cat((features.mean(1, keepdim=True), features.amax(1, keepdim=True)), 1)
        weights: Tensor = self.spatial(pooled).sigmoid()
        return weights

    def forward(self, features: Tensor) -> Tensor:
        """Weight each channel, then each position."""
        weights = self.channel_weights(features)
        weighted = features * weights.view(*weights.shape, *[1] * (features.ndim - 2))
        return weighted * self.spatial_weights(weighted)


COMPARED_ATTENTIONS: dict[ComparedAttention, type[SqueezeExcitation | CBAM]] = {"SE": SqueezeExcitation, "CBAM": CBAM}
