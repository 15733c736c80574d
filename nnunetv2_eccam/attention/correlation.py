"""How positions of a map attend to each other, without ever holding the map of all pairs.

For N positions the correlation S (eq. 9) has N x N entries. What can be looked at is one of its rows (what one
position attends to), or the sum of its columns (how much each position is attended to): N values either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

VALUES_AT_ONCE = 1 << 22
"""Entries of S that are held at a time: 16 MB in single precision."""


class Pairs(NamedTuple):
    """What a map between positions is computed from: ``S_ij = softmax_j(scale * q_i . k_j)``.

    Attributes:
        queries: ``(B, C, *map)``; position i's vector is ``q_i``.
        keys: ``(B, C, *map)``.
        scale: of the dot products.
    """

    queries: Tensor
    keys: Tensor
    scale: float

    def attended(self, values_at_once: int = VALUES_AT_ONCE) -> Tensor:
        """Sum the columns of S: how much each position is attended to.

        Args:
            values_at_once: entries of S that are held at a time, at least one row's.

        Returns:
            ``(B, *map)``, divided so that the mean over all positions is 1: of 2 it is attended to twice as much
            as of the average position.
        """
        rows, columns = self._rows_and_columns()
        sums = torch.zeros_like(columns[:, 0])
        together = max(1, values_at_once // sums.numel())
        with torch.autocast(columns.device.type, enabled=False):
            for some in torch.split(rows, together, 1):
                sums += (some @ columns).softmax(2).sum(1)
        return (sums * (columns.shape[2] / rows.shape[1])).reshape(len(self.keys), *self.keys.shape[2:])

    def attended_from(self, position: Sequence[int]) -> Tensor:
        """Give one row of S: what one position attends to.

        Args:
            position: index into ``*map``.

        Returns:
            ``(B, *map)``, multiplied by the number of positions: 1 is what each would get if the position attended
            to all alike.
        """
        place = (slice(None), slice(None), *(slice(index, index + 1) for index in position))
        return self._replace(queries=self.queries[place]).attended()

    def _rows_and_columns(self) -> tuple[Tensor, Tensor]:
        """Lay both out for a matrix product, ``(B, positions, C)`` and ``(B, C, positions)``, scaled.

        In single precision at least, as SC computes them: products of hundreds of channels leave the range of half
        precision, which the network's autocast would take.
        """
        kept = torch.promote_types(self.queries.dtype, torch.float32)
        return self.queries.flatten(2).transpose(1, 2).to(kept) * self.scale, self.keys.flatten(2).to(kept)
