"""What the attention does in a training, once an epoch, where ``nnUNet_log_attention=1`` asks for it.

A gate that stays at one value, or a correlation that is uniform or the identity, does nothing: this is how to
see it. The numbers go into the training log, and to Weights & Biases where nnU-Net writes to it. (nnU-Net's own
record of a training takes no further entries: it counts the epochs by its shortest list.)
"""

import math
import os
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from nnunetv2_eccam.blocks.channel_correlation import ChannelCorrelation
from nnunetv2_eccam.blocks.coag_musfu import CoAGMuSFu
from nnunetv2_eccam.blocks.spatial_correlation import SpatialCorrelation

SWITCH = "nnUNet_log_attention"

POSITIONS = 64
"""Rows of the correlation map that are looked at, spread over the map; the whole is N x N."""


def is_wanted() -> bool:
    """Say whether the switch is on."""
    return os.environ.get(SWITCH, "0").lower() in ("1", "true")


def attention_state(network: nn.Module, image: Tensor) -> dict[str, float]:
    """Look at each CoAG-MuSFu in one forward pass.

    Args:
        network: without wrappers.
        image: a batch.

    Returns:
        by name of the place (``bottleneck``, ``earlier_fusions.4``) and measure: ``gate_min``, ``gate_mean`` and
        ``gate_max`` of the channel weights; ``entropy`` of the correlation's rows over that of a uniform one, so 1
        where every position gathers from all alike and 0 where each keeps to one; ``gain_min`` and ``gain_max``
        of an identity path.
    """
    found: dict[str, float] = {}
    with ExitStack() as hooks, torch.no_grad():
        for place, fusion in network.named_modules():
            if not isinstance(fusion, CoAGMuSFu):
                continue
            if fusion.gain is not None:
                found[f"{place}/gain_min"], found[f"{place}/gain_max"] = (float(n) for n in fusion.gain.aminmax())
            for module in fusion.modules():
                if isinstance(module, (ChannelCorrelation, SpatialCorrelation)):
                    hooks.callback(module.register_forward_pre_hook(partial(_look, found, place)).remove)
        network(image)
    return found


def sentences(state: dict[str, float]) -> Iterator[str]:
    """Say the state of each place in one line."""
    for place in dict.fromkeys(name.rpartition("/")[0] for name in state):
        here = {name.rpartition("/")[2]: value for name, value in state.items() if name.startswith(f"{place}/")}
        yield f"Attention at {place}: " + ", ".join(f"{name} {value:.4f}" for name, value in sorted(here.items()))


def _look(found: dict[str, float], place: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    features = inputs[0]
    if isinstance(module, ChannelCorrelation):
        gates = module.channel_weights(features)
        found[f"{place}/gate_min"], found[f"{place}/gate_max"] = (float(n) for n in gates.aminmax())
        found[f"{place}/gate_mean"] = float(gates.mean())
    elif isinstance(module, SpatialCorrelation):
        found[f"{place}/entropy"] = float(_entropy(features.flatten(2).float(), module.factor(features.shape[1])))


def _entropy(features: Tensor, scale: float) -> Tensor:
    """Give the mean entropy of rows of ``softmax(scale * F^T F)`` over the largest that there can be.

    Args:
        features: ``(B, C, N)``.
        scale: of the dot products.
    """
    n = features.shape[2]
    rows = features[:, :, :: max(1, n // POSITIONS)]
    logarithms = (scale * rows.transpose(1, 2) @ features).log_softmax(2)
    entropy = -(logarithms.exp() * logarithms).sum(2).mean()
    return entropy / math.log(n) if n > 1 else entropy
