"""The folder that a conversion makes: its name, whether it may be made, and putting it in its place."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import nnunet_folder, read_json, write_json

from .model import Case, CaseResult, Options

BASE_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
STATE = ".conversion"
"""Folder of a staging folder's records; not published."""


def check_name(name: str, what: str) -> str:
    """Check that a name can be part of a file's name and cannot lead out of its folder.

    Raises:
        UserError: it has other characters than letters, digits, ``_``, ``-`` and ``.``.
    """
    if not SAFE_NAME.fullmatch(name):
        raise UserError(
            f"{what} {name!r} is not allowed: use letters, digits, '_', '-' and '.', beginning with a letter or digit"
        )
    return name


def target_folder(options: Options) -> Path:
    """Give the data set's folder in nnUNet_raw, once its id is known to be free.

    Raises:
        UserError: the id or name is not allowed, or the id is taken by a data set of another name.
    """
    check_name(options.name, "the name")
    if not 1 <= options.dataset_id <= 999:
        raise UserError(f"the id {options.dataset_id} is not allowed: nnU-Net's ids are 1 to 999")
    raw = nnunet_folder("nnUNet_raw")
    for variable in BASE_FOLDERS:
        base = Path(os.environ.get(variable) or "/nonexistent")
        taken = sorted(base.glob(f"Dataset{options.dataset_id:03d}_*")) if base.is_dir() else []
        for other in taken:
            if other.name != options.folder_name:
                raise UserError(
                    f"the id {options.dataset_id} is taken by {other.name} in {variable} ({base}); "
                    f"choose another with --id"
                )
    return raw / options.folder_name


def stale_results(options: Options) -> list[Path]:
    """Give folders that nnU-Net made from an earlier data set of this name."""
    bases = [Path(value) for variable in BASE_FOLDERS[1:] if (value := os.environ.get(variable))]
    return [base / options.folder_name for base in bases if (base / options.folder_name).is_dir()]


class Staging:
    """A hidden folder beside the target in which a data set grows until it is complete.

    Attributes:
        target: the data set's folder in nnUNet_raw.
        folder: the staging folder.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.folder = target.with_name(f".partial_{target.name}")
        self._replaced = target.with_name(f".replaced_{target.name}")

    @contextmanager
    def opened(self, key: dict[str, Any]) -> Iterator[None]:
        """Prepare the folder and hold it, so that two runs cannot fill it at once.

        What an interrupted run left is kept if it was made for the same ``key``.

        Raises:
            UserError: another run holds it, or it cannot be made.
        """
        state = self.folder / STATE
        try:
            state.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot write to {self.target.parent}: {error.strerror or error}; check its "
                f"permissions, or set nnUNet_raw to a folder that can be written to"
            ) from error
        with _locked(state / "lock") as locked:
            if not locked:
                raise UserError(f"another conversion to {self.target.name} is running; wait for it to end")
            self._keep_if_made_for(key)
            for subset in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
                (self.folder / subset).mkdir(exist_ok=True)
            yield

    def _keep_if_made_for(self, key: dict[str, Any]) -> None:
        key_file = self.folder / STATE / "key.json"
        if key_file.exists() and read_json(key_file) != key:
            for entry in self.folder.iterdir():
                if entry.name != STATE:
                    shutil.rmtree(entry)
            for record in (self.folder / STATE).glob("*.json"):
                record.unlink()
        write_json(key_file, key)

    def finished(self, case: Case, stage: str) -> CaseResult | None:
        """Give what an earlier run recorded of a case, if its sources have not changed since."""
        record_file = self._record_file(case, stage)
        if not record_file.exists():
            return None
        record = read_json(record_file)
        published = record["result"].get("files", {})
        if record["stamp"] != _stamp(case) or not all((self.folder / name).is_file() for name in published):
            return None
        result: CaseResult = record["result"]
        return result

    def record(self, case: Case, stage: str, result: CaseResult) -> None:
        """Remember that a case is finished."""
        write_json(self._record_file(case, stage), {"stamp": _stamp(case), "result": result})

    def _record_file(self, case: Case, stage: str) -> Path:
        return self.folder / STATE / f"{stage}_{case.case}.json"

    def publish(self) -> None:
        """Put the complete data set in the target's place."""
        for leftover in self.folder.rglob(".partial_*"):
            leftover.unlink()  # of a killed run
        shutil.rmtree(self.folder / STATE)
        for folder in ("imagesTs", "labelsTs"):
            if not any((self.folder / folder).iterdir()):
                (self.folder / folder).rmdir()
        if self.target.exists():
            shutil.rmtree(self._replaced, ignore_errors=True)
            os.replace(self.target, self._replaced)
        os.replace(self.folder, self.target)
        shutil.rmtree(self._replaced, ignore_errors=True)

    def recover(self) -> None:
        """Bring the old data set back if an earlier run was killed just between two renames."""
        if self._replaced.is_dir() and not self.target.exists():
            os.replace(self._replaced, self.target)


def _stamp(case: Case) -> list[list[Any]]:
    """Name, size and time of a case's sources: enough to notice a change between two runs."""
    return [[str(path), (stat := path.stat()).st_size, stat.st_mtime_ns] for path in case.sources]


@contextmanager
def _locked(lock_file: Path) -> Iterator[bool]:
    """Hold a lock that the system lets go of when the process ends, however it ends."""
    try:
        import fcntl
    except ImportError:  # Windows; there two runs at once are the user's own business
        yield True
        return
    with lock_file.open("w") as lock:
        try:
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
