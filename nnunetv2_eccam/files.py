"""Files are written whole or not at all, and nnU-Net's folders are asked for by name."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunetv2_eccam.errors import UserError


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target`` and rename it to ``target`` when the block succeeds.

    The temporary name keeps the target's ending, since writers choose the format by it. If the block
    raises, the temporary file is removed and ``target`` is as it was. An error of the system names ``target``.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=".partial_", suffix="_" + target.name, dir=target.parent)
        os.close(handle)
        partial = Path(name)
        try:
            yield partial
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(partial, 0o666 & ~umask)  # mkstemp gives 0600; the user's umask decides instead
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        error.filename = str(target)  # in place of none, where the disk is full, or of the temporary file
        raise


def write_json(target: Path, content: Any) -> None:
    """Write ``content`` as indented JSON, whole or not at all, keeping the order of its keys."""
    with written_whole(target) as partial:
        partial.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def read_json(source: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: it is missing or not JSON.
    """
    try:
        return json.loads(source.read_bytes())  # which finds out UTF-8, 16 or 32, with or without a byte order mark
    except FileNotFoundError:
        raise UserError(f"{source} does not exist") from None
    except ValueError as error:
        raise UserError(f"{source} is not valid JSON in UTF-8: {error}") from error


def nnunet_folder(variable: str) -> Path:
    """Give one of nnU-Net's three base folders, named by its environment variable.

    Args:
        variable: ``nnUNet_raw``, ``nnUNet_preprocessed`` or ``nnUNet_results``.

    Raises:
        UserError: the variable is not set, or what it names is not a folder.
    """
    value = os.environ.get(variable)
    if not value:
        raise UserError(
            f"the environment variable {variable} is not set; nnU-Net needs it: export {variable}=/path/to/a/folder"
        )
    folder = Path(value)
    if not folder.is_dir():
        raise UserError(f"{variable} is {value}, which is not a folder; create it: mkdir -p {value}")
    return folder
