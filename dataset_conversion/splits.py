"""Which cases are trained on: five folds, a held-out test set, or the paper's counts.

Cases are ordered by a hash of the seed and the case's name. So the choice depends on nothing but these
two: not on the order of a folder, not on the version of a random number generator, and a case that is
left out does not move the others.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nnunetv2_eccam.errors import UserError

FOLDS = 5
"""nnU-Net's cross-validation; it cannot make its folds from fewer cases."""


@dataclass(frozen=True)
class Split:
    """Names of cases, each list in sorted order.

    Attributes:
        train: in imagesTr; all that nnU-Net may train on.
        validation: in imagesTr too; None where nnU-Net makes its five folds itself.
        test: in imagesTs and labelsTs, out of the fingerprint's sight.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...] | None
    test: tuple[str, ...]


def drawn_order(cases: Sequence[str], seed: int) -> list[str]:
    """Order cases as if shuffled, by SHA-256 of ``seed:case``."""
    return sorted(cases, key=lambda case: hashlib.sha256(f"{seed}:{case}".encode()).hexdigest())


def split_with_hold_out(cases: Sequence[str], hold_out: int, seed: int) -> Split:
    """Hold ``hold_out`` labelled cases out for testing; the rest is for nnU-Net's five folds.

    Raises:
        UserError: that is no number of cases, or nothing would be left to train on.
    """
    if not 0 <= hold_out < len(cases):
        raise UserError(f"--hold-out {hold_out}: of {len(cases)} labelled cases, 0 to {len(cases) - 1} can be held out")
    order = drawn_order(cases, seed)
    return Split(tuple(sorted(order[hold_out:])), None, tuple(sorted(order[:hold_out])))


def paper_split(cases: Sequence[str], counts: Mapping[int, tuple[int, int, int]], seed: int) -> Split:
    """Draw the paper's numbers of training, validation and test cases; it does not say which cases it used.

    Args:
        cases: the labelled cases.
        counts: train, validation and test counts by the number of labelled cases that they hold for.
        seed: of the drawing.

    Raises:
        UserError: the number of labelled cases is not one that the paper's counts hold for.
    """
    if len(cases) not in counts:
        expected = " or ".join(str(number) for number in counts)
        raise UserError(
            f"--split paper needs all of the data set's {expected} labelled cases; found {len(cases)}: "
            f"complete the download, or use --split cv"
        )
    _, validation, test = counts[len(cases)]
    order = drawn_order(cases, seed)
    return Split(
        train=tuple(sorted(order[test + validation :])),
        validation=tuple(sorted(order[test : test + validation])),
        test=tuple(sorted(order[:test])),
    )
