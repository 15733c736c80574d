"""What a network or a command costs, in seconds, memory and multiply-adds, and tables of it, for the other scripts."""

import itertools
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

Job = Callable[[], object]


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


def training_memory(network: nn.Module, image: Tensor) -> int:
    """Give the memory of a training step, in bytes.

    It is what autograd keeps for the backward pass, each storage counted once, with parameters and gradients;
    :func:`step_peak` gives the most that is allocated at once.
    """
    parameters = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in network.parameters()}
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


def step_peak(network: nn.Module, step: Job, device: torch.device) -> int:
    """Give the most that is allocated at once in a training step, with the parameters, in bytes."""
    network.zero_grad(set_to_none=True)
    peak = peak_bytes(step, device) + sum(p.numel() * p.element_size() for p in network.parameters())
    network.zero_grad(set_to_none=True)
    return peak


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


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """Lay rows of the same columns out as a Markdown table; numbers stand to the right."""
    headers = list(rows[0]) if rows else []
    numeric = [all(re.fullmatch(r"[-+.e\d]*", row[header]) for row in rows) for header in headers]
    lines = [headers, ["---:" if right else "---" for right in numeric], *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
