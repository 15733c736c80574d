"""``nnUNetv2_eccam``: one command for each thing that nnU-Net's own commands do not do.

A command is a module with ``add_arguments(parser)`` and ``run(arguments)``, or with ``main(words)`` where another
program parses the words. Its docstring is the text of ``-h`` and has an example. Modules import what is heavy (torch,
SimpleITK) when they run, so that ``-h`` answers at once.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import nnunetv2_eccam
from nnunetv2_eccam.errors import UserError, words_of

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("nnunetv2_eccam.demo.command", "everything once, on a phantom or on your data, in minutes"),
    "convert": ("nnunetv2_eccam.dataset_conversion.command", "turn a downloaded data set into nnU-Net's format"),
    "splits": ("nnunetv2_eccam.dataset_conversion.split_command", "folds that keep a patient's images together"),
    "plans": ("nnunetv2_eccam.plans.command", "add EC-CaM-UNet's configurations to a data set's plans"),
    "trainers": ("nnunetv2_eccam.systems.command", "list the trainers, one for each system that is compared"),
    "predict": ("nnunetv2_eccam.inference.command", "nnUNetv2_predict, several tiles at a time"),
    "export": ("nnunetv2_eccam.inference.export_command", "a trained model to ONNX, or the folded weights"),
    "evaluate": ("nnunetv2_eccam.evaluation.command", "score predictions, with surface distances and intervals"),
    "benchmark": ("nnunetv2_eccam.benchmark.command", "cross-validate systems against each other, to a report"),
    "overlay": ("nnunetv2_eccam.overlay.command", "draw systems' results over slices, as Fig. 4"),
    "attention": ("nnunetv2_eccam.attention.command", "show what a trained network attends to"),
    "checkpoint": ("nnunetv2_eccam.trainers.checkpoint_command", "say what a checkpoint was trained with"),
    "trainer-path": ("nnunetv2_eccam.lookup.command", "print the folder for nnUNet_extTrainer, if set by hand"),
}
"""Each command's module, and the line that ``nnUNetv2_eccam`` shows for it."""

EXAMPLE = """\
example, from a download to predictions:
  nnUNetv2_eccam convert msd-heart Task02_Heart
  nnUNetv2_plan_and_preprocess -d 2 -c 2d
  nnUNetv2_train 2 2d 0 -tr nnUNetTrainerECCaM
  nnUNetv2_predict -d 2 -c 2d -f 0 -tr nnUNetTrainerECCaM -i images -o predictions

nnUNetv2_eccam COMMAND -h shows a command's options and an example."""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of ``nnUNetv2_eccam`` itself, which knows the commands but imports none."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}s}  {summary}" for name, (_, summary) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_eccam",
        description="EC-CaM-UNet for nnU-Net v2. Training and prediction are nnU-Net's own commands.\n\n"
        f"commands:\n{commands}",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"nnunetv2-eccam {nnunetv2_eccam.__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of the above, then its arguments")
    return parser


def command_parser(name: str) -> argparse.ArgumentParser:
    """Build the parser of a command that has ``add_arguments``, importing its module."""
    module: Any = importlib.import_module(COMMANDS[name][0])
    parser = argparse.ArgumentParser(
        prog=f"nnUNetv2_eccam {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    return parser


def run_command(name: str, words: Sequence[str]) -> int:
    """Parse a command's words and run it, importing its module.

    Raises:
        UserError: what the user gave is wrong.
    """
    module: Any = importlib.import_module(COMMANDS[name][0])
    if hasattr(module, "main"):
        return int(module.main(words))
    # Options may stand between positional arguments, which plain parse_args does not allow for lists.
    return int(module.run(command_parser(name).parse_intermixed_args(words)))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 on success, 1 when the user's input is wrong or the system refuses a file (one line on standard error says
        how), 130 when interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words:
        build_parser().print_help()
        return 0
    name = build_parser().parse_args(words[:1]).command
    try:
        return run_command(name, words[1:])
    except BrokenPipeError:  # of ``| head``, which has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (UserError, OSError) as error:
        print(f"nnUNetv2_eccam {name}: error: {words_of(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"nnUNetv2_eccam {name}: interrupted", file=sys.stderr)
        return 130
