"""Which reference belongs to which prediction, with nothing dropped in silence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from nnunetv2_eccam.errors import UserError


class Pair(NamedTuple):
    """One case's two files."""

    case: str
    reference: Path
    prediction: Path


def cases_in(folder: Path, file_ending: str, what: str) -> set[str]:
    """List the cases of a folder of masks; hidden files (macOS's ``._`` companions) are none.

    Raises:
        UserError: the folder is missing or has no such file.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; it should hold the {what}")
    names = {path.name for path in folder.iterdir() if path.name.endswith(file_ending) and path.is_file()}
    cases = {name.removesuffix(file_ending) for name in names if not name.startswith(".")}
    if not cases:
        raise UserError(f"{folder} has no file that ends in {file_ending} (file_ending of dataset.json): no {what}")
    return cases


def pair_files(
    references: Path, predictions: Path, file_ending: str, *, cases: Sequence[str] | None = None, chill: bool = False
) -> list[Pair]:
    """Pair references and predictions by their names.

    Args:
        references: folder of true masks.
        predictions: folder of predicted masks.
        file_ending: of both.
        cases: score these only, whatever else the folders hold.
        chill: score the cases that have a prediction, as nnU-Net's ``--chill``.

    Returns:
        The pairs in the order of their names.

    Raises:
        UserError: a reference has no prediction (unless ``chill``) or a prediction no reference; with ``cases``,
            one of these lacks a file.
    """
    true = cases_in(references, file_ending, "references")
    predicted = cases_in(predictions, file_ending, "predictions")
    if cases is not None:
        if not cases:
            raise UserError("no cases are asked for; name at least one")
        wanted = set(cases)
        _complain(wanted - true, references, file_ending, "a case that is asked for has no reference")
        _complain(wanted - predicted, predictions, file_ending, "a case that is asked for has no prediction")
    else:
        advice = "predict the rest, name the cases to be scored with --cases, or give --chill for those that are there"
        if not chill:
            _complain(true - predicted, predictions, file_ending, "a reference has no prediction", advice)
        _complain(predicted - true, references, file_ending, "a prediction has no reference",
                  "name the cases to be scored with --cases")  # fmt: skip
        wanted = true & predicted
    return [Pair(case, references / (case + file_ending), predictions / (case + file_ending))
            for case in sorted(wanted)]  # fmt: skip


def _complain(cases: Iterable[str], folder: Path, file_ending: str, what: str, advice: str = "") -> None:
    missing = sorted(cases)
    if missing:
        files = ", ".join(str(folder / (case + file_ending)) for case in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise UserError(f"{what}: {files}{more} missing" + (f"; {advice}" if advice else ""))
