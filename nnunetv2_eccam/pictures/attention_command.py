r"""Show what a trained network attends to in a case: volumes that line up with the image, and a picture (Fig. 6).

  nnUNetv2_eccam attention spatial -i la_003_0000.nii.gz -o shown -d 2 -c 2d -tr nnUNetTrainerECCaM -f 0
  nnUNetv2_eccam attention spatial -i la_003_0000.nii.gz -o shown -m MODEL_FOLDER --point 90 70 40
  nnUNetv2_eccam attention cam -i la_003_0000.nii.gz -o shown --reference la_003.nii.gz \
      --system "CoA=MODEL_FOLDER" --system "SE=MODEL_FOLDER"

What is shown:

  channels    channel weights of CC, SE and CBAM: a table (CSV) and bars
  spatial     where the attention is: SC's map S, what CoA adds, CBAM's weights, Attention U-Net's gates,
              DA-Net's position attention
  activation  how strong the features are that leave the attention; of a layer, with --layer
  cam         class activation (Grad-CAM) of a label, at the bottleneck or at --layer; needs captum
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.inference.trained_model import check_device, model_folder
from nnunetv2_eccam.pictures.options import add_plane, add_size, named_paths, slice_numbers

KINDS = ("channels", "spatial", "activation", "cam")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add = parser.add_argument
    add("what", choices=KINDS, metavar="{" + ",".join(KINDS) + "}", help="see above")
    add("-i", dest="images", type=Path, nargs="+", required=True, metavar="FILE",
        help="the case's image: one file for each channel, in order")  # fmt: skip
    add("-o", dest="output", type=Path, required=True, metavar="FOLDER",
        help="where the files go; created if it is not there")  # fmt: skip
    _add_model(parser)
    add("--map", nargs="+", metavar="NAME", help="only these maps: CoA, SC, CC, SE, CBAM, gate, position (default:\n"
        "all; of several systems, the first of each)")  # fmt: skip
    add("--point", type=int, nargs=3, metavar=("X", "Y", "Z"),
        help="spatial: what this voxel of the image file attends to, counted from 0 (default:\n"
        "how much each position is attended to by all)")  # fmt: skip
    add("--point_mm", type=float, nargs=3, metavar=("X", "Y", "Z"),
        help="the same, in mm: world coordinates of the image, to the right, front and head")  # fmt: skip
    add("--label", metavar="NAME", help="cam: a label of dataset.json (default: the first)")
    add("--layer", metavar="NAME",
        help="cam, activation: a layer by its dotted name; spatial: only the attention in it")  # fmt: skip
    _add_picture(parser)
    # The help's own line breaks hold, as in the description.
    parser.formatter_class = argparse.RawTextHelpFormatter


def _add_model(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("the model, as nnUNetv2_predict takes it").add_argument
    add("-d", dest="dataset", metavar="DATASET", help="data set, number or name")
    add("-p", dest="plans", default="nnUNetPlans", metavar="PLANS", help="plans (default: nnUNetPlans)")
    add("-tr", dest="trainer", default="nnUNetTrainer", metavar="TRAINER", help="trainer (default: nnUNetTrainer)")
    add("-c", dest="configuration", metavar="CONFIGURATION", help="configuration")
    add("-m", dest="model", type=Path, metavar="FOLDER", help="the model's folder, instead of -d, -p, -tr, -c")
    add("--system", action="append", default=[], metavar="NAME=FOLDER",
        help="a column of the picture and its model's folder; repeat it for each system")  # fmt: skip
    add("-f", dest="fold", nargs="+", default=["0"], metavar="FOLD",
        help="one fold, a number or all: folds are networks of their own (default: 0)")  # fmt: skip
    add("-chk", dest="checkpoint", default="checkpoint_final.pth", metavar="FILE",
        help="checkpoint (default: checkpoint_final.pth)")  # fmt: skip
    add("-step_size", type=float, default=0.5, help="of the sliding window (default: 0.5)")
    add("-device", choices=("cuda", "cpu", "mps"), default="cuda", help="where the network runs (default: cuda)")
    add("--disable_progress_bar", action="store_true", help="show no progress bar")


def _add_picture(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("the picture").add_argument
    add("--reference", type=Path, metavar="FILE", help="the true mask: a column of its own, and outlined")
    add("--slices", metavar="N,N",
        help="slices, counted from 0, as 12,40 (default: where the reference is largest, or the\n"
        "point's, or evenly spread)")  # fmt: skip
    add("--rows", type=int, default=3, metavar="N", help="how many slices, unless they are numbered (default: 3)")
    add_plane(add, "a 2D model's own; of a 3D one, across the\nlargest voxels")
    add("--channel", type=int, default=0, metavar="N", help="channel that is drawn (default: 0)")
    add("--window", nargs="+", metavar="W", help="grey values, as nnUNetv2_eccam overlay takes them: LEVEL WIDTH, a\n"
        "preset, or percentiles [LOW HIGH]")  # fmt: skip
    add("--scale", choices=("slice", "case"), default="slice",
        help="what has its own range from blue to red: each picture, or each column (default:\n"
        "slice)")  # fmt: skip
    add("--format", choices=("png", "svg", "pdf"), default="png", help="of the picture (default: png)")
    add_size(add)


def run(arguments: argparse.Namespace) -> int:
    """Write the volumes or tables, and the picture, and say which files these are."""
    from nnunetv2_eccam.pictures.attention_run import Request, write_attention

    if len(arguments.fold) > 1:
        raise UserError(f"-f {' '.join(arguments.fold)}: folds are networks of their own; give one")
    if arguments.point and arguments.point_mm:
        raise UserError("--point and --point_mm are both given; give one")
    if arguments.what != "spatial" and (arguments.point or arguments.point_mm):
        raise UserError(f"--point belongs to spatial; {arguments.what} is not seen from a point")
    request = Request(
        what=arguments.what,
        images=tuple(arguments.images),
        output=arguments.output,
        systems=_systems(arguments),
        fold=arguments.fold[0],
        checkpoint=arguments.checkpoint,
        step_size=_in_range("-step_size", arguments.step_size, 0, 1),
        device=check_device(arguments.device),
        progress=not arguments.disable_progress_bar,
        maps=tuple(arguments.map) if arguments.map else None,
        point=tuple(arguments.point) if arguments.point else None,
        point_mm=tuple(arguments.point_mm) if arguments.point_mm else None,
        label=arguments.label,
        layer=arguments.layer,
        reference=arguments.reference,
        slices=None if arguments.slices is None else slice_numbers(arguments.slices, "not a list of numbers from 0"),
        rows=int(_in_range("--rows", arguments.rows, 0, 100)),
        plane=arguments.axis,
        channel=arguments.channel,
        window=tuple(arguments.window) if arguments.window else None,
        scale=arguments.scale,
        ending=f".{arguments.format}",
        width_mm=_in_range("--width", arguments.width, 0, 2000),
        dpi=int(_in_range("--dpi", arguments.dpi, 0, 2400)),
    )
    for path in write_attention(request):
        print(f"wrote {path}")
    return 0


def _systems(arguments: argparse.Namespace) -> dict[str, Path]:
    """Give the models' folders by the systems' names; one that is not named takes its trainer's title, later."""
    if arguments.system:
        if arguments.model or arguments.dataset or arguments.configuration:
            raise UserError("--system names each model's folder; leave out -m, -d and -c")
        return named_paths(arguments.system, "folder")
    if arguments.model:
        if arguments.dataset or arguments.configuration:
            raise UserError("-m is the model's folder; leave out -d and -c")
        return {"": arguments.model}
    if not (arguments.dataset and arguments.configuration):
        raise UserError("which model? give -d and -c (and -tr), or -m FOLDER, or --system NAME=FOLDER")
    return {"": model_folder(arguments.dataset, arguments.configuration, arguments.trainer, arguments.plans)}


def _in_range(option: str, value: Any, above: float, most: float) -> float:
    if not above < value <= most:
        raise UserError(f"{option} {value:g} must be above {above:g} and at most {most:g}")
    return float(value)

