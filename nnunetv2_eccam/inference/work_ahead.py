"""Work that threads do ahead of whoever takes the results, in order and within a bound of memory."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class WorkAhead(Generic[Item, Result]):
    """Give ``work(item)`` for each item, in the order of the items, worked on by several threads beforehand.

    Threads rather than processes: reading, preprocessing and writing are C code that lets others run, nothing is
    copied from one process to another, and no interpreter has to start and import torch.

    Attributes:
        work: what is done with each item. An exception is raised where its result would be given.
        items: what it is done with.
        workers: threads.
        memory: bytes of finished results that may wait. As many items as there are threads are worked on whatever
            their size.
        size_of: gives the bytes of a result.
    """

    work: Callable[[Item], Result]
    items: Sequence[Item]
    workers: int
    memory: int
    size_of: Callable[[Result], int]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Result]:
        workers, changed = max(1, self.workers), threading.Condition()
        taken = waiting = 0
        stopped = False

        def in_turn(index: int) -> Result:
            """Work on an item once there is room for its result; the pool starts items in their order."""
            nonlocal waiting
            with changed:
                changed.wait_for(lambda: stopped or index < taken + workers or waiting < self.memory)
                if stopped:
                    raise InterruptedError("nobody takes the results any more")
            result = self.work(self.items[index])
            with changed:
                waiting += self.size_of(result)
            return result

        with ThreadPoolExecutor(workers) as pool:
            running = deque(pool.submit(in_turn, index) for index in range(len(self.items)))
            try:
                while running:
                    result = running.popleft().result()
                    with changed:
                        taken += 1
                        waiting -= self.size_of(result)
                        changed.notify_all()
                    yield result
            finally:
                with changed:
                    stopped = True
                    changed.notify_all()
                pool.shutdown(cancel_futures=True)
