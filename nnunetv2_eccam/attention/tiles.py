"""nnU-Net's sliding window, for maps instead of logits: tiles one by one, and merged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nnunetv2_eccam.attention.case import TrainedModel

Result = TypeVar("Result")
Read = Callable[[Tensor, "Sequence[float] | None"], Result]
"""What is done with a tile, ``(1, C, *tile)`` on the network's device, and the place of the point in it, if any."""


class Tile(NamedTuple):
    """Where a tile is."""

    place: tuple[Any, ...]
    """Index into the padded data, ``(C, *grid)``; of a 2D model with a number for the slice."""
    centre: tuple[float, ...]
    """Voxel of the data's grid, before padding."""
    point: tuple[float, ...] | None
    """The point as a voxel of the tile."""


def each_tile(
    model: TrainedModel, data: Tensor, read: Read[Result], point: Sequence[float] | None = None, title: str = ""
) -> Iterator[tuple[Tile, Result]]:
    """Read the tiles of a preprocessed case, ``(C, *grid)``, one by one; of a point, those that show its voxel."""
    from tqdm import tqdm

    padded, inner = _padded(model, data)
    offset = [part.start for part in inner]
    tiles = [_tile(place, offset, point) for place in model.tile_slicers(padded.shape[1:])]
    shown = [tile for tile in tiles if point is None or tile.point is not None]
    for tile in tqdm(shown, desc=title, unit="tile", disable=None if model.progress else True):
        with model.precision():
            result = read(padded[tile.place].unsqueeze(0).to(model.device), tile.point)
        yield tile, result


def merged(
    model: TrainedModel, data: Tensor, read: Read[Tensor], point: Sequence[float] | None = None, title: str = ""
) -> npt.NDArray[np.float32]:
    """Read maps tile by tile, and merge tiles as nnU-Net merges logits: by a mean with Gaussian weights.

    nnU-Net adds logits up in half precision; maps differ by more than that holds, so here it is single. Maps of a
    tile, ``(1, K, *tile)``, become those of the grid, ``(K, *grid)``, zero where no tile was read.
    """
    from nnunetv2.inference.sliding_window_prediction import compute_gaussian

    padded, inner = _padded(model, data)
    weight = compute_gaussian(tuple(model.patch_size), 1.0 / 8, 10, device=torch.device("cpu")).float()
    sums, weights = torch.zeros(0), torch.zeros(padded.shape[1:])
    for tile, result in each_tile(model, data, read, point, title):
        maps = result[0].float().cpu()
        if not len(sums):
            sums = torch.zeros(len(maps), *padded.shape[1:])
        sums[tile.place] += maps * weight
        weights[tile.place[1:]] += weight
    sums /= weights.clamp(min=torch.finfo(torch.float32).tiny)
    return np.asarray(sums[(slice(None), *inner)].numpy())


def _padded(model: TrainedModel, data: Tensor) -> tuple[Tensor, tuple[slice, ...]]:
    """Pad to a tile's size at least, as nnU-Net does, and give where the data is in it."""
    from acvl_utils.cropping_and_padding.padding import pad_nd_image

    padded, inner = pad_nd_image(data, model.patch_size, "constant", {"value": 0}, True, None)
    return padded, tuple(slice(*part.indices(n)) for part, n in zip(inner[1:], padded.shape[1:], strict=True))


def _tile(place: tuple[Any, ...], offset: Sequence[int], point: Sequence[float] | None) -> Tile:
    # The slice of a 2D tile is a number; as one voxel it is treated as the other axes.
    spans = [at if isinstance(at, slice) else slice(at, at + 1) for at in place[1:]]
    centre = tuple((span.start + span.stop - 1) / 2 - begin for span, begin in zip(spans, offset, strict=True))
    if point is None:
        return Tile(place, centre, None)
    local = [at + begin - span.start for at, begin, span in zip(point, offset, spans, strict=True)]
    if not all(-0.5 <= at < span.stop - span.start - 0.5 for at, span in zip(local, spans, strict=True)):
        return Tile(place, centre, None)
    return Tile(place, centre, tuple(local[-sum(isinstance(at, slice) for at in place[1:]) :]))
