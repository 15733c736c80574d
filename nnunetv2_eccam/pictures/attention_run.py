"""All files of one ``nnUNetv2_eccam attention``: each system's volumes or table, and the picture of all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.inference.trained_model import check_model
from nnunetv2_eccam.pictures.attention import (
    AttentionVolume,
    ChannelWeights,
    activation_volume,
    cam_volume,
    channel_sources,
    channel_weights,
    checked_label,
    spatial_sources,
    spatial_volumes,
)
from nnunetv2_eccam.pictures.attention_maps import find_strength, map_names
from nnunetv2_eccam.pictures.attention_picture import HeatLook, write_heat_maps
from nnunetv2_eccam.pictures.channel_picture import write_channel_picture, write_channel_table
from nnunetv2_eccam.pictures.heat_rows import HeatRows, rows_of_image
from nnunetv2_eccam.pictures.orientation import PLANES, View, view_of
from nnunetv2_eccam.pictures.original_voxels import write_nifti
from nnunetv2_eccam.pictures.trained_model import PreparedCase, TrainedModel
from nnunetv2_eccam.pictures.volume_files import Volume, check_same_grid, ending_of, read_image, read_labels
from nnunetv2_eccam.pictures.window import Percentiles, Window, description, parse_window


@dataclass(frozen=True)
class Request:
    """What is to be shown.

    Attributes:
        what: ``channels``, ``spatial``, ``activation`` or ``cam``.
        images: the case's files, one for each channel.
        output: folder of the files.
        systems: folder of each system's model, by its name; an empty name stands for the trainer's title.
        fold: a number or ``all``.
        checkpoint: name of the file.
        step_size: of the sliding window.
        device: where the networks run.
        progress: whether to show a progress bar.
        maps: only these; None: all, of several systems the first of each.
        point: voxel (x, y, z) of the image's file from which maps between positions are seen.
        point_mm: the same in mm, RAS coordinates of the image's header.
        label: of the class activation; None: the first.
        layer: see :mod:`nnunetv2_eccam.pictures.attention`.
        reference: the true mask's file.
        slices: numbers along the file's axis, from 0.
        rows: how many slices, unless they are numbered.
        plane: axial, coronal or sagittal; None: a 2D model's own.
        channel: of the image, that is drawn.
        window: see :func:`~nnunetv2_eccam.pictures.window.parse_window`.
        scale: ``slice``: each picture from blue to red has its own range of values; ``case``: each column.
        ending: of the picture: .png, .svg or .pdf.
        width_mm: the picture's width at most.
        dpi: pixels per inch.
    """

    what: Literal["channels", "spatial", "activation", "cam"]
    images: tuple[Path, ...]
    output: Path
    systems: dict[str, Path]
    fold: str = "0"
    checkpoint: str = "checkpoint_final.pth"
    step_size: float = 0.5
    device: str = "cpu"
    progress: bool = False
    maps: tuple[str, ...] | None = None
    point: tuple[int, ...] | None = None
    point_mm: tuple[float, ...] | None = None
    label: str | None = None
    layer: str | None = None
    reference: Path | None = None
    slices: tuple[int, ...] | None = None
    rows: int = 3
    plane: str | None = None
    channel: int = 0
    window: tuple[str, ...] | None = None
    scale: Literal["slice", "case"] = "slice"
    ending: str = ".png"
    width_mm: float = 182.0
    dpi: int = 300


def write_attention(request: Request) -> Iterator[Path]:
    """Write all files of a request, one system after the other, and give their paths as they are written.

    Raises:
        UserError: a file is missing or wrong, or a network has nothing of what is asked for.
    """
    for file in request.images:
        if not file.is_file():
            raise UserError(f"{file} is not a file; -i takes the files of one case, one for each channel")
    image = _image(request)
    reference = None
    if request.reference is not None:
        reference = read_labels(request.reference)
        check_same_grid(image, reference)
    point = _point(request, image)
    try:
        request.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{request.output} cannot be created: {error.strerror or error}") from error
    stem = f"{_case_name(request.images[0])}_{request.what}"
    if point is not None:
        stem += f"_from_{'_'.join(map(str, point))}"
    if request.what == "channels":
        yield from _write_channels(request, stem)
    else:
        yield from _write_volumes(request, stem, image, reference, point)


def _write_channels(request: Request, stem: str) -> Iterator[Path]:
    tables: dict[str, ChannelWeights] = {}
    for name, model in _models(request):
        found = channel_weights(model, model.prepare(request.images), request.maps, name)
        for weights in found:
            several = sum(each.name == weights.name for each in found) > 1
            title = _column(name, weights.path if several else weights.name)
            target = request.output / f"{stem}_{_file_name(title)}.csv"
            write_channel_table(weights, target)
            yield target
            tables[title] = weights
    target = request.output / f"{stem}{request.ending}"
    write_channel_picture(tables, _case_name(request.images[0]), target, request.dpi)
    yield target


def _write_volumes(
    request: Request, stem: str, image: Volume, reference: Volume | None, point: tuple[int, ...] | None
) -> Iterator[Path]:
    rows: HeatRows | None = None
    meanings: dict[str, str] = {}
    notes: tuple[str, ...] = ()
    for name, model in _models(request):
        case = model.prepare(request.images)
        if rows is None:
            window = _window(request, model)
            view = _view(request, image, model, case)
            rows = rows_of_image(image, view, window, reference, point, request.slices, request.rows)
            notes = (f"{_case_name(request.images[0])}. {description(window)}.",)
        volumes = _volumes(request, name, model, case, point)
        for volume in volumes:
            full = _column(name, volume.name) if request.what == "spatial" else name
            target = request.output / f"{stem}_{_file_name(full)}.nii.gz"
            write_nifti(target, volume.voxels, image.path, image.affine)
            yield target
            title = full if len(volumes) > 1 else name
            rows.add(title, volume.voxels)
            meanings[title] = volume.meaning
    assert rows is not None  # there is always a system
    target = request.output / f"{stem}{request.ending}"
    look = HeatLook(meanings, request.scale == "slice", notes, request.width_mm, request.dpi)
    write_heat_maps(rows, target, look)
    yield target


def _models(request: Request) -> Iterator[tuple[str, TrainedModel]]:
    """Load one model at a time; of several, see beforehand that each has what is asked for.

    Raises:
        UserError: a model is missing, or has nothing of what is asked for.
    """

    def load(folder: Path) -> TrainedModel:
        return TrainedModel(
            folder, request.fold, request.checkpoint, request.device, request.step_size, request.progress
        )

    files = [_file_name(name) for name in request.systems]
    if len(set(files)) < len(files):
        raise UserError(f"the systems {', '.join(request.systems)} would write files of one name; rename one")
    for folder in request.systems.values():
        check_model(folder, (request.fold,), request.checkpoint)
    if len(request.systems) > 1:
        for folder in request.systems.values():
            _check(request, load(folder))
    for name, folder in request.systems.items():
        model = load(folder)
        yield name or model.title, model


def _check(request: Request, model: TrainedModel) -> None:
    if request.what == "channels":
        channel_sources(model, request.maps)
    elif request.what == "spatial":
        _maps(request, model)
    elif request.what == "activation":
        find_strength(model.network, request.layer)
    else:
        checked_label(model, request.label)


def _maps(request: Request, model: TrainedModel) -> list[str]:
    """Give the maps that are shown: those asked for, or all; of several systems, the first of each."""
    from_point = request.point is not None or request.point_mm is not None
    names = map_names(spatial_sources(model, request.maps, from_point, request.layer))
    return names[:1] if request.maps is None and len(request.systems) > 1 else names


def _volumes(
    request: Request, name: str, model: TrainedModel, case: PreparedCase, point: tuple[int, ...] | None
) -> list[AttentionVolume]:
    if request.what == "activation":
        return [activation_volume(model, case, request.layer, name)]
    if request.what == "cam":
        return [cam_volume(model, case, request.label, request.layer, name)]
    return spatial_volumes(model, case, _maps(request, model), point, request.layer, name)


def _view(request: Request, image: Volume, model: TrainedModel, case: PreparedCase) -> View:
    """Decide how the image is looked at: of a 2D model, at its own slices.

    Raises:
        UserError: the image's grid has no orientation, or is not the one that nnU-Net's reader gives.
    """
    if case.origin.shape != image.voxels.shape:
        raise UserError(
            f"{image.path}: nnU-Net's reader gives {case.origin.shape} voxels, its header {image.voxels.shape}; "
            f"convert it to NIfTI"
        )
    try:
        view = view_of(image.voxels.shape, image.affine, request.plane, image.oriented)
        if request.plane is None and len(model.patch_size) == 2:
            plane = PLANES[view.file_axes.index(case.origin.slicing_axis)]
            view = view_of(image.voxels.shape, image.affine, plane, image.oriented)
    except UserError as error:
        raise UserError(f"{image.path}: {error}") from None
    return view


def _image(request: Request) -> Volume:
    """Read the channel that is drawn: of one file with several channels, or one of several files."""
    if len(request.images) == 1:
        return read_image(request.images[0], request.channel)
    return read_image(request.images[min(request.channel, len(request.images) - 1)])


def _window(request: Request, model: TrainedModel) -> Window | Percentiles:
    if request.channel >= len(model.channels):
        raise UserError(
            f"--channel {request.channel}: the image has {len(model.channels)} channels, counted from 0: "
            f"{', '.join(model.channels)}"
        )
    return parse_window(request.window, model.channels[request.channel].lower() == "ct")


def _point(request: Request, image: Volume) -> tuple[int, ...] | None:
    """Give the point as a voxel of the file.

    Raises:
        UserError: it is outside of the image.
    """
    shape = image.voxels.shape
    if request.point_mm is not None:
        voxel = np.linalg.solve(image.affine, [*request.point_mm, 1.0])[:3]
        point = tuple(int(at) for at in np.floor(voxel + 0.5))
        said = f"--point_mm {' '.join(f'{mm:g}' for mm in request.point_mm)} (voxel {' '.join(map(str, point))})"
    elif request.point is not None:
        point = tuple(request.point)
        said = f"--point {' '.join(map(str, point))}"
    else:
        return None
    if not all(0 <= at < n for at, n in zip(point, shape, strict=True)):
        raise UserError(
            f"{said} is outside of {image.path}, whose voxels are from 0 0 0 to {' '.join(str(n - 1) for n in shape)}"
        )
    return point


def _column(system: str, map_name: str) -> str:
    """Name a column by its system and its map, which may be of one name."""
    return system if system == map_name else f"{system} ({map_name})"


def _case_name(image: Path) -> str:
    ending = ending_of(image) or image.suffix
    return re.sub(r"_\d{4}$", "", image.name.removesuffix(ending))


def _file_name(name: str) -> str:
    """Make a name that every file system takes."""
    return re.sub(r"[^\w.+-]+", "_", name).strip("_") or "system"
