"""Publishing a file as it is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from nnunetv2_eccam.files import written_whole


def place_unchanged(source: Path, target: Path) -> None:
    """Give a file a second name by a hard link, or copy it where that is not possible.

    A link costs neither time nor space; it is the same file, so whoever changes one in place changes both.
    It is not possible on another file system, on some network shares, and for another user's files where
    the system protects them.
    """
    target.unlink(missing_ok=True)  # of an interrupted run
    try:
        os.link(source.resolve(), target)
    except OSError:
        with written_whole(target) as partial:
            shutil.copyfile(source, partial)
