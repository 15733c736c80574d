"""How many samples go through the network at once: chosen while predicting, by time and memory."""

from __future__ import annotations

WARM_UP_CALLS = 1
"""Calls of a new batch size whose time does not count: they allocate, and choose algorithms."""

TIMED_CALLS = 3
"""Calls of a batch size that are timed; the fastest counts, since what else runs can only slow one down."""

LEAST_GAIN = 0.03
"""A batch is doubled again only if the last doubling made a sample faster by this share."""


class BatchChoice:
    """Doubles the batch while a sample gets faster and memory allows, on the work that is to be done anyway.

    It begins with one sample, nnU-Net's own way, so that what does not gain from batches (a busy CPU, a
    network that fills the GPU with one patch) stays at nnU-Net's speed.

    Args:
        largest: samples that a batch may have at most.
        fixed: a batch size that the user gave; nothing is measured then.
    """

    def __init__(self, largest: int, fixed: int | None = None) -> None:
        self.size = 1 if fixed is None else fixed
        """Samples that the next call of the network takes at most."""
        self.settled = fixed is not None
        """Whether measuring is over."""
        self._largest = largest
        self._chosen = self.size  # what ``size`` returns to after an image that left less memory
        self._fastest: tuple[int, float] | None = None  # batch size, seconds per sample
        self._seconds: list[float] = []  # of the calls with the present size
        self._bytes_per_sample = 0.0
        self._measured_in_image = False

    def start_image(self, memory: float) -> None:
        """Fit the batch into what is free once an image's results are allocated.

        Args:
            memory: bytes that the network may use.
        """
        self._measured_in_image = False
        if not self.settled:
            return
        self.size = self._chosen
        while self.size > 1 and self.size * self._bytes_per_sample > memory:
            self.size //= 2

    def record(self, samples: int, seconds: float, used: float, memory: float) -> None:
        """Take note of one call of the network; calls with another number of samples do not count.

        Args:
            samples: how many it was given.
            seconds: how long it took.
            used: bytes that it used at its peak, in addition to what was in use.
            memory: bytes that it might have used.
        """
        if self.settled or samples != self.size:
            return
        self._measured_in_image = True
        self._bytes_per_sample = used / samples
        self._seconds.append(seconds)
        if len(self._seconds) < WARM_UP_CALLS + TIMED_CALLS:
            return
        pace = min(self._seconds[WARM_UP_CALLS:]) / samples
        if self._fastest is not None and pace > self._fastest[1] * (1 - LEAST_GAIN):
            self._settle(self._fastest[0])
            return
        self._fastest = (samples, pace)
        doubled = 2 * samples
        if doubled > self._largest or doubled * self._bytes_per_sample > memory:
            self._settle(samples)
            return
        self.size, self._seconds = doubled, []

    def finish_image(self) -> None:
        """Settle if an image had too few samples to fill one batch of the size that is being tried."""
        if not self.settled and not self._measured_in_image:
            self._settle(self._fastest[0] if self._fastest is not None else self.size)

    def halve(self) -> bool:
        """Take half the batch from now on, since the present one did not fit.

        Returns:
            False if it is one sample already.
        """
        if self.size == 1:
            return False
        self._settle(self.size // 2)
        return True

    def _settle(self, size: int) -> None:
        self.size = self._chosen = size
        self.settled = True
