"""Where the positions of a layer's map are in the tile that the network was given.

A position is drawn where its receptive field is centred. That depends on how a network shrinks its maps: of a stride
of 2 with a 3x3 kernel, position i is centred at pixel 2i; of 2x2 pooling, at 2i + 0.5. Over the four halvings of the
paper's network these come to 16i and 16i + 7.5, half a position of the bottleneck apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nnunetv2_eccam.architectures.padding import PadsToMultiple, padded_size
from nnunetv2_eccam.attention.hooks import hooked
from nnunetv2_eccam.attention.sources import Call

SHRINKING = (nn.Conv2d, nn.Conv3d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool2d, nn.AvgPool3d)
"""Modules that may make a map smaller, with a kernel, a stride and padding."""


class Step(NamedTuple):
    """A module that makes a map smaller.

    Attributes:
        before: size of the map that it is given, without batch and channels.
        after: size of the map that it gives.
        stride: positions of the first for one of the second, per axis.
        start: position of the first on which the second's first is centred, per axis.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    stride: tuple[float, ...]
    start: tuple[float, ...]


class MapGeometry:
    """Where the maps of a network are in a tile, found by running it once.

    Args:
        network: in evaluation mode.
        size: of a tile, voxels.
        channels: of a tile.
        device: where the network is.
    """

    def __init__(self, network: nn.Module, size: Sequence[int], channels: int, device: torch.device) -> None:
        self.size = tuple(size)
        self.padded = tuple(self.size)
        if isinstance(network, PadsToMultiple):  # it pads at the far ends
            self.padded = tuple(padded_size(list(size), network.divisors, network.smallest))
        self._steps = _steps(network, torch.zeros(1, channels, *size, device=device))

    def stride_and_start(self, map_size: Sequence[int]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Give the tile's voxels from one position of a map to the next, and the voxel of its first, per axis.

        The way from the tile to the map is followed by the steps that the network takes, the smallest ones
        first; where there are none (a map resized by a function), positions stand for equal blocks.
        """
        target, size = tuple(map_size), self.padded
        stride, start = [1.0] * len(size), [0.0] * len(size)
        while size != target:
            fitting = [
                step
                for step in self._steps
                if step.before == size and all(n >= least for n, least in zip(step.after, target, strict=True))
            ]
            if fitting:
                step = max(fitting, key=lambda each: torch.Size(each.after).numel())
            else:
                ratios = tuple(n / m for n, m in zip(size, target, strict=True))
                step = Step(size, target, ratios, tuple((ratio - 1) / 2 for ratio in ratios))
            start = [at + s * first for at, s, first in zip(start, stride, step.start, strict=True)]
            stride = [s * more for s, more in zip(stride, step.stride, strict=True)]
            size = step.after
        return tuple(stride), tuple(start)

    def position(self, voxel: Sequence[float], map_size: Sequence[int]) -> list[int]:
        """Give the position of a map that is closest to a voxel of the tile."""
        return [
            min(max(round((at - first) / stride), 0), n - 1)
            for at, stride, first, n in zip(voxel, *self.stride_and_start(map_size), map_size, strict=True)
        ]

    def enlarged(self, values: Tensor) -> Tensor:
        """Enlarge a map to the tile, linearly along each axis; beyond the outermost positions it is constant.

        Args:
            values: ``(B, *map)``.

        Returns:
            ``(B, *tile)``.
        """
        strides, starts = self.stride_and_start(values.shape[1:])
        for axis, (n, stride, first) in enumerate(zip(self.size, strides, starts, strict=True), start=1):
            last = values.shape[axis] - 1
            at = ((torch.arange(n, device=values.device) - first) / stride).clamp(0, last)
            low = at.floor().long()
            share = (at - low).reshape(-1, *[1] * (values.ndim - 1 - axis))
            below, above = values.index_select(axis, low), values.index_select(axis, (low + 1).clamp(max=last))
            values = below + share * (above - below)
        return values


def _steps(network: nn.Module, tile: Tensor) -> list[Step]:
    steps: list[Step] = []

    def note(call: Call) -> None:
        module, before, after = call.module, tuple(call.inputs[0].shape[2:]), tuple(call.output.shape[2:])
        if before != after:
            kernel, stride, padding, dilation = (
                _per_axis(getattr(module, name, 1), len(before))
                for name in ("kernel_size", "stride", "padding", "dilation")
            )
            start = tuple(d * (k - 1) / 2 - p for k, p, d in zip(kernel, padding, dilation, strict=True))
            steps.append(Step(before, after, stride, start))

    with hooked((module, note) for module in network.modules() if isinstance(module, SHRINKING)):
        network(tile)
    return steps


def _per_axis(value: Any, axes: int) -> tuple[float, ...]:
    """Repeat one number for every axis; a padding that is a word (``same``) goes with strides of one."""
    if isinstance(value, str):
        return (0.0,) * axes
    return (float(value),) * axes if isinstance(value, int) else tuple(float(each) for each in value)
