"""Many cases at once, in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_sentinel
from typing import Any

from nnunetv2_eccam.errors import UserError

from .model import Case

Work = Callable[[Case], dict[str, Any]]


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
        processes: 1 works in this process.
        title: shown with the bar.
        progress: show the bar, on standard error.

    Raises:
        UserError: a process was killed.
    """
    from tqdm import tqdm

    one_by_one = processes <= 1 or len(cases) <= 1
    results = (
        ((case, attempted(work, case)) for case in cases)
        if one_by_one
        else _in_processes(work, cases, min(processes, len(cases)))
    )
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


def _in_processes(
    work: Work, cases: Sequence[Case], processes: int
) -> Iterator[tuple[Case, dict[str, Any] | UserError]]:
    # spawn: the parent may have threads (torch, tqdm), which fork does not survive.
    executor = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _prepare_process)
    waiting = iter(cases)
    running: dict[Future[dict[str, Any] | UserError], Case] = {}
    try:
        while True:
            for case in waiting:
                running[executor.submit(attempted, work, case)] = case
                if len(running) >= 2 * processes:
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
