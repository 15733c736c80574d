"""Which modules of a network attend to something, and how that is read from one call of them.

:data:`SOURCES` is keyed by the module's class, wherever in a network it sits and however often; a further system is an
entry there, or :func:`register`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from nnunetv2_eccam.architectures.compared.attention_unet import AttentionGate
from nnunetv2_eccam.architectures.compared.da_net import PositionAttention
from nnunetv2_eccam.attention.correlation import Pairs
from nnunetv2_eccam.blocks.cbam import CBAM
from nnunetv2_eccam.blocks.channel_correlation import ChannelCorrelation
from nnunetv2_eccam.blocks.collaborative_attention import CollaborativeAttention
from nnunetv2_eccam.blocks.spatial_correlation import SpatialCorrelation
from nnunetv2_eccam.blocks.squeeze_excitation import SqueezeExcitation


class Call(NamedTuple):
    """One call of a module, as a forward hook sees it.

    Attributes:
        module: the module, whose methods may be called.
        inputs: its positional arguments.
        output: what it returned.
    """

    module: Any
    inputs: tuple[Any, ...]
    output: Any


Kind = Literal["channels", "positions", "pairs"]


@dataclass(frozen=True)
class Source:
    """One thing that a module attends by.

    Attributes:
        name: short, as ``--map`` takes it.
        kind: ``channels``: a weight for each channel; ``positions``: a value for each position; ``pairs``: a
            weight for each pair of positions.
        meaning: what a value says, with its unit or range.
        read: gives it from a call: ``(B, C)`` for channels, ``(B, *map)`` for positions, :class:`Pairs`.
    """

    name: str
    kind: Kind
    meaning: str
    read: Callable[[Call], Any]


def added(call: Call) -> Tensor:
    """Give the length of the vector that a module adds to each position of its input, ``(B, *map)``."""
    difference: Tensor = call.output.float() - call.inputs[0].float()
    return difference.square().sum(1).sqrt()


def strength(call: Call) -> Tensor:
    """Give the root mean square over the channels of what leaves a module, ``(B, *map)``."""
    features: Tensor = call.output.float()
    return features.square().mean(1).sqrt()


def _channel_weights(call: Call) -> Tensor:
    weights: Tensor = call.module.channel_weights(call.inputs[0])
    return weights


def _correlation(call: Call) -> Pairs:
    features, scale = call.inputs[0], call.module.scale
    return Pairs(features, features, features.shape[1] ** -0.5 if scale == "1/sqrt(C)" else float(scale))


def _cbam_positions(call: Call) -> Tensor:
    features = call.inputs[0]
    weights = call.module.channel_weights(features)
    weighted = features * weights.view(*weights.shape, *[1] * (features.ndim - 2))
    positions: Tensor = call.module.spatial_weights(weighted)
    return positions.squeeze(1)


def _gate_coefficients(call: Call) -> Tensor:
    coefficients: Tensor = call.module.attention_coefficients(*call.inputs)
    return coefficients.squeeze(1)


def _position_attention(call: Call) -> Pairs:
    return Pairs(call.module.query(call.inputs[0]), call.module.key(call.inputs[0]), 1.0)


ATTENDED = "how much each position is attended to, 1 on average"
ATTENDED_FROM = "what the cross attends to, 1 if it attended to all positions alike"
"""What the values of a map between positions say, summed and seen from a point."""

SOURCES: dict[type[nn.Module], tuple[Source, ...]] = {
    CollaborativeAttention: (Source("CoA", "positions", "length of the vector that is added to each position", added),),
    SpatialCorrelation: (Source("SC", "pairs", ATTENDED, _correlation),),
    ChannelCorrelation: (Source("CC", "channels", "weight of each channel, 0 to 1", _channel_weights),),
    SqueezeExcitation: (Source("SE", "channels", "weight of each channel, 0 to 1", _channel_weights),),
    CBAM: (
        Source("CBAM", "channels", "weight of each channel, 0 to 1", _channel_weights),
        Source("CBAM", "positions", "weight of each position, 0 to 1", _cbam_positions),
    ),
    AttentionGate: (
        Source("gate", "positions", "weight of each position, 0 to 1, mean of the gates", _gate_coefficients),
    ),
    PositionAttention: (Source("position", "pairs", ATTENDED, _position_attention),),
}
"""The modules that can be looked at. Of a network's maps, those that stand first are shown first."""


def register(module: type[nn.Module], *sources: Source) -> None:
    """Let a further class of modules, and its subclasses, be looked at."""
    SOURCES[module] = sources


def sources_of(module: nn.Module) -> tuple[Source, ...]:
    """Give what a module attends by; of its classes, the most derived one that is known decides."""
    return next((SOURCES[kind] for kind in type(module).__mro__ if kind in SOURCES), ())
