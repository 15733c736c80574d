"""What a network costs: seconds, memory, multiply-adds, and the least that the machine would need for them.

Shared by the other scripts of this folder.
"""

from __future__ import annotations

import itertools
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

Job = Callable[[], object]


@dataclass(frozen=True)
class Cost:
    """What one network costs on one batch.

    Args:
        parameters: number of parameters.
        gflops: multiply-adds of a forward pass, in 1e9, as the sum of its convolutions and products.
        forward_seconds: median of a forward pass in eval mode without gradients.
        floor_seconds: the least that a forward pass could take; see :meth:`Machine.floor_seconds`.
        step_seconds: median of forward, loss, backward in training mode.
        memory_bytes: of a training step, by :func:`training_memory`.
        peak_bytes: the most that is allocated at once in a training step, with the parameters.
    """

    parameters: int
    gflops: float
    forward_seconds: float
    floor_seconds: float
    step_seconds: float
    memory_bytes: int
    peak_bytes: int


class Layer(NamedTuple):
    """A convolution, an attention or a norm over the map itself, in a forward pass.

    Attributes:
        size: positions along each axis of what it writes.
        multiply_adds: its products; none of a norm.
        moved_bytes: its input, output and weights, each once.
    """

    size: tuple[int, ...]
    multiply_adds: int
    moved_bytes: int


@dataclass(frozen=True)
class Machine:
    """Rates that were measured on this machine, for the floor.

    Args:
        multiply_adds_per_second: of a plain 3x3 convolution of each stage's width on its map, by the map's size.
        bytes_per_second: of a copy, read and write counted.
    """

    multiply_adds_per_second: Mapping[tuple[int, ...], float]
    bytes_per_second: float

    def floor_seconds(self, layers: Iterable[Layer]) -> float:
        """Give the time if each layer ran at its stage's convolution's rate or at the copy's, whichever is slower.

        A layer belongs to the stage whose map is nearest in size to what the layer writes.
        """
        return sum(
            max(layer.multiply_adds / self._rate(layer), layer.moved_bytes / self.bytes_per_second) for layer in layers
        )

    def _rate(self, layer: Layer) -> float:
        positions = math.prod(layer.size)
        nearest = min(self.multiply_adds_per_second, key=lambda size: abs(math.log(math.prod(size) / positions)))
        return self.multiply_adds_per_second[nearest]


class Usage(NamedTuple):
    """What a command took: seconds on the clock, seconds of all processors, and its largest process's peak in MB."""

    seconds: float
    processor_seconds: float
    peak: float


def command_usage(words: Sequence[str], environment: Mapping[str, str]) -> Usage:
    """Run a command until its output is on the disk.

    Raises:
        RuntimeError: it failed; with the last of what it printed.
    """
    os.sync()
    start = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(words, env=dict(environment), stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        os.sync()
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            raise RuntimeError(f"{' '.join(words)} failed: {output.read().decode(errors='replace')[-2000:]}")
    return Usage(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def synchronised_seconds(job: Job, device: torch.device) -> float:
    """Time one call, on a GPU by its own events."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(device)
        start.record()
        job()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3
    begin = time.perf_counter()
    job()
    return time.perf_counter() - begin


def interleaved_seconds(
    jobs: Sequence[Job], device: torch.device, repeats: int, title: str, warmup: int = 2, quiet: bool = False
) -> list[list[float]]:
    """Time several jobs in turn, A B A B, so that a drift of the machine's speed meets all alike.

    Args:
        jobs: what to time.
        device: where they run.
        repeats: timed rounds.
        title: of the progress bar.
        warmup: rounds before that are not counted.
        quiet: no progress bar.

    Returns:
        the seconds of each job's calls, in the order of the jobs.
    """
    seconds: list[list[float]] = [[] for _ in jobs]
    for round_ in tqdm(range(warmup + repeats), desc=title, file=sys.stderr, disable=quiet):
        for times, job in zip(seconds, jobs, strict=True):
            taken = synchronised_seconds(job, device)
            if round_ >= warmup:
                times.append(taken)
    return seconds


def median_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """Give the median over the rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def forward_job(network: nn.Module, image: Tensor, amp: bool) -> Job:
    """Give a forward pass as nnU-Net predicts: eval mode, no gradients, mixed precision on a GPU."""

    def job() -> object:
        network.eval()
        with torch.inference_mode(), torch.autocast(image.device.type, torch.float16, enabled=amp):
            return network(image)

    return job


def step_job(network: nn.Module, image: Tensor, amp: bool) -> Job:
    """Give a training step's forward, a loss over all outputs, and its backward."""

    def job() -> object:
        network.train()
        network.zero_grad(set_to_none=True)
        with torch.autocast(image.device.type, torch.float16, enabled=amp):
            outputs = network(image)
            loss = torch.stack([output.float().square().mean() for output in outputs]).sum()
        torch.autograd.backward(loss)
        return None

    return job


def training_memory(network: nn.Module, image: Tensor, amp: bool) -> int:
    """Give the memory of a training step, in bytes.

    On a GPU it is the peak, with the parameters. On a CPU it is what autograd keeps for the backward pass, each
    storage counted once, with parameters and gradients; :func:`peak_bytes` gives the peak there too.
    """
    parameters = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in network.parameters()}
    if image.device.type == "cuda":
        step = step_job(network, image, amp)
        step()
        network.zero_grad(set_to_none=True)
        return peak_bytes(step, image.device) + sum(parameters.values())
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    network.train()
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = network(image)
        activations = {pointer: size for pointer, size in kept.items() if pointer not in parameters}
    del outputs
    return sum(activations.values()) + 2 * sum(parameters.values())


def peak_bytes(job: Job, device: torch.device) -> int:
    """Give the most that torch has allocated at once during a call, beside what was allocated before.

    On a CPU the allocations are those that torch's profiler sees; what oneDNN allocates inside a kernel is not
    among them.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        job()
        torch.cuda.synchronize(device)
        most = torch.cuda.max_memory_allocated(device)
        return int(most - before)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        job()
    recorded = profiled.profiler.kineto_results.events()
    changes: list[tuple[int, int]] = [(e.start_ns(), e.nbytes()) for e in recorded if e.name() == "[memory]"]
    changes.sort(key=lambda change: change[0])
    return max(itertools.accumulate((size for _, size in changes), initial=0))


def forward_gflops(network: nn.Module, image: Tensor) -> float:
    """Count a forward pass's multiply-adds, in 1e9 (torch counts each as two operations)."""
    network.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return float(counter.get_total_flops()) / 2 / 1e9


def forward_layers(network: nn.Module, image: Tensor, amp: bool) -> list[Layer]:
    """List the layers of a forward pass as nnU-Net predicts that no fusion of operations would spare.

    Those are the convolutions, attention, and norms whose statistics are the map's own, which must be read before it
    can be written. Nonlinearities, concatenations, sums and norms with fixed statistics could be part of a
    convolution.
    """
    network.eval()
    # Not in inference mode, in which a convolution would be seen by another name in each number of dimensions.
    with _Layers() as counter, torch.no_grad(), torch.autocast(image.device.type, torch.float16, enabled=amp):
        network(image)
    layers: list[Layer] = counter.layers
    return layers


class _Layers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the layers that run inside it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers: list[Layer] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        name = operation.overloadpacket.__name__
        output = result[0] if isinstance(result, tuple) else result
        if name == "convolution":
            features, kernel = args[0], args[1]
            transposed = args[6]
            # Every value of a transposed convolution's input, and of a convolution's output, meets one whole kernel.
            values = features.numel() * kernel[0].numel() if transposed else output.numel() * kernel[0].numel()
            self._note(output, values, features, kernel)
        elif "scaled_dot_product" in name:
            queries, keys, gathered_from = args[:3]
            values = math.prod(queries.shape[:-1]) * keys.shape[-2] * (queries.shape[-1] + gathered_from.shape[-1])
            self._note(output, values, queries, keys, gathered_from, positions=queries.shape[-2])
        elif name in ("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm") and args[5]:
            self._note(output, 0, args[0])
        return result

    def _note(self, output: Tensor, multiply_adds: int, *inputs: Tensor, positions: int | None = None) -> None:
        moved = sum(tensor.numel() * tensor.element_size() for tensor in (output, *inputs))
        size = tuple(output.shape[2:]) if positions is None else (positions,)
        self.layers.append(Layer(size, multiply_adds, moved))


def measure_machine(
    device: torch.device, amp: bool, stages: Sequence[tuple[int, Sequence[int]]], batch: int, repeats: int = 10
) -> Machine:
    """Measure the rates of a plain 3x3 convolution of each stage and of a copy of 64 MiB.

    Args:
        device: where.
        amp: in half precision.
        stages: each stage's width and the size of its map, whose number of axes decides the convolution's.
        batch: samples.
        repeats: timed rounds.
    """
    dtype = torch.float16 if amp else torch.float32
    source = torch.empty(64 * 2**20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    jobs: list[Job] = [lambda: target.copy_(source)]
    multiply_adds: dict[tuple[int, ...], int] = {}
    for width, size in stages:
        convolution: Any = F.conv2d if len(size) == 2 else F.conv3d
        features = torch.randn(batch, width, *size, device=device, dtype=dtype)
        kernel = torch.randn(width, width, *[3] * len(size), device=device, dtype=dtype)
        jobs.append(partial(convolution, features, kernel, padding=1))
        multiply_adds[tuple(size)] = features.numel() * kernel[0].numel()
    with torch.inference_mode():
        copy, *convolutions = interleaved_seconds(jobs, device, repeats, "machine")
    rates = {
        size: count / statistics.median(seconds)
        for (size, count), seconds in zip(multiply_adds.items(), convolutions, strict=True)
    }
    return Machine(rates, 2 * source.numel() / statistics.median(copy))
