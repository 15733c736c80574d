"""Spatial correlation, SC (eq. 1, 8, 9, Fig. 3a): self-attention between the positions of a map."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_CHANNELS_OF_THE_KERNEL = 8
"""Torch's fused kernels want a multiple of this many channels in half precision, of four in single, on a GPU."""

AttentionScale = float | Literal["1/sqrt(C)"]


class SpatialCorrelation(nn.Module):
    """``S (x) V`` with ``S_ij = softmax_j(scale * (E^T E)_ij)`` and ``E`` the map as ``C x N`` matrix.

    There is no learned projection: each position's channel vector is query and key (eq. 8, 9), so the
    block has no parameters. ``S`` is ``N x N`` for N positions and is never held: the product is taken by
    scaled dot-product attention, whose memory grows with N.

    Args:
        scale: what the dot products are multiplied by: 1.0 as eq. 9 is written, or ``"1/sqrt(C)"`` as
            in the self-attention that the paper builds on (its reference 33). With normalised features
            the diagonal of ``E^T E`` is about C, far above the rest, so 1.0 makes S nearly the identity.

    Raises:
        ValueError: ``scale`` is neither a positive number nor ``"1/sqrt(C)"``.
    """

    def __init__(self, scale: AttentionScale = "1/sqrt(C)") -> None:
        super().__init__()
        if scale != "1/sqrt(C)" and not (isinstance(scale, (int, float)) and scale > 0):
            raise ValueError(f"scale must be a positive number or '1/sqrt(C)', got {scale!r}")
        self.scale = scale

    def factor(self, channels: int) -> float:
        """Give what the dot products of so many channels are multiplied by."""
        return channels**-0.5 if self.scale == "1/sqrt(C)" else float(self.scale)

    def forward(self, features: Tensor, values: Tensor) -> Tensor:
        """Gather ``values`` by the correlation of ``features``.

        Args:
            features: ``F``, ``(B, C, *spatial)``, from which S is computed.
            values: what S is multiplied with, ``(B, C, *spatial)``.

        Returns:
            ``sum_j S_ij V_j`` at each position i, ``(B, C, *spatial)``.
        """
        scale = self.factor(int(features.shape[1]))
        # Dot products of hundreds of channels leave the range of half precision (65504), so the attention
        # runs in single precision at least; on a bottleneck's few positions that costs next to nothing.
        kept = torch.promote_types(features.dtype, torch.float32)
        with torch.autocast(features.device.type, enabled=False):
            positions, gathered_from = (as_sequence(tensor.to(kept)) for tensor in (features, values))
            queries = positions * _tempering(positions.detach(), scale)
            gathered = F.scaled_dot_product_attention(queries, positions, gathered_from, scale=scale)
        gathered = gathered[:, 0, :, : values.shape[1]]
        return gathered.transpose(1, 2).reshape(values.shape).to(values.dtype)


def _tempering(positions: Tensor, scale: float) -> Tensor:
    """Give the factor for each position by which its dot products stay within what the precision can tell apart.

    The kernel's backward pass computes ``exp(dot product - log of the row's sum)`` anew, and where a dot product
    is so large that its rounding is above 1 the result, which is at most 1, becomes anything up to infinity. S
    is saturated long before that. The factor is 1, and nothing changes, for dot products below 2**17 in single
    precision.
    """
    largest = 2**-6 / torch.finfo(positions.dtype).eps
    lengths = positions.norm(dim=-1, keepdim=True)
    factor: Tensor = (largest / (lengths * lengths.amax(2, keepdim=True) * scale)).clamp(max=1)
    return factor


def as_sequence(features: Tensor, width: int | None = None) -> Tensor:
    """Give a map as ``(B, 1, N, width)`` in that memory order, with zeros for the missing channels.

    Without a width it is the next multiple of eight. For any other order, and on a GPU for other channels or for
    queries of another width than the values', torch falls back to a kernel that holds S.
    """
    sequence = features.flatten(2).transpose(1, 2)
    missing = -sequence.shape[2] % _CHANNELS_OF_THE_KERNEL if width is None else width - sequence.shape[2]
    # Padding by nothing would be a further copy.
    return (F.pad(sequence, (0, missing)) if missing else sequence).contiguous().unsqueeze(1)
