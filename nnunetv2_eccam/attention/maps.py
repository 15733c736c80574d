"""What a trained network attends to in a case, on the image's own voxels: the API behind the command.

From Python::

    model = TrainedModel(Path("nnUNetTrainerECCaM__nnUNetPlans__2d"), fold="0")
    image = read_image(Path("la_003_0000.nii.gz"))
    for volume in attention_volumes(model, model.prepare([image]), "spatial"):
        write_nifti(Path(f"{volume.name}.nii.gz"), volume.voxels, image.header)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from nnunetv2_eccam.attention.case import PreparedCase, TrainedModel
from nnunetv2_eccam.attention.class_activation import ClassActivation, deepest_layer
from nnunetv2_eccam.attention.geometry import MapGeometry
from nnunetv2_eccam.attention.hooks import layer_named, record
from nnunetv2_eccam.attention.sources import (
    ATTENDED_FROM,
    STRENGTH,
    Call,
    Found,
    Pairs,
    find_attention,
    find_sources,
)
from nnunetv2_eccam.attention.tiles import each_tile, merged
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


class ChannelWeights(NamedTuple):
    """The channel weights of one module in one case.

    Attributes:
        name: of the map, as ``--map`` takes it.
        path: dotted name of the module.
        unit: what a row stands for: ``slice`` of a 2D model, ``tile`` of a 3D one.
        rows: the slices' numbers in the file, from 0, or the tiles' centres, voxels (x, y, z) of the file.
        weights: (rows, channels).
    """

    name: str
    path: str
    unit: str
    rows: tuple[str, ...]
    weights: npt.NDArray[np.float32]


def attention_volumes(
    model: TrainedModel, case: PreparedCase, what: str, maps: Sequence[str] | None = None,
    point: Sequence[float] | None = None, label: str | None = None, layer: str | None = None, title: str = "",
) -> list[AttentionVolume]:  # fmt: skip
    """Show what a network attends to.

    Args:
        model: the network.
        case: prepared for it.
        what: ``spatial``: SC's map, what CoA adds, CBAM's and the gates' weights; ``activation``: how strong the
            features are that leave the attention, a map that every attention has; ``cam``: class activation.
        maps: ``spatial``: only those of these names; None: all that the network has.
        point: ``spatial``: voxel (x, y, z) of the file, what this position attends to in maps between positions (SC,
            DA-Net). None: how much each position is attended to.
        label: ``cam``: its name in ``dataset.json``; None: the first one.
        layer: by its dotted name: ``spatial``: only the attention in it; else this layer. None: for ``activation`` the
            attention, for ``cam`` the layer with the deepest map.
        title: of the progress bar.

    Raises:
        UserError: the network has nothing of what is asked for, does not see the point, or captum is not installed.
    """
    geometry = MapGeometry(model.network, model.patch_size, len(model.channels), model.device)
    if what == "cam":
        label, found = checked_label(model, label), []
        layer = layer or deepest_layer(model.network, model.patch_size, len(model.channels), model.device)
        activation = ClassActivation(model.network, layer, model.heads[label], model.exclusive_labels, geometry)
        meanings = {"cam": f"Grad-CAM of {label} at {layer}"}
    else:
        found = find_maps(model, what, maps, point is not None, layer)
        meanings = {
            source.name: ATTENDED_FROM if point is not None and source.kind == "pairs" else source.meaning
            for _, _, source in found
        }

    def read(tile: Tensor, at: Sequence[float] | None) -> Tensor:
        return tile_maps(model.network, tile, found, geometry, at) if found else activation(tile).unsqueeze(1)

    place = None if point is None else case.origin.locate(point)
    volumes = case.origin.restore(merged(model, case.data, read, place, title))
    return [AttentionVolume(*each, voxels) for each, voxels in zip(meanings.items(), volumes, strict=True)]


def channel_weights(
    model: TrainedModel, case: PreparedCase, maps: Sequence[str] | None = None, title: str = ""
) -> list[ChannelWeights]:
    """Show how a network weights its channels: CC, SE, CBAM.

    Of a 2D model with several tiles per slice, a slice's weights are the mean of its tiles'.

    Raises:
        UserError: the network weights no channels.
    """
    found = find_maps(model, "channels", maps)
    is_2d = len(model.patch_size) == 2
    rows: dict[tuple[int, ...], list[list[Tensor]]] = {}

    def read(tile: Tensor, _point: Sequence[float] | None) -> list[Tensor]:
        weights = record(model.network, tile, [(module, source.read) for _, module, source in found])
        return [each[0].float().cpu() for each in weights]

    for tile, weights in each_tile(model, case.data, read, title=title):
        voxel = case.origin.file_voxel(tile.centre)
        rows.setdefault((voxel[case.origin.slicing_axis],) if is_2d else voxel, []).append(weights)
    names = tuple(" ".join(map(str, row)) for row in sorted(rows))
    return [
        ChannelWeights(
            source.name, path, "slice" if is_2d else "tile", names,
            torch.stack([torch.stack([tile[index] for tile in rows[row]]).mean(0) for row in sorted(rows)]).numpy(),
        )
        for index, (path, _, source) in enumerate(found)
    ]  # fmt: skip


def tile_maps(
    network: nn.Module, tiles: Tensor, found: Sequence[Found], geometry: MapGeometry,
    point: Sequence[float] | None = None,
) -> Tensor:  # fmt: skip
    """Give the maps of a batch of tiles.

    Where several modules have a source of one name (the gates of a U-Net, an attention at several stages), their maps
    are averaged. Maps between positions are seen from the point, a voxel of the tile, or summed over all positions.

    Returns:
        ``(B, K, *tile)`` in single precision, one map for each name, in the order of their first module.
    """

    def reader(source: Callable[[Call], Any]) -> Callable[[Call], Tensor]:
        def read(call: Call) -> Tensor:
            values = source(call)
            if isinstance(values, Pairs):
                size = values.queries.shape[2:]
                values = values.attended(None if point is None else geometry.position(point, size))
            return geometry.enlarged(values.float())

        return read

    by_name: dict[str, list[Tensor]] = {}
    maps = record(network, tiles, [(module, reader(source.read)) for _, module, source in found])
    for each, values in zip(found, maps, strict=True):
        by_name.setdefault(each.source.name, []).append(values)
    return torch.stack([torch.stack(values).mean(0) for values in by_name.values()], 1)


def find_maps(
    model: TrainedModel, what: str, maps: Sequence[str] | None = None, from_point: bool = False,
    layer: str | None = None,
) -> list[Found]:  # fmt: skip
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
    kinds = ["channels"] if what == "channels" else ["pairs"] if from_point else ["positions", "pairs"]
    said = "of channels" if what == "channels" else "seen from a point" if from_point else "of positions"
    found = find_sources(model.network, *kinds)
    if not found:
        others = ", ".join(dict.fromkeys(f"{each.name} ({each.kind})" for _, _, each in find_sources(model.network)))
        raise UserError(
            f"{model.folder}: the network, {network}, has no attention {said}; it has {others or 'none at all'}; cam "
            f"shows something of every network, activation of every layer"
        )
    chosen = [
        each
        for each in found
        if (maps is None or each.source.name in maps) and (layer is None or f"{each.path}.".startswith(f"{layer}."))
    ]
    if not chosen:
        has = ", ".join(f"{each.source.name} at {each.path}" for each in found)
        raise UserError(f"{model.folder}: the network, {network}, has no such map {said}; it has {has}")
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
