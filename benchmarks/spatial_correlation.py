"""Spatial correlation's memory and time by number of positions: one table.

  python -m benchmarks.spatial_correlation            on the CPU, and on a GPU if there is one
  python -m benchmarks.spatial_correlation --help     channels, sizes, precisions

Memory is the most that is allocated at once, beside features and values; S alone is what the map of all pairs of
positions would take in the features' precision, in the forward pass only.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.measuring import Job, peak_bytes, synchronised_seconds
from nnunetv2_eccam.blocks.spatial_correlation import SpatialCorrelation

SIZES = ((16, 16), (32, 32), (64, 64), (128, 128), (8, 16, 16), (16, 16, 16), (32, 32, 32))
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Measured(NamedTuple):
    """What one call costs.

    Attributes:
        all_pairs_bytes: of S, if it were held.
        forward_bytes: peak of a forward pass without gradients.
        both_bytes: peak of a forward and a backward pass.
        forward_seconds: median.
        both_seconds: median.
    """

    all_pairs_bytes: int
    forward_bytes: int
    both_bytes: int
    forward_seconds: float
    both_seconds: float


def measure(
    size: Sequence[int], channels: int, dtype: torch.dtype, device: torch.device, batch: int = 1, repeats: int = 3
) -> Measured:
    """Measure one size in one precision.

    Args:
        size: positions along each axis.
        channels: C.
        dtype: of features and values.
        device: where.
        batch: samples.
        repeats: timed calls, after one that is not.
    """
    block = SpatialCorrelation()
    features, values = (torch.randn(batch, channels, *size, device=device).to(dtype).requires_grad_() for _ in range(2))

    def forward() -> Tensor:
        with torch.inference_mode():
            gathered: Tensor = block(features, values)
            return gathered

    def both() -> None:
        gathered = block(features, values)
        torch.autograd.grad(gathered, [features, values], torch.ones_like(gathered))

    def median_seconds(job: Job) -> float:
        return statistics.median([synchronised_seconds(job, device) for _ in range(1 + repeats)][1:])

    return Measured(
        batch * math.prod(size) ** 2 * features.element_size(),
        peak_bytes(forward, device),
        peak_bytes(both, device),
        median_seconds(forward),
        median_seconds(both),
    )


def table(rows: Sequence[tuple[Sequence[int], str, Measured]]) -> str:
    """Lay the measurements out as a Markdown table."""
    lines = [
        "| map | positions | precision | S alone, MiB | forward, MiB | forward and backward, MiB "
        "| forward, ms | forward and backward, ms |",
        "| --- | ---: | --- |" + " ---: |" * 5,
    ]
    for size, precision, found in rows:
        memory = (found.all_pairs_bytes, found.forward_bytes, found.both_bytes)
        sizes = " | ".join(f"{n / 2**20:.1f}" for n in memory)
        lines.append(
            f"| {'x'.join(map(str, size))} | {math.prod(size)} | {precision} | {sizes} "
            f"| {found.forward_seconds * 1e3:.1f} | {found.both_seconds * 1e3:.1f} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table for every device that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=64, help="of the map (default: 64)")
    parser.add_argument("--batch", type=int, default=1, help="samples (default: 1)")
    parser.add_argument("--sizes", nargs="+", metavar="NxN", help="of the map; 16x16 to 128x128, 32x32x32 by default")
    parser.add_argument("--precisions", nargs="+", choices=tuple(DTYPES), default=list(DTYPES))
    parser.add_argument("--repeats", type=int, default=3, help="timed calls (default: 3)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: both, if there is a GPU")
    arguments = parser.parse_args(argv)
    sizes = [tuple(map(int, size.split("x"))) for size in arguments.sizes] if arguments.sizes else SIZES
    devices = [arguments.device] if arguments.device else ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for name in devices:
        device = torch.device(name)
        what = torch.cuda.get_device_name() if name == "cuda" else f"CPU, {torch.get_num_threads()} threads"
        cases = [(size, precision) for size in sizes for precision in arguments.precisions]
        rows = [
            (size, precision, measure(size, arguments.channels, DTYPES[precision], device, arguments.batch,
                                      arguments.repeats))
            for size, precision in tqdm(cases, desc=name, file=sys.stderr)
        ]  # fmt: skip
        print(f"\n{what}; torch {torch.__version__}; {arguments.channels} channels, batch {arguments.batch}\n")
        print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
