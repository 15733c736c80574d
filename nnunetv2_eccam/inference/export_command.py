"""A trained model as one file for other programs: ONNX, checked against PyTorch, or the folded network's weights.

  nnUNetv2_eccam export -d 2 -c 2d -tr nnUNetTrainerECCaM -f 0 -o model.onnx

The network takes preprocessed images (batch, channel, y, x) or (batch, channel, z, y, x) and gives logits. Enhanced
convolutions are folded to plain ones. With several folds there is one file for each; nnU-Net averages their logits.
"""

import argparse
from pathlib import Path

from nnunetv2_eccam.arguments import add_option
from nnunetv2_eccam.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_option(parser, "-o", metavar="FILE", required=True, help="NAME.onnx, or NAME.pth for the weights alone")
    add_option(parser, "-d")
    add_option(parser, "-c")
    add_option(parser, "-tr")
    add_option(parser, "-p")
    add_option(parser, "-m")
    add_option(parser, "-f", help="folds, numbers or all (default: those that are there)")
    add_option(parser, "-chk")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--size", type=int, nargs="+", metavar="N", help="voxels per axis (default: the model's patch)")
    size.add_argument("--dynamic", action="store_true", help="any size that the network can halve, not only the patch")


def run(arguments: argparse.Namespace) -> int:
    """Export the model that the options name; print where to, and how far its logits are from PyTorch's."""
    from nnunetv2_eccam.inference.trained_model import model_folder

    if arguments.model is None and not (arguments.dataset and arguments.configuration):
        raise UserError("say which model: -d and -c, or -m and its folder")
    folder: Path = arguments.model or model_folder(
        arguments.dataset, arguments.configuration, arguments.trainer, arguments.plans
    )
    from nnunetv2_eccam.inference.export import export_model, load_model

    model = load_model(folder, arguments.folds, arguments.checkpoint)
    print("\n".join(export_model(model, arguments.output, arguments.size, arguments.dynamic)))
    return 0
