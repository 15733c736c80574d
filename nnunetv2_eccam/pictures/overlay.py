"""A picture of each system's result over slices of the images, as the paper's Fig. 4: the function and its options.

From Python::

    from pathlib import Path
    from nnunetv2_eccam.pictures.overlay import Overlay, write_overlay

    write_overlay(
        Overlay(
            images=Path("imagesTs"),
            reference=Path("labelsTs"),
            systems={"U-Net": Path("unet"), "EC-CaM-UNet": Path("eccam")},
            cases=("la_021", "la_022"),
            style="errors",
        ),
        Path("figure.pdf"),
    )
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.pictures import colours, orientation, volume_files, window
from nnunetv2_eccam.pictures.case_rows import CaseFiles, DiceOf, Row, Selection, SlicesBy, rows_of_case
from nnunetv2_eccam.pictures.colours import Colour
from nnunetv2_eccam.pictures.dataset_json import is_computed_tomography, label_names
from nnunetv2_eccam.pictures.layout import PAGE_WIDTH_MM
from nnunetv2_eccam.pictures.panels import Look, Style, check_target, write_picture

MOST_ROWS = 8
"""How many rows a picture gets of cases that nobody named."""


@dataclass(frozen=True)
class Overlay:
    """What is drawn, and how.

    Attributes:
        images: folder of images CASE_0000.nii.gz, or one image's file.
        reference: folder of true masks CASE.nii.gz, or one's file; None for unlabelled cases.
        systems: folder of predictions CASE.nii.gz, or one's file, by the system's name, in the order of columns.
        cases: names of cases; None: all that are in every folder, if these are few.
        slices: ``area``, ``disagreement`` or numbers, see :class:`~nnunetv2_eccam.pictures.case_rows.Selection`.
        per_case: slices of each case, unless they are numbered.
        plane: axial, coronal or sagittal; None: across the largest voxels, in doubt axial.
        channel: of the images.
        window: words as on the command line, see :func:`~nnunetv2_eccam.pictures.window.parse_window`.
        style: ``contour``, ``fill`` or ``errors``; the last takes all labels that are drawn as one.
        labels: labels that are drawn; None: all.
        names: what labels are called; those not named are called as in dataset.json.
        dice_of: what the DSC in the panels is computed of.
        crop_mm: cut out what is at most so far from the labels; None: whole slices.
        width_mm: the picture's width at most.
        dpi: pixels per inch.
    """

    images: Path
    reference: Path | None = None
    systems: Mapping[str, Path] = field(default_factory=dict)
    cases: tuple[str, ...] | None = None
    slices: SlicesBy = "area"
    per_case: int = 1
    plane: str | None = None
    channel: int = 0
    window: tuple[str, ...] | None = None
    style: Style = "contour"
    labels: tuple[int, ...] | None = None
    names: Mapping[int, str] = field(default_factory=dict)
    dice_of: DiceOf = "volume"
    crop_mm: float | None = None
    width_mm: float = PAGE_WIDTH_MM
    dpi: int = 300


def write_overlay(overlay: Overlay, target: Path) -> list[Row]:
    """Draw the picture and write it as PNG, SVG or PDF, by the ending of ``target``.

    One case is in memory at a time, and of it only the slices that are drawn are kept.

    Returns:
        What was drawn, a row for each slice.

    Raises:
        UserError: a file is missing, cannot be read or does not fit the image; the options ask for what there is
            not; or the picture cannot be written.
    """
    check_target(target)
    _check(overlay)
    selection = Selection(
        slices=overlay.slices, per_case=overlay.per_case, plane=overlay.plane, channel=overlay.channel,
        window=window.parse_window(overlay.window, is_computed_tomography(overlay.images, overlay.channel)),
        labels=overlay.labels, merged=overlay.style == "errors", dice_of=overlay.dice_of, crop_mm=overlay.crop_mm,
    )  # fmt: skip
    files = find_files(overlay)
    rows = [row for each in files for row in rows_of_case(each, selection)]
    names = {**label_names(_sources(overlay)), **overlay.names}
    look = Look(
        style=overlay.style, label_colours=_label_colours(overlay, rows), label_names=names,
        notes=_notes(overlay, selection, rows, names), width_mm=overlay.width_mm, dpi=overlay.dpi,
    )  # fmt: skip
    write_picture(rows, target, look)
    return rows


def find_files(overlay: Overlay) -> list[CaseFiles]:
    """Find all files of all cases, before any is read.

    Raises:
        UserError: one is missing, or there are more cases than one picture holds and none was named.
    """
    found = []
    for case in _cases(overlay):
        reference = overlay.reference
        found.append(
            CaseFiles(
                case,
                volume_files.find_image(overlay.images, case, overlay.channel),
                None if reference is None else volume_files.find_mask(reference, case, "reference"),
                {name: volume_files.find_mask(source, case, name) for name, source in overlay.systems.items()},
            )
        )
    return found


def _check(overlay: Overlay) -> None:
    if overlay.reference is None and not overlay.systems:
        raise UserError("there is nothing to draw over the images; give --reference, or --system NAME=FOLDER, or both")
    if overlay.style == "errors" and overlay.reference is None:
        raise UserError("--style errors compares with a reference; give --reference, or another --style")
    for what, value in (("--per-case", overlay.per_case), ("--width", overlay.width_mm), ("--dpi", overlay.dpi)):
        if value <= 0:
            raise UserError(f"{what} {value} is too small; give a number above 0")
    if overlay.crop_mm is not None and overlay.crop_mm < 0:
        raise UserError(f"--crop {overlay.crop_mm:g} is not a margin in mm; give 0 or more")
    if overlay.channel < 0:
        raise UserError(f"--channel {overlay.channel} is not a channel; they are counted from 0")
    if overlay.labels is not None and min(overlay.labels, default=0) < 1:
        raise UserError("--label: labels are whole numbers from 1; 0 is the background")


def _sources(overlay: Overlay) -> list[Path]:
    return [*([] if overlay.reference is None else [overlay.reference]), *overlay.systems.values(), overlay.images]


def _cases(overlay: Overlay) -> Sequence[str]:
    """Name the cases: those asked for, else those that every folder has."""
    cases = list(overlay.cases or volume_files.cases_of_images(overlay.images, overlay.channel))
    for source in _sources(overlay):
        if overlay.cases is None and source.is_dir() and source != overlay.images:
            present = volume_files.cases_of_masks(source)
            cases = [case for case in cases if case in present]
    if not cases:
        masks = ", ".join(str(source) for source in _sources(overlay)[:-1])
        raise UserError(f"no image of channel {overlay.channel} in {overlay.images} has its mask in each of {masks}")
    single = [source for source in _sources(overlay) if source.is_file()]
    if single and len(cases) > 1:
        raise UserError(f"{single[0]} is the file of a single case, but there are {len(cases)}; name one with --cases")
    per_case = len(overlay.slices) if isinstance(overlay.slices, tuple) else overlay.per_case
    if overlay.cases is None and len(cases) > 1 and len(cases) * per_case > MOST_ROWS:
        raise UserError(
            f"{len(cases)} cases are in all folders, more than a picture holds; name some with --cases: "
            f"{' '.join(cases)}"
        )
    return cases


def _label_colours(overlay: Overlay, rows: Sequence[Row]) -> dict[int, Colour]:
    """Give each label a colour by its place among those asked for, and leave out those that no slice shows."""
    if overlay.style == "errors":
        return {1: colours.REFERENCE}
    shown = _shown_labels(rows)
    labels = overlay.labels or shown or (1,)
    if len(labels) > len(colours.LABELS):
        raise UserError(
            f"there are {len(labels)} labels and {len(colours.LABELS)} colours that can be told apart; choose with "
            f"--label among {', '.join(map(str, labels))}"
        )
    named = dict(zip(labels, colours.LABELS, strict=False))
    return {label: colour for label, colour in named.items() if label in shown} or named


def _shown_labels(rows: Sequence[Row]) -> tuple[int, ...]:
    masks = [np.unique(mask).tolist() for row in rows for mask in row.masks]
    return tuple(sorted({int(label) for labels in masks for label in labels} - {0}))


def _notes(overlay: Overlay, selection: Selection, rows: Sequence[Row], names: Mapping[int, str]) -> tuple[str, ...]:
    """Say below the picture what its reader has to know to read it."""
    views = tuple(dict.fromkeys(f"{orientation.description(row.view)}; slice numbers count from 0." for row in rows))
    sentences = [window.description(selection.window)]
    if any(row.dice for row in rows):
        mean = "" if selection.merged or len(overlay.labels or _shown_labels(rows)) < 2 else ", mean of the labels"
        sentences.append(f"DSC of the {'whole volume' if overlay.dice_of == 'volume' else 'slice'}{mean}")
    if selection.merged:
        labels = overlay.labels or tuple(sorted(names))
        called = [names.get(label, f"label {label}") for label in labels]
        sentences.append(f"drawn: {' and '.join(called)}" if called else "all labels taken as one")
    return (*views, "; ".join(sentences) + ".")
