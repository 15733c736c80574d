"""Work that threads do ahead of whoever takes the results, in order and within a bound of memory."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

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
        self._taken = self._waiting = 0
        self._stopped = False

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Result]:
        with ThreadPoolExecutor(self._workers) as pool:
            running = deque(pool.submit(self._in_turn, index) for index in range(len(self._items)))
            try:
                while running:
                    result = running.popleft().result()
                    with self._changed:
                        self._taken += 1
                        self._waiting -= self._size_of(result)
                        self._changed.notify_all()
                    yield result
            finally:
                with self._changed:
                    self._stopped = True
                    self._changed.notify_all()
                pool.shutdown(cancel_futures=True)

    def _in_turn(self, index: int) -> Result:
        """Work on an item once there is room for its result; the pool starts items in their order."""

        def may_start() -> bool:
            return self._stopped or index < self._taken + self._workers or self._waiting < self._memory

        with self._changed:
            self._changed.wait_for(may_start)
            if self._stopped:
                raise InterruptedError("nobody takes the results any more")
        result = self._work(self._items[index])
        with self._changed:
            self._waiting += self._size_of(result)
        return result
