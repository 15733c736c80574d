r"""Draw each system's result over slices of the images: one row a slice, one column a system.

  nnUNetv2_eccam overlay -o figure.png -d 2 --system "EC-CaM-UNet=predictions"
  nnUNetv2_eccam overlay -o figure.png -i imagesTs --reference labelsTs \
      --system "U-Net=predictions_unet" --system "EC-CaM-UNet=predictions" --cases la_021 la_022
  nnUNetv2_eccam overlay -o errors.pdf -i imagesTs --reference labelsTs --system "EC-CaM-UNet=predictions" \
      --style errors --slices disagreement --window pancreas --label 1 --crop 30

Without --reference (unlabelled cases) the predictions alone are drawn. Slices are shown as radiologists look at
them, in their physical proportions; the picture says so, and which window it shows.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nnunetv2_eccam.arguments import add_option, raw_folder
from nnunetv2_eccam.errors import UserError

WINDOW_HELP = (
    "LEVEL WIDTH in HU, or one of soft-tissue (40 400), abdomen (40 350), pancreas (70 340), kidney (112.5 383), liver "
    "(90 150), lung (-600 1500), bone (480 2500), brain (40 80); or percentiles [LOW HIGH] (default: soft-tissue if "
    "dataset.json calls the channel CT; photographs in their colours; else percentiles 1 99)"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments; they are called as the fields of ``Overlay``."""
    add = parser.add_argument
    add_option(parser, "-o", dest="target", required=True, metavar="FILE", help="picture: .png, .svg, .pdf or .webp")
    add_option(parser, "-i", "--images", dest="images", metavar="PATH",
        help="folder of images, named CASE_0000.nii.gz, or one image")  # fmt: skip
    add_option(parser, "-d", help="data set in nnUNet_raw, by number or name: its imagesTs, and labelsTs if any")
    add("--reference", type=Path, metavar="PATH", help="folder of true masks, named CASE.nii.gz, or one mask")
    add("--system", dest="systems", action="append", default=[], metavar="NAME=PATH",
        help="a column: its name, and the folder of its predictions, named CASE.nii.gz, or one prediction; repeat it "
        "for each system")  # fmt: skip
    add("--cases", nargs="+", metavar="CASE", help="which cases (default: all that every folder has, if few)")
    add("--slices", default="area", metavar="HOW",
        help="area: the largest reference (or predictions); disagreement: most pixels in which systems and reference, "
        "or systems, differ; or numbers from 0, as 12,40 (default: area)")  # fmt: skip
    add("--per-case", type=int, default=1, metavar="N", help="slices of each case, apart from each other (default: 1)")
    add("--channel", type=int, metavar="N",
        help="channel of the images: the N of CASE_000N (default: 0, of photographs their colours)")  # fmt: skip
    add("--style", choices=("contour", "fill", "errors"), default="contour",
        help="contour or fill: each label in its colour; errors: true positives, false positives and false negatives, "
        "all labels taken as one (default: contour)")  # fmt: skip
    add("--label", dest="labels", nargs="+", type=int, metavar="N", help="draw these labels only (default: all)")
    add("--crop", dest="crop_mm", type=float, metavar="MM",
        help="cut out the labels with this margin (default: whole slices)")  # fmt: skip
    add_look(add, "across the largest voxels, in doubt axial")


def add_look(add: Callable[..., Any], default_plane: str) -> None:
    """Add what ``overlay`` and ``attention`` share: the plane, the window and the picture's size."""
    add("--axis", dest="plane", choices=("axial", "coronal", "sagittal"),
        help=f"plane of the slices (default: {default_plane})")  # fmt: skip
    add("--window", nargs="+", metavar="W", help=WINDOW_HELP)
    add("--width", dest="width_mm", type=float, default=182.0, metavar="MM",
        help="the picture's width at most (default: 182)")  # fmt: skip
    add("--dpi", type=int, default=300, help="pixels per inch (default: 300)")


def run(arguments: argparse.Namespace) -> int:
    """Draw, and say what was drawn."""
    from nnunetv2_eccam.overlay.overlay import Overlay, write_overlay

    given = dict(vars(arguments))
    target, dataset = given.pop("target"), given.pop("dataset")
    if dataset:
        folder = raw_folder(dataset)
        given["images"] = given["images"] or folder / "imagesTs"
        if given["reference"] is None and (folder / "labelsTs").is_dir():
            given["reference"] = folder / "labelsTs"
    if given["images"] is None:
        raise UserError("give the images by -i, or a data set of nnUNet_raw by -d")
    given["systems"] = named_paths(given["systems"])
    if given["slices"] not in ("area", "disagreement"):
        given["slices"] = slice_numbers(given["slices"], "none of area, disagreement and numbers from 0")
    for row in write_overlay(Overlay(**given), target):
        figures = (f"{name} {'undefined' if dice is None else f'{dice:.3f}'}" for name, dice in row.dice.items())
        what = ", ".join(part for part in (row.case, row.slice_name) if part)
        print(what + (f": DSC {', '.join(figures)}" if row.dice else ""))
    print(f"wrote {target}")
    return 0


def named_paths(words: Sequence[str]) -> dict[str, Path]:
    """Read ``--system NAME=FOLDER``, once for each column.

    Raises:
        UserError: one has no name or no path, or two have the same name.
    """
    systems: dict[str, Path] = {}
    for word in words:
        name, found, path = word.partition("=")
        if not (found and name.strip() and path):
            raise UserError(f'--system {word} has no name or no folder; give both: --system "NAME=FOLDER"')
        if name in systems:
            raise UserError(f"--system {name} is given twice; each column needs a name of its own")
        systems[name] = Path(path).expanduser()  # which shells leave alone behind a =
    return systems


def slice_numbers(word: str, needed: str) -> tuple[int, ...]:
    """Read slices, counted from 0, as ``12,40``.

    Raises:
        UserError: it is something else.
    """
    parts = [part.strip() for part in word.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"--slices {word} is {needed}, as 12,40")
    return tuple(dict.fromkeys(int(part) for part in parts))
