"""What has been done in a work folder, so that a demonstration that was stopped goes on where it was."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json, write_json

JOURNAL = "demo_state.json"
"""The journal's file; it also marks a folder as one that the demonstration may empty."""

OWN = ("download", "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "predictions", "logs",
       "results.csv", "demo.png")
"""All that the demonstration writes into its work folder beside the journal."""


class Journal:
    """The steps that were begun and finished in a folder, each with the options it was given.

    It is gone through in the order of the steps, each of which is either skipped or begun. To begin a
    step forgets the later ones, since they worked on what it is about to replace; so a step counts as
    done only if everything before it is, with the same options.

    Args:
        folder: the work folder, which exists.

    Raises:
        UserError: the folder's journal cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / JOURNAL
        self._steps: list[dict[str, Any]] = []
        self._position = 0
        if self._file.exists():
            content = read_json(self._file)
            if not isinstance(content, dict) or not isinstance(content.get("steps"), list):
                raise UserError(f"{self._file} is damaged; give another --work-dir, or remove this one")
            self._steps = content["steps"]

    def skip(self, name: str, options: Sequence[str]) -> bool:
        """Go past the next step if it was finished with these options; say whether it was."""
        done = self._is_next(name, options) and self._steps[self._position]["seconds"] is not None
        self._position += done
        return done

    def begin(self, name: str, options: Sequence[str]) -> bool:
        """Note that the next step begins; say whether it was begun before, with these options."""
        before = self._is_next(name, options)
        self._steps[self._position:] = [{"name": name, "options": list(options), "seconds": None}]
        self._write()
        return before

    def finish(self, seconds: float) -> None:
        """Note that the step that was begun is done, and how long it took."""
        self._steps[self._position]["seconds"] = round(seconds, 1)
        self._position += 1
        self._write()

    def seconds(self) -> dict[str, float]:
        """Give the seconds that each finished step took, in their order."""
        return {step["name"]: step["seconds"] for step in self._steps if step["seconds"] is not None}

    def _is_next(self, name: str, options: Sequence[str]) -> bool:
        step = self._steps[self._position] if self._position < len(self._steps) else {}
        return bool(step) and (step["name"], step["options"]) == (name, list(options))

    def _write(self) -> None:
        write_json(self._file, {"steps": self._steps})


def open_work_folder(folder: Path, restart: bool) -> Journal:
    """Create a work folder, or open one that an earlier run has left.

    Args:
        folder: the folder.
        restart: remove what the earlier run has left.

    Raises:
        UserError: it is not a folder, cannot be written to, or holds things of somebody else's.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / JOURNAL).exists():
            raise UserError(
                f"{folder} is not empty and not a work folder of this command; give another --work-dir"
            )
        if restart:
            remove(*[folder / name for name in (*OWN, JOURNAL)])
        if not (folder / JOURNAL).exists():
            write_json(folder / JOURNAL, {"steps": []})
        (folder / "logs").mkdir(exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{folder} is not a folder; give another --work-dir") from None
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written to: {error.strerror}; give another --work-dir"
        ) from error
    return Journal(folder)


def remove(*paths: Path) -> None:
    """Remove files and folders that may or may not be there."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
