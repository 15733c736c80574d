"""Score a folder of predictions against a folder of references, several cases at once."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import pandas
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm import tqdm

from nnunetv2_eccam.errors import UserError, words_of
from nnunetv2_eccam.evaluation.case_scores import Row, Scoring, score_case
from nnunetv2_eccam.evaluation.score_files import SLICE_COLUMNS, VOLUME_COLUMNS, score_table
from nnunetv2_eccam.volumes import list_volumes

Pair = tuple[str, Path, Path]
"""A case, its reference and its prediction."""

NAMED = 5
"""How many files or cases a message names."""


def score_folder(
    references: Path, predictions: Path, scoring: Scoring, *, cases: Sequence[str] | None = None, chill: bool = False,
    n_processes: int = 1, progress: bool = False,
) -> tuple[pandas.DataFrame, pandas.DataFrame]:  # fmt: skip
    """Score every case of a folder.

    Args:
        references: folder of true masks, CASE with the data set's file ending.
        predictions: folder of predicted masks, named the same; what else it holds is left alone.
        scoring: what is scored, and how.
        cases: score these only: of a fold, whose references lie among those of the other folds, the cases that
            it validates.
        chill: score the cases that have a prediction; without, one that has none is an error.
        n_processes: how many cases at once; 1 works in this process.
        progress: show a bar on standard error.

    Returns:
        The table of volumes and that of slices, as ``score_files`` describes them, in the order of the cases' names,
        the structures and the slices.

    Raises:
        UserError: files are missing or left over, damaged, hold undeclared labels or are on another grid; the
            message names them. Nothing is scored in part.
    """
    if n_processes < 1:
        raise UserError(f"{n_processes} is not a number of processes; give 1 or more (-np)")
    pairs = pair_files(references, predictions, scoring.labels.file_ending, cases, chill)
    parallel = Parallel(min(n_processes, len(pairs)), return_as="generator", batch_size=1)
    results = parallel(delayed(_attempt)(pair, scoring) for pair in pairs)
    try:
        scored = list(tqdm(results, total=len(pairs), desc="score", unit="case", disable=not progress))
    except TerminatedWorkerError:
        raise UserError(
            "a working process was killed, most likely for want of memory; use fewer processes (-np)"
        ) from None
    errors = [str(each) for each in scored if isinstance(each, UserError)]
    if errors:
        more = [f"(and {len(errors) - NAMED} more cases)"] if len(errors) > NAMED else []
        raise UserError("\n".join([*errors[:NAMED], *more]))
    volumes, slices = zip(*(each for each in scored if not isinstance(each, UserError)), strict=True)
    return score_table(chain(*volumes), VOLUME_COLUMNS), score_table(chain(*slices), SLICE_COLUMNS)


def cases_in(folder: Path, file_ending: str, what: str) -> dict[str, Path]:
    """List the cases of a folder of masks; hidden files (macOS's ``._`` companions) are none.

    Raises:
        UserError: the folder is missing or has no such file.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; it should hold the {what}")
    files = list_volumes(folder, file_ending)
    if not files:
        raise UserError(f"{folder} has no file that ends in {file_ending} (file_ending of dataset.json): no {what}")
    return files


def pair_files(
    references: Path, predictions: Path, file_ending: str, cases: Sequence[str] | None = None, chill: bool = False
) -> list[Pair]:
    """Pair references and predictions by their names, in order, with nothing dropped in silence.

    Args:
        references: folder of true masks.
        predictions: folder of predicted masks.
        file_ending: of both.
        cases: score these only, whatever else the folders hold.
        chill: score the cases that have a prediction, as nnU-Net's ``--chill``.

    Raises:
        UserError: a reference has no prediction (unless ``chill``) or a prediction no reference; with ``cases``,
            one of these lacks a file.
    """
    true = cases_in(references, file_ending, "references")
    predicted = cases_in(predictions, file_ending, "predictions")
    if cases is not None and not cases:
        raise UserError("no cases are asked for; name at least one")
    wanted = set(true) | set(predicted) if cases is None else set(cases)
    without = {"reference": (references, wanted - set(true)), "prediction": (predictions, wanted - set(predicted))}
    if chill and cases is None:
        wanted -= without.pop("prediction")[1]
    for what, (folder, missing) in without.items():
        if missing:
            files = ", ".join(str(folder / (case + file_ending)) for case in sorted(missing)[:NAMED])
            more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
            advice = "" if cases else "; name the cases to be scored with --cases"
            advice += ", or give --chill for those that are there" if advice and what == "prediction" else ""
            count = "1 case" if len(missing) == 1 else f"{len(missing)} cases"
            raise UserError(f"{count} without {what}: {files}{more} missing{advice}")
    return [(case, true[case], predicted[case]) for case in sorted(wanted)]


def _attempt(pair: Pair, scoring: Scoring) -> tuple[list[Row], list[Row]] | UserError:
    """Score one case; what is the user's to mend comes back as a value, so that all such cases are named."""
    try:
        return score_case(*pair, scoring)
    except (UserError, OSError) as error:
        return UserError(words_of(error))
    except MemoryError:
        return UserError(f"{pair[0]}: not enough memory; use fewer processes (-np 1)")
