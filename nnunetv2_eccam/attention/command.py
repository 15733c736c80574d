r"""Show what a trained network attends to in a case: volumes that line up with the image, and a picture (Fig. 6).

  nnUNetv2_eccam attention spatial -i la_003_0000.nii.gz -o shown -d 2 -c 2d -tr nnUNetTrainerECCaM -f 0
  nnUNetv2_eccam attention cam -i la_003_0000.nii.gz -o shown --reference la_003.nii.gz \
      --system "CoA=MODEL_FOLDER" --system "SE=MODEL_FOLDER"

What is shown:

  channels    channel weights of CC, SE and CBAM: a table (CSV)
  spatial     where the attention is: SC's map S, what CoA adds, CBAM's weights, Attention U-Net's gates,
              DA-Net's position attention
  activation  how strong the features are that leave the attention; of a layer, with --layer
  cam         class activation (Grad-CAM) of a label, at the bottleneck or at --layer
"""

import argparse
from pathlib import Path

from nnunetv2_eccam.arguments import add_option
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.overlay.command import add_look, named_paths, slice_numbers

KINDS = ("channels", "spatial", "activation", "cam")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments; ``run`` takes them as they are called here."""
    add = parser.add_argument
    add("what", choices=KINDS, metavar="{" + ",".join(KINDS) + "}", help="see above")
    add_option(parser, "-i", dest="images", nargs="+", required=True, metavar="FILE",
               help="the case's image: one file for each channel, in order")  # fmt: skip
    add_option(parser, "-o", required=True)
    group = parser.add_argument_group("the model, as nnUNetv2_predict takes it")
    for option in ("-d", "-p", "-tr", "-c", "-m"):
        add_option(group, option)
    group.add_argument("--system", dest="systems", action="append", default=[], metavar="NAME=FOLDER",
                       help="a column of the picture and its model's folder; repeat it for each system")  # fmt: skip
    add_option(group, "-f", dest="fold", default=["0"],
               help="one fold, a number or all: folds are networks of their own (default: 0)")  # fmt: skip
    add_option(group, "-chk")
    group.add_argument("-step_size", type=float, default=0.5, help="of the sliding window (default: 0.5)")
    add_option(group, "-device")
    group.add_argument("--disable_progress_bar", dest="progress", action="store_false", help="show no progress bar")
    add("--map", dest="maps", nargs="+", metavar="NAME", help="only these maps: CoA, SC, CC, SE, CBAM, gate, position "
        "(default: all; of several systems, the first of each)")  # fmt: skip
    add("--label", metavar="NAME", help="cam: a label of dataset.json (default: the first)")
    add("--layer", metavar="NAME",
        help="cam, activation: a layer by its dotted name; spatial: only the attention in it")  # fmt: skip
    add = parser.add_argument_group("the picture").add_argument
    add("--reference", type=Path, metavar="FILE", help="the true mask: a column of its own, and outlined")
    add("--slices", metavar="N,N",
        help="slices, counted from 0, as 12,40 (default: where the reference is largest, or "
        "evenly spread)")  # fmt: skip
    add("--rows", type=int, default=3, metavar="N", help="how many slices, unless they are numbered (default: 3)")
    add("--channel", type=int, metavar="N", help="channel that is drawn (default: 0, of photographs their colours)")
    add("--scale", choices=("slice", "case"), default="slice",
        help="what has its own range from blue to red: each picture, or each column (default: slice)")  # fmt: skip
    add("--format", choices=("png", "svg", "pdf"), default="png", help="of the picture (default: png)")
    add_look(add, "a 2D model's own; of a 3D one, across the largest voxels")


def run(arguments: argparse.Namespace) -> int:
    """Write the volumes or tables, and the picture, and say which files these are."""
    from nnunetv2_eccam.attention.run import write_attention
    from nnunetv2_eccam.inference.trained_model import check_device

    if len(arguments.fold) > 1:
        raise UserError(f"-f {' '.join(arguments.fold)}: folds are networks of their own; give one")
    arguments.fold = arguments.fold[0]
    if arguments.slices is not None:
        arguments.slices = slice_numbers(arguments.slices, "not a list of numbers from 0")
    check_device(arguments.device)
    arguments.systems = _systems(arguments)
    for path in write_attention(arguments):
        print(f"wrote {path}")
    return 0


def _systems(arguments: argparse.Namespace) -> dict[str, Path]:
    """Give the models' folders by the systems' names; one that is not named takes its trainer's title, later."""
    from nnunetv2_eccam.inference.trained_model import model_folder

    dataset, configuration = arguments.dataset, arguments.configuration
    if arguments.systems:
        if arguments.model or dataset or configuration:
            raise UserError("--system names each model's folder; leave out -m, -d and -c")
        return named_paths(arguments.systems)
    if arguments.model:
        if dataset or configuration:
            raise UserError("-m is the model's folder; leave out -d and -c")
        return {"": arguments.model}
    if not (dataset and configuration):
        raise UserError("which model? give -d and -c (and -tr), or -m FOLDER, or --system NAME=FOLDER")
    return {"": model_folder(dataset, configuration, arguments.trainer, arguments.plans)}
