"""Score a folder of predictions against a folder of references, several cases at once."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.evaluation.case_scores import HD95OfEmpty, Row, Scoring, score_case
from nnunetv2_eccam.evaluation.masks import choose_reader
from nnunetv2_eccam.evaluation.pairs import Pair, pair_files
from nnunetv2_eccam.evaluation.score_files import slice_table, volume_table
from nnunetv2_eccam.evaluation.structures import read_structures
from nnunetv2_eccam.evaluation.surfaces import require_monai

if TYPE_CHECKING:
    import pandas

Scored = tuple[list[Row], list[Row]] | UserError


def score_folder(
    references: Path,
    predictions: Path,
    dataset_json: Path,
    *,
    nsd_tolerance_mm: float = 2.0,
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
        nsd_tolerance_mm: of the normalised surface Dice.
        slice_axis: axis of nnU-Net's arrays, (z, y, x), as ``slice_axis.slice_axis_of_plans`` reads it.
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
        UserError: files are missing or left over, cannot be read, hold undeclared labels or are on another grid;
            the message names them. Nothing is scored in part. Or MONAI is not installed.
    """
    if n_processes < 1:
        raise UserError(f"{n_processes} is not a number of processes; give 1 or more")
    require_monai()
    structures = read_structures(dataset_json)
    scoring = Scoring(structures, nsd_tolerance_mm, slice_axis, with_slices, hd95_of_empty, compare_headers)
    pairs = pair_files(references, predictions, structures.file_ending, cases=cases, chill=chill)
    work = partial(_attempt, reader=choose_reader(structures, pairs[0].reference), scoring=scoring)
    scored = list(_with_bar(_run(work, pairs, n_processes), len(pairs), progress))
    errors = [each for each in scored if isinstance(each, UserError)]
    if errors:
        more = f"\n(and {len(errors) - 5} more cases)" if len(errors) > 5 else ""
        raise UserError("\n".join(map(str, errors[:5])) + more)
    done = [each for each in scored if not isinstance(each, UserError)]
    volumes = volume_table(row for rows, _ in done for row in rows)
    return volumes, slice_table(row for _, rows in done for row in rows) if with_slices else None


def _attempt(pair: Pair, reader: Any, scoring: Scoring) -> Scored:
    """Score one case; what is the user's to mend comes back as a value, so that all such cases are named."""
    try:
        return score_case(*pair, reader, scoring)
    except UserError as error:
        return error
    except MemoryError:
        return UserError(f"{pair.case}: not enough memory; use fewer processes (-np 1)")


def _run(work: Any, pairs: Sequence[Pair], n_processes: int) -> Iterator[Scored]:
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


def _with_bar(results: Iterator[Scored], n_cases: int, progress: bool) -> Iterator[Scored]:
    from tqdm import tqdm

    yield from tqdm(results, total=n_cases, desc="score", unit="case", disable=not progress)
