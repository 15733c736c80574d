"""Many cases at once, in processes of their own, or in threads where those would not pay."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_sentinel
from typing import Any

from nnunetv2_eccam.errors import UserError

from .model import Case

Work = Callable[[Case], dict[str, Any]]


WORTH_A_PROCESS = 50_000_000
"""Bytes of sources for each process below which threads are used. Starting a process takes as long as reading
that much, and inflating, hashing and numpy's sums let other threads run."""


def default_processes() -> int:
    """Eight, or the number of cores if that is less."""
    return min(8, os.cpu_count() or 1)


def run_cases(
    work: Work, cases: Sequence[Case], processes: int, title: str, progress: bool
) -> Iterator[tuple[Case, dict[str, Any] | UserError]]:
    """Do ``work`` for each case and yield the results as they come, with a progress bar.

    No more cases are in memory than there are processes, and no more than twice as many are queued. When
    the consumer stops early, what is queued is dropped and what runs is waited for, so that no process
    writes on afterwards.

    Args:
        work: picklable; may raise UserError, which is yielded as the case's result.
        cases: in the order in which they are started.
        processes: 1 works in this process, and so do that many threads where there is little to read.
        title: shown with the bar.
        progress: show the bar, on standard error.

    Raises:
        UserError: a process was killed.
    """
    from tqdm import tqdm

    workers = min(processes, len(cases))
    if workers <= 1:
        results: Iterator[tuple[Case, dict[str, Any] | UserError]] = ((case, attempted(work, case)) for case in cases)
    elif _bytes_of(cases) < WORTH_A_PROCESS * workers:
        results = _in_pool(ThreadPoolExecutor(workers), work, cases, workers)
    else:
        # spawn: the parent may have threads (torch, tqdm), which fork does not survive.
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _prepare_process)
        results = _in_pool(pool, work, cases, workers)
    with tqdm(total=len(cases), desc=title, unit="case", disable=not progress) as bar:
        for result in results:
            bar.update()
            yield result


def attempted(work: Work, case: Case) -> dict[str, Any] | UserError:
    """Do one case's work; what is the user's to mend comes back as a value, so that others go on."""
    try:
        return work(case)
    except UserError as error:
        return UserError(f"{case.case}: {error}" if case.case not in str(error) else str(error))
    except MemoryError:
        return UserError(f"{case.case}: not enough memory; use fewer processes (-np 1)")
    except OSError as error:
        place = error.filename or error.filename2 or "the target folder"
        return UserError(
            f"{case.case}: {error.strerror or error} ({place}); "
            f"make room or change the permissions, and run the same command again to go on"
        )


def _bytes_of(cases: Sequence[Case]) -> int:
    """Sum the sizes of all sources; one that cannot be looked at is for the case's own check to name."""
    total = 0
    for case in cases:
        for path in case.sources:
            with contextlib.suppress(OSError):
                total += path.stat().st_size
    return total


def _in_pool(
    executor: Executor, work: Work, cases: Sequence[Case], workers: int
) -> Iterator[tuple[Case, dict[str, Any] | UserError]]:
    waiting = iter(cases)
    running: dict[Future[dict[str, Any] | UserError], Case] = {}
    try:
        while True:
            for case in waiting:
                running[executor.submit(attempted, work, case)] = case
                if len(running) >= 2 * workers:
                    break
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    except BrokenProcessPool:
        raise UserError(
            "a working process was killed, most likely for want of memory; run the same command again with "
            "fewer processes (-np): finished cases are not done again"
        ) from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _prepare_process() -> None:
    """Make a worker end with its parent, and leave Ctrl-C to it: the case in hand is finished first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        sentinel = parent.sentinel

        def end_with_parent() -> None:
            wait_for_sentinel([sentinel])
            os._exit(1)

        threading.Thread(target=end_with_parent, daemon=True).start()
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # one core per process, as the user asked
