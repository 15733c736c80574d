"""The encoder (III, Fig. 2): stages of two convolutions, enhanced or plain, each half the size of the last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from nnunetv2_eccam.architectures.unet_plan import UNetPlan
from nnunetv2_eccam.blocks.convolution import ConvNormNonlin
from nnunetv2_eccam.blocks.enhanced_convolution import EnhancedConvolution


class Encoder(nn.Module):
    """Stages of convolutions; the map shrinks by ``strides`` on entering each.

    Args:
        input_channels: channels of the image.
        plan: the stages.
        enhanced_convolution: Enhanced Convolutions (III) or plain ones.
        branches: arguments of :class:`EnhancedConvolution`: ``norm_per_branch``, ``branch_form``, ``branch_init``.

    Shape:
        ``(B, input_channels, *spatial)`` to one map per stage, ``(B, features, *spatial / strides so far)``.
    """

    def __init__(
        self,
        input_channels: int,
        plan: UNetPlan,
        enhanced_convolution: bool = False,
        branches: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        ops = plan.ops
        ones = [1] * ops.dimension

        def conv(channels: int, width: int, kernel_size: Sequence[int], stride: Sequence[int]) -> nn.Module:
            if enhanced_convolution:
                return EnhancedConvolution(channels, width, kernel_size, stride, ops, **(branches or {}))
            return ConvNormNonlin(channels, width, kernel_size, stride, ops)

        self.strides = plan.strides
        self.downsampling = plan.downsampling
        self.stages = nn.ModuleList()
        channels = input_channels
        for width, kernel_size, stride, n_convs in zip(
            plan.features_per_stage, plan.kernel_sizes, plan.strides, plan.n_conv_per_stage, strict=True
        ):
            pooled = plan.downsampling == "max_pool" and any(step > 1 for step in stride)
            layers = [ops.max_pool(stride)] if pooled else []
            for position in range(n_convs):
                first_stride = stride if position == 0 and not pooled else ones
                layers.append(conv(channels, width, kernel_size, first_stride))
                channels = width
            self.stages.append(nn.Sequential(*layers))

    def forward(self, image: Tensor, after: Mapping[int, nn.Module] | None = None) -> list[Tensor]:
        """Give every stage's map, highest resolution first.

        Args:
            image: the image.
            after: modules by stage, each of which takes the stage's map before it goes on.
        """
        maps: list[Tensor] = []
        features = image
        for index, stage in enumerate(self.stages):
            features = stage(features)
            if after and index in after:
                features = after[index](features)
            maps.append(features)
        return maps

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> int:
        """Count the values that the convolutions write for one sample."""
        total, size = 0, list(input_size)
        for stage, stride in zip(self.stages, self.strides, strict=True):
            assert isinstance(stage, nn.Sequential)
            smaller = [n // step for n, step in zip(size, stride, strict=True)]
            for layer in stage:
                if isinstance(layer, (ConvNormNonlin, EnhancedConvolution)):
                    strided = any(step > 1 for step in layer.stride)
                    total += layer.compute_conv_feature_map_size(size if strided else smaller)
            size = smaller
        return total
