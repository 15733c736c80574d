"""What a call of the network costs, in seconds and bytes, and how many bytes there are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

LARGEST_BATCH = {"cuda": 64}
"""Samples in one batch at most, per type of device; beyond that a GPU is full with the smallest patches."""

LARGEST_BATCH_ELSEWHERE = 8
"""The same for the CPU, where a sample gains little from its neighbours."""

SHARE_OF_FREE_MEMORY = {"cuda": 0.8}
"""The part of the free memory that the network may use: the mirrored sums and results need some, too."""

SHARE_ELSEWHERE = 0.5
"""The same for memory that other programs, and nnU-Net's export workers, allocate from."""

UNKNOWN_MEMORY = 2 * 2**30
"""Bytes that are taken to be free where the system does not say."""

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


class Cost(NamedTuple):
    """What one call of a network cost."""

    seconds: float
    used: float
    """Bytes at the peak, in addition to what was in use; on the CPU an upper bound of it."""


def largest_batch(device: torch.device) -> int:
    """Give the largest batch that is tried on a device."""
    return LARGEST_BATCH.get(device.type, LARGEST_BATCH_ELSEWHERE)


def usable_memory(device: torch.device) -> float:
    """Give the bytes that a call of the network may use now."""
    share = SHARE_OF_FREE_MEMORY.get(device.type, SHARE_ELSEWHERE)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What torch keeps for itself and does not use is free for the network, too.
        return share * (free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    if device.type == "mps":
        return share * max(0, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return share * _free_main_memory(Path("/proc/meminfo"))


def _free_main_memory(meminfo: Path) -> int:
    """Read what Linux says is available without swapping; elsewhere there is no such figure to be had."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines() if ":" in line)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return UNKNOWN_MEMORY


def measured_call(
    network: nn.Module, samples: Tensor, clock: Callable[[], float] = time.perf_counter
) -> tuple[Tensor, Cost]:
    """Call a network and measure it.

    Args:
        network: in eager mode: a hook on a compiled module would compile it anew.
        samples: (B, C, *patch), on the network's device.
        clock: gives seconds.

    Returns:
        the logits, (B, K, *patch), and what they cost.
    """
    device = samples.device
    memory = _cuda_memory(device) if device.type == "cuda" else _written_by(network)
    with _without_benchmark(), memory as used:
        _synchronize(device)
        start = clock()
        logits: Tensor = network(samples)
        _synchronize(device)
        seconds = clock() - start
    return logits, Cost(seconds, used[0])


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def _without_benchmark() -> Iterator[None]:
    """Keep cuDNN from trying all its algorithms for a batch size that is only tried out."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def _cuda_memory(device: torch.device) -> Iterator[list[float]]:
    """Measure the peak of what torch allocates, beyond what is allocated already."""
    used = [0.0]
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    yield used
    used[0] = torch.cuda.max_memory_allocated(device) - before


@contextmanager
def _written_by(network: nn.Module) -> Iterator[list[float]]:
    """Add up what the layers write, an upper bound of their memory where no allocator counts it."""
    used = [0.0]

    def add(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            used[0] += output.nbytes

    layers = [module for module in network.modules() if next(module.children(), None) is None]
    handles = [layer.register_forward_hook(add) for layer in layers]
    try:
        yield used
    finally:
        for handle in handles:
            handle.remove()


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out; other devices than CUDA have no class for it."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in _OUT_OF_MEMORY)
