"""The encoder (III, Fig. 2): stages of convolutions, enhanced or plain, or of nnU-Net's residual blocks."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

from dynamic_network_architectures.building_blocks.residual import BasicBlockD, BottleneckD
from dynamic_network_architectures.building_blocks.residual_encoders import ResidualEncoder
from torch import Tensor, nn

from nnunetv2_eccam.architectures.unet_plan import UNetPlan
from nnunetv2_eccam.blocks.convolution import ConvNormNonlin
from nnunetv2_eccam.blocks.enhanced_convolution import EnhancedConvolution


class Encoder(nn.Module):
    """Stages of convolutions; the map shrinks by ``strides`` on entering each.

    Where the plan has residual blocks, stem and stages are those that dynamic-network-architectures builds of it,
    and the convolutions inside the blocks are made enhanced ones. A 1x1 convolution has nothing to be
    strengthened along, and the stem is no part of a block: they stay.

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
        self.stem: nn.Module | None = None
        if plan.residual is not None:
            self.stem, self.stages = _residual_stages(input_channels, plan, plan.residual)
            for block in self.stages.modules():
                if enhanced_convolution and isinstance(block, (BasicBlockD, BottleneckD)):
                    _enhance(block, plan, branches or {})
            return
        ops = plan.ops
        ones = [1] * ops.dimension

        def conv(channels: int, width: int, kernel_size: Sequence[int], stride: Sequence[int]) -> nn.Module:
            if enhanced_convolution:
                return EnhancedConvolution(channels, width, kernel_size, stride, ops, **(branches or {}))
            return ConvNormNonlin(channels, width, kernel_size, stride, ops)

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
        features = image if self.stem is None else self.stem(image)
        for index, stage in enumerate(self.stages):
            features = stage(features)
            if after and index in after:
                features = after[index](features)
            maps.append(features)
        return maps


def begin_as_identity(block: nn.Module) -> None:
    """Set the last norm of a residual block to zero, as nnU-Net does: the block begins as its skip connection."""
    last = block.conv2 if isinstance(block, BasicBlockD) else block.conv3
    norms = last.norms if isinstance(last, EnhancedConvolution) else [getattr(last, "norm", None)]
    for norm in cast(Any, norms):
        for parameter in (getattr(norm, "weight", None), getattr(norm, "bias", None)):
            if parameter is not None:
                nn.init.zeros_(parameter)


def _residual_stages(
    input_channels: int, plan: UNetPlan, residual: Mapping[str, Any]
) -> tuple[nn.Module, nn.ModuleList]:
    """Build stem and stages as ``ResidualEncoderUNet`` does, which does not know ``nonlin_first``."""
    operators = {name: value for name, value in vars(plan.ops).items() if name != "nonlin_first"}
    encoder = ResidualEncoder(
        input_channels,
        len(plan.strides),
        plan.features_per_stage,
        kernel_sizes=plan.kernel_sizes,
        strides=plan.strides,
        return_skips=True,
        pool_type="max" if plan.downsampling == "max_pool" else "conv",
        **operators,
        **residual,
    )
    return encoder.stem, nn.ModuleList(encoder.stages)


def _enhance(block: nn.Module, plan: UNetPlan, branches: Mapping[str, Any]) -> None:
    """Replace a block's convolutions of the plan's kernel size by enhanced ones."""
    names = ("conv1", "conv2") if isinstance(block, BasicBlockD) else ("conv2",)
    for name in names:
        plain: Any = getattr(block, name)
        ops = plan.ops
        if isinstance(block, BasicBlockD) and name == "conv2":  # the addition follows
            ops = dataclasses.replace(ops, nonlin=None, dropout_op=None)
        sizes = plain.conv.kernel_size, plain.stride
        setattr(block, name, EnhancedConvolution(plain.input_channels, plain.output_channels, *sizes, ops, **branches))
