r"""Draw each system's result over slices of the images: one row a slice, one column a system.

  nnUNetv2_eccam overlay -o figure.png --images imagesTs --reference labelsTs \
      --system "U-Net=predictions_unet" --system "EC-CaM-UNet=predictions" --cases la_021 la_022
  nnUNetv2_eccam overlay -o errors.pdf --images imagesTs --reference labelsTs --system "EC-CaM-UNet=predictions" \
      --style errors --slices disagreement --window pancreas --label 1=pancreas --crop 30

Without --reference (unlabelled cases) the predictions alone are drawn. Slices are shown as radiologists look at
them, in their physical proportions; the picture says so, and which window and which DSC it shows.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.pictures.options import add_plane, add_size, named_paths, slice_numbers

if TYPE_CHECKING:
    from nnunetv2_eccam.pictures.case_rows import Row


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add = parser.add_argument
    add("-o", dest="target", type=Path, required=True, metavar="FILE", help="the picture: .png, .svg or .pdf")
    add("--images", type=Path, required=True, metavar="PATH",
        help="folder of images, named CASE_0000.nii.gz, or one image")  # fmt: skip
    add("--reference", type=Path, metavar="PATH", help="folder of true masks, named CASE.nii.gz, or one mask")
    add("--system", action="append", default=[], metavar="NAME=PATH",
        help="a column: its name, and the folder of its predictions, named CASE.nii.gz, or one\n"
        "prediction; repeat it for each system")  # fmt: skip
    add("--cases", nargs="+", metavar="CASE", help="which cases (default: all that every folder has, if few)")
    add("--slices", default="area", metavar="HOW",
        help="area: the largest reference (or predictions); disagreement: most pixels in which\n"
        "systems and reference, or systems, differ; or numbers from 0, as 12,40 (default: area)")  # fmt: skip
    add("--per-case", type=int, default=1, metavar="N", help="slices of each case, apart from each other (default: 1)")
    add_plane(add, "across the largest voxels, in doubt axial")
    add("--channel", type=int, default=0, metavar="N", help="channel of the images: the N of CASE_000N (default: 0)")
    add("--window", nargs="+", metavar="W", help=_window_help())
    add("--style", choices=("contour", "fill", "errors"), default="contour",
        help="contour or fill: each label in its colour; errors: true positives, false positives\n"
        "and false negatives, all labels taken as one (default: contour)")  # fmt: skip
    add("--label", nargs="+", metavar="N[=NAME]",
        help="draw these labels only; a name is for the legend (default: all, named as in\n"
        "dataset.json)")  # fmt: skip
    add("--dsc", choices=("volume", "slice", "none"), default="volume",
        help="what the DSC above a prediction is computed of (default: volume)")  # fmt: skip
    add("--crop", type=float, metavar="MM", help="cut out the labels with this margin (default: whole slices)")
    add_size(add)
    # The help's own line breaks hold, as in the description.
    parser.formatter_class = argparse.RawTextHelpFormatter


def run(arguments: argparse.Namespace) -> int:
    """Draw, and say what was drawn."""
    from nnunetv2_eccam.pictures.overlay import Overlay, write_overlay

    labels, names = _labels(arguments.label)
    overlay = Overlay(
        images=arguments.images,
        reference=arguments.reference,
        systems=named_paths(arguments.system, "folder"),
        cases=tuple(dict.fromkeys(arguments.cases)) if arguments.cases else None,
        slices=_slices(arguments.slices),
        per_case=arguments.per_case,
        plane=arguments.axis,
        channel=arguments.channel,
        window=tuple(arguments.window) if arguments.window else None,
        style=arguments.style,
        labels=labels,
        names=names,
        dice_of=arguments.dsc,
        crop_mm=arguments.crop,
        width_mm=arguments.width,
        dpi=arguments.dpi,
    )
    rows = write_overlay(overlay, arguments.target)
    for row in rows:
        print(_line(row))
    print(f"wrote {arguments.target}")
    return 0


def _line(row: Row) -> str:
    figures = (f"{name} {'undefined' if dice is None else f'{dice:.3f}'}" for name, dice in row.dice.items())
    return f"{row.case}, {row.view.plane} slice {row.number}" + (f": DSC {', '.join(figures)}" if row.dice else "")


def _window_help() -> str:
    from nnunetv2_eccam.pictures.window import PRESETS

    names = ", ".join(f"{name} ({preset.level:g} {preset.width:g})" for name, preset in PRESETS.items())
    half = names.index(", ", len(names) // 2) + 2
    return (
        f"LEVEL WIDTH in HU, or one of {names[:half].rstrip()}\n{names[half:]}; or percentiles [LOW HIGH]\n"
        "(default: soft-tissue if dataset.json calls the channel CT, else percentiles 1 99)"
    )


def _slices(word: str) -> Any:
    if word in ("area", "disagreement"):
        return word
    return slice_numbers(word, "none of area, disagreement and numbers from 0")


def _labels(words: Sequence[str] | None) -> tuple[tuple[int, ...] | None, dict[int, str]]:
    if words is None:
        return None, {}
    names: dict[int, str] = {}
    labels: list[int] = []
    for word in words:
        number, _, name = word.partition("=")
        if not number.isdecimal() or int(number) == 0:
            raise UserError(f"--label {word} is not a label; they are whole numbers from 1, as 1 or 1=liver")
        labels.append(int(number))
        if name:
            names[int(number)] = name
    return tuple(dict.fromkeys(labels)), names
