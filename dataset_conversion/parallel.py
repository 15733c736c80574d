"""Many cases at once, in threads: reading, checking and compressing all let other threads run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from nnunetv2_eccam.errors import UserError

from .model import Case, Problem

Work = Callable[[Case], dict[str, Any]]
Result = dict[str, Any] | UserError


def run_cases(
    work: Work, cases: Sequence[Case], processes: int | None, title: str, progress: bool
) -> Iterator[tuple[Case, Result]]:
    """Do ``work`` for each case and yield the results as they come, with a progress bar.

    When the consumer stops early, what is queued is dropped and what runs is waited for, so that nothing is written
    afterwards.

    Args:
        work: may raise UserError, which is yielded as the case's result.
        cases: in the order in which they are started.
        processes: cases at once; None for eight, or the number of cores if less.
        title: shown with the bar.
        progress: show the bar, on standard error.
    """
    import SimpleITK as sitk
    from tqdm import tqdm

    workers = max(1, min(processes or min(8, os.cpu_count() or 1), len(cases)))
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # one core for each case, as the user asked
    executor = ThreadPoolExecutor(workers)
    try:
        running = {executor.submit(attempted, work, case): case for case in cases}
        for future in tqdm(as_completed(running), title, len(cases), unit="case", disable=not progress):
            yield running[future], future.result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def attempted(work: Work, case: Case) -> Result:
    """Do one case's work; what is the user's to mend comes back as a value, so that others go on."""
    try:
        return work(case)
    except UserError as error:
        text = str(error)
        return UserError(str(Problem(case.case, text if case.case in text else f"{case.case}: {text}")))
    except MemoryError:
        return UserError(f"{case.case}: not enough memory; convert fewer cases at once (-np 1)")
    except OSError as error:
        place = error.filename or error.filename2 or "the target folder"
        return UserError(
            f"{case.case}: {error.strerror or error} ({place}); "
            f"make room or change the permissions, and run the same command again to go on"
        )
