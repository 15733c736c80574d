"""Multi-Dimensional Collaborative Attention, CoA (eq. 4, Fig. 2b): channel and spatial correlation."""

from torch import Tensor, nn

from nnunetv2_eccam.blocks.channel_correlation import ChannelCorrelation
from nnunetv2_eccam.blocks.spatial_correlation import SpatialCorrelation


class CollaborativeAttention(nn.Module):
    """``F_A = S (x) F^C + F`` (eq. 4), and its two halves alone for the ablations.

    Both correlations are taken from the same input: S gathers the channel-weighted map, and the residual
    keeps the original. With channel correlation alone the result is ``F^C``; with spatial correlation
    alone it is ``S (x) F + F``.

    Args:
        channel: the channel correlation, or None.
        spatial: the spatial correlation, or None.

    Shape:
        ``(B, C, *spatial)`` to the same.

    Raises:
        ValueError: both are None.
    """

    def __init__(self, channel: ChannelCorrelation | None, spatial: SpatialCorrelation | None) -> None:
        super().__init__()
        if channel is None and spatial is None:
            raise ValueError("collaborative attention needs the channel or the spatial correlation, got neither")
        self.channel = channel
        self.spatial = spatial

    def forward(self, features: Tensor) -> Tensor:
        """Apply the attention."""
        weighted = features if self.channel is None else self.channel(features)
        if self.spatial is None:
            return weighted
        attended: Tensor = self.spatial(features, weighted) + features
        return attended
