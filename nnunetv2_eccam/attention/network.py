"""Looking into a network while it runs, by hooks that leave it as it was: its maps of a tile, and where they are in it.

A position is drawn where its receptive field is centred. That depends on how a network shrinks its maps: of a stride
of 2 with a 3x3 kernel, position i is centred at pixel 2i; of 2x2 pooling, at 2i + 0.5. Over the four halvings of the
paper's network these come to 16i and 16i + 7.5, half a position of the bottleneck apart.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from nnunetv2_eccam.architectures.padding import PadsToMultiple, padded_size
from nnunetv2_eccam.errors import UserError

SHRINKING = (nn.Conv2d, nn.Conv3d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool2d, nn.AvgPool3d)
"""Modules that may make a map smaller, with a kernel, a stride and padding."""

Places = tuple[tuple[float, ...], tuple[float, ...]]
"""The tile's voxels from one position of a map to the next, and the voxel of its first; both per axis."""


class Call(NamedTuple):
    """One call of a module, as a forward hook sees it: its positional arguments and what it returned."""

    module: Any
    inputs: tuple[Any, ...]
    output: Any


Read = Callable[[Call], Any]


class _Enough(Exception):
    """Everything that was asked for has been read; the rest of the network need not run."""


@contextmanager
def hooked(reads: Iterable[tuple[nn.Module, Read]]) -> Iterator[None]:
    """Read modules at every call within the block; what a read returns replaces the output, unless it is None."""

    def hook(read: Read, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        return read(Call(module, inputs, output))

    handles = [module.register_forward_hook(partial(hook, read)) for module, read in reads]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def record(network: nn.Module, tiles: Tensor, reads: Sequence[tuple[nn.Module, Read]]) -> list[Any]:
    """Run a network on tiles, ``(B, C, *tile)``, read modules at their first call, then stop it; give what was read.

    Raises:
        UserError: the network did not call one of the modules.
    """
    kept: dict[int, Any] = {}

    def keep(index: int, read: Read, call: Call) -> None:
        kept.setdefault(index, read(call))
        if len(kept) == len(reads):
            raise _Enough

    hooks = hooked((module, partial(keep, index, read)) for index, (module, read) in enumerate(reads))
    with suppress(_Enough), torch.no_grad(), hooks:
        network(tiles)
    for index, (module, _) in enumerate(reads):
        if index not in kept:
            raise UserError(f"{type(network).__name__} does not call its {type(module).__name__} when it predicts")
    return [kept[index] for index in range(len(reads))]


def layer_named(network: nn.Module, name: str) -> nn.Module:
    """Give the module of a network by its dotted name.

    Raises:
        UserError: there is none; the message lists those of the first two levels.
    """
    try:
        return network.get_submodule(name)
    except AttributeError:
        known = [path for path, _ in network.named_modules() if path and path.count(".") < 2]
        raise UserError(
            f"{type(network).__name__} has no layer {name}; it has {', '.join(known)}, and what these contain"
        ) from None


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
