"""The folder that a conversion makes: its name, whether it may be made, and putting it in its place."""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import nnunet_folder, read_json, write_json

from .model import Case, CaseResult

BASE_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
STATE = ".conversion"
"""Folder of a staging folder's records; not published."""


def check_name(name: str, what: str) -> None:
    """Check that a name can be part of a file's name and cannot lead out of its folder.

    Raises:
        UserError: it has other characters than letters, digits, ``_``, ``-`` and ``.``.
    """
    if not SAFE_NAME.fullmatch(name):
        raise UserError(
            f"{what} {name!r} is not allowed: use letters, digits, '_', '-' and '.', beginning with a letter or digit"
        )


def target_folder(dataset_id: int, name: str) -> Path:
    """Give the data set's folder in nnUNet_raw, once its id is known to be free.

    Raises:
        UserError: the id or name is not allowed, or the id is taken by a data set of another name.
    """
    check_name(name, "the name")
    if not 1 <= dataset_id <= 999:
        raise UserError(f"the id {dataset_id} is not allowed: nnU-Net's ids are 1 to 999")
    folder_name = f"Dataset{dataset_id:03d}_{name}"
    raw = nnunet_folder("nnUNet_raw")
    for variable in BASE_FOLDERS:
        base = Path(os.environ.get(variable) or "/nonexistent")
        for other in sorted(base.glob(f"Dataset{dataset_id:03d}_*")) if base.is_dir() else ():
            if other.name != folder_name:
                raise UserError(
                    f"the id {dataset_id} is taken by {other.name} in {variable} ({base}); choose another with --id"
                )
    return raw / folder_name


def stale_warnings(folder_name: str) -> list[str]:
    """Name what nnU-Net made from an earlier data set of this name."""
    bases = [Path(value) for variable in BASE_FOLDERS[1:] if (value := os.environ.get(variable))]
    return [
        f"{base / folder_name} was made from an earlier data set of this name; delete it, then plan and preprocess "
        f"again"
        for base in bases
        if (base / folder_name).is_dir()
    ]


class Staging:
    """A hidden folder beside the target in which a data set grows until it is complete."""

    resumed = 0
    """How many cases an earlier run had finished in the stage that was asked for last."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.folder = target.with_name(f".partial_{target.name}")
        self._replaced = target.with_name(f".replaced_{target.name}")
        if self._replaced.is_dir() and not target.exists():  # an earlier run was killed just between two renames
            os.replace(self._replaced, target)

    @contextmanager
    def opened(self, key: dict[str, Any]) -> Iterator[None]:
        """Prepare the folder and hold it, so that two runs cannot fill it at once.

        What an interrupted run left is kept if it was made for the same ``key``.

        Raises:
            UserError: another run holds it.
        """
        from filelock import FileLock, Timeout

        state = self.folder / STATE
        state.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(state / "lock").acquire(timeout=0):
                key_file = state / "key.json"
                if key_file.exists() and read_json(key_file) != key:
                    for entry in self.folder.iterdir():
                        if entry.name != STATE:
                            shutil.rmtree(entry)
                    for record in state.glob("*.json"):
                        record.unlink()
                write_json(key_file, key)
                for subset in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
                    (self.folder / subset).mkdir(exist_ok=True)
                yield
        except Timeout:
            raise UserError(f"another conversion to {self.target.name} is running; wait for it to end") from None

    def finished(self, cases: Sequence[Case], stage: str) -> dict[str, CaseResult]:
        """Give what an earlier run recorded of cases whose files are there and whose sources are not newer."""
        results = {}
        for case in cases:
            record = self._record_file(case, stage)
            if record.exists() and all(path.stat().st_mtime_ns <= record.stat().st_mtime_ns for path in case.sources):
                result = read_json(record)
                if all((self.folder / name).is_file() for name in result.get("files", {})):
                    results[case.case] = result
        self.resumed = len(results)
        return results

    def record(self, case: Case, stage: str, result: CaseResult) -> None:
        """Remember that a case is finished."""
        write_json(self._record_file(case, stage), result)

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
