"""Which maps a network makes of a tile, and where their positions are in it.

A position is drawn where its receptive field is centred. That depends on how a network shrinks its maps: of a stride
of 2 with a 3x3 kernel, position i is centred at pixel 2i; of 2x2 pooling, at 2i + 0.5. Over the four halvings of the
paper's network these come to 16i and 16i + 7.5, half a position of the bottleneck apart.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nnunetv2_eccam.architectures.padding import PadsToMultiple, padded_size
from nnunetv2_eccam.attention.hooks import Call, hooked

SHRINKING = (nn.Conv2d, nn.Conv3d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool2d, nn.AvgPool3d)
"""Modules that may make a map smaller, with a kernel, a stride and padding."""

Places = tuple[tuple[float, ...], tuple[float, ...]]
"""The tile's voxels from one position of a map to the next, and the voxel of its first; both per axis."""


class NetworkMaps:
    """The maps of a network, found by running it once on an empty tile.

    Args:
        network: in evaluation mode.
        size: of a tile, voxels.
        channels: of a tile.
        device: where the network is.

    Attributes:
        shapes: ``(C, *map)`` of each module that gives a map, by its dotted name, in the order of their last calls.
        heads: channels of what the network itself gives.
    """

    def __init__(self, network: nn.Module, size: Sequence[int], channels: int, device: torch.device) -> None:
        self.size = tuple(size)
        self.padded = self.size
        if isinstance(network, PadsToMultiple):  # it pads at the far ends
            self.padded = tuple(padded_size(list(size), network.divisors, network.smallest))
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._places: dict[tuple[int, ...], Places] = {self.padded: ((1.0,) * len(size), (0.0,) * len(size))}
        modules = [(module, partial(self._note, path)) for path, module in network.named_modules() if path]
        with torch.no_grad(), hooked(modules):
            self.heads = int(network(torch.zeros(1, channels, *size, device=device)).shape[1])

    def _note(self, path: str, call: Call) -> None:
        if is_map(call.output, len(self.size)):
            self.shapes.pop(path, None)
            self.shapes[path] = tuple(call.output.shape[1:])
        if not isinstance(call.module, SHRINKING):
            return
        before, after = tuple(call.inputs[0].shape[2:]), tuple(call.output.shape[2:])
        if before == after or after in self._places:
            return
        values = [getattr(call.module, name, 1) for name in ("kernel_size", "stride", "padding", "dilation")]
        # A padding in words is "valid" here, which is none: of "same", the map is as large as before.
        values = [0 if isinstance(value, str) else value for value in values]
        kernel, stride, padding, dilation = (np.broadcast_to(value, len(before)).tolist() for value in values)
        first = [d * (k - 1) / 2 - p for k, p, d in zip(kernel, padding, dilation, strict=True)]
        strides, starts = self.places(before)
        self._places[after] = (
            tuple(wide * more for wide, more in zip(strides, stride, strict=True)),
            tuple(at + wide * more for at, wide, more in zip(starts, strides, first, strict=True)),
        )

    def places(self, map_size: Sequence[int]) -> Places:
        """Give where a map's positions are; of a map resized by a function, they stand for equal blocks."""
        ratios = tuple(n / m for n, m in zip(self.padded, map_size, strict=True))
        return self._places.get(tuple(map_size), (ratios, tuple((ratio - 1) / 2 for ratio in ratios)))

    def enlarged(self, values: Tensor) -> Tensor:
        """Enlarge a map to the tile, linearly along each axis; beyond the outermost positions it is constant.

        Args:
            values: ``(B, *map)``.

        Returns:
            ``(B, *tile)``.
        """
        strides, starts = self.places(values.shape[1:])
        for axis, (n, stride, first) in enumerate(zip(self.size, strides, starts, strict=True), start=1):
            last = values.shape[axis] - 1
            at = ((torch.arange(n, device=values.device) - first) / stride).clamp(0, last)
            low = at.floor().long()
            share = (at - low).reshape(-1, *[1] * (values.ndim - 1 - axis))
            below, above = values.index_select(axis, low), values.index_select(axis, (low + 1).clamp(max=last))
            values = below + share * (above - below)
        return values


def is_map(output: Any, axes: int) -> bool:
    """Tell a map from a list of maps, and from a vector, which has one position along an axis."""
    return isinstance(output, Tensor) and output.ndim == axes + 2 and min(output.shape[2:]) > 1
