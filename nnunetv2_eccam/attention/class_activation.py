"""Class activation (Grad-CAM) at a layer: which parts of the layer's map speak for a label.

Selvaraju et al., "Grad-CAM", ICCV 2017; for segmentation with the logits of the positions that are predicted as the
label, as in Vinogradova et al., "Seg-Grad-CAM", AAAI 2020. They sum these logits; here it is their mean, so that
tiles that show little of a structure and tiles that show much of it are on one scale.
"""

import torch
from torch import Tensor, nn

from nnunetv2_eccam.architectures.compared.ce_net import ResidualMultiKernelPooling
from nnunetv2_eccam.attention.network import Call, NetworkMaps, hooked, is_map, layer_named
from nnunetv2_eccam.attention.sources import sources_of
from nnunetv2_eccam.blocks.coag_musfu import CoAGMuSFu
from nnunetv2_eccam.errors import UserError

DEEPEST = (CoAGMuSFu, ResidualMultiKernelPooling)
"""What the deepest map leaves in networks that have it: CoAG-MuSFu after the encoder, and CE-Net's pooling, which has
smaller maps inside. Other networks are searched."""


def class_activation(network: nn.Module, tiles: Tensor, layer: str, head: int, exclusive: bool) -> Tensor:
    """Give Grad-CAM of one label at one layer. Parameters get no gradient.

    Args:
        network: in evaluation mode.
        tiles: ``(B, C, *tile)``.
        layer: dotted name of a module that gives ``(B, C, *map)``.
        head: the label's logit map.
        exclusive: a position has the label of its highest logit; else, with nnU-Net's regions, every label with a
            positive one.

    Returns:
        ``(B, *map)``, from 0 up; zero where nothing of a tile is predicted as the label.

    Raises:
        UserError: there is no such layer, or its output is not a map.
    """
    kept: list[Tensor] = []

    def keep(call: Call) -> Tensor | None:
        if not is_map(call.output, tiles.ndim - 2):
            return None
        kept.append(call.output.detach().requires_grad_())
        return kept[-1].clone()  # on which the network may work in place

    # In single precision: half precision rounds gradients of a mean over thousands of voxels to zero.
    with torch.enable_grad(), torch.autocast(tiles.device.type, enabled=False):
        with hooked([(layer_named(network, layer), keep)]):
            logits: Tensor = network(tiles)
        if not kept:
            raise UserError(f"what layer {layer} gives is not a map of the image; name another with --layer")
        chosen, features = logits[:, head], kept[-1]
        predicted = logits.argmax(1) == head if exclusive else chosen > 0
        axes = list(range(1, chosen.ndim))
        evidence = (chosen * predicted).sum(axes) / predicted.sum(axes).clamp(min=1)
        (gradient,) = torch.autograd.grad(evidence.sum(), features, materialize_grads=True)
    weights = gradient.mean(list(range(2, gradient.ndim)), keepdim=True)
    return (weights * features.detach()).sum(1).relu()


def deepest_layer(network: nn.Module, maps: NetworkMaps) -> str:
    """Name the layer with a network's deepest map.

    It is a module of :data:`DEEPEST`, or else, of all modules that give a map smaller than any other, the last one that
    is no part of an attention: gates look at the deepest map again.

    Raises:
        UserError: no layer gives a map of a tile.
    """
    modules = dict(network.named_modules())
    attention = [f"{path}." for path, module in modules.items() if sources_of(module)]
    found = [path for path in maps.shapes if isinstance(modules[path], DEEPEST)] or [
        path
        for path, (channels, *_) in maps.shapes.items()
        if channels != maps.heads and not any(f"{path}.".startswith(part) for part in attention)
    ]  # a map with as many channels as labels may be of logits, which are too late
    if not found:
        raise UserError(f"{type(network).__name__} has no layer that gives a map; name one with --layer")
    positions = {path: torch.Size(maps.shapes[path][1:]).numel() for path in found}
    return [path for path in found if positions[path] == min(positions.values())][-1]
