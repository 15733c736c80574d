"""Is this the folder that the download gives? If not, which one near it is?"""

from collections.abc import Sequence
from pathlib import Path

from nnunetv2_eccam.errors import UserError


def check_source(source: Path, patterns: Sequence[str], expected: str) -> Path:
    """Check that a folder is laid out as expected.

    Args:
        source: given by the user.
        patterns: something in the right folder matches each.
        expected: what the folder must hold, for the message.

    Raises:
        UserError: it is missing, empty or another folder; where the right one is one level up or down,
            or two, the message names it.
    """

    def looks_right(folder: Path) -> bool:
        return all(any(folder.glob(pattern)) for pattern in patterns)

    if source.is_dir() and looks_right(source):
        return source.resolve()
    wrong, advice = "is not the folder with", ""
    if not source.exists():
        wrong = "does not exist; give the folder with"
    elif not source.is_dir():
        wrong = "is a file; give the folder (unpack an archive first) with"
    elif not any(source.iterdir()):
        wrong = "is empty; give the folder with"
    else:
        source = source.resolve()
        below = [folder for level in ("*/", "*/*/") for folder in sorted(source.glob(level))]
        near = [other for other in (*list(source.parents)[:2], *below) if looks_right(other)]
        near = [folder for folder in near if not any(folder in other.parents for other in near)]
        advice = f"; give {' or '.join(map(str, near[:3]))}" if near else ""
    raise UserError(f"{source} {wrong} {expected}{advice}")
