"""Which files of a folder are volumes, and what is wrong with one that is not where it should be."""

from __future__ import annotations

import errno
import stat
from pathlib import Path
from typing import NamedTuple

from nnunetv2_eccam.errors import UserError

ENDINGS = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".gipl", ".png", ".tif", ".tiff", ".bmp")
"""File endings that are read; nnU-Net's readers take these, and SimpleITK .mhd."""


class Listing(NamedTuple):
    """What a folder holds.

    Attributes:
        files: the volumes, by their names without the ending, sorted.
        hidden: names of hidden files that end as volumes do. macOS and some archives leave a ``._NAME`` beside
            each file, which is no image.
    """

    files: dict[str, Path]
    hidden: list[str]

    @property
    def hidden_line(self) -> str:
        """One line that says which hidden files were passed over; empty where there are none."""
        if not self.hidden:
            return ""
        return f"{len(self.hidden)} hidden file(s) passed over, such as {self.hidden[0]}"


def ending_of(path: Path) -> str | None:
    """Give the ending of a volume's file in small letters, or None if it is none that is read."""
    name = path.name.lower()
    return next((ending for ending in ENDINGS if name.endswith(ending)), None)


def list_volumes(folder: Path, ending: str | None = None) -> Listing:
    """List the volumes of a folder; whatever else is in it is left alone.

    Args:
        folder: where they are.
        ending: only files with exactly this ending, as ``file_ending`` of ``dataset.json`` says; None for every
            ending that is read.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder" if folder.exists() else f"{folder} does not exist")
    files, hidden = {}, []
    for path in sorted(folder.iterdir()):
        found = ending_of(path) if ending is None else ending if path.name.endswith(ending) else None
        if found is None:
            continue
        if path.name.startswith("."):
            hidden.append(path.name)
        else:
            files[path.name[: -len(found)]] = path
    return Listing(files, hidden)


def present_file(path: Path) -> Path:
    """See that a path leads to a file with something in it.

    Raises:
        UserError: it does not exist, is empty, a folder, or a link to nowhere or to itself. Where a file of nearly
            the same name lies beside it, the message names that one and what it needs.
    """
    try:
        found = path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UserError(f"{path} is a link that leads back to itself; replace it by the file") from None
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
        if path.is_symlink():
            raise UserError(f"{path} is a link to a file that is not there; replace it by the file") from None
        raise UserError(f"{path} does not exist{similar_file(path)}") from None
    if stat.S_ISDIR(found.st_mode):
        raise UserError(f"{path} is a folder, not a file; replace it by the file of that name")
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path} is not a regular file; replace it by one")
    if not found.st_size:
        raise UserError(f"{path} is empty (0 bytes); download or copy it again")
    return path


def similar_file(path: Path) -> str:
    """Say that a file beside ``path`` differs from it in ending or capital letters only, and what it needs.

    Returns:
        The end of a sentence, beginning with a semicolon; empty where there is no such file.
    """
    ending = ending_of(path)
    if ending is None or not path.parent.is_dir():
        return ""
    stem = path.name[: -len(ending)].lower()
    for other in sorted(path.parent.iterdir()):
        its = ending_of(other)
        if its is None or other.name == path.name or other.name[: -len(its)].lower() != stem:
            continue
        if its == ending:
            remedy = f"rename it to {path.name}"
        elif (its, ending) == (".nii", ".nii.gz"):
            remedy = f"compress it: gzip {other.name}"
        elif (its, ending) == (".nii.gz", ".nii"):
            remedy = f"unpack it: gunzip {other.name}"
        else:
            remedy = f"store it as {path.name}"
        return f"; {other.name} is there, but {path.name} is expected: {remedy}"
    return ""
