"""What a trained network attends to in a case, on the image's own voxels: the API behind the command.

docs/how-to/attention.md has an example.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from nnunetv2_eccam.attention.case import PreparedCase, TrainedModel
from nnunetv2_eccam.attention.class_activation import class_activation, deepest_layer
from nnunetv2_eccam.attention.network import NetworkMaps, layer_named, record
from nnunetv2_eccam.attention.sources import STRENGTH, Found, find_attention, find_sources
from nnunetv2_eccam.errors import UserError


class AttentionVolume(NamedTuple):
    """One map of a case.

    Attributes:
        name: of the map, as ``--map`` takes it.
        meaning: what a value says.
        voxels: (x, y, z), the voxels of the image's file; zero where the network does not see the image.
    """

    name: str
    meaning: str
    voxels: npt.NDArray[np.float32]


def attention_volumes(
    model: TrainedModel, case: PreparedCase, what: str, maps: Sequence[str] | None = None,
    label: str | None = None, layer: str | None = None,
) -> list[AttentionVolume]:  # fmt: skip
    """Show what a network attends to.

    Args:
        model: the network.
        case: prepared for it.
        what: ``spatial``: SC's map, what CoA adds, CBAM's and the gates' weights; ``activation``: how strong the
            features are that leave the attention, a map that every attention has; ``cam``: class activation.
        maps: ``spatial``: only those of these names; None: all that the network has.
        label: ``cam``: its name in ``dataset.json``; None: the first one.
        layer: by its dotted name: ``spatial``: only the attention in it; else this layer. None: for ``activation`` the
            attention, for ``cam`` the layer with the deepest map.

    Raises:
        UserError: the network has nothing of what is asked for.
    """
    network = model.network
    known = NetworkMaps(network, model.patch_size, len(model.channels), model.device)
    if what == "cam":
        label = checked_label(model, label)
        place, head, exclusive = layer or deepest_layer(network, known), model.heads[label], model.exclusive_labels
        meanings = {"cam": f"Grad-CAM of {label} at {place}"}

        def read(tile: Tensor) -> Tensor:
            return known.enlarged(class_activation(network, tile, place, head, exclusive)).unsqueeze(1)
    else:
        found = find_maps(model, what, maps, layer)
        meanings = {source.name: source.meaning for _, _, source in found}

        def read(tile: Tensor) -> Tensor:
            return tile_maps(network, tile, found, known)

    volumes = model.restore(case, model.merged(case.data, read))
    return [AttentionVolume(*each, voxels) for each, voxels in zip(meanings.items(), volumes, strict=True)]


def channel_weights(
    model: TrainedModel, case: PreparedCase, maps: Sequence[str] | None = None
) -> dict[str, npt.NDArray[np.float32]]:
    """Show how a network weights its channels: CC, SE, CBAM.

    Returns:
        (tiles, channels) of each module, by its dotted name. Of a 2D model tiles are slices, or parts of them where
        slices are larger than its patch.

    Raises:
        UserError: the network weights no channels.
    """
    found = find_maps(model, "channels", maps)
    reads = [(module, source.read) for _, module, source in found]
    tiles = model.tiles(model.padded(case.data)[0])
    with model.precision():
        weights = [[each[0].float().cpu() for each in record(model.network, tile, reads)] for _, tile in tiles]
    return {each.path: torch.stack([tile[index] for tile in weights]).numpy() for index, each in enumerate(found)}


def tile_maps(network: nn.Module, tiles: Tensor, found: Sequence[Found], known: NetworkMaps) -> Tensor:
    """Give the maps of a batch of tiles.

    Where several modules have a source of one name (the gates of a U-Net, an attention at several stages), their maps
    are averaged.

    Returns:
        ``(B, K, *tile)`` in single precision, one map for each name, in the order of their first module.
    """
    by_name: dict[str, list[Tensor]] = {}
    maps = record(network, tiles, [(module, source.read) for _, module, source in found])
    for each, values in zip(found, maps, strict=True):
        by_name.setdefault(each.source.name, []).append(known.enlarged(values.float()))
    return torch.stack([torch.stack(values).mean(0) for values in by_name.values()], 1)


def find_maps(
    model: TrainedModel, what: str, maps: Sequence[str] | None = None, layer: str | None = None
) -> list[Found]:
    """Find what ``channels``, ``spatial`` or ``activation`` shows of a network, see :func:`attention_volumes`.

    Raises:
        UserError: there is nothing of it; the message says what there is.
    """
    network = type(model.network).__name__
    if what == "activation":
        found = [Found(layer, layer_named(model.network, layer), STRENGTH)] if layer else find_attention(model.network)
        if not found:
            raise UserError(
                f"{network} has no attention whose output could be shown; name one of its layers with --layer, or use "
                f"cam"
            )
        return found
    kind = "channels" if what == "channels" else "positions"
    found = find_sources(model.network, kind)
    if not found:
        others = ", ".join(dict.fromkeys(f"{each.name} ({each.kind})" for _, _, each in find_sources(model.network)))
        raise UserError(
            f"{model.folder}: the network, {network}, has no attention of {kind}; it has {others or 'none at all'}; "
            f"cam shows something of every network, activation of every layer"
        )
    chosen = [
        each
        for each in found
        if (maps is None or each.source.name in maps) and (layer is None or f"{each.path}.".startswith(f"{layer}."))
    ]
    if not chosen:
        has = ", ".join(f"{each.source.name} at {each.path}" for each in found)
        raise UserError(f"{model.folder}: the network, {network}, has no such map of {kind}; it has {has}")
    return chosen


def checked_label(model: TrainedModel, label: str | None) -> str:
    """Give the label that is asked for, or the first one.

    Raises:
        UserError: the model has no such label.
    """
    if label is None:
        return next(iter(model.heads))
    if label not in model.heads:
        raise UserError(f"the model in {model.folder} has no label {label}; it has {', '.join(model.heads)}")
    return label
