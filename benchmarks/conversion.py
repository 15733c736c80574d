"""How fast the converters are, and what bounds them, on made-up data: a table.

  python -m benchmarks.conversion --cases 6 -np 2

Each row is a whole command, start-up included. MB are of voxels (2 bytes each) of images. The bound is the
time that zlib alone needs to inflate what is read and to deflate what is written, shared by the processes;
for the Decathlon, whose files are linked, nothing is deflated.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np

from benchmarks.measuring import command_usage, markdown

if TYPE_CHECKING:
    from numpy.typing import NDArray

GZIP = 31
"""zlib's word for a gzip stream."""

LEVEL = 1
"""The compression that the converters write with."""

Row = tuple[str, float, float, float]
"""A command's name, seconds, largest process's peak memory in MB, and the bound of its seconds."""

AXIAL = np.diag([-0.8, -0.8, 2.5, 1.0])
NNUNETS = "from nnunetv2.dataset_conversion.convert_MSD_dataset import entry_point; entry_point()"


def made_up(size: tuple[int, int, int], seed: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Make a noisy CT, HU, and an organ in it, ``(x, y, z)``; noise is what makes real CT hard to compress."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, length, dtype=np.float32) for length in size), indexing="ij")
    body = x**2 / 0.8 + y**2 / 0.6 < 1
    organ = (np.abs(x + 0.2) < 0.3) & (np.abs(y + 0.2) < 0.1 + 0.05 * z) & (np.abs(z) < 0.5)
    image = np.where(organ, 105, np.where(body, -90, -1000)) + rng.normal(0, 12, size)
    return image.astype(np.int16), organ.astype(np.uint8)


def write_sources(folder: Path, cases: int, size: tuple[int, int, int]) -> None:
    """Write the same cases as a Decathlon task, as KiTS19 and as TCIA Pancreas-CT."""
    task = folder / "Task09_Spleen"
    names = [f"case_{index:05d}" for index in range(1, cases + 1)]
    antidiagonal = np.array([[0, 0, -0.8, 0], [0, -0.8, 0, 0], [-2.5, 0, 0, 0], [0, 0, 0, 1.0]])
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (task / part).mkdir(parents=True)
    (folder / "tcia/labels").mkdir(parents=True)
    for number, name in enumerate(names, start=1):
        image, label = made_up(size, number)
        kits = folder / "kits19/data" / name
        kits.mkdir(parents=True)
        for voxels, decathlon, kits_name in (
            (image, "imagesTr", "imaging.nii.gz"),
            (label, "labelsTr", "segmentation.nii.gz"),
        ):
            nibabel.save(nibabel.Nifti1Image(voxels, AXIAL), task / decathlon / f"{name}.nii.gz")
            turned = voxels[:, :, ::-1].transpose(2, 1, 0)
            nibabel.save(nibabel.Nifti1Image(turned, antidiagonal), kits / kits_name)
        nibabel.save(nibabel.Nifti1Image(label, AXIAL), folder / f"tcia/labels/label{number:04d}.nii.gz")
        write_dicom(folder / f"tcia/PANCREAS_{number:04d}", image, number)
    task_json = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "spleen"},
        "training": [{"image": f"./imagesTr/{name}.nii.gz"} for name in names],
        "test": [],
    }
    (task / "dataset.json").write_text(json.dumps(task_json))


def write_dicom(folder: Path, image: NDArray[np.int16], number: int) -> None:
    """Write one uncompressed DICOM file for each slice, feet first."""
    import SimpleITK as sitk

    folder.mkdir()
    writer: Any = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for index in range(image.shape[2]):
        plane = sitk.GetImageFromArray(np.ascontiguousarray(image[:, :, index].T))
        plane.SetSpacing((0.8, 0.8))
        tags = {
            "0008|0060": "CT",
            "0010|0020": folder.name,
            "0020|000d": f"1.2.826.{number}",
            "0020|000e": f"1.2.826.{number}.1",
            "0008|0018": f"1.2.826.{number}.1.{index + 1}",
            "0020|0013": str(index + 1),
            "0020|0032": f"0\\0\\{index * 2.5}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0028|1052": "-1024",
            "0028|1053": "1",
        }
        for tag, value in tags.items():
            plane.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{index:04d}.dcm"))
        writer.Execute(plane)


def timed(words: Sequence[str], folder: Path) -> tuple[float, float]:
    """Run a command; give seconds until its output is on the disk, and peak memory in MB."""
    variables = {name: str(folder / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    for path in variables.values():
        Path(path).mkdir(exist_ok=True)
    used = command_usage(words, {**os.environ, **variables})
    return used.seconds, used.peak


def zlib_seconds(size: tuple[int, int, int]) -> tuple[float, float]:
    """Seconds that zlib needs to inflate and to deflate one case's image and label, on one core."""
    contents = [voxels.tobytes(order="F") for voxels in made_up(size, 0)]
    start = time.perf_counter()
    packed = []
    for content in contents:
        compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP)
        packed.append(compressor.compress(content) + compressor.flush())
    middle = time.perf_counter()
    for content in packed:
        zlib.decompress(content, GZIP)
    return time.perf_counter() - middle, middle - start


def measure(folder: Path, cases: int, size: tuple[int, int, int], processes: int) -> list[Row]:
    """Time every converter on the same cases, and nnU-Net's own on the Decathlon's."""
    # In a process of its own: a command's peak memory is never less than that of the process that starts it.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
        other.submit(write_sources, folder, cases, size).result()
        alone = other.submit(zlib_seconds, size).result()
    inflate, deflate = (seconds * cases / min(processes, cases) for seconds in alone)
    ours = [sys.executable, "-m", "nnunetv2_eccam", "convert"]
    rest = ["-np", str(processes), "--no-progress"]
    task = str(folder / "Task09_Spleen")
    jobs = [
        ("MSD, nnUNetv2_convert_MSD_dataset", [sys.executable, "-c", NNUNETS, "-i", task, *rest[:2]], inflate),
        ("MSD, this converter", [*ours, "msd", task, "--id", "10", *rest], inflate),
        ("KiTS19", [*ours, "kits19", str(folder / "kits19"), *rest], inflate + deflate),
        ("TCIA Pancreas-CT (DICOM)", [*ours, "tcia-pancreas", str(folder / "tcia"), *rest], deflate),
    ]
    return [(name, *timed(words, folder), bound) for name, words, bound in jobs]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=6)
    parser.add_argument("--size", type=int, nargs=3, default=(512, 512, 96), metavar=("X", "Y", "Z"))
    parser.add_argument("-np", type=int, default=2, dest="processes")
    arguments = parser.parse_args()
    size = (arguments.size[0], arguments.size[1], arguments.size[2])
    megabytes = 2e-6 * math.prod(size) * arguments.cases
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), arguments.cases, size, arguments.processes)
    print(f"{arguments.cases} cases of {size}, {megabytes:.0f} MB of voxels, {arguments.processes} processes\n")
    print(markdown([
        {"": name, "s": f"{seconds:.1f}", "MB/s": f"{megabytes / seconds:.0f}", "peak MB of a process": f"{peak:.0f}",
         "zlib alone, s": f"{bound:.1f}"} for name, seconds, peak, bound in found
    ]))  # fmt: skip


if __name__ == "__main__":
    main()
