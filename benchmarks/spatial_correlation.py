"""Spatial correlation's memory and time by number of positions: one table.

  python -m benchmarks.spatial_correlation            on the CPU, and on a GPU if there is one
  python -m benchmarks.spatial_correlation --help     channels, sizes, precisions

Memory is the most that is allocated at once, beside features and values; S alone is what the map of all pairs of
positions would take in the features' precision, in the forward pass only.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.measuring import Job, markdown, peak_bytes, synchronised_seconds
from nnunetv2_eccam.blocks.spatial_correlation import SpatialCorrelation

SIZES = ((16, 16), (32, 32), (64, 64), (128, 128), (8, 16, 16), (16, 16, 16), (32, 32, 32))
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def measure(
    size: Sequence[int], channels: int, dtype: torch.dtype, device: torch.device, batch: int = 1, repeats: int = 3
) -> dict[str, float]:
    """Measure one size in one precision.

    Args:
        size: positions along each axis.
        channels: C.
        dtype: of features and values.
        device: where.
        batch: samples.
        repeats: timed calls, after one that is not.

    Returns:
        MiB of S, if it were held, and of the peaks of a forward pass without gradients and of both passes; the median
        milliseconds of these.
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

    calls: dict[str, Job] = {"forward": forward, "forward and backward": both}
    found = {"S alone, MiB": batch * math.prod(size) ** 2 * features.element_size() / 2**20}
    found |= {f"{name}, MiB": peak_bytes(job, device) / 2**20 for name, job in calls.items()}
    return found | {f"{name}, ms": 1e3 * median_seconds(job) for name, job in calls.items()}


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
        rows = []
        for size, precision in tqdm(list(product(sizes, arguments.precisions)), desc=name, file=sys.stderr):
            dtype = DTYPES[precision]
            found = measure(size, arguments.channels, dtype, device, arguments.batch, arguments.repeats)
            rows.append({"map": "x".join(map(str, size)), "positions": str(math.prod(size)), "precision": precision}
                        | {header: f"{value:.1f}" for header, value in found.items()})  # fmt: skip
        print(f"\n{what}; torch {torch.__version__}; {arguments.channels} channels, batch {arguments.batch}\n")
        print(markdown(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
