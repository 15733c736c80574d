"""MCDALNet: multi-scale contextual learning on a U-Net's skips, dual attention in each decoder level.

P. Guo, X. Su, H. Zhang, F. Bao, "MCDALNet: Multi-scale contextual dual attention learning network for medical
image segmentation", IJCNN 2021, pages 1-8: reference 13 of EC-CaM-UNet's paper, its Fig. 1b. No code of the
authors is known, and neither their text nor their abstract was at hand: what is here was written from
EC-CaM-UNet's description alone.

From EC-CaM-UNet's paper (I, II): "MCL modules on the skip-connections of U-Net to extract multi-scale contextual
information with adaptive receptive fields", and dual attention in each layer of the decoder; the two are used
in series.

Filled in, by the plainest choice:

- MCL: the known module whose receptive field adapts to the input is the selective kernel unit (Li et al., CVPR
  2019, section 3.1): parallel 3x3 convolutions, here with dilation 1, 2 and 4, summed with weights that a
  softmax over the branches gives per channel. Its descriptor has no batch norm here: one value per
  channel and image leaves nothing to normalise by when the batch is one image.
- Dual attention: position and channel attention in parallel, each added to the level's output with a learned
  factor that starts at zero, as in DA-Net (Fu et al., CVPR 2019, section 3), reference 9 of EC-CaM-UNet's paper.
  It follows the level's convolutions.
- DA-Net works on maps of 1/8 of the image and compares all pairs of positions; the last decoder level has the
  image's full resolution. Here every position attends to a grid of at most 256 local means, by scaled
  dot-product attention: time and memory are linear in the positions. A map no larger than the grid is attended
  to as it is, which is DA-Net's form.
- The channels' attention is DA-Net's eq. 3, whose sign its authors' code turns round, with means over the
  positions for the sums, so that the softmax is as sharp for a large image as for a small one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_eccam.architectures.compared.network import UNetFamily
from nnunetv2_eccam.architectures.decoder import Decoder
from nnunetv2_eccam.architectures.encoder import Encoder
from nnunetv2_eccam.architectures.unet_plan import UNetPlan
from nnunetv2_eccam.blocks.convolution import LayerOps
from nnunetv2_eccam.blocks.multi_scale import DilatedConvolution
from nnunetv2_eccam.blocks.spatial_correlation import as_sequence

DILATIONS = (1, 2, 4)
"""Rates of the MCL module's branches."""

DESCRIPTOR_REDUCTION, LEAST_DESCRIPTOR = 16, 32
"""Channels over the width of the MCL module's descriptor, and its least width (selective kernels, eq. 4: r, L)."""

CONTEXT_POSITIONS = 256
"""The most means that a position attends to: a grid of 16x16, or of 6x6x6."""

QUERY_REDUCTION = 8
"""Channels over the width of queries and keys (the authors' code of DA-Net)."""


class MCDALNet(UNetFamily):
    """MCDALNet: plain encoder, MCL on every skip, and dual attention at the end of every decoder level.

    What its paper defines and what was filled in stands in the module's docstring. There is one head.
    """

    def __init__(self, plan: UNetPlan, input_channels: int, num_classes: int) -> None:
        super().__init__(plan)
        self.encoder = Encoder(input_channels, plan)
        *skips, _ = plan.features_per_stage
        self.skips = nn.ModuleList(MultiScaleContextualLearning(width, plan.ops) for width in skips)
        decoder = Decoder(num_classes, plan, side_outputs=False, deep_supervision=False)
        for width, level in zip(reversed(skips), decoder.levels, strict=True):
            assert isinstance(level, nn.Sequential)
            level.append(DualAttention(width, plan.ops))
        self.decoder = decoder

    def segment(self, image: Tensor) -> Tensor | list[Tensor]:
        """Segment a batch of images whose size the strides divide."""
        *skips, deepest = self.encoder(image)
        maps = [module(skip) for module, skip in zip(self.skips, skips, strict=True)]
        output: Tensor | list[Tensor] = self.decoder([*maps, deepest])
        return output


class MultiScaleContextualLearning(nn.Module):
    """MCL: ``sum_k a_k * U_k``, dilated convolutions weighted per channel, with weights that depend on the input.

    ``a = softmax_k(W_k relu(W s + b) + b_k)`` with ``U_k`` the k-th branch's map and ``s`` the mean over
    positions of ``sum_k U_k``: a selective kernel unit.

    Args:
        channels: C of the input, the branches and the output.
        ops: the operators of the branches.

    Shape:
        ``(B, C, *spatial)`` to the same.
    """

    def __init__(self, channels: int, ops: LayerOps) -> None:
        super().__init__()
        ones = [1] * ops.dimension
        width = max(channels // DESCRIPTOR_REDUCTION, LEAST_DESCRIPTOR)
        self.branches = nn.ModuleList(DilatedConvolution(channels, channels, rate, ops) for rate in DILATIONS)
        self.describe = ops.conv(channels, width, ones, bias=True)
        self.nonlin = nn.ReLU()
        self.select = ops.conv(width, len(DILATIONS) * channels, ones, bias=True)

    def forward(self, features: Tensor) -> Tensor:
        """Gather the scales and choose between them."""
        scales = [branch(features) for branch in self.branches]
        # The mean of the sum is the sum of the means: no further map is held.
        means = [scale.mean(list(range(2, scale.ndim)), keepdim=True) for scale in scales]
        energies: Tensor = self.select(self.nonlin(self.describe(torch.stack(means).sum(0))))
        weights = energies.reshape(energies.shape[0], len(scales), -1).softmax(1).to(features.dtype)
        shape = (*features.shape[:2], *[1] * (features.ndim - 2))
        selected: Tensor = scales[0] * weights[:, 0].reshape(shape)
        for k, scale in enumerate(scales[1:], start=1):
            selected = selected + scale * weights[:, k].reshape(shape)
        return selected


class DualAttention(nn.Module):
    """``F + p * position_attention(F) + c * channel_attention(F)`` with learned ``p`` and ``c``, zero at the start.

    Args:
        channels: C of the input and the output.
        ops: the operators; only their number of dimensions matters.

    Shape:
        ``(B, C, *spatial)`` to the same.
    """

    def __init__(self, channels: int, ops: LayerOps) -> None:
        super().__init__()
        self.position_attention = PooledPositionAttention(channels, ops)
        self.channel_attention = ChannelAttention()
        # No axis: a factor with one would make half precision features single precision.
        self.position_factor = nn.Parameter(torch.zeros(()))
        self.channel_factor = nn.Parameter(torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        """Add what the attentions gather."""
        by_position: Tensor = self.position_attention(features)
        by_channel: Tensor = self.channel_attention(features)
        return features + self.position_factor * by_position + self.channel_factor * by_channel


class PooledPositionAttention(nn.Module):
    """``sum_j softmax_j(q_i . k_j) v_j``: queries of all positions, keys and values of a grid of local means.

    Queries and keys have an eighth of the channels and no 1/sqrt, as DA-Net's. For N positions and M means, M
    fixed, the time grows with ``N M``; the ``N x M`` map is not held.

    Args:
        channels: C of the input and the output.
        ops: the operators; only their number of dimensions matters.
        context_positions: the most means, of a grid with the same number along each axis. An axis that has
            no more positions than that is not averaged over.

    Shape:
        ``(B, C, *spatial)`` to the same.
    """

    def __init__(self, channels: int, ops: LayerOps, context_positions: int = CONTEXT_POSITIONS) -> None:
        super().__init__()
        ones = [1] * ops.dimension
        width = max(1, channels // QUERY_REDUCTION)
        self.edge = max(n for n in range(1, context_positions + 1) if n**ops.dimension <= context_positions)
        self.query = ops.conv(channels, width, ones, bias=True)
        self.key = ops.conv(channels, width, ones, bias=True)
        self.value = ops.conv(channels, channels, ones, bias=True)

    def forward(self, features: Tensor) -> Tensor:
        """Gather the grid's values at every position."""
        # A 1x1 convolution of means is the mean of the 1x1 convolution, at a fraction of the cost.
        grid = _local_means(features, self.edge)
        kept = torch.promote_types(features.dtype, torch.float32)  # dot products leave the range of half precision
        projections = self.query(features), self.key(grid), self.value(grid)
        query, key, value = (as_sequence(each.to(kept), features.shape[1]) for each in projections)
        with torch.autocast(features.device.type, enabled=False):
            gathered = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        output: Tensor = gathered.squeeze(1).transpose(1, 2).reshape(features.shape)
        return output.to(features.dtype)


def _local_means(features: Tensor, edge: int) -> Tensor:
    """Average a map over windows, at most ``edge`` along each axis: adaptive average pooling, axis by axis.

    As products with constants, since ONNX knows no adaptive pooling whose windows differ.
    """
    for axis in range(2, features.ndim):
        size = int(features.shape[axis])  # exporters that trace give tensors
        if size > edge:
            window, position = torch.arange(edge).unsqueeze(0), torch.arange(size).unsqueeze(1)
            inside = (position >= window * size // edge) & (position < -(-(window + 1) * size // edge))
            means = inside.to(features) / inside.sum(0).to(features)
            features = (features.transpose(axis, -1) @ means).transpose(axis, -1)
    return features


class ChannelAttention(nn.Module):
    """``sum_d softmax_d(mean_n x_cn x_dn) x_d``: each channel gathers the channels that it resembles.

    DA-Net's second module (section 3.3), with the mean over positions for the sum. It has no parameters.

    Shape:
        ``(B, C, *spatial)`` to the same; the attention is ``C x C``.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Gather the channels."""
        kept = torch.promote_types(features.dtype, torch.float32)
        with torch.autocast(features.device.type, enabled=False):
            channels = features.flatten(2).to(kept)
            energies = channels @ (channels.transpose(1, 2) / channels.shape[2])
            gathered = energies.softmax(2) @ channels
        return gathered.reshape(features.shape).to(features.dtype)
