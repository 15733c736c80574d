"""The folder that a conversion makes: its name, whether it may be made, and how it grows and gets into its place."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import nnunet_folder, read_json, write_json

from .model import Case, CaseResult, Work

BASE_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
STATE = ".conversion"
"""Folder of an unfinished data set with a record of each finished case; not published."""


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
    target = nnunet_folder("nnUNet_raw") / f"Dataset{dataset_id:03d}_{name}"
    for variable in BASE_FOLDERS:
        base = Path(os.environ.get(variable) or "/nonexistent")
        for other in sorted(base.glob(f"Dataset{dataset_id:03d}_*")):
            if other.name != target.name:
                raise UserError(
                    f"the id {dataset_id} is taken by {other.name} in {variable} ({base}); choose another with --id"
                )
    return target


def stale_warnings(folder_name: str) -> list[str]:
    """Name what nnU-Net made from an earlier data set of this name."""
    made = [Path(os.environ.get(variable) or "/nonexistent", folder_name) for variable in BASE_FOLDERS[1:]]
    advice = "was made from an earlier data set of this name; delete it, then plan and preprocess again"
    return [f"{folder} {advice}" for folder in made if folder.is_dir()]


def put_back(target: Path) -> None:
    """Undo what an earlier run began that was killed just between two renames."""
    replaced = target.with_name(f".replaced_{target.name}")
    if replaced.is_dir() and not target.exists():
        os.replace(replaced, target)


@contextmanager
def growing(target: Path, key: dict[str, Any]) -> Iterator[Path]:
    """Give a hidden folder beside ``target`` for a data set to grow in; once it is complete, it is put in its place.

    It is held meanwhile, so that two runs cannot fill it at once. If the block raises, it stays: the next run finds
    what is in it, if it has the same ``key``.

    Raises:
        UserError: another run holds it.
    """
    folder = target.with_name(f".partial_{target.name}")
    state = folder / STATE
    state.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(state / "lock").acquire(timeout=0):
            key_file = state / "key.json"
            if key_file.exists() and read_json(key_file) != key:
                for old in [*folder.glob("[!.]*"), *state.glob("*.json")]:
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
            write_json(key_file, key)
            for subset in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
                (folder / subset).mkdir(exist_ok=True)
            yield folder
            _publish(folder, target)
    except Timeout:
        raise UserError(f"another conversion to {target.name} is running; wait for it to end") from None


def _publish(folder: Path, target: Path) -> None:
    for leftover in folder.rglob(".partial_*"):
        leftover.unlink()  # of a killed run
    shutil.rmtree(folder / STATE)
    for subset in ("imagesTs", "labelsTs"):
        if not any((folder / subset).iterdir()):
            (folder / subset).rmdir()
    replaced = target.with_name(f".replaced_{target.name}")
    if target.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        os.replace(target, replaced)
    os.replace(folder, target)
    shutil.rmtree(replaced, ignore_errors=True)


def remembered(work: Work, folder: Path, stage: str, kept: list[str], case: Case) -> CaseResult:
    """Do a case's work, unless an earlier run did, the case's files are there and its sources not newer.

    Args:
        work: gives what is remembered.
        folder: where the data set grows.
        stage: tells work from other work on the same case.
        kept: gets the case's name if there was nothing to do.
        case: whose.
    """
    record = folder / STATE / f"{stage}_{case.case}.json"
    if record.exists() and all(path.stat().st_mtime_ns <= record.stat().st_mtime_ns for path in case.sources):
        result: CaseResult = read_json(record)
        if all((folder / name).is_file() for name in result.get("files", {})):
            kept.append(case.case)
            return result
    result = work(case)
    write_json(record, result)
    return result
