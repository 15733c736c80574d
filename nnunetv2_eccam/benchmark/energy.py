"""Energy of the GPUs that a job uses, by the GPUs' own counters, which NVML (nvidia-ml-py) reads."""

from __future__ import annotations

from types import TracebackType
from typing import Any


class EnergyMeter:
    """Measures the energy of GPUs while its block runs.

    Volta and newer GPUs have a counter. Without one, without NVML or without a GPU there is no measurement and no
    error: a number that is missing is no reason to end a training.

    Args:
        gpus: as ``CUDA_VISIBLE_DEVICES`` names them, separated by commas: indices in PCI order, or UUIDs.

    Attributes:
        joules: after the block; None where it was not measured.
        name: of the first GPU; None where it is not known.
    """

    def __init__(self, gpus: str) -> None:
        self.joules: float | None = None
        self.name: str | None = None
        self._words = [word.strip() for word in gpus.split(",") if word.strip()]
        self._handles: list[Any] = []
        self._before = 0.0

    def __enter__(self) -> EnergyMeter:
        if self._words:
            try:
                self._begin()
            except Exception:  # NVML has an error of its own for everything
                self._handles = []
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handles:
            try:
                self.joules = self._counter() - self._before
            except Exception:  # as above
                self.joules = None

    def _begin(self) -> None:
        import pynvml

        pynvml.nvmlInit()
        by_index, by_uuid = pynvml.nvmlDeviceGetHandleByIndex, pynvml.nvmlDeviceGetHandleByUUID
        handles = [by_index(int(word)) if word.isdigit() else by_uuid(word) for word in self._words]
        name = pynvml.nvmlDeviceGetName(handles[0])
        self.name = name.decode() if isinstance(name, bytes) else str(name)
        self._handles = handles
        self._before = self._counter()

    def _counter(self) -> float:
        """Read the counters, in joules since the driver was loaded."""
        import pynvml

        return float(sum(map(pynvml.nvmlDeviceGetTotalEnergyConsumption, self._handles))) / 1000
