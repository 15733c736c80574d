"""Score a folder of predictions against a folder of references, several cases at once."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.evaluation.case_scores import HD95OfEmpty, Row, Scoring, score_case
from nnunetv2_eccam.evaluation.labels import read_dataset_json
from nnunetv2_eccam.evaluation.score_files import SLICE_COLUMNS, VOLUME_COLUMNS, score_table
from nnunetv2_eccam.volumes import list_volumes

if TYPE_CHECKING:
    import pandas

Scored = tuple[list[Row], list[Row]] | UserError

NAMED = 5
"""How many files or cases a message names."""


class Pair(NamedTuple):
    """One case's two files."""

    case: str
    reference: Path
    prediction: Path


def score_folder(
    references: Path,
    predictions: Path,
    dataset_json: Path,
    *,
    nsd_tolerance: float = 2.0,
    slice_axis: int = 0,
    with_slices: bool = True,
    n_processes: int = 1,
    cases: Sequence[str] | None = None,
    chill: bool = False,
    hd95_of_empty: HD95OfEmpty = "undefined",
    compare_headers: bool = True,
    progress: bool = False,
) -> tuple[pandas.DataFrame, pandas.DataFrame | None]:
    """Score every case of a folder.

    Args:
        references: folder of true masks, CASE with the data set's file ending.
        predictions: folder of predicted masks, named the same; what else it holds is left alone.
        dataset_json: nnU-Net's, which says what is scored.
        nsd_tolerance: of the normalised surface Dice: mm, or pixels of images that have no mm.
        slice_axis: axis of nnU-Net's arrays, (z, y, x), as ``labels.slice_axis_of_plans`` reads it.
        with_slices: score slices too.
        n_processes: how many cases at once; 1 works in this process.
        cases: score these only: of a fold, whose references lie among those of the other folds, the cases that
            it validates.
        chill: score the cases that have a prediction; without, one that has none is an error.
        hd95_of_empty: of an empty prediction: "undefined", or the image's "diagonal".
        compare_headers: refuse a prediction whose spacing, origin or orientation are not its reference's.
        progress: show a bar on standard error.

    Returns:
        The table of volumes and that of slices (None without), as ``score_files`` describes them, in the order of
        the cases' names, the structures and the slices.

    Raises:
        UserError: files are missing or left over, damaged, hold undeclared labels or are on another grid; the
            message names them. Nothing is scored in part.
    """
    if n_processes < 1:
        raise UserError(f"{n_processes} is not a number of processes; give 1 or more")
    labels = read_dataset_json(dataset_json)
    scoring = Scoring(labels, nsd_tolerance, slice_axis, with_slices, hd95_of_empty, compare_headers)
    pairs = pair_files(references, predictions, labels.file_ending, cases=cases, chill=chill)
    from tqdm import tqdm

    results = _run(partial(_attempt, scoring=scoring), pairs, n_processes)
    scored = list(tqdm(results, total=len(pairs), desc="score", unit="case", disable=not progress))
    errors = [each for each in scored if isinstance(each, UserError)]
    if errors:
        more = f"\n(and {len(errors) - NAMED} more cases)" if len(errors) > NAMED else ""
        raise UserError("\n".join(map(str, errors[:NAMED])) + more)
    done = [each for each in scored if not isinstance(each, UserError)]
    volumes = score_table((row for rows, _ in done for row in rows), VOLUME_COLUMNS)
    return volumes, score_table((row for _, rows in done for row in rows), SLICE_COLUMNS) if with_slices else None


def cases_in(folder: Path, file_ending: str, what: str) -> dict[str, Path]:
    """List the cases of a folder of masks; hidden files (macOS's ``._`` companions) are none.

    Raises:
        UserError: the folder is missing or has no such file.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; it should hold the {what}")
    files = list_volumes(folder, file_ending).files
    if not files:
        raise UserError(f"{folder} has no file that ends in {file_ending} (file_ending of dataset.json): no {what}")
    return files


def pair_files(
    references: Path, predictions: Path, file_ending: str, *, cases: Sequence[str] | None = None, chill: bool = False
) -> list[Pair]:
    """Pair references and predictions by their names, with nothing dropped in silence.

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
        _complain(wanted - set(true), references, file_ending, "a case that is asked for has no reference")
        _complain(wanted - set(predicted), predictions, file_ending, "a case that is asked for has no prediction")
    else:
        advice = "predict the rest, name the cases to be scored with --cases, or give --chill for those that are there"
        if not chill:
            _complain(set(true) - set(predicted), predictions, file_ending, "a reference has no prediction", advice)
        _complain(set(predicted) - set(true), references, file_ending, "a prediction has no reference",
                  "name the cases to be scored with --cases")  # fmt: skip
        wanted = set(true) & set(predicted)
    return [Pair(case, true[case], predicted[case]) for case in sorted(wanted)]


def _complain(cases: Iterable[str], folder: Path, file_ending: str, what: str, advice: str = "") -> None:
    missing = sorted(cases)
    if missing:
        files = ", ".join(str(folder / (case + file_ending)) for case in missing[:NAMED])
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise UserError(f"{what}: {files}{more} missing" + (f"; {advice}" if advice else ""))


def _attempt(pair: Pair, scoring: Scoring) -> Scored:
    """Score one case; what is the user's to mend comes back as a value, so that all such cases are named."""
    try:
        return score_case(*pair, scoring)
    except UserError as error:
        return error
    except MemoryError:
        return UserError(f"{pair.case}: not enough memory; use fewer processes (-np 1)")


def _run(work: partial[Scored], pairs: Sequence[Pair], n_processes: int) -> Iterator[Scored]:
    workers = min(n_processes, len(pairs))
    if workers == 1:
        yield from map(work, pairs)
        return
    # spawn, as nnU-Net does: this process may have threads, which fork does not survive.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _one_core) as pool:
        try:
            yield from pool.map(work, pairs)
        except BrokenProcessPool:
            raise UserError(
                "a working process was killed, most likely for want of memory; use fewer processes (-np)"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _one_core() -> None:
    """Let a process use one core, as the user asked by their number."""
    import SimpleITK as sitk
    import torch

    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
