"""Work that threads do ahead of whoever takes the results, in order and within a bound of memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkAhead(Generic[Item, Result]):
    """Give ``work(item)`` for each item, in the order of the items, worked on by several threads beforehand.

    Threads rather than processes: reading, preprocessing and writing are C code that lets others run, nothing is
    copied from one process to another, and no interpreter has to start and import torch.

    Args:
        work: what is done with each item. An exception is raised where its result would be given.
        items: what it is done with.
        workers: threads.
        memory: bytes of finished results that may wait. As many items as there are threads are worked on whatever
            their size.
        size_of: gives the bytes of a result.
    """

    def __init__(
        self,
        work: Callable[[Item], Result],
        items: Sequence[Item],
        workers: int,
        memory: int,
        size_of: Callable[[Result], int],
    ) -> None:
        self._work, self._items, self._size_of = work, items, size_of
        self._workers, self._memory = max(1, workers), memory
        self._changed = threading.Condition()
        self._started = self._taken = self._waiting = 0
        self._finished: dict[int, Future[Result]] = {}
        self._stopped = False

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Result]:
        with ThreadPoolExecutor(self._workers) as pool:
            for _ in range(min(self._workers, len(self._items))):
                pool.submit(self._run)
            try:
                for index in range(len(self._items)):
                    yield self._take(index)
            finally:
                with self._changed:
                    self._stopped = True
                    self._changed.notify_all()

    def _take(self, index: int) -> Result:
        with self._changed:
            self._changed.wait_for(lambda: index in self._finished)
            result = self._finished.pop(index).result()
            self._taken += 1
            self._waiting -= self._size_of(result)
            self._changed.notify_all()
        return result

    def _may_start(self) -> bool:
        return self._stopped or self._started < self._taken + self._workers or self._waiting < self._memory

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._may_start)
                if self._stopped or self._started == len(self._items):
                    return
                index, self._started = self._started, self._started + 1
            done: Future[Result] = Future()
            try:
                result = self._work(self._items[index])
                done.set_result(result)
                size = self._size_of(result)
            except BaseException as error:
                done.set_exception(error)
                size = 0
            with self._changed:
                self._finished[index] = done
                self._waiting += size
                self._changed.notify_all()


class WorkBehind:
    """Lets threads do jobs behind the one that gives them, who waits once too much is left to do.

    Args:
        workers: threads.
        memory: bytes that waiting jobs may hold. As many jobs as there are threads, and two more, may wait whatever
            their size.
    """

    def __init__(self, workers: int, memory: int) -> None:
        self._workers, self._memory = max(1, workers), memory
        self._pool = ThreadPoolExecutor(self._workers)
        self._unfinished: deque[tuple[Future[Any], int]] = deque()

    def __enter__(self) -> WorkBehind:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=error[0] is not None)

    def submit(self, size: int, job: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Give a job that holds so many bytes; wait first until there is room for it."""
        while self._unfinished and (
            self._unfinished[0][0].done()
            or (len(self._unfinished) >= self._workers + 2 and sum(n for _, n in self._unfinished) >= self._memory)
        ):
            future, _ = self._unfinished.popleft()
            future.exception()
        given = self._pool.submit(job, *arguments)
        self._unfinished.append((given, size))
        return given
