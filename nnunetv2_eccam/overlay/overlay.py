"""A picture of each system's result over slices of the images, as the paper's Fig. 4."""

from __future__ import annotations

from pathlib import Path

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.overlay.drawing import write_rows
from nnunetv2_eccam.overlay.files import (
    cases_of_images,
    find_image,
    find_mask,
    holds_hu,
    is_computed_tomography,
    label_names,
)
from nnunetv2_eccam.overlay.options import Overlay
from nnunetv2_eccam.overlay.page import check_target
from nnunetv2_eccam.overlay.rows import CaseFiles, Row, rows_of_case
from nnunetv2_eccam.overlay.window import parse_window
from nnunetv2_eccam.volumes import list_volumes

__all__ = ["Overlay", "write_overlay"]

MOST_ROWS = 8
"""How many rows a picture gets of cases that nobody named."""


def write_overlay(options: Overlay, target: Path) -> list[Row]:
    """Draw the picture and write it as PNG, SVG or PDF, by the ending of ``target``, whole or not at all.

    One case is in memory at a time, and of it only the slices that are drawn are kept.

    Returns:
        What was drawn, a row for each slice.

    Raises:
        UserError: a file is missing, damaged or does not fit the image; the options ask for what there is not; or
            the picture cannot be written.
    """
    check_target(target)
    options.check()
    parse_window(options.window)
    files = find_files(options)
    is_ct = is_computed_tomography(options.images, options.channel or 0)
    window = parse_window(options.window, is_ct and holds_hu(files[0].image))
    names = {**label_names([*options.masks, options.images]), **options.names}
    rows = [row for each in files for row in rows_of_case(each, options, window)]
    write_rows(rows, options, names, target)
    return rows


def find_files(options: Overlay) -> list[CaseFiles]:
    """Find all files of all cases, before any is read.

    Raises:
        UserError: one is missing, or there are more cases than one picture holds and none was named.
    """
    return [
        CaseFiles(
            case,
            find_image(options.images, case, options.channel or 0),
            None if options.reference is None else find_mask(options.reference, case, "reference"),
            {name: find_mask(source, case, name) for name, source in options.systems.items()},
        )
        for case in _cases(options)
    ]


def _cases(options: Overlay) -> list[str]:
    """Name the cases: those asked for, else those that every folder has."""
    cases = list(dict.fromkeys(options.cases or cases_of_images(options.images, options.channel or 0)))
    if options.cases is None:
        for folder in options.masks:
            if folder.is_dir():
                present = list_volumes(folder).files
                cases = [case for case in cases if case in present]
    if not cases:
        masks = ", ".join(map(str, options.masks))
        what = f"image of channel {options.channel or 0} in {options.images}"
        raise UserError(f"no {what} has its mask in each of {masks}")
    single = [source for source in (*options.masks, options.images) if source.is_file()]
    if single and len(cases) > 1:
        raise UserError(f"{single[0]} is the file of a single case, but there are {len(cases)}; name one with --cases")
    per_case = options.per_case if isinstance(options.slices, str) else len(options.slices)
    if options.cases is None and len(cases) > 1 and len(cases) * per_case > MOST_ROWS:
        raise UserError(
            f"{len(cases)} cases are in all folders, more than a picture holds; name some with --cases: "
            f"{' '.join(cases)}"
        )
    return cases
