"""Is this the folder that the download gives? If not, which one near it is?"""

from collections.abc import Callable
from pathlib import Path

from nnunetv2_eccam.errors import UserError


def check_source(source: Path, looks_right: Callable[[Path], bool], expected: str) -> Path:
    """Check that a folder is laid out as expected.

    Args:
        source: given by the user.
        looks_right: tells the right folder; called for ``source``, its parents and what is in it.
        expected: what the folder must hold, for the message.

    Raises:
        UserError: it is missing, empty or another folder; where the right one is one level up or down,
            or two, the message names it.
    """
    if not source.exists():
        raise UserError(f"{source} does not exist; give the folder with {expected}")
    if not source.is_dir():
        raise UserError(f"{source} is a file; give the folder (unpack an archive first) with {expected}")
    source = source.resolve()
    if looks_right(source):
        return source
    if not any(source.iterdir()):
        raise UserError(f"{source} is empty; give the folder with {expected}")
    below = sorted(folder for folder in source.glob("*") if folder.is_dir())
    below += sorted(folder for folder in source.glob("*/*") if folder.is_dir())
    near = [other for other in (*list(source.parents)[:2], *below) if looks_right(other)]
    near = [folder for folder in near if not any(folder in other.parents for other in near)]
    if near:
        advice = f"give {near[0]}" if len(near) == 1 else "give one of " + ", ".join(map(str, near[:3]))
        raise UserError(f"{source} is not the folder with {expected}; {advice}")
    raise UserError(f"{source} is not the folder with {expected}")
