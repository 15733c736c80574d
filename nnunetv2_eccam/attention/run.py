"""All files of one ``nnUNetv2_eccam attention``: each system's volumes or table, and the picture of all of them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

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
from nnunetv2_eccam.inference.trained_model import check_model
from nnunetv2_eccam.overlay.files import holds_hu
from nnunetv2_eccam.overlay.view import PLANES, view_of
from nnunetv2_eccam.overlay.window import parse_window
from nnunetv2_eccam.volumes import Volume, check_same_grid, ending_of, read_image, read_labels
from nnunetv2_eccam.volumes.nifti import new_header, write_nifti

Options = argparse.Namespace
"""What is to be shown, as :mod:`nnunetv2_eccam.attention.command` defines and explains it, with the folder of each
system's model by its name as ``systems``; an empty name stands for the trainer's title."""


def check_options(options: Options) -> None:
    """See that the options can be followed, before a file is read.

    Raises:
        UserError: they cannot.
    """
    for name, value, most in (
        ("-step_size", options.step_size, 1), ("--rows", options.rows, 100), ("--width", options.width_mm, 2000),
        ("--dpi", options.dpi, 2400),
    ):  # fmt: skip
        if not 0 < value <= most:
            raise UserError(f"{name} {value:g} must be above 0 and at most {most}")
    if options.point and options.point_mm:
        raise UserError("--point and --point_mm are both given; give one")
    if options.what != "spatial" and (options.point or options.point_mm):
        raise UserError(f"--point belongs to spatial; {options.what} is not seen from a point")
    files = [_file_name(name) for name in options.systems]
    if len(set(files)) < len(files):
        raise UserError(f"the systems {', '.join(options.systems)} would write files of one name; rename one")
    parse_window(options.window)


def write_attention(options: Options) -> Iterator[Path]:
    """Write all files of a command, one system after the other, and give their paths as they are written.

    Raises:
        UserError: a file is missing, damaged or wrong, or a network has nothing of what is asked for.
    """
    check_options(options)
    images = [read_image(path) for path in options.images]
    reference = None
    if options.reference is not None:
        reference = read_labels(options.reference)
        check_same_grid(images[0], reference, advice="give the mask of this image")
    point = _point(options, images[0])
    for folder in options.systems.values():
        check_model(folder, (options.fold,), options.checkpoint)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{options.output} cannot be created: {error.strerror or error}") from error
    name = images[0].path.name
    case = re.sub(r"_\d{4}$", "", name[: -len(ending_of(images[0].path) or "")])
    stem = f"{case}_{options.what}" + ("" if point is None else f"_from_{'_'.join(map(str, point))}")
    if options.what == "channels":
        yield from _write_channels(options, images, case, stem)
    else:
        yield from _write_volumes(options, images, reference, point, case, stem)


def _write_channels(options: Options, images: Sequence[Volume], case: str, stem: str) -> Iterator[Path]:
    tables: dict[str, ChannelWeights] = {}
    for name, model in _models(options):
        found = channel_weights(model, model.prepare(images), options.maps, name)
        for weights in found:
            several = sum(each.name == weights.name for each in found) > 1
            title = _column(name, weights.path if several else weights.name)
            target = options.output / f"{stem}_{_file_name(title)}.csv"
            write_channel_table(weights, target)
            yield target
            tables[title] = weights
    target = options.output / f"{stem}.{options.format}"
    write_channel_picture(tables, case, target, options.dpi)
    yield target


def _write_volumes(
    options: Options, images: Sequence[Volume], reference: Volume | None, point: Sequence[int] | None, case: str,
    stem: str,
) -> Iterator[Path]:  # fmt: skip
    rows: HeatRows | None = None
    header = images[0].header if images[0].header is not None else new_header(images[0].affine)
    for name, model in _models(options):
        prepared = model.prepare(images)
        if rows is None:
            rows = _rows(options, images, reference, point, model, prepared)
        maps = _check(options, model)
        volumes = attention_volumes(model, prepared, options.what, maps, point, options.label, options.layer, name)
        for volume in volumes:
            title = _column(name, volume.name) if options.what == "spatial" else name
            target = options.output / f"{stem}_{_file_name(title)}.nii.gz"
            try:
                write_nifti(target, volume.voxels, header)
            except OSError as error:
                raise UserError(f"{target} cannot be written: {error.strerror or error}") from error
            yield target
            rows.add(title if len(volumes) > 1 else name, volume.meaning, volume.voxels)
    assert rows is not None  # there is always a system
    target = options.output / f"{stem}.{options.format}"
    write_heat_maps(rows, case, target, options.scale == "slice", options.width_mm, options.dpi)
    yield target


def _models(options: Options) -> Iterator[tuple[str, TrainedModel]]:
    """Load one model at a time; of several, see beforehand that each has what is asked for.

    Raises:
        UserError: a model is broken, or has nothing of what is asked for.
    """

    def load(folder: Path) -> TrainedModel:
        return TrainedModel(
            folder, options.fold, options.checkpoint, options.device, options.step_size, options.progress
        )

    if len(options.systems) > 1:
        for folder in options.systems.values():
            _check(options, load(folder))
    for name, folder in options.systems.items():
        model = load(folder)
        yield name or model.title, model


def _check(options: Options, model: TrainedModel) -> list[str] | None:
    """See that a network has what is asked for, and give the maps: of several systems, the first of each.

    Raises:
        UserError: it has not.
    """
    if options.what == "cam":
        checked_label(model, options.label)
        return None
    from_point = options.point is not None or options.point_mm is not None
    found = find_maps(model, options.what, options.maps, from_point, options.layer)
    names = list(dict.fromkeys(each.source.name for each in found))
    return names[:1] if options.maps is None and len(options.systems) > 1 and options.what == "spatial" else names


def _rows(
    options: Options, images: Sequence[Volume], reference: Volume | None, point: Sequence[int] | None,
    model: TrainedModel, case: PreparedCase,
) -> HeatRows:  # fmt: skip
    """Choose the channel, the slices (of a 2D model its own) and the window that are drawn.

    Raises:
        UserError: there is no such channel or slice.
    """
    channel = options.channel or 0
    if not 0 <= channel < len(model.channels):
        raise UserError(
            f"--channel {channel}: the image has {len(model.channels)} channels, counted from 0: "
            f"{', '.join(model.channels)}"
        )
    image = images[channel] if len(images) > 1 else images[0]
    view = view_of(image, options.plane)
    if options.plane is None and len(model.patch_size) == 2 and image.oriented:
        body_axis = int(view.turns[case.origin.slicing_axis, 0])
        view = view_of(image, PLANES[body_axis])
    window = parse_window(options.window, model.channels[channel].lower() == "ct" and holds_hu(image.path))
    as_stored = image.colour and options.window is None and options.channel is None
    return rows_of_image(
        image, view, None if as_stored else window, options.channel if len(images) == 1 else None, reference, point,
        options.slices, options.rows,
    )  # fmt: skip


def _point(options: Options, image: Volume) -> tuple[int, ...] | None:
    """Give the point as a voxel of the file.

    Raises:
        UserError: it is outside of the image.
    """
    if options.point_mm is not None:
        voxel = np.linalg.solve(image.affine, [*options.point_mm, 1.0])[:3]
        point = tuple(int(at) for at in np.floor(voxel + 0.5))
        said = f"--point_mm {' '.join(f'{mm:g}' for mm in options.point_mm)} (voxel {' '.join(map(str, point))})"
    elif options.point is not None:
        point = tuple(options.point)
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
