"""Options that the verbs for pictures have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nnunetv2_eccam.errors import UserError


def add_plane(add: Callable[..., Any], default: str) -> None:
    """Add ``--axis``.

    Args:
        add: of a parser or a group.
        default: which plane is taken without it, in words.
    """
    add("--axis", choices=("axial", "coronal", "sagittal"), help=f"plane of the slices (default: {default})")


def add_size(add: Callable[..., Any]) -> None:
    """Add ``--width`` and ``--dpi``."""
    add("--width", type=float, default=182.0, metavar="MM", help="the picture's width at most (default: 182)")
    add("--dpi", type=int, default=300, help="pixels per inch (default: 300)")


def named_paths(words: Sequence[str], what: str) -> dict[str, Path]:
    """Read ``--system NAME=PATH``, once for each column.

    Args:
        words: as given.
        what: that a name belongs to, for example ``folder``.

    Raises:
        UserError: one has no name or no path, or two have the same name.
    """
    systems: dict[str, Path] = {}
    for word in words:
        name, found, path = word.partition("=")
        if not (found and name.strip() and path):
            raise UserError(f'--system {word} has no name or no {what}; give both: --system "NAME={what.upper()}"')
        if name in systems:
            raise UserError(f"--system {name} is given twice; each column needs a name of its own")
        systems[name] = Path(path).expanduser()  # which shells leave alone behind a =
    return systems


def slice_numbers(word: str, needed: str) -> tuple[int, ...]:
    """Read slices, counted from 0, as ``12,40``.

    Args:
        word: as given.
        needed: what it must be, in words.

    Raises:
        UserError: it is something else.
    """
    parts = [part.strip() for part in word.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"--slices {word} is {needed}, as 12,40")
    return tuple(dict.fromkeys(int(part) for part in parts))
