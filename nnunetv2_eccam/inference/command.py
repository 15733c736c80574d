"""Predict as nnUNetv2_predict does, with several tiles and mirrored copies in one call of the network.

  nnUNetv2_eccam predict -i FOLDER -o FOLDER -d DATASET -c 2d [...]

Works with any model that nnU-Net trained, whatever its trainer. All options are nnUNetv2_predict's, listed
below, and one is added:

  --batch-size N        samples in one call of the network at most; a sample is one tile in one of its
                        mirrored copies (default: measured, by time and free memory)
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.inference.trained_model import check_device, checked_model

if TYPE_CHECKING:
    from nnunetv2_eccam.inference.case_predictor import CasePredictor


def main(words: Sequence[str]) -> int:
    """Run the command; it parses its words itself, since nearly all of them are nnU-Net's to parse.

    Args:
        words: what follows the command.

    Raises:
        UserError: an input is missing or wrong.
    """
    arguments, nnunet_words = _own_parser().parse_known_args(list(words))
    if {"-h", "--help"} & set(nnunet_words):
        print(__doc__)

    from nnunetv2.inference import predict_from_raw_data as nnunet

    _run_nnunet(nnunet, nnunet_words, arguments.batch_size)
    return 0


def _own_parser() -> argparse.ArgumentParser:
    """Make the parser of this command's own option; an abbreviation may be meant for nnU-Net's parser."""
    parser = argparse.ArgumentParser(prog="nnUNetv2_eccam predict", add_help=False, allow_abbrev=False)
    parser.add_argument("--batch-size", type=_positive, metavar="N")
    return parser


def _positive(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {word}")
    return int(word)


def _run_nnunet(nnunet: ModuleType, words: Sequence[str], batch_size: int | None) -> None:
    """Run nnU-Net's own entry point with another predictor.

    Until it makes the predictor, nnU-Net only looks at what the user gave (options, variables, the data
    set's name), so what it raises until then is the user's to mend. Later errors are not touched, but
    for the files that :func:`_predictor_class` looks for.
    """
    from nnunetv2_eccam.inference.validation import replaced

    made: list[CasePredictor] = []
    predictor = _predictor_class(batch_size, made)
    with replaced(sys, "argv", ["nnUNetv2_eccam predict", *words]), replaced(nnunet, "nnUNetPredictor", predictor):
        try:
            nnunet.predict_entry_point()
        except (AssertionError, OSError, RuntimeError, ValueError) as error:
            if made or isinstance(error, UserError):
                raise
            raise UserError(" ".join(str(error).split())) from error


def _predictor_class(batch_size: int | None, made: list[CasePredictor]) -> type[CasePredictor]:
    """Make the predictor that nnU-Net's entry point is given.

    Args:
        batch_size: see :class:`CasePredictor`.
        made: every predictor that is made is put here.
    """
    from nnunetv2_eccam.inference.case_predictor import CasePredictor

    class CheckedPredictor(CasePredictor):
        """Looks at the device and the model before it uses them."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, batch_size=batch_size, **kwargs)
            made.append(self)
            check_device(self.device.type)

        def initialize_from_trained_model_folder(
            self, model_training_output_dir: str, use_folds: Any, checkpoint_name: str = "checkpoint_final.pth"
        ) -> None:
            with checked_model(Path(model_training_output_dir), use_folds, checkpoint_name):
                super().initialize_from_trained_model_folder(model_training_output_dir, use_folds, checkpoint_name)

    return CheckedPredictor
