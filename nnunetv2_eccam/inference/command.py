"""Predict as nnUNetv2_predict does, with several tiles and mirrored copies in one call of the network.

  nnUNetv2_eccam predict -i FOLDER -o FOLDER -d DATASET -c 2d [...]

Works with any model that nnU-Net trained, whatever its trainer. All options are nnUNetv2_predict's, listed
below, and one is added:

  --batch-size N        samples in one call of the network at most; a sample is one tile in one of its
                        mirrored copies (default: as many as the device and the patch suggest)
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

from nnunetv2_eccam.errors import UserError


def main(words: Sequence[str]) -> int:
    """Run nnU-Net's own entry point with another predictor; nearly all words are nnU-Net's to parse.

    Until it makes the predictor, nnU-Net only looks at what the user gave (options, variables, the data
    set's name), so what it raises until then is the user's to mend. Later errors are not touched.

    Args:
        words: what follows the command.

    Raises:
        UserError: an input is missing or wrong.
    """
    # An abbreviation may be meant for nnU-Net's parser.
    parser = argparse.ArgumentParser(prog="nnUNetv2_eccam predict", add_help=False, allow_abbrev=False)
    parser.add_argument("--batch-size", type=int, metavar="N")
    arguments, nnunet_words = parser.parse_known_args(list(words))
    if {"-h", "--help"} & set(nnunet_words):
        print(__doc__)

    from nnunetv2.inference import predict_from_raw_data as nnunet

    from nnunetv2_eccam.inference.case_predictor import CasePredictor

    made = []

    def predictor(*args: Any, **kwargs: Any) -> CasePredictor:
        made.append(CasePredictor(*args, batch_size=arguments.batch_size, **kwargs))
        return made[0]

    argv = ["nnUNetv2_eccam predict", *nnunet_words]
    with patch.object(sys, "argv", argv), patch.object(nnunet, "nnUNetPredictor", predictor):
        try:
            nnunet.predict_entry_point()
        except (AssertionError, OSError, RuntimeError, ValueError) as error:
            if made or isinstance(error, UserError):
                raise
            raise UserError(" ".join(str(error).split())) from error
    return 0
