"""What a network costs: seconds, memory, multiply-adds, and the least that the machine would need for them."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
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
        step_seconds: median of forward, loss, backward in training mode.
        memory_bytes: peak of a training step: allocated on a GPU; on a CPU what autograd keeps for the
            backward pass, each storage counted once, with parameters and gradients.
        moved_bytes: bytes that a forward pass's layers read and write, each layer's input and output once.
    """

    parameters: int
    gflops: float
    forward_seconds: float
    step_seconds: float
    memory_bytes: int
    moved_bytes: int


@dataclass(frozen=True)
class Machine:
    """Rates that were measured on this machine, for the floor.

    Args:
        multiply_adds_per_second: of a plain 3x3 convolution of middling width.
        bytes_per_second: of a copy, read and write counted.
    """

    multiply_adds_per_second: float
    bytes_per_second: float

    def floor_seconds(self, cost: Cost) -> float:
        """Give the time of a forward pass if every layer ran at the plain convolution's or the copy's rate."""
        return max(cost.gflops * 1e9 / self.multiply_adds_per_second, cost.moved_bytes / self.bytes_per_second)


def synchronised_seconds(job: Job, device: torch.device) -> float:
    """Time one call."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    job()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


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
    """Give the peak memory of a training step, in bytes; see :class:`Cost`."""
    step = step_job(network, image, amp)
    if image.device.type == "cuda":
        step()
        torch.cuda.reset_peak_memory_stats(image.device)
        step()
        return torch.cuda.max_memory_allocated(image.device)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    network.train()
    parameters = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in network.parameters()}
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = network(image)
        activations = {pointer: size for pointer, size in kept.items() if pointer not in parameters}
    del outputs
    return sum(activations.values()) + 2 * sum(parameters.values())


def forward_gflops(network: nn.Module, image: Tensor) -> float:
    """Count a forward pass's multiply-adds, in 1e9 (torch counts each as two operations)."""
    network.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return float(counter.get_total_flops()) / 2 / 1e9


def forward_bytes(network: nn.Module, image: Tensor) -> int:
    """Sum the bytes of every leaf layer's input and output in a forward pass, and of its parameters."""
    moved = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal moved
        for tensor in (*inputs, output, *module.parameters(recurse=False)):
            moved += tensor.numel() * tensor.element_size()

    leaves = [module for module in network.modules() if not list(module.children())]
    handles = [module.register_forward_hook(count) for module in leaves]
    network.eval()
    with torch.no_grad():
        network(image)
    for handle in handles:
        handle.remove()
    return moved


def measure_machine(device: torch.device, amp: bool, repeats: int = 10) -> Machine:
    """Measure the rates of a 3x3 convolution of 128 channels on 64x64 and of a copy of 64 MiB."""
    dtype = torch.float16 if amp else torch.float32
    features = torch.randn(4, 128, 64, 64, device=device, dtype=dtype)
    kernel = torch.randn(128, 128, 3, 3, device=device, dtype=dtype)
    source = torch.empty(64 * 2**20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    with torch.inference_mode():
        jobs: list[Job] = [lambda: F.conv2d(features, kernel, padding=1), lambda: target.copy_(source)]
        conv, copy = interleaved_seconds(jobs, device, repeats, "machine")
    multiply_adds = 4 * 64 * 64 * 128 * 128 * 9
    return Machine(multiply_adds / statistics.median(conv), 2 * source.numel() / statistics.median(copy))
