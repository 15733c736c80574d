"""Print the folder with this package's trainers, for nnU-Net's variable nnUNet_extTrainer.

Needed only where Python does not run .pth files (pip install --target, python -S):
  export nnUNet_extTrainer="$(python -m nnunetv2_eccam trainer-path)"
"""

import argparse

from nnunetv2_eccam.lookup.hook import TRAINER_FOLDER


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: the command has no options."""


def run(arguments: argparse.Namespace) -> int:  # noqa: ARG001
    """Print the folder."""
    print(TRAINER_FOLDER)
    return 0
