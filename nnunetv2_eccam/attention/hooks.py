"""Maps taken out of a network while it runs on a batch of tiles, by hooks that leave it as it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_eccam.attention.correlation import Pairs
from nnunetv2_eccam.attention.geometry import MapGeometry
from nnunetv2_eccam.attention.sources import Call, Source, sources_of, strength
from nnunetv2_eccam.errors import UserError

Read = Callable[[Call], Any]


@dataclass(frozen=True)
class Found:
    """A module of a network, and what of it is looked at.

    Attributes:
        path: the module's dotted name in the network.
        module: the module.
        source: how it is read.
    """

    path: str
    module: nn.Module
    source: Source


class _Enough(Exception):
    """Everything that was asked for has been read; the rest of the network need not run."""


def find_sources(network: nn.Module, kinds: Sequence[str]) -> list[Found]:
    """Find what a network attends by, in the order of its modules.

    Args:
        network: any network.
        kinds: see :class:`Source`.
    """
    return [
        Found(path, module, source)
        for path, module in network.named_modules()
        for source in sources_of(module)
        if source.kind in kinds
    ]


def find_strength(network: nn.Module, layer: str | None = None) -> list[Found]:
    """Find the attention modules themselves, outermost ones only, or a layer by name, to look at what leaves them.

    Raises:
        UserError: there is no such layer, or no attention.
    """
    source = Source("activation", "positions", "strength of the features, root mean square over the channels", strength)
    if layer is not None:
        return [Found(layer, layer_named(network, layer), source)]
    found: list[Found] = []
    for path, module in network.named_modules():
        inside = any(path.startswith(f"{outer.path}.") for outer in found)
        if sources_of(module) and not inside:
            found.append(Found(path, module, source))
    if not found:
        raise UserError(
            f"{type(network).__name__} has no attention whose output could be shown; name one of its layers with "
            f"--layer, or use cam"
        )
    return found


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


def record(network: nn.Module, tiles: Tensor, reads: Sequence[tuple[nn.Module, Read]]) -> list[Any]:
    """Run a network and read modules while it runs, each at its first call; then stop it.

    Only what the reads return is kept. The hooks are removed whatever happens.

    Args:
        network: on the device of ``tiles``, in evaluation mode.
        tiles: ``(B, C, *tile)``.
        reads: modules with what is called for each.

    Returns:
        what each read gave, in their order.

    Raises:
        UserError: the network did not call one of the modules.
    """
    kept: dict[int, Any] = {}

    def keep(index: int, read: Read, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if index not in kept:
            kept[index] = read(Call(module, inputs, output))
        if len(kept) == len(reads):
            raise _Enough

    handles = []
    try:
        for index, (module, read) in enumerate(reads):
            handles.append(module.register_forward_hook(partial(keep, index, read)))
        with suppress(_Enough), torch.no_grad():
            network(tiles)
    finally:
        for handle in handles:
            handle.remove()
    if len(kept) < len(reads):
        missing = next(module for index, (module, _) in enumerate(reads) if index not in kept)
        raise UserError(f"{type(network).__name__} does not call its {type(missing).__name__} when it predicts")
    return [kept[index] for index in range(len(reads))]


def tile_maps(
    network: nn.Module,
    tiles: Tensor,
    found: Sequence[Found],
    geometry: MapGeometry,
    point: Sequence[float] | None = None,
) -> Tensor:
    """Give the maps of a batch of tiles.

    Where several modules have a source of one name (the gates of a U-Net, an attention at several stages), their maps
    are averaged.

    Args:
        network: in evaluation mode.
        tiles: ``(B, C, *tile)``, on the network's device.
        found: sources of kind ``positions`` and ``pairs``.
        geometry: the network's, for tiles of this size.
        point: voxel of the tile from which maps between positions are seen; None sums over all positions.

    Returns:
        ``(B, K, *tile)`` in single precision, one map for each name, in the order of :func:`map_names`.
    """

    def read(each: Found, call: Call) -> Tensor:
        values = each.source.read(call)
        if isinstance(values, Pairs):
            seen = None if point is None else geometry.position(point, values.queries.shape[2:])
            values = values.attended() if seen is None else values.attended_from(seen)
        return geometry.enlarged(values.float())

    maps = record(network, tiles, [(each.module, partial(read, each)) for each in found])
    by_name: dict[str, list[Tensor]] = {}
    for each, values in zip(found, maps, strict=True):
        by_name.setdefault(each.source.name, []).append(values)
    return torch.stack([torch.stack(values).mean(0) for values in by_name.values()], 1)


def map_names(found: Sequence[Found]) -> list[str]:
    """Give the names of the maps that :func:`tile_maps` gives, each once."""
    return list(dict.fromkeys(each.source.name for each in found))


def tile_channel_weights(network: nn.Module, tiles: Tensor, found: Sequence[Found]) -> list[Tensor]:
    """Give the channel weights of a batch of tiles, ``(B, C)`` for each module found."""
    return record(network, tiles, [(each.module, each.source.read) for each in found])
