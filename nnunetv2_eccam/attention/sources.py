"""Which modules of a network attend to something, and how that is read from one call of them.

:data:`SOURCES` is keyed by the module's class, wherever in a network it sits and however often; a further system is an
entry there, or :func:`register`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from nnunetv2_eccam.architectures.compared.attention_unet import AttentionGate
from nnunetv2_eccam.architectures.compared.da_net import PositionAttention
from nnunetv2_eccam.blocks.channel_correlation import ChannelCorrelation
from nnunetv2_eccam.blocks.collaborative_attention import CollaborativeAttention
from nnunetv2_eccam.blocks.compared_attention import CBAM, SqueezeExcitation
from nnunetv2_eccam.blocks.spatial_correlation import SpatialCorrelation

VALUES_AT_ONCE = 1 << 22
"""Entries of a map between positions that are held at a time: 16 MB in single precision."""


class Call(NamedTuple):
    """One call of a module, as a forward hook sees it: its positional arguments and what it returned."""

    module: Any
    inputs: tuple[Any, ...]
    output: Any


class Pairs(NamedTuple):
    """A map between positions, ``S_ij = softmax_j(scale * q_i . k_j)`` (eq. 9), that is never held whole.

    Attributes:
        queries: ``(B, C, *map)``; position i's vector is ``q_i``.
        keys: ``(B, C, *map)``.
        scale: of the dot products.
    """

    queries: Tensor
    keys: Tensor
    scale: float

    def attended(self, position: Sequence[int] | None = None, values_at_once: int = VALUES_AT_ONCE) -> Tensor:
        """Sum the columns of S, how much each position is attended to, or give a row, what one position attends to.

        Args:
            position: index into ``*map`` of the one that attends; None: all do.
            values_at_once: entries of S that are held at a time, at least one row's.

        Returns:
            ``(B, *map)``, with the mean 1 over all positions: of 2 it is attended to twice as much as on average.
        """
        queries = self.queries
        if position is not None:
            for axis, index in enumerate(position, start=2):
                queries = queries.narrow(axis, index, 1)
        # In single precision at least, as SC computes them: products of hundreds of channels leave the range of half
        # precision, which the network's autocast would take.
        kept = torch.promote_types(queries.dtype, torch.float32)
        rows, columns = queries.flatten(2).transpose(1, 2).to(kept) * self.scale, self.keys.flatten(2).to(kept)
        sums = torch.zeros_like(columns[:, 0])
        with torch.autocast(columns.device.type, enabled=False):
            for some in torch.split(rows, max(1, values_at_once // sums.numel()), 1):
                sums += (some @ columns).softmax(2).sum(1)
        return (sums * (columns.shape[2] / rows.shape[1])).reshape(len(sums), *self.keys.shape[2:])


class Source(NamedTuple):
    """One thing that a module attends by.

    Attributes:
        name: short, as ``--map`` takes it.
        kind: ``channels``: a weight for each channel; ``positions``: a value for each position; ``pairs``: a
            weight for each pair of positions.
        meaning: what a value says, with its unit or range.
        read: gives it from a call: ``(B, C)`` for channels, ``(B, *map)`` for positions, :class:`Pairs`.
    """

    name: str
    kind: Literal["channels", "positions", "pairs"]
    meaning: str
    read: Callable[[Call], Any]


class Found(NamedTuple):
    """A module of a network, by its dotted name, and what of it is looked at."""

    path: str
    module: nn.Module
    source: Source


def added(call: Call) -> Tensor:
    """Give the length of the vector that a module adds to each position of its input, ``(B, *map)``."""
    length: Tensor = torch.linalg.vector_norm(call.output.float() - call.inputs[0].float(), dim=1)
    return length


def strength(call: Call) -> Tensor:
    """Give the root mean square over the channels of what leaves a module, ``(B, *map)``."""
    features: Tensor = call.output.float()
    return features.square().mean(1).sqrt()


def _channel_weights(call: Call) -> Any:
    return call.module.channel_weights(call.inputs[0])


def _correlation(call: Call) -> Pairs:
    features, scale = call.inputs[0], call.module.scale
    return Pairs(features, features, features.shape[1] ** -0.5 if scale == "1/sqrt(C)" else float(scale))


def _cbam_positions(call: Call) -> Any:
    features, weights = call.inputs[0], _channel_weights(call)
    weighted = features * weights.view(*weights.shape, *[1] * (features.ndim - 2))
    return call.module.spatial_weights(weighted).squeeze(1)


ATTENDED = "how much each position is attended to, 1 on average"
ATTENDED_FROM = "what the cross attends to, 1 if it attended to all positions alike"
"""What the values of a map between positions say, summed and seen from a point."""
CHANNELS, POSITIONS = "weight of each channel, 0 to 1", "weight of each position, 0 to 1"
STRENGTH = Source("activation", "positions", "strength of the features, root mean square over the channels", strength)

SOURCES: dict[type[nn.Module], tuple[Source, ...]] = {
    CollaborativeAttention: (Source("CoA", "positions", "length of the vector that is added to each position", added),),
    SpatialCorrelation: (Source("SC", "pairs", ATTENDED, _correlation),),
    ChannelCorrelation: (Source("CC", "channels", CHANNELS, _channel_weights),),
    SqueezeExcitation: (Source("SE", "channels", CHANNELS, _channel_weights),),
    CBAM: (
        Source("CBAM", "channels", CHANNELS, _channel_weights),
        Source("CBAM", "positions", POSITIONS, _cbam_positions),
    ),
    AttentionGate: (
        Source("gate", "positions", f"{POSITIONS}, mean of the gates",
               lambda call: call.module.attention_coefficients(*call.inputs).squeeze(1)),
    ),
    PositionAttention: (
        Source("position", "pairs", ATTENDED,
               lambda call: Pairs(call.module.query(call.inputs[0]), call.module.key(call.inputs[0]), 1.0)),
    ),
}  # fmt: skip
"""The modules that can be looked at. Of a network's maps, those that stand first are shown first."""


def register(module: type[nn.Module], *sources: Source) -> None:
    """Let a further class of modules, and its subclasses, be looked at."""
    SOURCES[module] = sources


def sources_of(module: nn.Module) -> tuple[Source, ...]:
    """Give what a module attends by; of its classes, the most derived one that is known decides."""
    return next((SOURCES[kind] for kind in type(module).__mro__ if kind in SOURCES), ())


def find_sources(network: nn.Module, *kinds: str) -> list[Found]:
    """Find what a network attends by, of some kinds or of all, in the order of its modules."""
    return [
        Found(path, module, source)
        for path, module in network.named_modules()
        for source in sources_of(module)
        if source.kind in kinds or not kinds
    ]


def find_attention(network: nn.Module) -> list[Found]:
    """Find the attention modules themselves, outermost ones only, to look at what leaves them."""
    found: list[Found] = []
    for path, module, _ in find_sources(network):
        if not any(f"{path}.".startswith(f"{outer.path}.") for outer in found):
            found.append(Found(path, module, STRENGTH))
    return found
