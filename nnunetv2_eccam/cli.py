"""``nnUNetv2_eccam``: one command, one verb for each thing that nnU-Net's own commands do not do.

A verb is a module with ``add_arguments(parser)`` and ``run(arguments)``, or with ``main(words)`` where the
words are another program's to parse. Modules import what is heavy (torch, SimpleITK) when they run, so that
``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from nnunetv2_eccam.errors import UserError


class Verb(NamedTuple):
    """One verb of the command line."""

    module: str
    summary: str


VERBS: dict[str, Verb] = {
    "convert": Verb("nnunetv2_eccam.dataset_conversion.command", "a downloaded data set to nnU-Net's raw format"),
    "splits": Verb("nnunetv2_eccam.dataset_conversion.split_command", "folds by patient: writes splits_final.json"),
    "plans": Verb("nnunetv2_eccam.plans.command", "add EC-CaM-UNet's configurations to a data set's plans"),
    "predict": Verb(
        "nnunetv2_eccam.inference.command", "nnUNetv2_predict with several tiles in one call of the network"
    ),
    "trainers": Verb("nnunetv2_eccam.systems.command", "list the trainers: every system that the paper compares"),
    "evaluate": Verb("nnunetv2_eccam.evaluation.command", "score predictions: surfaces, slices, spread, intervals"),
    "benchmark": Verb("nnunetv2_eccam.benchmark.command", "systems x folds x data sets as jobs, to a report"),
    "overlay": Verb("nnunetv2_eccam.pictures.overlay_command", "a figure of systems' results over slices, as Fig. 4"),
    "attention": Verb("nnunetv2_eccam.pictures.attention_command", "what a trained network attends to, as heat maps"),
    "checkpoint": Verb("nnunetv2_eccam.trainers.checkpoint_command", "what a checkpoint was trained with"),
    "demo": Verb("nnunetv2_eccam.demo.command", "the whole way on a phantom or on your data, in minutes"),
    "trainer-path": Verb("nnunetv2_eccam.lookup.command", "the folder for nnUNet_extTrainer, if set by hand"),
}


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command itself, which knows the verbs but imports none."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:{width}s}  {verb.summary}" for name, verb in VERBS.items())
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_eccam",
        description="EC-CaM-UNet for nnU-Net v2. Training and prediction are nnU-Net's own commands:\n"
        "  nnUNetv2_train DATASET 2d FOLD -tr nnUNetTrainerECCaM\n\n"
        f"verbs:\n{verbs}",
        epilog="nnUNetv2_eccam VERB --help tells the verb's options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=_version())
    parser.add_argument("verb", choices=VERBS, metavar="VERB", help="one of the above, then its arguments")
    return parser


def run_verb(name: str, words: Sequence[str]) -> int:
    """Parse a verb's words and run it, importing its module.

    Raises:
        UserError: what the user gave is wrong.
    """
    module: Any = importlib.import_module(VERBS[name].module)
    if hasattr(module, "main"):
        return int(module.main(words))
    parser = argparse.ArgumentParser(
        prog=f"nnUNetv2_eccam {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    # Options may stand between positional arguments, which plain parse_args does not allow for lists.
    return int(module.run(parser.parse_intermixed_args(words)))


def _version() -> str:
    import nnunetv2_eccam

    return f"nnunetv2-eccam {nnunetv2_eccam.__version__}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 on success, 1 when the user's input is wrong (one line on standard error says how), 130 when
        interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    verb = build_parser().parse_args(words[:1]).verb
    try:
        return run_verb(verb, words[1:])
    except UserError as error:
        print(f"nnUNetv2_eccam {verb}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"nnUNetv2_eccam {verb}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # of ``| head``, which has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
