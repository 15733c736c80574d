"""Figures as files: by matplotlib's own defaults, whole or not at all, the same for the same input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_eccam.files import saved

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS: Mapping[str, Mapping[str, None]] = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
"""Endings of pictures, and the metadata left out of each, so that the same input gives the same file."""


@contextmanager
def plain_settings() -> Iterator[None]:
    """Draw by matplotlib's defaults, whatever the user's own settings are (TeX would read names as its commands)."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        # Journals ask for fonts that are embedded as outlines; text in an SVG stays text, which can be edited.
        matplotlib.rcParams.update(
            {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "nnunetv2_eccam", "font.family": "sans-serif"}
        )
        yield


def save_figure(figure: Figure, target: Path, dpi: int) -> None:
    """Write a figure, in the format of the target's ending, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    ending = target.suffix.lower()
    with saved(target) as partial:
        figure.savefig(partial, format=ending[1:], dpi=dpi, metadata=FORMATS[ending])
