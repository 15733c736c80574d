"""MSU-Net: a U-Net whose stages are parallel convolution sequences of several kernel sizes.

Su et al., "MSU-Net: Multi-Scale U-Net for 2D Medical Image Segmentation", Frontiers in Genetics 12, 2021:
the paper's reference [28]. The network that its authors call MSU-Net has the multi-scale block "(37)" of
their Fig. 1: a sequence of 3x3 convolutions beside one of 7x7.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nnunetv2_eccam.architectures.compared.network import UNetFamily, segmentation_layer
from nnunetv2_eccam.architectures.unet_plan import UNetPlan
from nnunetv2_eccam.blocks.convolution import LayerOps, stacked

SEQUENCE_KERNELS = (3, 7)
"""Kernel sizes of the block's sequences (Fig. 1B, "multi-scale block (37)")."""


class MultiScaleSequences(nn.Module):
    """Multi-scale block (Fig. 1B): parallel convolution sequences, concatenated, and a 1x1 convolution.

    Each sequence has the U-Net's own number of layers (convolution, norm, nonlinearity), two in the
    paper, and the block's full width. After the 1x1 convolution, which has a bias, there is neither a
    norm nor a nonlinearity: the authors' code.

    Args:
        input_channels: channels of the input.
        output_channels: channels of the output, and of each sequence.
        kernels: kernel size of each sequence, one number per axis.
        n_convs: layers of each sequence.
        stride: of each sequence's first layer, one number per axis.
        ops: the operators.

    Shape:
        ``(B, input_channels, *spatial)`` to ``(B, output_channels, *spatial / stride)``.
    """

    def __init__(
        self,
        input_channels: int,
        output_channels: int,
        kernels: Sequence[Sequence[int]],
        n_convs: int,
        stride: Sequence[int],
        ops: LayerOps,
    ) -> None:
        super().__init__()
        self.sequences = nn.ModuleList(
            nn.Sequential(*stacked(n_convs, input_channels, output_channels, kernel, stride, ops)) for kernel in kernels
        )
        self.fuse = ops.conv(len(kernels) * output_channels, output_channels, [1] * ops.dimension, bias=True)

    def forward(self, features: Tensor) -> Tensor:
        """Apply the sequences side by side and fuse them."""
        fused: Tensor = self.fuse(torch.cat([sequence(features) for sequence in self.sequences], 1))
        return fused


class MSUNet(UNetFamily):
    """The U-Net of the plan, with a :class:`MultiScaleSequences` in place of the layers of every stage.

    Stages, widths, number of layers, norm and nonlinearity are the plan's; upsampling by a transposed
    convolution, concatenation with the skip and the 1x1 head are the U-Net's own. The authors' setting is
    five stages of 32 to 512, two layers, batch norm, ReLU and max pooling (their code). With a plan that
    halves by stride, the first layer of each sequence has it. Along an axis where the plan's kernel is 1
    (nnU-Net's answer to thick slices) the sequences' kernels are 1 too.

    There are no side outputs: the paper has none.

    Two-dimensional only, as its title says: a 7x7x7 kernel has 13 times the taps of a 3x3x3 one, so that
    the six stages of 32 to 320 that nnU-Net plans for a volume would have 405 million parameters where
    the plain U-Net has 31, and 13 times its multiplications.
    """

    def __init__(self, plan: UNetPlan, input_channels: int, num_classes: int) -> None:
        super().__init__(plan)
        ops, widths, ones = plan.ops, plan.features_per_stage, [1] * plan.ops.dimension
        self.stages = nn.ModuleList()
        channels = input_channels
        for width, stage_kernel, stride, n_convs in zip(
            widths, plan.kernel_sizes, plan.strides, plan.n_conv_per_stage, strict=True
        ):
            pooled = plan.downsampling == "max_pool" and any(step > 1 for step in stride)
            first_stride = ones if pooled else stride
            block = MultiScaleSequences(channels, width, _kernels(stage_kernel), n_convs, first_stride, ops)
            self.stages.append(nn.Sequential(ops.max_pool(stride), block) if pooled else block)
            channels = width
        self.upsamplings = nn.ModuleList()
        self.levels = nn.ModuleList()
        for level, n_convs in enumerate(plan.n_conv_per_stage_decoder):
            stage = len(widths) - 2 - level
            below, width = widths[stage + 1], widths[stage]
            kernels = _kernels(plan.kernel_sizes[stage])
            self.upsamplings.append(ops.transposed_conv(below, width, plan.strides[stage + 1]))
            self.levels.append(MultiScaleSequences(2 * width, width, kernels, n_convs, ones, ops))
        self.head = segmentation_layer(ops.conv(widths[0], num_classes, ones, bias=True))

    def segment(self, image: Tensor) -> Tensor:
        """Segment images of a size that the strides divide."""
        maps = [image]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        features = maps.pop()
        for upsampling, level in zip(self.upsamplings, self.levels, strict=True):
            features = level(torch.cat((maps.pop(), upsampling(features)), 1))
        logits: Tensor = self.head(features)
        return logits


def _kernels(stage_kernel: Sequence[int]) -> list[list[int]]:
    """Give each sequence's kernel per axis: 1 where the plan's is."""
    return [[kernel if planned > 1 else 1 for planned in stage_kernel] for kernel in SEQUENCE_KERNELS]
