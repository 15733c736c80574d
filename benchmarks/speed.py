"""EC-CaM-UNet beside nnU-Net's own networks: tables of seconds, memory, parameters, multiply-adds.

  make benchmark                       on the CPU, and on a GPU if there is one
  python -m benchmarks.speed --help    sizes, batch, repeats, and which tables: --table systems is every compared system

Every ratio is of two networks with the same stages, widths, patch, batch and norm, timed in turn in one run.
docs/reference/speed.md says what was found.
"""

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.measuring import (
    forward_gflops,
    forward_job,
    interleaved_seconds,
    markdown,
    median_ratio,
    step_job,
    step_peak,
    training_memory,
)
from benchmarks.model_folder import PAIRS, halving, pair, unet_architecture
from nnunetv2_eccam.architectures.eccam_unet import ATTENTION_STAGES
from nnunetv2_eccam.architectures.from_plans import build_network
from nnunetv2_eccam.blocks.enhanced_convolution import BRANCH_FORMS
from nnunetv2_eccam.systems import SYSTEMS, System

CLASSES = 2

Rows = list[tuple[str, str, Any]]
"""Name, name of the network that it is compared with, and network, for each row."""


def networks(widths: Sequence[int], patch: Sequence[int], kinds: Sequence[str] = ("practical", "paper")) -> Rows:
    """Give the networks of some kinds of plans, each after nnU-Net's own of the same plan."""
    rows: Rows = []
    for kind in kinds:
        ours, nnunets = pair(kind, widths, halving(len(widths), len(patch)), patch, CLASSES)
        reference = f"{type(nnunets).__name__}, {PAIRS[kind][1].get('norm', 'instance')} norm"
        rows += [(reference, "", nnunets), (f"EC-CaM-UNet, {kind}", reference, ours)]
    return rows


def choices(widths: Sequence[int], patch: Sequence[int]) -> Rows:
    """Give PlainConvUNet, and EC-CaM-UNet with the module at each place and with each form of EC.

    The rates are those of each place, so a place needs as many stages as reach it: five for 1/16.
    """
    plan = unet_architecture(widths, halving(len(widths), len(patch)))
    rows = networks(widths, patch, ("practical",))[:1]
    switched = {f"module at: {where}": {"attention_stages": where} for where in ATTENTION_STAGES}
    switched |= {f"EC: {form}": {"branch_form": form} for form in BRANCH_FORMS[1:]}
    for name, switches in switched.items():
        rows.append((name, rows[0][0], build_network(plan, patch, 1, CLASSES, True, switches)))
    return rows


def systems(widths: Sequence[int], patch: Sequence[int]) -> Rows:
    """Give every system that the paper compares; those that share a network stand in one row."""
    plan = unet_architecture(widths, halving(len(widths), len(patch)))
    shared: dict[tuple[Any, ...], list[System]] = defaultdict(list)
    for each in sorted(SYSTEMS, key=lambda each: each.name != "UNet"):  # the reference first
        shared[each.network, each.side_outputs, *sorted(each.switches.items())].append(each)
    rows: Rows = []
    for one, *others in shared.values():
        network = build_network(plan, patch, 1, CLASSES, one.side_outputs, one.switches, one.network)
        rows.append(("; ".join(each.title for each in (one, *others)), rows[0][0] if rows else "", network))
    return rows


TABLES: dict[str, Callable[[Sequence[int], Sequence[int]], Rows]] = {
    "plain": networks,
    "residual": partial(networks, kinds=("residual",)),
    "choices": choices,
    "systems": systems,
}


def measure(rows: Rows, image: torch.Tensor, repeats: int, compiled: bool) -> list[dict[str, str]]:
    """Measure every row; ratios are to the network that each is compared with."""
    device, amp = image.device, image.device.type == "cuda"
    decoders: list[Any] = [getattr(network, "decoder", None) for _, _, network in rows]
    supervised = [decoder for decoder in decoders if getattr(decoder, "deep_supervision", False)]
    jobs: dict[str, list[Any]] = {"forward": [], "training step": []}
    memory: dict[str, dict[str, int]] = {"kept": {}, "peak": {}}
    for name, _, network in tqdm(rows, desc="counting", file=sys.stderr):
        run: Any = torch.compile(network.to(device)) if compiled else network.to(device)
        step = step_job(run, image, amp)
        step()
        memory["peak"][name] = peak = step_peak(network, step, device)
        memory["kept"][name] = peak if compiled else training_memory(network, image)
        jobs["forward"].append(forward_job(run, image, amp))
        jobs["training step"].append(step)
    seconds: dict[str, dict[str, list[float]]] = {}
    gflops: dict[str, float] = {}
    for kind in jobs:
        for decoder in supervised:
            decoder.deep_supervision = kind != "forward"
        if kind == "forward":
            gflops = {name: forward_gflops(network, image[:1]) for name, _, network in rows}
        times = interleaved_seconds(jobs[kind], device, repeats, title=kind)
        seconds[kind] = {name: taken for (name, _, _), taken in zip(rows, times, strict=True)}
    table = []
    for name, reference, network in rows:
        parameters = sum(p.numel() for p in network.parameters())
        row = {"network": name, "parameters, M": f"{parameters / 1e6:.2f}"}
        row["multiply-adds of an image, G"] = f"{gflops[name]:.2f}"
        for kind, taken in seconds.items():
            row[f"{kind}, ms"] = f"{statistics.median(taken[name]) * 1e3:.1f}"
            row[f"{kind}, ratio"] = f"{median_ratio(taken[name], taken[reference]):.2f}" if reference else ""
        for kind, sizes in memory.items():
            row[f"{kind}, MiB"] = f"{sizes[name] / 2**20:.0f}"
            row[f"{kind}, ratio"] = f"{sizes[name] / sizes[reference]:.2f}" if reference else ""
        table.append(row)
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark on every device that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patch", type=int, nargs=2, default=[256, 256], metavar="N", help="default: 256 256")
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128, 256, 512], help="of the stages")
    parser.add_argument("--batch", type=int, help="default: 2 on a CPU, 12 on a GPU")
    parser.add_argument("--table", nargs="+", choices=TABLES, default=[name for name in TABLES if name != "systems"],
                        help="default: all but systems, which needs the packages of [compared]")  # fmt: skip
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
            print(markdown(measure(rows, image, arguments.repeats, compiled=on_gpu)), "\n", flush=True)
            del rows
    return 0


if __name__ == "__main__":
    sys.exit(main())
