"""A U-Net's stages as nnU-Net plans them, checked: what every network of the U-Net family is built from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dynamic_network_architectures.building_blocks.residual import BasicBlockD, BottleneckD
from torch import nn

from nnunetv2_eccam.blocks.convolution import LayerOps

Downsampling = Literal["stride", "max_pool"]
DOWNSAMPLINGS: tuple[Downsampling, ...] = ("stride", "max_pool")


@dataclass(frozen=True)
class ResidualBlocks:
    """What the stages of a ``ResidualEncoderUNet`` are made of, in the words of nnU-Net's plans.

    Args:
        n_blocks_per_stage: blocks of each encoder stage.
        block: dynamic-network-architectures' ``BasicBlockD`` or ``BottleneckD``.
        bottleneck_channels: per stage, width inside a ``BottleneckD``.
        stem_channels: width of the convolution in front of the first stage; the first stage's by default.
        stochastic_depth_p: how likely a block is left out of a training step.
        squeeze_excitation: SE in each block.
        squeeze_excitation_reduction_ratio: width of SE's hidden layer over the block's.
    """

    n_blocks_per_stage: tuple[int, ...]
    block: type[nn.Module] = BasicBlockD
    bottleneck_channels: tuple[int | None, ...] | None = None
    stem_channels: int | None = None
    stochastic_depth_p: float = 0.0
    squeeze_excitation: bool = False
    squeeze_excitation_reduction_ratio: float = 1 / 16

    @classmethod
    def of(
        cls,
        n_stages: int,
        n_blocks_per_stage: int | Sequence[int],
        block: type[nn.Module] | None = None,
        bottleneck_channels: int | Sequence[int] | None = None,
        **more: Any,
    ) -> ResidualBlocks:
        """Make it of a ``ResidualEncoderUNet``'s arguments, where one number may stand for every stage.

        Raises:
            ValueError: a list that has not one entry per stage, an unknown block, or one without its widths.
        """
        block = BasicBlockD if block is None else block
        if block not in (BasicBlockD, BottleneckD):
            raise ValueError(f"block must be BasicBlockD or BottleneckD, got {getattr(block, '__name__', block)}")
        if block is BottleneckD and bottleneck_channels is None:
            raise ValueError("BottleneckD needs bottleneck_channels, its width in each stage")
        widths = None
        if bottleneck_channels is not None:
            widths = _per_stage("bottleneck_channels", bottleneck_channels, n_stages)
        return cls(_per_stage("n_blocks_per_stage", n_blocks_per_stage, n_stages), block, widths, **more)


@dataclass(frozen=True)
class UNetPlan:
    """Stages of a U-Net, in the words of nnU-Net's plans; make one by :meth:`of`, which checks it.

    Args:
        features_per_stage: width of each stage, highest resolution first.
        kernel_sizes: per stage, one odd number per axis.
        strides: per stage, one number per axis: what the map shrinks by on entering the stage.
        n_conv_per_stage: convolutions of each encoder stage.
        n_conv_per_stage_decoder: convolutions of each decoder level, lowest resolution first.
        ops: the operators.
        downsampling: ``stride`` in a stage's first convolution (nnU-Net's way) or ``max_pool`` before it
            (U-Net's).
        residual: the encoder's stages where they are residual blocks; ``n_conv_per_stage`` is then what a
            network without such blocks puts in their place.
    """

    features_per_stage: tuple[int, ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    n_conv_per_stage: tuple[int, ...]
    n_conv_per_stage_decoder: tuple[int, ...]
    ops: LayerOps
    downsampling: Downsampling = "stride"
    residual: ResidualBlocks | None = None

    @classmethod
    def of(
        cls,
        n_stages: int,
        features_per_stage: int | Sequence[int],
        conv_op: Any,
        kernel_sizes: int | Sequence[int | Sequence[int]],
        strides: int | Sequence[int | Sequence[int]],
        n_conv_per_stage: int | Sequence[int],
        n_conv_per_stage_decoder: int | Sequence[int],
        conv_bias: bool = True,
        norm_op: Any = None,
        norm_op_kwargs: Mapping[str, Any] | None = None,
        dropout_op: Any = None,
        dropout_op_kwargs: Mapping[str, Any] | None = None,
        nonlin: Any = None,
        nonlin_kwargs: Mapping[str, Any] | None = None,
        downsampling: Downsampling = "stride",
        nonlin_first: bool = False,
        residual: ResidualBlocks | None = None,
    ) -> UNetPlan:
        """Make a plan of a ``PlainConvUNet``'s arguments, where one number may stand for every stage or axis.

        Raises:
            ValueError: a list that has not one entry per stage or axis, or an unknown ``downsampling``.
        """
        if downsampling not in DOWNSAMPLINGS:
            raise ValueError(f"downsampling must be one of {', '.join(DOWNSAMPLINGS)}, got {downsampling!r}")
        ops = LayerOps(
            conv_op,
            conv_bias,
            norm_op,
            norm_op_kwargs or {},
            dropout_op,
            dropout_op_kwargs or {},
            nonlin,
            nonlin_kwargs or {},
            nonlin_first,
        )
        return cls(
            _per_stage("features_per_stage", features_per_stage, n_stages),
            per_stage_and_axis("kernel_sizes", kernel_sizes, n_stages, ops.dimension),
            per_stage_and_axis("strides", strides, n_stages, ops.dimension),
            _per_stage("n_conv_per_stage", n_conv_per_stage, n_stages),
            _per_stage("n_conv_per_stage_decoder", n_conv_per_stage_decoder, n_stages - 1),
            ops,
            downsampling,
            residual,
        )

    @property
    def divisors(self) -> list[int]:
        """What the size of the image must be divisible by, per axis: the product of the strides."""
        products = [1] * self.ops.dimension
        for stride in self.strides:
            products = [product * step for product, step in zip(products, stride, strict=True)]
        return products

    def sizes(self, input_size: Sequence[int]) -> list[list[int]]:
        """Give the size of each stage's map."""
        sizes: list[list[int]] = []
        size = list(input_size)
        for stride in self.strides:
            size = [n // step for n, step in zip(size, stride, strict=True)]
            sizes.append(size)
        return sizes


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
