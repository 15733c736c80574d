"""Prediction beside nnU-Net's own command: seconds a case, and whether the files are equal.

  python -m benchmarks.prediction --images FOLDER           on PNG slices, or NIfTI volumes, of one channel
  python -m benchmarks.prediction --images FOLDER --widths 32 64 128 256 512 512 --device cuda

The network has random weights, so that nothing must be trained first. With the default, two stages of two features,
it costs next to nothing, and what is timed is all the rest: start, reading, preprocessing, moving, writing. Both
commands run in turn, with all that a user waits for.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.measuring import Usage, command_usage, markdown, median_ratio
from benchmarks.model_folder import halving, unet_architecture, write_model

NNUNETS = "from nnunetv2.inference.predict_from_raw_data import predict_entry_point; predict_entry_point()"
COMMANDS = {
    "nnUNetv2_predict": [sys.executable, "-c", NNUNETS],
    "nnUNetv2_eccam predict": [sys.executable, "-m", "nnunetv2_eccam", "predict"],
}
"""As modules, since a machine on which nothing is installed has no commands."""


def compare(
    results: Path, images: Path, device: str, rounds: int = 1, options: Sequence[str] = ()
) -> tuple[dict[str, list[Usage]], float]:
    """Predict a folder with both commands in turn.

    Args:
        results: nnU-Net's folder of results, with ``Dataset999_MadeUp`` in it; outputs are written beside it.
        images: to be predicted.
        device: ``cpu`` or ``cuda``.
        rounds: of both commands.
        options: more words of both commands.

    Returns:
        the usage of each run, by command; and the share of voxels that differ.

    Raises:
        RuntimeError: a command failed.
    """
    (model,) = (results / "Dataset999_MadeUp").iterdir()
    trainer, plans, configuration = model.name.split("__")
    environment = {**os.environ, "nnUNet_results": str(results)}
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        environment.setdefault(name, str(results))
    usage: dict[str, list[Usage]] = {name: [] for name in COMMANDS}
    outputs = {name: results.parent / f"predicted_{number}" for number, name in enumerate(COMMANDS)}
    for _ in range(rounds):
        for name, program in COMMANDS.items():
            shutil.rmtree(outputs[name], ignore_errors=True)
            words = [*program, "-i", str(images), "-o", str(outputs[name]),
                     "-d", "999", "-c", configuration, "-tr", trainer, "-p", plans, "-f", "0", "-device", device,
                     "--disable_progress_bar", *options]  # fmt: skip
            usage[name].append(command_usage(words, environment))
    return usage, different(*outputs.values())


def different(first: Path, second: Path) -> float:
    """Give the share of voxels that differ between two folders of segmentations.

    Raises:
        RuntimeError: they hold other files.
    """
    import SimpleITK as sitk

    names = [{p.name for p in folder.iterdir() if p.suffix != ".json"} for folder in (first, second)]
    if names[0] != names[1]:
        raise RuntimeError(f"{first} and {second} hold other files: {sorted(names[0] ^ names[1])}")
    unequal = total = 0
    for name in names[0]:
        one, other = (sitk.GetArrayFromImage(sitk.ReadImage(str(folder / name))) for folder in (first, second))
        unequal, total = unequal + int(np.count_nonzero(one != other)), total + one.size
    return unequal / total


def write_made_up_model(results: Path, widths: Sequence[int], patch: Sequence[int], ending: str) -> Path:
    """Write a model of nnU-Net's U-Net, halved between stages, into a folder of results."""
    folder = results / "Dataset999_MadeUp" / f"nnUNetTrainer__nnUNetPlans__{'2d' if len(patch) == 2 else '3d_fullres'}"
    architecture = unet_architecture(widths, halving(len(widths), len(patch)))
    return write_model(folder, architecture, patch, [1.0] * len(patch), file_ending=ending)


def main(argv: Sequence[str] | None = None) -> int:
    """Predict a folder in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, metavar="FOLDER", help="NAME_0000.png or .nii.gz")
    parser.add_argument("--cases", type=int, default=100, help="so many, some twice (default: %(default)s)")
    parser.add_argument("--widths", type=int, nargs="+", default=[2, 2], help="of the stages (default: 2 2)")
    parser.add_argument("--patch", type=int, nargs="+", default=[512, 512], help="default: 512 512")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args(argv)
    files = sorted(arguments.images.glob("[!.]*_0000.*"))
    ending = ".png" if files[0].suffix == ".png" else ".nii.gz"
    with tempfile.TemporaryDirectory() as folder:
        results, images = Path(folder, "results"), Path(folder, "images")
        write_made_up_model(results, arguments.widths, arguments.patch, ending)
        images.mkdir()
        for number in range(arguments.cases):
            shutil.copy(files[number % len(files)], images / f"case_{number:04d}_0000{ending}")
        usage, differing = compare(results, images, arguments.device, arguments.rounds)
    print(f"{arguments.cases} cases, widths {arguments.widths}, patch {arguments.patch}, {arguments.device}\n")
    rows = []
    for name, runs in usage.items():
        seconds, processor, peak = (statistics.median(values) for values in zip(*runs, strict=True))
        rows.append({
            "command": name, "s": f"{seconds:.1f}", "s a case": f"{seconds / arguments.cases:.3f}",
            "of processors, s a case": f"{processor / arguments.cases:.3f}", "peak MB of a process": f"{peak:.0f}",
        })  # fmt: skip
    print(markdown(rows))
    reference, ours = ([run.seconds for run in runs] for runs in usage.values())
    print(f"\n{median_ratio(reference, ours):.1f} times as fast; {differing:.2e} of the voxels differ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
