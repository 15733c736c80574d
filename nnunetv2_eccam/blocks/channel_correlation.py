"""Channel correlation, CC (eq. 2, 3, 5-7, Fig. 3b): channel weights from a 1D autoencoder over channels."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_eccam.blocks.convolution import LayerOps

Upsampling = Literal["transposed", "interpolation"]


class ChannelCorrelation(nn.Module):
    """``F^C = theta_hat * F`` with ``theta_hat = sigmoid(autoencoder(theta))``, ``theta`` the channel means.

    The autoencoder convolves along the channel axis: k=3 s=1, then k=7 s=2, which halves the sequence,
    each with normalisation and nonlinearity; then back to C values, by a transposed convolution (k=7,
    s=2) or by linear interpolation and a convolution (the paper names both), with a sigmoid. Beside
    squeeze-and-excitation's two dense layers this has a few hundred weights, whatever C is. (Equations 1
    and 2 name this block and the spatial one the wrong way round; figures and equations 5-9 are right.)

    Args:
        channels: C, any number.
        ops: the operators; the autoencoder takes the one-dimensional counterpart of their norm.
        hidden_channels: width of the autoencoder, which the paper does not give.
        upsampling: the way back to C values.

    Shape:
        ``(B, C, *spatial)`` to the same.

    Raises:
        ValueError: an unknown ``upsampling``.
    """

    def __init__(
        self,
        channels: int,
        ops: LayerOps,
        hidden_channels: int = 8,
        upsampling: Upsampling = "transposed",
    ) -> None:
        super().__init__()
        self.channels = channels
        self.upsampling = upsampling

        def layer(kernel_size: int, stride: int, input_channels: int, length: int) -> nn.Sequential:
            conv = nn.Conv1d(input_channels, hidden_channels, kernel_size, stride, kernel_size // 2)
            # A sequence of one value, from one or two channels, has nothing to be normalised by.
            norm = ops.norm_1d(hidden_channels) if length > 1 else nn.Identity()
            return nn.Sequential(conv, norm, ops.activation())

        halved = (channels + 1) // 2
        self.compress = nn.Sequential(layer(3, 1, 1, channels), layer(7, 2, hidden_channels, halved))
        if upsampling == "transposed":
            # Gives (halved - 1) * 2 - 2 * 3 + 7 = 2 * halved - 1 values: C for odd C, one short for even C.
            self.restore: nn.Module = nn.ConvTranspose1d(hidden_channels, 1, 7, 2, 3, output_padding=1 - channels % 2)
        elif upsampling == "interpolation":
            self.restore = nn.Conv1d(hidden_channels, 1, 3, 1, 1)
        else:
            raise ValueError(f"upsampling must be 'transposed' or 'interpolation', got {upsampling!r}")

    def channel_weights(self, features: Tensor) -> Tensor:
        """Give ``theta_hat`` (eq. 5, 6), values in (0, 1).

        Returns:
            ``(B, C)``.
        """
        theta = features.flatten(2).mean(2)
        code = self.compress(theta.unsqueeze(1))
        if self.upsampling == "interpolation":
            code = F.interpolate(code, size=self.channels, mode="linear", align_corners=False)
        theta_hat: Tensor = self.restore(code).sigmoid().squeeze(1)
        return theta_hat

    def forward(self, features: Tensor) -> Tensor:
        """Weight each channel (eq. 3, 7)."""
        weights = self.channel_weights(features)
        return features * weights.view(*weights.shape, *[1] * (features.ndim - 2))
