"""A U-Net's stages as nnU-Net plans them, checked: what every network of the U-Net family is built from."""

import math
from collections.abc import Sequence
from typing import Any, Literal

from dynamic_network_architectures.building_blocks.residual import BasicBlockD, BottleneckD
from torch import nn

from nnunetv2_eccam.blocks.convolution import LayerOps

Downsampling = Literal["stride", "max_pool"]
DOWNSAMPLINGS: tuple[Downsampling, ...] = ("stride", "max_pool")

CONVS_IN_PLACE_OF_BLOCKS = 2
"""Convolutions a stage where a network cannot follow a plan's residual blocks."""


class UNetPlan:
    """Stages of a U-Net, in the words of nnU-Net's plans, and the operators of its layers.

    The arguments are those of ``PlainConvUNet`` and ``ResidualEncoderUNet`` in dynamic-network-architectures. One
    number may stand for every stage, or every axis. Attributes have the arguments' names, with one entry per stage;
    ``ops`` has the operators, and ``residual`` what ``ResidualEncoder`` is told of its blocks, or None.

    Args:
        n_stages: stages of the encoder; the paper has five.
        features_per_stage: width of each stage, highest resolution first.
        kernel_sizes: per stage, one odd number per axis.
        strides: per stage, one number per axis: what the map shrinks by on entering the stage; the first stage's is
            normally 1.
        n_conv_per_stage: convolutions of each encoder stage (the paper: 2), or None where there are residual blocks;
            a network without such blocks has :data:`CONVS_IN_PLACE_OF_BLOCKS` then.
        n_conv_per_stage_decoder: convolutions of each decoder level, lowest resolution first (the paper: 2).
        downsampling: ``stride`` in a stage's first convolution (nnU-Net's way) or ``max_pool`` before it (U-Net's).
        n_blocks_per_stage: residual blocks of each encoder stage, for a residual encoder.
        block: dynamic-network-architectures' ``BasicBlockD``, the default, or ``BottleneckD``.
        bottleneck_channels: per stage, width inside a ``BottleneckD``.
        stem_channels: width of the convolution in front of the first stage; the first stage's by default.
        stochastic_depth_p: how likely a block is left out of a training step.
        squeeze_excitation: SE in each block.
        squeeze_excitation_reduction_ratio: width of SE's hidden layer over the block's.
        ops: the operators: the arguments of :class:`LayerOps`.

    Raises:
        ValueError: a list that has not one entry per stage or axis, an unknown ``downsampling`` or block, a
            ``BottleneckD`` without its widths, both or neither of convolutions and blocks, or blocks and
            ``nonlin_first``.
    """

    def __init__(
        self,
        n_stages: int,
        features_per_stage: int | Sequence[int],
        kernel_sizes: int | Sequence[int | Sequence[int]],
        strides: int | Sequence[int | Sequence[int]],
        n_conv_per_stage: int | Sequence[int] | None = None,
        n_conv_per_stage_decoder: int | Sequence[int] = 2,
        downsampling: Downsampling = "stride",
        n_blocks_per_stage: int | Sequence[int] | None = None,
        block: type[nn.Module] | None = None,
        bottleneck_channels: int | Sequence[int] | None = None,
        stem_channels: int | None = None,
        stochastic_depth_p: float = 0.0,
        squeeze_excitation: bool = False,
        squeeze_excitation_reduction_ratio: float = 1 / 16,
        **ops: Any,
    ) -> None:
        if downsampling not in DOWNSAMPLINGS:
            raise ValueError(f"downsampling must be one of {', '.join(DOWNSAMPLINGS)}, got {downsampling!r}")
        if (n_conv_per_stage is None) == (n_blocks_per_stage is None):
            raise ValueError(
                "give n_conv_per_stage, for a plain encoder, or n_blocks_per_stage, for a residual one; got "
                f"{n_conv_per_stage} and {n_blocks_per_stage}"
            )
        self.ops = LayerOps(**ops)
        convs = CONVS_IN_PLACE_OF_BLOCKS if n_conv_per_stage is None else n_conv_per_stage
        self.features_per_stage = _per_stage("features_per_stage", features_per_stage, n_stages)
        self.kernel_sizes = per_stage_and_axis("kernel_sizes", kernel_sizes, n_stages, self.ops.dimension)
        self.strides = per_stage_and_axis("strides", strides, n_stages, self.ops.dimension)
        self.n_conv_per_stage = _per_stage("n_conv_per_stage", convs, n_stages)
        self.n_conv_per_stage_decoder = _per_stage("n_conv_per_stage_decoder", n_conv_per_stage_decoder, n_stages - 1)
        self.downsampling = downsampling
        self.residual: dict[str, Any] | None = None
        if n_blocks_per_stage is None:
            return
        if self.ops.nonlin_first:
            raise ValueError("residual blocks have their norm first: nonlin_first is for plain convolutions")
        block = BasicBlockD if block is None else block
        if block not in (BasicBlockD, BottleneckD):
            raise ValueError(f"block must be BasicBlockD or BottleneckD, got {getattr(block, '__name__', block)}")
        if block is BottleneckD and bottleneck_channels is None:
            raise ValueError("BottleneckD needs bottleneck_channels, its width in each stage")
        if bottleneck_channels is not None:
            bottleneck_channels = _per_stage("bottleneck_channels", bottleneck_channels, n_stages)
        self.residual = {
            "n_blocks_per_stage": _per_stage("n_blocks_per_stage", n_blocks_per_stage, n_stages),
            "block": block,
            "bottleneck_channels": bottleneck_channels,
            "stem_channels": stem_channels,
            "stochastic_depth_p": stochastic_depth_p,
            "squeeze_excitation": squeeze_excitation,
            "squeeze_excitation_reduction_ratio": squeeze_excitation_reduction_ratio,
        }

    @property
    def divisors(self) -> list[int]:
        """What the size of the image must be divisible by, per axis: the product of the strides."""
        return divisors(self.strides)


def divisors(strides: Sequence[Sequence[int]]) -> list[int]:
    """Give the product of the stages' strides along each axis."""
    return [math.prod(axis) for axis in zip(*strides, strict=True)]


def _per_stage(name: str, value: int | Sequence[int], n_stages: int) -> tuple[int, ...]:
    """Repeat one number for every stage, or check that there is one for each."""
    values = [value] * n_stages if isinstance(value, int) else list(value)
    if len(values) != n_stages:
        raise ValueError(f"{name} must have {n_stages} entries, got {len(values)}: {values}")
    return tuple(values)


def per_stage_and_axis(
    name: str, value: int | Sequence[int | Sequence[int]], n_stages: int, dimension: int
) -> tuple[tuple[int, ...], ...]:
    """Repeat one number for every stage and axis, or check that there is one for each."""
    values = [value] * n_stages if isinstance(value, int) else list(value)
    per_axis = [(entry,) * dimension if isinstance(entry, int) else tuple(entry) for entry in values]
    if len(per_axis) != n_stages or any(len(entry) != dimension for entry in per_axis):
        raise ValueError(f"{name} must have {n_stages} entries of {dimension} numbers, got {values}")
    return tuple(per_axis)
