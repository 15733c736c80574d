"""Which files of a folder are volumes, and what is wrong with one that is not where it should be."""

from pathlib import Path

from nnunetv2_eccam.errors import UserError

ENDINGS = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".gipl", ".png", ".tif", ".tiff", ".bmp")
"""File endings that are read; nnU-Net's readers take these, and SimpleITK .mhd."""


def ending_of(path: Path) -> str | None:
    """Give the ending of a volume's file in small letters, or None if it is none that is read."""
    name = path.name.lower()
    return next((ending for ending in ENDINGS if name.endswith(ending)), None)


def list_volumes(folder: Path, ending: str | None = None) -> dict[str, Path]:
    """List the volumes of a folder, sorted by their names without the ending; whatever else is in it is left alone.

    Hidden files are no volumes: macOS and some archives leave a ``._NAME`` beside each, see :func:`hidden_line`.

    Args:
        folder: where they are.
        ending: only files with exactly this ending, as ``file_ending`` of ``dataset.json`` says; None for every
            ending that is read.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder" if folder.exists() else f"{folder} does not exist")
    files = {}
    for path in sorted(folder.iterdir()):
        found = ending_of(path) if ending is None else ending if path.name.endswith(ending) else None
        if found is not None and not path.name.startswith("."):
            files[path.name[: -len(found)]] = path
    return files


def hidden_line(*folders: Path) -> str:
    """Say in one line which hidden files that end as volumes do are passed over; empty where there are none."""
    hidden = [path.name for folder in folders for path in sorted(folder.glob(".*")) if ending_of(path)]
    return f"{len(hidden)} hidden file(s) passed over, such as {hidden[0]}" if hidden else ""


def present_file(path: Path) -> None:
    """See that a path leads to a file with something in it.

    Raises:
        UserError: it does not exist, is empty, a folder, or a link to nowhere or to itself. Where a file of nearly
            the same name lies beside it, the message names that one and what it needs.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder, not a file; replace it by the file of that name")
    if path.is_symlink() and not path.exists():
        raise UserError(f"{path} is a link to itself or to a file that is not there; replace it by the file")
    if not path.exists():
        raise UserError(f"{path} does not exist{similar_file(path)}")
    if not path.is_file():
        raise UserError(f"{path} is not a regular file; replace it by one")
    if not path.stat().st_size:
        raise UserError(f"{path} is empty (0 bytes); download or copy it again")


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
        remedies = {
            (ending, ending): f"rename it to {path.name}",
            (".nii", ".nii.gz"): f"compress it: gzip {other.name}",
            (".nii.gz", ".nii"): f"unpack it: gunzip {other.name}",
        }
        remedy = remedies.get((its, ending), f"store it as {path.name}")
        return f"; {other.name} is there, but {path.name} is expected: {remedy}"
    return ""
