"""What a trained network attends to in a case, as volumes on the image's own voxels: the API behind the command.

From Python::

    model = TrainedModel(Path("nnUNetTrainerECCaM__nnUNetPlans__2d"), fold="0")
    image = read_image(Path("la_003_0000.nii.gz"))
    for volume in spatial_volumes(model, model.prepare([image])):
        write_nifti(Path(f"{volume.name}.nii.gz"), volume.voxels, image.header)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nnunetv2_eccam.attention.class_activation import ClassActivation, deepest_layer
from nnunetv2_eccam.attention.geometry import MapGeometry
from nnunetv2_eccam.attention.hooks import (
    Found,
    find_sources,
    find_strength,
    map_names,
    tile_channel_weights,
    tile_maps,
)
from nnunetv2_eccam.attention.model import PreparedCase, TrainedModel
from nnunetv2_eccam.attention.sources import ATTENDED_FROM
from nnunetv2_eccam.attention.tiles import each_tile, merged
from nnunetv2_eccam.errors import UserError


@dataclass(frozen=True)
class AttentionVolume:
    """One map of a case.

    Attributes:
        name: of the map, as ``--map`` takes it.
        meaning: what a value says.
        voxels: (x, y, z), the voxels of the image's file; zero where the network does not see the image.
    """

    name: str
    meaning: str
    voxels: npt.NDArray[np.float32]


@dataclass(frozen=True)
class ChannelWeights:
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


def spatial_volumes(
    model: TrainedModel,
    case: PreparedCase,
    maps: Sequence[str] | None = None,
    point: Sequence[float] | None = None,
    layer: str | None = None,
    title: str = "",
) -> list[AttentionVolume]:
    """Show where a network attends to: SC's map, what CoA adds, CBAM's and the gates' weights.

    Args:
        model: the network.
        case: prepared for it.
        maps: only those of these names; None: all that the network has.
        point: voxel (x, y, z) of the file: what this position attends to, in maps between positions (SC, DA-Net).
            None: how much each position is attended to.
        layer: only the module of this name, and what it contains.
        title: of the progress bar.

    Raises:
        UserError: the network has no such map, or does not see the point.
    """
    found = spatial_sources(model, maps, point is not None, layer)
    place = None if point is None else case.origin.locate(point)
    return _volumes(model, case, found, place, title)


def activation_volume(
    model: TrainedModel, case: PreparedCase, layer: str | None = None, title: str = ""
) -> AttentionVolume:
    """Show how strong the features are that leave the attention: a map that every attention has, SE's too.

    Args:
        model: the network.
        case: prepared for it.
        layer: a layer by name, instead of the attention.
        title: of the progress bar.

    Raises:
        UserError: the network has no attention, or no such layer.
    """
    (volume,) = _volumes(model, case, find_strength(model.network, layer), None, title)
    return volume


def cam_volume(
    model: TrainedModel, case: PreparedCase, label: str | None = None, layer: str | None = None, title: str = ""
) -> AttentionVolume:
    """Show the class activation (Grad-CAM) of a label.

    Args:
        model: the network.
        case: prepared for it.
        label: its name in ``dataset.json``; None: the first one.
        layer: dotted name; None: the bottleneck, or the network's deepest map.
        title: of the progress bar.

    Raises:
        UserError: there is no such label or layer, or captum is not installed.
    """
    label = checked_label(model, label)
    if layer is None:
        layer = deepest_layer(model.network, model.patch_size, len(model.channels), model.device)
    geometry = _geometry(model)
    activation = ClassActivation(model.network, layer, model.heads[label], model.exclusive_labels, geometry)

    def read(tile: Tensor, _point: Sequence[float] | None) -> Tensor:
        return activation(tile).unsqueeze(1)

    (voxels,) = case.origin.restore(merged(model, case.data, read, title=title))
    return AttentionVolume("cam", f"Grad-CAM of {label} at {layer}", voxels)


def channel_weights(
    model: TrainedModel, case: PreparedCase, maps: Sequence[str] | None = None, title: str = ""
) -> list[ChannelWeights]:
    """Show how a network weights its channels: CC, SE, CBAM.

    Of a 2D model with several tiles per slice, a slice's weights are the mean of its tiles'.

    Args:
        model: the network.
        case: prepared for it.
        maps: only those of these names; None: all that the network has.
        title: of the progress bar.

    Raises:
        UserError: the network weights no channels.
    """
    found = channel_sources(model, maps)
    is_2d = len(model.patch_size) == 2
    rows: dict[tuple[int, ...], list[list[Tensor]]] = {}

    def read(tile: Tensor, _point: Sequence[float] | None) -> list[Tensor]:
        return [weights[0].float().cpu() for weights in tile_channel_weights(model.network, tile, found)]

    for tile, weights in each_tile(model, case.data, read, title=title):
        voxel = case.origin.file_voxel(tile.centre)
        rows.setdefault((voxel[case.origin.slicing_axis],) if is_2d else voxel, []).append(weights)
    names = tuple(" ".join(map(str, row)) for row in sorted(rows))
    return [
        ChannelWeights(
            each.source.name,
            each.path,
            "slice" if is_2d else "tile",
            names,
            torch.stack([torch.stack([tile[index] for tile in rows[row]]).mean(0) for row in sorted(rows)]).numpy(),
        )
        for index, each in enumerate(found)
    ]


def spatial_sources(
    model: TrainedModel, maps: Sequence[str] | None = None, from_point: bool = False, layer: str | None = None
) -> list[Found]:
    """Find what :func:`spatial_volumes` shows of a network.

    Raises:
        UserError: there is no such map.
    """
    found = find_sources(model.network, ["pairs"] if from_point else ["positions", "pairs"])
    return _chosen(model, found, maps, layer, "seen from a point" if from_point else "of positions")


def channel_sources(model: TrainedModel, maps: Sequence[str] | None = None) -> list[Found]:
    """Find what :func:`channel_weights` shows of a network.

    Raises:
        UserError: there is no such map.
    """
    return _chosen(model, find_sources(model.network, ["channels"]), maps, None, "of channels")


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


def _volumes(
    model: TrainedModel, case: PreparedCase, found: Sequence[Found], place: Sequence[float] | None, title: str
) -> list[AttentionVolume]:
    geometry = _geometry(model)

    def read(tile: Tensor, point: Sequence[float] | None) -> Tensor:
        return tile_maps(model.network, tile, found, geometry, point)

    volumes = case.origin.restore(merged(model, case.data, read, place, title))
    meanings = {
        each.source.name: ATTENDED_FROM if place is not None and each.source.kind == "pairs" else each.source.meaning
        for each in found
    }
    return [
        AttentionVolume(name, meanings[name], voxels) for name, voxels in zip(map_names(found), volumes, strict=True)
    ]


def _geometry(model: TrainedModel) -> MapGeometry:
    return MapGeometry(model.network, model.patch_size, len(model.channels), model.device)


def _chosen(
    model: TrainedModel, found: Sequence[Found], maps: Sequence[str] | None, layer: str | None, what: str
) -> list[Found]:
    """Keep the maps that were asked for.

    Raises:
        UserError: none is left.
    """
    network = type(model.network).__name__
    if not found:
        everything = find_sources(model.network, ["channels", "positions", "pairs"])
        others = ", ".join(dict.fromkeys(f"{each.source.name} ({each.source.kind})" for each in everything))
        raise UserError(
            f"{model.folder}: the network, {network}, has no attention {what}; "
            + (f"it has {others}" if others else "it has none at all")
            + "; cam shows something of every network, activation of every layer"
        )
    chosen = [
        each
        for each in found
        if (maps is None or each.source.name in maps) and (layer is None or f"{each.path}.".startswith(f"{layer}."))
    ]
    if not chosen:
        has = ", ".join(f"{each.source.name} at {each.path}" for each in found)
        raise UserError(f"{model.folder}: the network, {network}, has no such map {what}; it has {has}")
    return chosen
