"""All files of one ``nnUNetv2_eccam attention``: each system's volumes or table, and the picture of all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from nnunetv2_eccam.attention.case import PreparedCase, TrainedModel
from nnunetv2_eccam.attention.maps import (
    ChannelWeights,
    attention_volumes,
    channel_weights,
    checked_label,
    find_maps,
)
from nnunetv2_eccam.attention.picture import (
    HeatRows,
    rows_of_image,
    write_channel_picture,
    write_channel_table,
    write_heat_maps,
)
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.inference.trained_model import CHECKPOINT, check_model
from nnunetv2_eccam.overlay.files import holds_hu
from nnunetv2_eccam.overlay.page import PAGE_WIDTH_MM
from nnunetv2_eccam.overlay.view import PLANES, view_of
from nnunetv2_eccam.overlay.window import parse_window
from nnunetv2_eccam.volumes import Volume, check_same_grid, ending_of, read_image, read_labels
from nnunetv2_eccam.volumes.nifti import new_header, write_nifti


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
        layer: a layer by its dotted name, see :mod:`nnunetv2_eccam.attention.maps`.
        reference: the true mask's file.
        slices: numbers along the file's axis, from 0.
        rows: how many slices, unless they are numbered.
        plane: axial, coronal or sagittal; None: a 2D model's own.
        channel: of the image, that is drawn; None: the colours of a photograph, of all else channel 0.
        window: see :func:`~nnunetv2_eccam.overlay.window.parse_window`.
        scale: ``slice``: each picture from blue to red has its own range of values; ``case``: each column.
        format: of the picture: png, svg or pdf.
        width_mm: the picture's width at most.
        dpi: pixels per inch.
    """

    what: Literal["channels", "spatial", "activation", "cam"]
    images: Sequence[Path]
    output: Path
    systems: Mapping[str, Path]
    fold: str = "0"
    checkpoint: str = CHECKPOINT
    step_size: float = 0.5
    device: str = "cpu"
    progress: bool = False
    maps: Sequence[str] | None = None
    point: Sequence[int] | None = None
    point_mm: Sequence[float] | None = None
    label: str | None = None
    layer: str | None = None
    reference: Path | None = None
    slices: Sequence[int] | None = None
    rows: int = 3
    plane: str | None = None
    channel: int | None = None
    window: Sequence[str] | None = None
    scale: Literal["slice", "case"] = "slice"
    format: Literal["png", "svg", "pdf"] = "png"
    width_mm: float = PAGE_WIDTH_MM
    dpi: int = 300

    def check(self) -> None:
        """See that the options can be followed, before a file is read.

        Raises:
            UserError: they cannot.
        """
        for name, value, most in (
            ("-step_size", self.step_size, 1), ("--rows", self.rows, 100), ("--width", self.width_mm, 2000),
            ("--dpi", self.dpi, 2400),
        ):  # fmt: skip
            if not 0 < value <= most:
                raise UserError(f"{name} {value:g} must be above 0 and at most {most}")
        if self.point and self.point_mm:
            raise UserError("--point and --point_mm are both given; give one")
        if self.what != "spatial" and (self.point or self.point_mm):
            raise UserError(f"--point belongs to spatial; {self.what} is not seen from a point")
        files = [_file_name(name) for name in self.systems]
        if len(set(files)) < len(files):
            raise UserError(f"the systems {', '.join(self.systems)} would write files of one name; rename one")
        parse_window(self.window)


def write_attention(request: Request) -> Iterator[Path]:
    """Write all files of a request, one system after the other, and give their paths as they are written.

    Raises:
        UserError: a file is missing, damaged or wrong, or a network has nothing of what is asked for.
    """
    request.check()
    images = [read_image(path) for path in request.images]
    reference = None
    if request.reference is not None:
        reference = read_labels(request.reference)
        check_same_grid(images[0], reference, advice="give the mask of this image")
    point = _point(request, images[0])
    for folder in request.systems.values():
        check_model(folder, (request.fold,), request.checkpoint)
    try:
        request.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{request.output} cannot be created: {error.strerror or error}") from error
    name = images[0].path.name
    case = re.sub(r"_\d{4}$", "", name[: -len(ending_of(images[0].path) or "")])
    stem = f"{case}_{request.what}" + ("" if point is None else f"_from_{'_'.join(map(str, point))}")
    if request.what == "channels":
        yield from _write_channels(request, images, case, stem)
    else:
        yield from _write_volumes(request, images, reference, point, case, stem)


def _write_channels(request: Request, images: Sequence[Volume], case: str, stem: str) -> Iterator[Path]:
    tables: dict[str, ChannelWeights] = {}
    for name, model in _models(request):
        found = channel_weights(model, model.prepare(images), request.maps, name)
        for weights in found:
            several = sum(each.name == weights.name for each in found) > 1
            title = _column(name, weights.path if several else weights.name)
            target = request.output / f"{stem}_{_file_name(title)}.csv"
            write_channel_table(weights, target)
            yield target
            tables[title] = weights
    target = request.output / f"{stem}.{request.format}"
    write_channel_picture(tables, case, target, request.dpi)
    yield target


def _write_volumes(
    request: Request, images: Sequence[Volume], reference: Volume | None, point: Sequence[int] | None, case: str,
    stem: str,
) -> Iterator[Path]:  # fmt: skip
    rows: HeatRows | None = None
    header = images[0].header if images[0].header is not None else new_header(images[0].affine)
    for name, model in _models(request):
        prepared = model.prepare(images)
        if rows is None:
            rows = _rows(request, images, reference, point, model, prepared)
        maps = _check(request, model)
        volumes = attention_volumes(model, prepared, request.what, maps, point, request.label, request.layer, name)
        for volume in volumes:
            title = _column(name, volume.name) if request.what == "spatial" else name
            target = request.output / f"{stem}_{_file_name(title)}.nii.gz"
            try:
                write_nifti(target, volume.voxels, header)
            except OSError as error:
                raise UserError(f"{target} cannot be written: {error.strerror or error}") from error
            yield target
            rows.add(title if len(volumes) > 1 else name, volume.meaning, volume.voxels)
    assert rows is not None  # there is always a system
    target = request.output / f"{stem}.{request.format}"
    write_heat_maps(rows, case, target, request.scale == "slice", request.width_mm, request.dpi)
    yield target


def _models(request: Request) -> Iterator[tuple[str, TrainedModel]]:
    """Load one model at a time; of several, see beforehand that each has what is asked for.

    Raises:
        UserError: a model is broken, or has nothing of what is asked for.
    """

    def load(folder: Path) -> TrainedModel:
        return TrainedModel(
            folder, request.fold, request.checkpoint, request.device, request.step_size, request.progress
        )

    if len(request.systems) > 1:
        for folder in request.systems.values():
            _check(request, load(folder))
    for name, folder in request.systems.items():
        model = load(folder)
        yield name or model.title, model


def _check(request: Request, model: TrainedModel) -> list[str] | None:
    """See that a network has what is asked for, and give the maps: of several systems, the first of each.

    Raises:
        UserError: it has not.
    """
    if request.what == "cam":
        checked_label(model, request.label)
        return None
    from_point = request.point is not None or request.point_mm is not None
    found = find_maps(model, request.what, request.maps, from_point, request.layer)
    names = list(dict.fromkeys(each.source.name for each in found))
    return names[:1] if request.maps is None and len(request.systems) > 1 and request.what == "spatial" else names


def _rows(
    request: Request, images: Sequence[Volume], reference: Volume | None, point: Sequence[int] | None,
    model: TrainedModel, case: PreparedCase,
) -> HeatRows:  # fmt: skip
    """Choose the channel, the slices (of a 2D model its own) and the window that are drawn.

    Raises:
        UserError: there is no such channel or slice.
    """
    channel = request.channel or 0
    if channel >= len(model.channels):
        raise UserError(
            f"--channel {channel}: the image has {len(model.channels)} channels, counted from 0: "
            f"{', '.join(model.channels)}"
        )
    image = images[channel] if len(images) > 1 else images[0]
    view = view_of(image, request.plane)
    if request.plane is None and len(model.patch_size) == 2 and image.oriented:
        body_axis = int(view.turns[case.origin.slicing_axis, 0])
        view = view_of(image, PLANES[body_axis])
    window = parse_window(request.window, model.channels[channel].lower() == "ct" and holds_hu(image.path))
    as_stored = image.colour and request.window is None and request.channel is None
    return rows_of_image(
        image, view, None if as_stored else window, request.channel if len(images) == 1 else None, reference, point,
        request.slices, request.rows,
    )  # fmt: skip


def _point(request: Request, image: Volume) -> tuple[int, ...] | None:
    """Give the point as a voxel of the file.

    Raises:
        UserError: it is outside of the image.
    """
    if request.point_mm is not None:
        voxel = np.linalg.solve(image.affine, [*request.point_mm, 1.0])[:3]
        point = tuple(int(at) for at in np.floor(voxel + 0.5))
        said = f"--point_mm {' '.join(f'{mm:g}' for mm in request.point_mm)} (voxel {' '.join(map(str, point))})"
    elif request.point is not None:
        point = tuple(request.point)
        said = f"--point {' '.join(map(str, point))}"
    else:
        return None
    if not all(0 <= at < n for at, n in zip(point, image.shape, strict=True)):
        last = " ".join(str(n - 1) for n in image.shape)
        raise UserError(f"{said} is outside of {image.path}, whose voxels are from 0 0 0 to {last}")
    return point


def _column(system: str, map_name: str) -> str:
    """Name a column by its system and its map, which may be of one name."""
    return system if system == map_name else f"{system} ({map_name})"


def _file_name(name: str) -> str:
    """Make a name that every file system takes."""
    return re.sub(r"[^\w.+-]+", "_", name).strip("_") or "system"
