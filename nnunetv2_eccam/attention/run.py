"""All files of one ``nnUNetv2_eccam attention``: each system's volumes or tables, and the picture of all of them."""

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from nnunetv2_eccam.attention.case import TrainedModel
from nnunetv2_eccam.attention.maps import attention_volumes, channel_weights, checked_label, find_maps
from nnunetv2_eccam.attention.picture import HeatRows, draw
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import written_whole
from nnunetv2_eccam.overlay.page import save_figure
from nnunetv2_eccam.overlay.view import PLANES, view_of
from nnunetv2_eccam.volumes import Volume, check_same_grid, ending_of, read_image, read_labels
from nnunetv2_eccam.volumes.nifti import new_header, write_nifti

Options = argparse.Namespace
"""What is to be shown, as :mod:`nnunetv2_eccam.attention.command` defines and explains it, with the folder of each
system's model by its name as ``systems``; an empty name stands for the trainer's title."""


class LoadedSystem(NamedTuple):
    """A system's name, its model, and the maps that are shown of it: of several systems, the first of each."""

    name: str
    model: TrainedModel
    maps: Sequence[str] | None


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
    files = [_file_name(name) for name in options.systems]
    if len(set(files)) < len(files):
        raise UserError(f"the systems {', '.join(options.systems)} would write files of one name; rename one")


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
    models = _load(options)
    options.output.mkdir(parents=True, exist_ok=True)
    name = images[0].path.name
    case = re.sub(r"_\d{4}$", "", name[: -len(ending_of(images[0].path) or "")])
    if options.what == "channels":
        yield from _write_channels(options, models, images, case)
    else:
        yield from _write_volumes(options, models, images, reference, case)


def _write_channels(
    options: Options, models: Sequence[LoadedSystem], images: Sequence[Volume], case: str
) -> Iterator[Path]:
    """Write a table for each module: each channel's mean weight over the tiles, and the lowest and highest tile's."""
    for name, model, _ in models:
        for path, weights in channel_weights(model, model.prepare(images), options.maps).items():
            target = options.output / f"{case}_channels_{_file_name(name)}_{path}.csv"
            table = pd.DataFrame({"mean": weights.mean(0), "lowest": weights.min(0), "highest": weights.max(0)})
            with written_whole(target) as partial:
                table.to_csv(partial, index_label="channel", float_format="%.6g", lineterminator="\n")
            yield target


def _write_volumes(
    options: Options, models: Sequence[LoadedSystem], images: Sequence[Volume], reference: Volume | None, case: str
) -> Iterator[Path]:
    rows = _rows(options, images, reference, models[0].model)
    header = images[0].header if images[0].header is not None else new_header(images[0].affine)
    for name, model, maps in models:
        prepared = model.prepare(images)
        volumes = attention_volumes(model, prepared, options.what, maps, options.label, options.layer)
        for volume in volumes:
            title = _column(name, volume.name) if options.what == "spatial" else name
            target = options.output / f"{case}_{options.what}_{_file_name(title)}.nii.gz"
            write_nifti(target, volume.voxels, header)
            yield target
            rows.add(title if len(volumes) > 1 else name, volume.meaning, volume.voxels)
    target = options.output / f"{case}_{options.what}.{options.format}"
    save_figure(lambda: draw(rows, case, options.scale == "slice", options.width_mm, options.dpi), target)
    yield target


def _load(options: Options) -> list[LoadedSystem]:
    """Load all models, and see that each has what is asked for before the first is run."""
    loaded = []
    for name, folder in options.systems.items():
        model = TrainedModel(
            folder, options.fold, options.checkpoint, options.device, options.step_size, options.progress
        )
        maps = options.maps
        if options.what == "cam":
            checked_label(model, options.label)
        else:
            found = find_maps(model, options.what, maps, options.layer)
            if options.what == "spatial" and len(options.systems) > 1:
                maps = maps or [found[0].source.name]
        loaded.append(LoadedSystem(name or model.title, model, maps))
    return loaded


def _rows(options: Options, images: Sequence[Volume], reference: Volume | None, model: TrainedModel) -> HeatRows:
    """Choose the channel, the slices (of a 2D model its own) and the window that are drawn."""
    channel = options.channel or 0
    if not 0 <= channel < len(model.channels):
        raise UserError(
            f"--channel {channel}: the image has {len(model.channels)} channels, counted from 0: "
            f"{', '.join(model.channels)}"
        )
    image = images[channel] if len(images) > 1 else images[0]
    view = view_of(image, options.plane)
    if options.plane is None and len(model.patch_size) == 2 and image.oriented:
        view = view_of(image, PLANES[int(view.turns[model.slicing_axis(image), 0])])
    return HeatRows(
        image, view, options.channel if len(images) == 1 else None, options.window,
        model.channels[channel].lower() == "ct", reference, options.slices, options.rows,
    )  # fmt: skip


def _column(system: str, map_name: str) -> str:
    """Name a column by its system and its map, which may be of one name."""
    return system if system == map_name else f"{system} ({map_name})"


def _file_name(name: str) -> str:
    """Make a name that every file system takes."""
    return re.sub(r"[^\w.+-]+", "_", name).strip("_") or "system"
