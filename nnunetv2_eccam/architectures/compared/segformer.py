"""SegFormer: a hierarchical transformer encoder and a decoder of linear layers.

Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers", NeurIPS
2021: the paper's reference [40]. The network is that of segmentation_models_pytorch, which is optional.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_eccam.architectures.compared.network import LibraryNetwork


class EfficientSelfAttention(nn.Module):
    """Efficient self-attention (section 3.1, eq. 1-2), in single precision at least.

    Queries are of every position, keys and values of a map that a strided convolution with layer norm has
    reduced: ``softmax(Q K^T / sqrt(d)) V`` per head. It has the layers, and so the parameters, of
    segmentation_models_pytorch's attention and gives the same result; but there the products ``Q K^T``
    are taken in half precision under autocast, whose range (65504) large activations leave, and the
    matrix of positions times reduced positions is held.

    Args:
        attention: segmentation_models_pytorch's, whose layers are taken over.

    Shape:
        ``(B, height * width, C)`` to the same.
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.num_heads: int = attention.num_heads
        self.q: nn.Module = attention.q
        self.kv: nn.Module = attention.kv
        self.sr: nn.Module = attention.sr  # reduces the map; the identity in the last stage
        self.norm: nn.Module = attention.norm
        self.proj: nn.Module = attention.proj

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """Attend to the reduced map."""
        batch, positions, channels = tokens.shape
        grid = tokens.transpose(1, 2).reshape(batch, channels, height, width)
        reduced = self.sr(grid).flatten(2).transpose(1, 2)
        keys, values = self.kv(self.norm(reduced)).chunk(2, -1)
        kept = torch.promote_types(tokens.dtype, torch.float32)
        heads = [
            part.reshape(batch, -1, self.num_heads, channels // self.num_heads).transpose(1, 2).to(kept)
            for part in (self.q(tokens), keys, values)
        ]
        with torch.autocast(tokens.device.type, enabled=False):
            gathered = F.scaled_dot_product_attention(*heads)
        output: Tensor = self.proj(gathered.transpose(1, 2).reshape(batch, positions, channels).to(tokens.dtype))
        return output


class SegFormer(LibraryNetwork):
    """Mix Transformer encoder, MLP decoder.

    - Encoder: MiT-B2, four stages at 1/4 to 1/32 of the image's size, overlapping patches, efficient
      self-attention, and a 3x3 depthwise convolution in the feed-forward layers instead of a position
      encoding. The EC-CaM-UNet paper does not say which size it took.
    - Decoder (section 3.2, eq. 4): every stage's map to C channels by a linear layer, enlarged to 1/4,
      concatenated, a 1x1 convolution with batch norm and ReLU, and the 1x1 head. C is 768 in the paper
      for MiT-B2 to B5, 256 for B0 and B1.
    - The paper's prediction has 1/4 of the image's size; it is enlarged by 4 bilinearly.

    The authors' code has dropout of 0.1 before the head; segmentation_models_pytorch has none. Its
    attention is replaced by :class:`EfficientSelfAttention`.

    The layer norms are over channels, and the one batch norm is at 1/4: nothing ever has one value to
    normalise by. An image is padded to at least 64 positions per axis so that the last stage has 2x2
    positions to attend to: with one, its queries and keys get no gradient.

    Args:
        input_channels: channels of the image.
        num_classes: logit maps.
        backbone: encoder, ``mit_b0`` to ``mit_b5``.
        decoder_channels: C.

    Raises:
        UserError: segmentation_models_pytorch is not installed.
    """

    title = "SegFormer"
    reduction = 32

    def __init__(
        self, input_channels: int, num_classes: int, backbone: str = "mit_b2", decoder_channels: int = 768
    ) -> None:
        settings = {"decoder_segmentation_channels": decoder_channels}
        super().__init__("Segformer", backbone, input_channels, num_classes, **settings)
        for block in list(self.model.modules()):
            if isinstance(getattr(block, "attn", None), nn.Module):
                block.attn = EfficientSelfAttention(block.attn)
