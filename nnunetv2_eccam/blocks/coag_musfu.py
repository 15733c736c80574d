"""CoAG-MuSFu (III.A.3, eq. 10): collaborative attention fused with multi-scale features."""

from typing import Literal

import torch
from torch import Tensor, nn

from nnunetv2_eccam.blocks.convolution import ConvNormNonlin, LayerOps
from nnunetv2_eccam.blocks.multi_scale import MultiScale

Fusion = Literal["concatenation", "series", "sum"]
FUSIONS: tuple[Fusion, ...] = ("concatenation", "series", "sum")


class CoAGMuSFu(nn.Module):
    """The fusion: ``F = Conv1x1(Concat(F_A, F_S))`` with ``F_A = CoA(F)`` and ``F_S = MuS(F)`` (eq. 10).

    Table III's other two ways are ``series``, ``MuS(CoA(F))`` as in the paper's references 10 and 13, and
    ``sum``, ``F_A + F_S`` as in 20. With one of the two parts absent the block is the other part; with
    neither it passes its input on.

    Args:
        channels: C of the input and the output.
        ops: the operators of the 1x1 convolution.
        attention: CoA, or an attention that it is compared with (Table V), or None.
        multi_scale: MuS, or None.
        fusion: how the two are brought together.
        residual: an identity path around the block, ``F + g * block(F)`` with a learned gain g per channel
            that begins at zero: so the network begins as the one without the block. Without parts there is
            nothing to go around.

    Shape:
        ``(B, C, *spatial)`` to the same.

    Raises:
        ValueError: an unknown ``fusion``.
    """

    def __init__(
        self,
        channels: int,
        ops: LayerOps,
        attention: nn.Module | None,
        multi_scale: MultiScale | None,
        fusion: Fusion = "concatenation",
        residual: bool = False,
    ) -> None:
        super().__init__()
        if fusion not in FUSIONS:
            raise ValueError(f"fusion must be one of {', '.join(FUSIONS)}, got {fusion!r}")
        self.attention = attention
        self.multi_scale = multi_scale
        self.fusion = fusion
        both = attention is not None and multi_scale is not None
        ones = [1] * ops.dimension
        self.fuse = (
            ConvNormNonlin(2 * channels, channels, ones, ones, ops) if both and fusion == "concatenation" else None
        )
        wanted = residual and (attention is not None or multi_scale is not None)
        self.gain = nn.Parameter(torch.zeros(channels, *[1] * ops.dimension)) if wanted else None

    def forward(self, features: Tensor) -> Tensor:
        """Apply the block."""
        fused = self._fused(features)
        return fused if self.gain is None else features + self.gain * fused

    def _fused(self, features: Tensor) -> Tensor:
        attended: Tensor = features if self.attention is None else self.attention(features)
        if self.multi_scale is None:
            return attended
        scales: Tensor = self.multi_scale(attended if self.fusion == "series" else features)
        if self.attention is None or self.fusion == "series":
            return scales
        if self.fuse is None:
            return attended + scales
        fused: Tensor = self.fuse(attended, scales)
        return fused
