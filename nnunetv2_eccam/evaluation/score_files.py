"""The score files: one row for each case and structure, or for each slice; how they are written and read.

A value that is not defined is an empty field, and ``note`` says why. Numbers are written with all their digits,
so that what is read is what was computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import written_whole

if TYPE_CHECKING:
    import pandas

VOLUME_COLUMNS = (
    "case", "label", "tp", "fp", "fn", "dsc", "sensitivity", "precision", "hd95_mm", "nsd", "nsd_tolerance_mm",
    "reference_ml", "prediction_ml", "note",
)  # fmt: skip
SLICE_COLUMNS = ("case", "label", "slice", "tp", "fp", "fn", "dsc", "sensitivity", "precision", "note")

TEXTS = ("case", "label", "note")
WHOLE_NUMBERS = ("slice", "tp", "fp", "fn")


def volume_table(rows: Iterable[Mapping[str, Any]]) -> pandas.DataFrame:
    """Make the table of volumes from rows with the fields ``VOLUME_COLUMNS``."""
    return _typed(rows, VOLUME_COLUMNS)


def slice_table(rows: Iterable[Mapping[str, Any]]) -> pandas.DataFrame:
    """Make the table of slices from rows with the fields ``SLICE_COLUMNS``."""
    return _typed(rows, SLICE_COLUMNS)


def write_volume_scores(scores: pandas.DataFrame, target: Path) -> None:
    """Write ``*_volume.csv``, whole or not at all.

    Args:
        scores: with the columns ``VOLUME_COLUMNS``, in any order.
        target: the file; its folder is made.

    Raises:
        UserError: the file cannot be written.
    """
    _write(scores, target, VOLUME_COLUMNS)


def write_slice_scores(scores: pandas.DataFrame, target: Path) -> None:
    """Write ``*_slice.csv``, whole or not at all; as ``write_volume_scores``."""
    _write(scores, target, SLICE_COLUMNS)


def read_volume_scores(source: Path) -> pandas.DataFrame:
    """Read ``*_volume.csv``.

    Returns:
        Columns ``VOLUME_COLUMNS``: ``case``, ``label`` and ``note`` are text ("" where there is nothing to say),
        ``tp``, ``fp`` and ``fn`` whole numbers, the rest floats with NaN where the value is not defined.

    Raises:
        UserError: the file is missing, or not such a table.
    """
    return _read(source, VOLUME_COLUMNS)


def read_slice_scores(source: Path) -> pandas.DataFrame:
    """Read ``*_slice.csv``; as ``read_volume_scores``, with ``SLICE_COLUMNS``.

    The rows are the slices that hold the structure in the reference or in the prediction. Means per slice are
    over those of the reference: ``tp + fn > 0``.

    Raises:
        UserError: the file is missing, or not such a table.
    """
    return _read(source, SLICE_COLUMNS)


def _typed(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> pandas.DataFrame:
    import pandas

    table = pandas.DataFrame(list(rows), columns=list(columns))
    kinds = {name: "object" if name in TEXTS else "int64" if name in WHOLE_NUMBERS else "float64" for name in columns}
    return table.astype(kinds)


def _write(scores: pandas.DataFrame, target: Path, columns: Sequence[str]) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(target) as partial:
            scores.to_csv(partial, columns=list(columns), index=False, lineterminator="\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror or error}") from error


def _read(source: Path, columns: Sequence[str]) -> pandas.DataFrame:
    import pandas

    try:
        # All as text first: of itself pandas takes a case named NA for a missing value, and 007 for seven.
        table = pandas.read_csv(source, dtype=str, keep_default_na=False, encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{source} does not exist; nnUNetv2_eccam evaluate writes such files") from None
    except (OSError, UnicodeDecodeError, pandas.errors.ParserError, pandas.errors.EmptyDataError) as error:
        raise UserError(f"{source} cannot be read as a table of scores: {error}") from error
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise UserError(f"{source} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}")
    for name in columns:
        if name in TEXTS:
            table[name] = table[name].astype("object")
            continue
        try:
            kind = int if name in WHOLE_NUMBERS else float
            table[name] = [kind(text) if text or kind is int else float("nan") for text in table[name]]
        except ValueError as error:
            raise UserError(f"{source} has a {name} that is not a number: {error}") from None
    return _typed(table[list(columns)].to_dict("records"), columns)
