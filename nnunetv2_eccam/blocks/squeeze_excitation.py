"""Squeeze-and-excitation, SE: the channel attention that Table V compares with."""

from __future__ import annotations

from torch import Tensor, nn

from nnunetv2_eccam.blocks.convolution import LayerOps

REDUCTION = 16
"""The reduction that SE's paper (section 6.1) and CBAM's use throughout."""


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
