"""The score files: a row for each case and structure, for each slice, or for each patient; written and read.

A value that is not defined is an empty field, and ``note`` says why. Numbers are written with all their digits,
so that what is read is what was computed.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.evaluation.case_scores import Counts
from nnunetv2_eccam.files import written_whole

_OVERLAP = ("tp", "fp", "fn", "dsc", "sensitivity", "precision")
VOLUME_COLUMNS = (
    "case", "label", *_OVERLAP, "hd95", "nsd", "nsd_tolerance", "unit", "reference_ml", "prediction_ml", "note",
)  # fmt: skip
SLICE_COLUMNS = ("case", "label", "slice", *_OVERLAP, "note")
PATIENT_COLUMNS = ("patient", "label", "cases", *_OVERLAP, "note")

TEXTS = ("case", "label", "patient", "unit", "note")
WHOLE_NUMBERS = ("slice", "cases", "tp", "fp", "fn")


def score_table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> pandas.DataFrame:
    """Make a table from rows: texts as objects, counts as whole numbers, the rest floats."""
    return _typed(pandas.DataFrame(list(rows), columns=list(columns)))


def _typed(table: pandas.DataFrame) -> pandas.DataFrame:
    kind = {**dict.fromkeys(TEXTS, "object"), **dict.fromkeys(WHOLE_NUMBERS, "int64")}
    return table.astype({name: kind.get(name, "float64") for name in table.columns})


def pool_patients(volumes: pandas.DataFrame, pattern: str) -> pandas.DataFrame:
    """Add up the voxels of all cases of a patient, such as its slices, and score the sums.

    Args:
        volumes: of ``VOLUME_COLUMNS``.
        pattern: as :func:`patients_of` takes it.

    Returns:
        a table of ``PATIENT_COLUMNS``. Surfaces are not pooled: distances across slices are not known.

    Raises:
        UserError: as :func:`patients_of`.
    """
    named = volumes.assign(patient=patients_of(volumes["case"].tolist(), pattern))
    rows = []
    for (patient, label), cases in named.groupby(["patient", "label"], sort=False):
        counts = Counts(*(int(cases[name].sum()) for name in Counts._fields))
        rows.append({"patient": patient, "label": label, "cases": len(cases), **counts.row()})
    return score_table(rows, PATIENT_COLUMNS)


def patients_of(cases: Sequence[str], pattern: str) -> list[str]:
    r"""Give the patient of each case.

    Args:
        cases: names, such as ``pancreas_012_087``.
        pattern: a regular expression that a name begins with. Its group is the patient, or all that it matches where
            it has none; of several groups, the one that matched: ``pancreas_(\d+)_\d+|(la_\d+)``.

    Raises:
        UserError: it is no regular expression, or does not match a case.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"the pattern of patients, {pattern!r}, is no regular expression: {error}") from None
    patients = []
    for case in cases:
        match = compiled.match(case)
        if match is None or not match[match.lastindex or 0]:
            raise UserError(f"the pattern of patients, {pattern!r}, does not match the case {case}")
        patients.append(str(match[match.lastindex or 0]))
    return patients


def write_scores(scores: pandas.DataFrame, target: Path) -> None:
    """Write a table of scores as CSV, whole or not at all; its folder is made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(target) as partial:
        scores.to_csv(partial, index=False, lineterminator="\n", encoding="utf-8")


def read_scores(source: Path, columns: Sequence[str]) -> pandas.DataFrame:
    """Read a table of scores.

    Args:
        source: the file.
        columns: ``VOLUME_COLUMNS``, ``SLICE_COLUMNS`` or ``PATIENT_COLUMNS``. The rows of slices are those that hold
            the structure in the reference or in the prediction; means per slice are over ``tp + fn > 0``.

    Returns:
        these columns: texts are "" where there is nothing to say, ``tp``, ``fp`` and ``fn`` whole numbers, the rest
        floats with NaN where the value is not defined.

    Raises:
        UserError: the file is missing, or not such a table.
    """
    try:
        # All as text first: of itself pandas takes a case named NA for a missing value, and 007 for seven.
        table = pandas.read_csv(source, dtype=object, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"{source} does not exist; nnUNetv2_eccam evaluate writes such files") from None
    except (OSError, UnicodeDecodeError, pandas.errors.ParserError, pandas.errors.EmptyDataError) as error:
        raise UserError(f"{source} cannot be read as a table of scores: {error}") from error
    if "hd95_mm" in table:  # version 0.1 called all distances mm
        table = table.rename(columns={"hd95_mm": "hd95", "nsd_tolerance_mm": "nsd_tolerance"}).assign(unit="mm")
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise UserError(f"{source} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}")
    try:
        return _typed(table[list(columns)].replace("", math.nan).fillna(dict.fromkeys(TEXTS, "")))
    except ValueError as error:
        raise UserError(f"{source} has something that is not a number where one should be: {error}") from None
