"""``nnUNetv2_eccam``: one command, one verb for each thing that nnU-Net's own commands do not do.

A verb is a module with ``add_arguments(parser)`` and ``run(arguments)``. Modules import what is heavy
(torch, SimpleITK) inside ``run``, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from nnunetv2_eccam.errors import UserError


class Verb(NamedTuple):
    """One verb of the command line."""

    module: str
    summary: str


VERBS: dict[str, Verb] = {
    "convert": Verb("nnunetv2_eccam.dataset_conversion.command", "a downloaded data set to nnU-Net's raw format"),
    "plans": Verb("nnunetv2_eccam.plans.command", "add EC-CaM-UNet's configurations to a data set's plans"),
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


def build_verb_parser(name: str) -> argparse.ArgumentParser:
    """Build a verb's parser, importing its module."""
    module = importlib.import_module(VERBS[name].module)
    parser = argparse.ArgumentParser(
        prog=f"nnUNetv2_eccam {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    parser.set_defaults(run=module.run)
    return parser


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
    parser = build_verb_parser(verb)
    # Options may stand between positional arguments, which plain parse_args does not allow for lists.
    parse = parser.parse_args if parser._subparsers is not None else parser.parse_intermixed_args
    arguments = parse(words[1:])
    try:
        return int(arguments.run(arguments) or 0)
    except UserError as error:
        print(f"nnUNetv2_eccam {verb}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"nnUNetv2_eccam {verb}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
