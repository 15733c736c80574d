"""What each system's network costs beside the plain U-Net of the same plan: parameters, work, time, memory."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from nnunetv2_eccam.architectures.from_plans import build_network
from nnunetv2_eccam.benchmark.measure import (
    forward_gflops,
    interleaved_seconds,
    median_ratio,
    step_job,
    training_memory,
)
from nnunetv2_eccam.systems import System, system_named


class SystemCost(NamedTuple):
    """What a network costs on one batch.

    Attributes:
        parameters: number of parameters.
        gflops: multiply-adds of a forward pass of one image, in 1e9.
        step_seconds: median of a training step of the whole batch.
        step_ratio: that over the plain U-Net's, timed in turn with it.
        memory_bytes: peak of a training step; see :class:`nnunetv2_eccam.benchmark.measure.Cost`.
    """

    parameters: int
    gflops: float
    step_seconds: float
    step_ratio: float
    memory_bytes: int


def system_costs(
    systems: Sequence[System], configuration: Mapping[str, Any], device: torch.device, rounds: int = 3
) -> dict[str, SystemCost]:
    """Measure each network, one at a time, in turn with the plain U-Net.

    Args:
        systems: whose networks.
        configuration: of nnU-Net's plans: architecture, patch and batch.
        device: where they run; on a GPU in mixed precision.
        rounds: timed steps of each.

    Returns:
        the costs by the systems' names; systems that share a network share its cost.
    """
    plain = system_named("UNet")
    assert plain is not None
    amp = device.type == "cuda"
    patch, batch = configuration["patch_size"], configuration["batch_size"]
    image = torch.randn(batch, 1, *patch, device=device)
    reference = step_job(_network(plain, configuration).to(device), image, amp)
    costs: dict[str, SystemCost] = {}
    measured: dict[tuple[Any, ...], SystemCost] = {}
    for system in tqdm(systems, desc="costs", file=sys.stderr):
        key = (system.network, system.side_outputs, *sorted(system.switches.items()))
        if key not in measured:
            network = _network(system, configuration).to(device)
            gflops = forward_gflops(network, image[:1])
            memory = training_memory(network, image, amp)
            jobs = [reference, step_job(network, image, amp)]
            plain_seconds, seconds = interleaved_seconds(jobs, device, rounds, system.title, warmup=1, quiet=True)
            measured[key] = SystemCost(
                sum(p.numel() for p in network.parameters()),
                gflops,
                statistics.median(seconds),
                median_ratio(seconds, plain_seconds),
                memory,
            )
        costs[system.name] = measured[key]
    return costs


def _network(system: System, configuration: Mapping[str, Any]) -> torch.nn.Module:
    """Build a system's network for one channel and two classes, as nnU-Net's recipe has it."""
    return build_network(
        configuration["architecture"],
        configuration["patch_size"],
        1,
        2,
        system.side_outputs,
        system.switches,
        system.network,
    )
