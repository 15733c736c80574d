"""Class activation (Grad-CAM) at a layer, by captum: which parts of the layer's map speak for a label.

Selvaraju et al., "Grad-CAM", ICCV 2017; for segmentation with the logits of the positions that are predicted as the
label, as in Vinogradova et al., "Seg-Grad-CAM", AAAI 2020. They sum these logits; here it is their mean, so that
tiles that show little of a structure and tiles that show much of it are on one scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_eccam.architectures.compared.ce_net import ResidualMultiKernelPooling
from nnunetv2_eccam.attention.geometry import MapGeometry
from nnunetv2_eccam.attention.hooks import hooked, layer_named, record
from nnunetv2_eccam.attention.sources import Call, sources_of
from nnunetv2_eccam.blocks.coag_musfu import CoAGMuSFu
from nnunetv2_eccam.errors import UserError

EXTRA = "pip install 'nnunetv2-eccam[pictures]'"

DEEPEST = (CoAGMuSFu, ResidualMultiKernelPooling)
"""What the deepest map leaves in networks that have it: CoAG-MuSFu after the encoder, and CE-Net's pooling, which has
smaller maps inside. Other networks are searched."""


class ClassActivation:
    """Grad-CAM of one label, by its logit map, at one layer, by its dotted name, whose output is ``(B, C, *map)``.

    A position has the label of its highest logit or, with nnU-Net's regions (not ``exclusive``), every label with a
    positive one.

    Raises:
        UserError: captum is not installed, or there is no such layer.
    """

    def __init__(self, network: nn.Module, layer: str, head: int, exclusive: bool, geometry: MapGeometry) -> None:
        try:
            from captum.attr import LayerGradCam
        except ImportError:
            raise UserError(f"cam needs captum, which is not installed: {EXTRA}") from None
        self.network, self.layer, self.head, self.exclusive = network, layer, head, exclusive
        self._geometry = geometry
        self._module = layer_named(network, layer)
        self._method: Any = LayerGradCam(self._evidence, self._module)

    def __call__(self, tiles: Tensor) -> Tensor:
        """Give the activation of a batch of tiles, from 0 up, ``(B, C, *tile)`` to ``(B, *tile)``.

        It is zero where nothing of a tile is predicted as the label. Parameters get no gradient.

        Raises:
            UserError: the layer's output is not a map.
        """
        (is_map,) = record(self.network, tiles, [(self._module, lambda call: _is_map(call.output, tiles))])
        if not is_map:
            raise UserError(f"what layer {self.layer} gives is not a map of the image; name another with --layer")
        # In single precision: half precision rounds gradients of a mean over thousands of voxels to zero.
        with torch.enable_grad(), torch.autocast(tiles.device.type, enabled=False):
            values: Tensor = self._method.attribute(tiles, relu_attributions=True)
        return self._geometry.enlarged(values.detach().squeeze(1).float())

    def _evidence(self, tiles: Tensor) -> Tensor:
        """Give the mean logit of the positions predicted as the label, ``(B,)``."""
        logits: Tensor = self.network(tiles)
        chosen = logits[:, self.head]
        predicted = logits.argmax(1) == self.head if self.exclusive else chosen > 0
        axes = list(range(1, chosen.ndim))
        evidence: Tensor = (chosen * predicted).sum(axes) / predicted.sum(axes).clamp(min=1)
        return evidence


def deepest_layer(network: nn.Module, size: Sequence[int], channels: int, device: torch.device) -> str:
    """Name the layer with a network's deepest map.

    It is a module of :data:`DEEPEST`, or else, of all modules that give a map smaller than any other, the last one that
    is no part of an attention: gates look at the deepest map again.

    Raises:
        UserError: no layer gives a map of a tile.
    """
    maps: dict[str, tuple[int, int]] = {}  # path to positions and channels, in the order of the last call
    tile = torch.zeros(1, channels, *size, device=device)
    modules = {path: module for path, module in network.named_modules() if path}

    def note(path: str, call: Call) -> None:
        if _is_map(call.output, tile):
            maps.pop(path, None)
            maps[path] = call.output[0, 0].numel(), call.output.shape[1]

    with hooked((module, partial(note, path)) for path, module in modules.items()):
        logits = network(tile)
    attention = [f"{path}." for path, module in modules.items() if sources_of(module)]
    found = [path for path in maps if isinstance(modules[path], DEEPEST)] or [
        path
        for path, (_, n) in maps.items()
        if n != logits.shape[1] and not any(f"{path}.".startswith(part) for part in attention)
    ]  # a map with as many channels as labels may be of logits, which are too late
    if not found:
        raise UserError(f"{type(network).__name__} has no layer that gives a map; name one with --layer")
    smallest = min(maps[path][0] for path in found)
    return [path for path in found if maps[path][0] == smallest][-1]


def _is_map(output: Any, tiles: Tensor) -> bool:
    """Tell a map from a list of maps, and from a vector, which has one position along an axis."""
    return isinstance(output, Tensor) and output.ndim == tiles.ndim and min(output.shape[2:]) > 1
