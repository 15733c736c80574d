"""A picture of each system's result over slices of the images, as the paper's Fig. 4: the function and its options."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.overlay.cases import find_files, is_computed_tomography, label_names
from nnunetv2_eccam.overlay.drawing import draw
from nnunetv2_eccam.overlay.page import PAGE_WIDTH_MM, check_target, save_figure
from nnunetv2_eccam.overlay.rows import Row, rows_of_case
from nnunetv2_eccam.overlay.window import parse_window


@dataclass(frozen=True)
class Overlay:
    """What is drawn, and how.

    Attributes:
        images: folder of images CASE_0000.nii.gz, or one image's file.
        reference: folder of true masks CASE.nii.gz, or one's file; None for unlabelled cases.
        systems: folder of predictions CASE.nii.gz, or one's file, by the system's name, in the order of columns.
        cases: names of cases; None: all that are in every folder, if these are few.
        slices: ``area``: the largest reference (or, without one, predictions); ``disagreement``: most pixels in
            which a system differs from the reference (or, without one, from another system); or numbers along the
            file's axis, from 0.
        per_case: slices of each case, unless they are numbered.
        plane: axial, coronal or sagittal; None: across the largest voxels, in doubt axial.
        channel: of the images; None: the colours of photographs, of all else channel 0.
        window: words as on the command line, see :func:`~nnunetv2_eccam.overlay.window.parse_window`; None: see
            :func:`~nnunetv2_eccam.overlay.window.shown_voxels`.
        style: ``contour`` or ``fill`` for labels, ``errors`` for hits, false alarms and misses; the last takes all
            labels that are drawn as one.
        labels: labels that are drawn; None: all.
        crop_mm: cut out what is at most so far from the labels; None: whole slices.
        width_mm: the picture's width at most.
        dpi: pixels per inch, of the images in SVG and PDF too.
    """

    images: Path
    reference: Path | None = None
    systems: Mapping[str, Path] = field(default_factory=dict)
    cases: Sequence[str] | None = None
    slices: Literal["area", "disagreement"] | Sequence[int] = "area"
    per_case: int = 1
    plane: str | None = None
    channel: int | None = None
    window: Sequence[str] | None = None
    style: Literal["contour", "fill", "errors"] = "contour"
    labels: Sequence[int] | None = None
    crop_mm: float | None = None
    width_mm: float = PAGE_WIDTH_MM
    dpi: int = 300

    @property
    def merged(self) -> bool:
        """All labels that are drawn are taken as one."""
        return self.style == "errors"

    @property
    def masks(self) -> list[Path]:
        """Where the masks are: of the reference, if there is one, and of each system."""
        return [*([] if self.reference is None else [self.reference]), *self.systems.values()]

    def check(self) -> None:
        """See that the options can be followed, before a file is read.

        Raises:
            UserError: they cannot.
        """
        if not self.masks:
            raise UserError(
                "there is nothing to draw over the images; give --reference, or --system NAME=FOLDER, or both"
            )
        if self.style == "errors" and self.reference is None:
            raise UserError("--style errors compares with a reference; give --reference, or another --style")
        if self.slices == "disagreement" and len(self.masks) < 2:
            raise UserError(
                "--slices disagreement needs two masks to compare: a reference and a system, or two systems"
            )
        for what, value in (("--per-case", self.per_case), ("--width", self.width_mm), ("--dpi", self.dpi)):
            if value <= 0:
                raise UserError(f"{what} {value} is too small; give a number above 0")
        if self.crop_mm is not None and self.crop_mm < 0:
            raise UserError(f"--crop {self.crop_mm:g} is not a margin in mm; give 0 or more")
        if self.channel is not None and self.channel < 0:
            raise UserError(f"--channel {self.channel} is not a channel; they are counted from 0")
        if self.labels is not None and min(self.labels, default=0) < 1:
            raise UserError("--label: labels are whole numbers from 1; 0 is the background")
        if self.window is not None:
            parse_window(self.window)


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
    files = find_files(options)
    is_ct = is_computed_tomography(options.images, options.channel or 0)
    names = label_names([*options.masks, options.images])
    rows = [row for each in files for row in rows_of_case(each, options, is_ct)]
    save_figure(lambda: draw(rows, options, names), target)
    return rows
