"""Which modules of a network attend to something, and how that is read from one call of them.

:data:`SOURCES` is keyed by the module's class, wherever in a network it sits and however often; a further system is an
entry there, or :func:`register`.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from nnunetv2_eccam.architectures.compared.attention_unet import AttentionGate
from nnunetv2_eccam.architectures.compared.da_net import PositionAttention
from nnunetv2_eccam.attention.network import Call
from nnunetv2_eccam.blocks.channel_correlation import ChannelCorrelation
from nnunetv2_eccam.blocks.collaborative_attention import CollaborativeAttention
from nnunetv2_eccam.blocks.compared_attention import CBAM, SqueezeExcitation
from nnunetv2_eccam.blocks.spatial_correlation import SpatialCorrelation

VALUES_AT_ONCE = 1 << 22
"""Entries of a map between positions that are held at a time: 16 MB in single precision."""


class Source(NamedTuple):
    """One thing that a module attends by.

    Attributes:
        name: short, as ``--map`` takes it.
        kind: ``channels``: a weight for each channel; ``positions``: a value for each position.
        meaning: what a value says, with its unit or range.
        read: gives it from a call: ``(B, C)`` for channels, ``(B, *map)`` for positions.
    """

    name: str
    kind: Literal["channels", "positions"]
    meaning: str
    read: Callable[[Call], Tensor]


class Found(NamedTuple):
    """A module of a network, by its dotted name, and what of it is looked at."""

    path: str
    module: nn.Module
    source: Source


def attended(queries: Tensor, keys: Tensor, scale: float, values_at_once: int = VALUES_AT_ONCE) -> Tensor:
    """Sum the columns of ``S_ij = softmax_j(scale * q_i . k_j)`` (eq. 9), which is never held whole.

    Args:
        queries: ``(B, C, *map)``; position i's vector is ``q_i``.
        keys: ``(B, C, *map)``.
        scale: of the dot products.
        values_at_once: entries of S that are held at a time, at least one row's.

    Returns:
        ``(B, *map)``, with the mean 1 over all positions: of 2 it is attended to twice as much as on average.
    """
    # In single precision at least, as SC computes them: products of hundreds of channels leave the range of half
    # precision, which the network's autocast would take.
    kept = torch.promote_types(queries.dtype, torch.float32)
    rows, columns = queries.flatten(2).transpose(1, 2).to(kept) * scale, keys.flatten(2).to(kept)
    sums = torch.zeros_like(columns[:, 0])
    with torch.autocast(columns.device.type, enabled=False):
        for some in torch.split(rows, max(1, values_at_once // sums.shape[1]), 1):
            sums += (some @ columns).softmax(2).sum(1)
    return sums.reshape(len(sums), *keys.shape[2:])


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


def _correlation(call: Call) -> Tensor:
    features = call.inputs[0]
    return attended(features, features, call.module.factor(features.shape[1]))


def _position_attention(call: Call) -> Tensor:
    return attended(call.module.query(call.inputs[0]), call.module.key(call.inputs[0]), 1.0)


def _cbam_positions(call: Call) -> Any:
    features, weights = call.inputs[0], _channel_weights(call)
    weighted = features * weights.view(*weights.shape, *[1] * (features.ndim - 2))
    return call.module.spatial_weights(weighted).squeeze(1)


def _gate(call: Call) -> Any:
    return call.module.attention_coefficients(*call.inputs).squeeze(1)


ATTENDED = "how much each position is attended to, 1 on average"
CHANNELS, POSITIONS = "weight of each channel, 0 to 1", "weight of each position, 0 to 1"
STRENGTH = Source("activation", "positions", "strength of the features, root mean square over the channels", strength)

SOURCES: dict[type[nn.Module], tuple[Source, ...]] = {
    CollaborativeAttention: (Source("CoA", "positions", "length of the vector that is added to each position", added),),
    SpatialCorrelation: (Source("SC", "positions", ATTENDED, _correlation),),
    ChannelCorrelation: (Source("CC", "channels", CHANNELS, _channel_weights),),
    SqueezeExcitation: (Source("SE", "channels", CHANNELS, _channel_weights),),
    CBAM: (
        Source("CBAM", "channels", CHANNELS, _channel_weights),
        Source("CBAM", "positions", POSITIONS, _cbam_positions),
    ),
    AttentionGate: (Source("gate", "positions", f"{POSITIONS}, mean of the gates", _gate),),
    PositionAttention: (Source("position", "positions", ATTENDED, _position_attention),),
}
"""The modules that can be looked at. Of a network's maps, those that stand first are shown first."""


def register(module: type[nn.Module], *sources: Source) -> None:
    """Let a further class of modules, and its subclasses, be looked at."""
    SOURCES[module] = sources


def sources_of(module: nn.Module) -> tuple[Source, ...]:
    """Give what a module attends by; of its classes, the most derived one that is known decides."""
    return next((SOURCES[kind] for kind in type(module).__mro__ if kind in SOURCES), ())


def find_sources(network: nn.Module, kind: str = "") -> list[Found]:
    """Find what a network attends by, of one kind or of both, in the order of its modules."""
    return [
        Found(path, module, source)
        for path, module in network.named_modules()
        for source in sources_of(module)
        if source.kind == kind or not kind
    ]


def find_attention(network: nn.Module) -> list[Found]:
    """Find the attention modules themselves, outermost ones only, to look at what leaves them."""
    found: list[Found] = []
    for path, module, _ in find_sources(network):
        if not any(f"{path}.".startswith(f"{outer.path}.") for outer in found):
            found.append(Found(path, module, STRENGTH))
    return found
