"""EC-CaM-UNet beside nnU-Net's own networks: tables of seconds, memory, parameters, multiply-adds.

  make benchmark                                     on the CPU, and on a GPU if there is one
  python -m benchmarks.speed --help    sizes, batch, repeats

Every ratio is of two networks with the same stages, widths, patch, batch and norm, timed in turn in one run.
docs/reference/speed.md says what was found.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn
from tqdm import tqdm

from benchmarks.measuring import (
    Cost,
    forward_gflops,
    forward_job,
    interleaved_seconds,
    median_ratio,
    peak_bytes,
    step_job,
    training_memory,
)
from nnunetv2_eccam.architectures.eccam_unet import ATTENTION_STAGES, ECCaMUNet
from nnunetv2_eccam.blocks.enhanced_convolution import BRANCH_FORMS
from nnunetv2_eccam.blocks.multi_scale import dilations_for

INSTANCE: dict[str, Any] = {"norm_op": nn.InstanceNorm2d, "nonlin": nn.LeakyReLU}
BATCH: dict[str, Any] = {"norm_op": nn.BatchNorm2d, "nonlin": nn.ReLU}


Rows = list[tuple[str, str, Any]]
"""Name, name of the network that it is compared with, and network, for each row."""

BLOCKS = (1, 3, 4, 6, 6, 6, 6, 6)
"""Residual blocks of each stage, in every preset of nnU-Net's."""


def networks(widths: Sequence[int], patch: Sequence[int]) -> Rows:
    """Give the networks of a plain plan."""
    shared = _plain(widths)
    bottleneck = [n // 2 ** (len(widths) - 1) for n in patch]
    paper: dict[str, Any] = {
        "norm_per_branch": True,
        "downsampling": "max_pool",
        "attention_scale": 1.0,
        "dilations": [rate for rate in (6, 12, 18) if rate < max(bottleneck)] or [1],
    }
    return [
        ("PlainConvUNet, instance norm", "", PlainConvUNet(1, **shared, **INSTANCE)),
        (
            "EC-CaM-UNet, practical",
            "PlainConvUNet, instance norm",
            ECCaMUNet(1, **shared, **INSTANCE, dilations=dilations_for(bottleneck)),
        ),
        ("PlainConvUNet, batch norm", "", PlainConvUNet(1, **shared, **BATCH)),
        ("EC-CaM-UNet, paper", "PlainConvUNet, batch norm", ECCaMUNet(1, **shared, **BATCH, **paper)),
    ]


def residual_networks(widths: Sequence[int], patch: Sequence[int]) -> Rows:
    """Give the networks of a residual plan, as nnU-Net's presets make it."""
    stages = len(widths)
    shared = _plain(widths) | {
        "n_blocks_per_stage": BLOCKS[:stages],
        "n_conv_per_stage_decoder": [1] * (stages - 1),
        "n_conv_per_stage": None,
    }
    bottleneck = [n // 2 ** (stages - 1) for n in patch]
    theirs = {name: value for name, value in shared.items() if name != "n_conv_per_stage"}
    reference = "ResidualEncoderUNet"
    ours = ECCaMUNet(1, **shared, **INSTANCE, dilations=dilations_for(bottleneck))
    return [
        (reference, "", ResidualEncoderUNet(1, **theirs, **INSTANCE)),
        ("EC-CaM-UNet, residual", reference, ours),
    ]


def choices(widths: Sequence[int], patch: Sequence[int]) -> Rows:
    """Give PlainConvUNet, and EC-CaM-UNet with the module at each place and with each form of EC.

    The rates are those of each place, so a place needs as many stages as reach it: five for 1/16.
    """
    shared, reference = _plain(widths), "PlainConvUNet"
    sizes = [[n // 2**stage for n in patch] for stage in range(len(widths))]
    rates: dict[str, Any] = {"dilations": {str(stage): dilations_for(size) for stage, size in enumerate(sizes)}}
    rows: Rows = [(reference, "", PlainConvUNet(1, **shared, **INSTANCE))]
    switched = {f"module at: {where}": {"attention_stages": where} for where in ATTENTION_STAGES}
    switched |= {f"EC: {form}": {"branch_form": form} for form in BRANCH_FORMS[1:]}
    for name, switches in switched.items():
        arguments: dict[str, Any] = {**shared, **INSTANCE, **rates, **switches}
        rows.append((name, reference, ECCaMUNet(1, **arguments)))
    return rows


TABLES = {"plain": networks, "residual": residual_networks, "choices": choices}


def _plain(widths: Sequence[int]) -> dict[str, Any]:
    return {
        "n_stages": len(widths),
        "features_per_stage": list(widths),
        "conv_op": nn.Conv2d,
        "kernel_sizes": [[3, 3]] * len(widths),
        "strides": [[1, 1]] + [[2, 2]] * (len(widths) - 1),
        "n_conv_per_stage": [2] * len(widths),
        "num_classes": 2,
        "n_conv_per_stage_decoder": [2] * (len(widths) - 1),
        "conv_bias": True,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin_kwargs": {"inplace": True},
    }


def measure(
    rows: Rows, image: torch.Tensor, repeats: int, compiled: bool
) -> tuple[dict[str, Cost], dict[str, dict[str, list[float]]]]:
    """Measure every row; give its costs, and the seconds of each round for the ratios."""
    device, amp = image.device, image.device.type == "cuda"
    jobs: dict[str, list[Any]] = {"forward": [], "step": []}
    static: dict[str, tuple[int, float, int, int]] = {}
    for name, _, network in tqdm(rows, desc="counting", file=sys.stderr):
        network.to(device)
        network.decoder.deep_supervision = False
        size = sum(p.numel() for p in network.parameters())
        gflops = forward_gflops(network, image)
        run: Any = torch.compile(network) if compiled else network
        jobs["forward"].append(forward_job(run, image, amp))
        network.decoder.deep_supervision = True
        step = step_job(run, image, amp)
        step()
        network.zero_grad(set_to_none=True)
        peak = peak_bytes(step, device) + sum(p.numel() * p.element_size() for p in network.parameters())
        network.zero_grad(set_to_none=True)
        static[name] = (size, gflops, peak if compiled else training_memory(run, image, amp), peak)
        jobs["step"].append(step)
    seconds: dict[str, dict[str, list[float]]] = {}
    for kind, supervised in (("forward", False), ("step", True)):
        for _, _, network in rows:
            network.decoder.deep_supervision = supervised
        times = interleaved_seconds(jobs[kind], device, repeats, title=kind)
        seconds[kind] = {name: taken for (name, _, _), taken in zip(rows, times, strict=True)}
    costs = {
        name: Cost(
            size,
            gflops,
            statistics.median(seconds["forward"][name]),
            statistics.median(seconds["step"][name]),
            memory,
            peak,
        )
        for name, (size, gflops, memory, peak) in static.items()
    }
    return costs, seconds


def table(
    rows: Rows,
    costs: dict[str, Cost],
    seconds: dict[str, dict[str, list[float]]],
) -> str:
    """Lay the measurements out as a Markdown table; ratios are to the network that each is compared with."""
    lines = [
        "| network | parameters, M | multiply-adds, G | forward, ms | ratio "
        "| training step, ms | ratio | kept, MiB | ratio | peak, MiB | ratio |",
        "| --- |" + " ---: |" * 10,
    ]
    for name, reference, _ in rows:
        cost = costs[name]

        def ratio(kind: str, name: str = name, reference: str = reference) -> str:
            return f"{median_ratio(seconds[kind][name], seconds[kind][reference]):.2f}" if reference else ""

        kept = f"{cost.memory_bytes / costs[reference].memory_bytes:.2f}" if reference else ""
        peak = f"{cost.peak_bytes / costs[reference].peak_bytes:.2f}" if reference else ""
        lines.append(
            f"| {name} | {cost.parameters / 1e6:.2f} | {cost.gflops:.2f} | {cost.forward_seconds * 1e3:.1f} "
            f"| {ratio('forward')} | {cost.step_seconds * 1e3:.1f} | {ratio('step')} "
            f"| {cost.memory_bytes / 2**20:.0f} | {kept} | {cost.peak_bytes / 2**20:.0f} | {peak} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark on every device that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patch", type=int, nargs=2, default=[256, 256], metavar="N", help="default: 256 256")
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128, 256, 512], help="of the stages")
    parser.add_argument("--batch", type=int, help="default: 2 on a CPU, 12 on a GPU")
    parser.add_argument("--table", nargs="+", choices=TABLES, default=list(TABLES), help="default: all")
    parser.add_argument("--repeats", type=int, default=7, help="timed rounds (default: 7)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: both, if there is a GPU")
    arguments = parser.parse_args(argv)
    devices = [arguments.device] if arguments.device else ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for device_name in devices:
        device = torch.device(device_name)
        on_gpu = device.type == "cuda"
        batch = arguments.batch or (12 if on_gpu else 2)
        image = torch.randn(batch, 1, *arguments.patch, device=device)
        what = torch.cuda.get_device_name() + ", compiled, AMP" if on_gpu else f"CPU, {torch.get_num_threads()} threads"
        print(
            f"\n{what}; torch {torch.__version__}; patch {arguments.patch}, batch {batch}, {arguments.repeats} rounds\n"
        )
        for name in arguments.table:
            rows = TABLES[name](arguments.widths, arguments.patch)
            costs, seconds = measure(rows, image, arguments.repeats, compiled=on_gpu)
            print(table(rows, costs, seconds), "\n", flush=True)
            del rows
    return 0


if __name__ == "__main__":
    sys.exit(main())
