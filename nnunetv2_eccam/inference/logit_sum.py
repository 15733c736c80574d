"""The image's logits, from those of overlapping tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class LogitSum:
    """A weighted mean of tiles, accumulated as nnU-Net accumulates it: tile by tile, in half precision.

    Args:
        heads: logit maps K.
        image_size: of the padded image, three axes.
        weight: of a tile's pixels, (*patch), or 1.
        device: where the sums lie.
    """

    def __init__(self, heads: int, image_size: Sequence[int], weight: Tensor | int, device: torch.device) -> None:
        self._weight = weight
        self._logits = torch.zeros((heads, *image_size), dtype=torch.half, device=device)
        self._weights = torch.zeros(tuple(image_size), dtype=torch.half, device=device)

    @torch.inference_mode()
    def add(self, tiles: Tensor, places: Sequence[tuple[Any, ...]]) -> None:
        """Add tiles, in the order given.

        Args:
            tiles: logits (T, K, *patch), on any device; they are changed in place.
            places: T indices into (K, *image), as nnU-Net's slicers.
        """
        tiles = tiles.to(self._logits.device)
        if isinstance(self._weight, Tensor):
            tiles *= self._weight
        for tile, place in zip(tiles, places, strict=True):
            # Indices and slices give views, so this adds in place; ``sums[place] += tile`` would also copy
            # the sum onto itself.
            self._logits[place].add_(tile)
            self._weights[place[1:]].add_(self._weight)

    def mean(self) -> Tensor:
        """Give the logits, (K, *image), infinite where half precision overflowed. The sums are used up."""
        return torch.div(self._logits, self._weights, out=self._logits)
