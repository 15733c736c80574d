"""Energy of the GPUs that a job uses, by NVML (nvidia-ml-py) where it is there."""

from __future__ import annotations

import os
import threading
import time
from types import TracebackType
from typing import Any

SECONDS_BETWEEN_SAMPLES = 1.0


class EnergyMeter:
    """Measures, while its block runs, the energy of this process's GPUs.

    The GPU's own counter is read where it has one (Volta and newer), else its power is integrated over time.
    Without NVML, without a GPU, or when NVML refuses, there is no measurement and no error.

    Args:
        gpus: how many of the visible GPUs the job uses; 0 measures nothing.
        visible: as ``CUDA_VISIBLE_DEVICES``; None: all.

    Attributes:
        joules: after the block; None where it was not measured.
        names: of the GPUs.
    """

    def __init__(self, gpus: int, visible: str | None = None) -> None:
        self.joules: float | None = None
        self.names: list[str] = []
        self._gpus, self._visible = gpus, visible
        self._nvml: Any = None
        self._handles: list[Any] = []
        self._stop = threading.Event()
        self._sampler: threading.Thread | None = None
        self._before: list[float] = []
        self._integral = 0.0

    def __enter__(self) -> EnergyMeter:
        if self._gpus:
            try:
                self._begin()
            except Exception:  # NVML has an error for everything, and none may end a training
                self._handles = []
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._handles:
            return
        try:
            if self._sampler:
                self._stop.set()
                self._sampler.join()
                self.joules = self._integral
            else:
                self.joules = sum(self._counters()) - sum(self._before)
            self._nvml.nvmlShutdown()
        except Exception:  # as above: a number that is not there is written as such
            self.joules = None

    def _begin(self) -> None:
        import pynvml

        pynvml.nvmlInit()
        self._nvml = pynvml
        handles = [self._handle(word) for word in _words(self._visible, self._gpus)]
        self.names = [_text(pynvml.nvmlDeviceGetName(handle)) for handle in handles]
        self._handles = handles
        try:
            self._before = self._counters()
        except pynvml.NVMLError:
            self._sampler = threading.Thread(target=self._sample, daemon=True)
            self._sampler.start()

    def _handle(self, word: str) -> Any:
        if word.isdigit():
            return self._nvml.nvmlDeviceGetHandleByIndex(int(word))
        return self._nvml.nvmlDeviceGetHandleByUUID(word)

    def _counters(self) -> list[float]:
        """Read the counters, in joules."""
        return [self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000 for handle in self._handles]

    def _watts(self) -> float:
        return float(sum(self._nvml.nvmlDeviceGetPowerUsage(handle) for handle in self._handles)) / 1000

    def _sample(self) -> None:
        """Integrate the power by the trapezoidal rule until the block ends."""
        try:
            before, watts = time.monotonic(), self._watts()
            last = False
            while not last:
                last = self._stop.wait(SECONDS_BETWEEN_SAMPLES)
                now, current = time.monotonic(), self._watts()
                self._integral += (watts + current) / 2 * (now - before)
                before, watts = now, current
        except Exception:
            self._handles = []  # so that nothing is reported


def _words(visible: str | None, gpus: int) -> list[str]:
    if visible is None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    named = [word.strip() for word in visible.split(",") if word.strip()]
    return (named or [str(index) for index in range(gpus)])[:gpus]


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
