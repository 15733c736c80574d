"""A U-Net's stages as nnU-Net plans them, checked: what every network of the U-Net family is built from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nnunetv2_eccam.blocks.convolution import LayerOps

Downsampling = Literal["stride", "max_pool"]
DOWNSAMPLINGS: tuple[Downsampling, ...] = ("stride", "max_pool")


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
    """

    features_per_stage: tuple[int, ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    n_conv_per_stage: tuple[int, ...]
    n_conv_per_stage_decoder: tuple[int, ...]
    ops: LayerOps
    downsampling: Downsampling = "stride"

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
        )
        return cls(
            _per_stage("features_per_stage", features_per_stage, n_stages),
            per_stage_and_axis("kernel_sizes", kernel_sizes, n_stages, ops.dimension),
            per_stage_and_axis("strides", strides, n_stages, ops.dimension),
            _per_stage("n_conv_per_stage", n_conv_per_stage, n_stages),
            _per_stage("n_conv_per_stage_decoder", n_conv_per_stage_decoder, n_stages - 1),
            ops,
            downsampling,
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
