"""Which cases are trained on.

Cases are ordered by a hash of the seed and the case's name. So the choice depends on nothing but these
two: not on the order of a folder, not on the version of a random number generator, and a case that is
left out does not move the others.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

FOLDS = 5
"""nnU-Net's cross-validation; it cannot make its folds from fewer cases."""


class Split(NamedTuple):
    """Names of cases, each list in sorted order.

    Attributes:
        train: in imagesTr; all that nnU-Net may train on.
        validation: in imagesTr too; empty where nnU-Net makes its five folds itself.
        test: in imagesTs and labelsTs, out of the fingerprint's sight.
    """

    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()


def drawn_order(cases: Sequence[str], seed: int) -> list[str]:
    """Order cases as if shuffled, by SHA-256 of ``seed:case``."""
    return sorted(cases, key=lambda case: hashlib.sha256(f"{seed}:{case}".encode()).hexdigest())


def drawn_split(cases: Sequence[str], seed: int, *, test: int, validation: int = 0) -> Split:
    """Draw numbers of test and validation cases; the rest is trained on."""
    order = drawn_order(cases, seed)
    parts = order[test + validation :], order[test : test + validation], order[:test]
    return Split(*(tuple(sorted(part)) for part in parts))
