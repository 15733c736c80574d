"""Hippocampus-like data: crops of a T1-weighted MRI around one hippocampus, with its anterior and posterior part.

The crops have the size, spacing, axes and labels of the Medical Segmentation Decathlon's Task04_Hippocampus, and are
written in nnU-Net's raw format as Dataset004_Hippocampus, which nnU-Net's own integration test starts from. Grey
matter beside the hippocampus is nearly as dark, and where its anterior part ends is a matter of shape alone.

Axes are x, y, z as in the file; y grows to the front and z to the head. Lengths are in mm; voxels are 1 mm.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from nnunetv2_eccam.demo.phantom import Array, Ellipsoid, Tube, paint, rotation, save_volume, surface_distance
from nnunetv2_eccam.files import write_json

DATASET = "Dataset004_Hippocampus"
"""The folder that nnU-Net's conversions look for."""

LABELS = {"background": 0, "Anterior": 1, "Posterior": 2}
"""As in the real data set; the conversions name them."""

WHITE, GREY, HIPPOCAMPAL, FLUID = 140.0, 110.0, 90.0, 45.0
"""Mean signal of white and grey matter, of the hippocampus, and of cerebrospinal fluid."""

HIPPOCAMPUS: tuple[Ellipsoid | Tube, ...] = (
    Tube((-5, -19, 6), (-2, -10, 2), 2.3, 3.2),
    Tube((-2, -10, 2), (1, 1, -2), 3.2, 3.9),
    Tube((1, 1, -2), (2, 11, -3), 3.9, 4.8),
    Ellipsoid((1, 12, -3), (7.5, 6, 5)),
)
"""Tail, body, and the head, which is wider; the label is what lies inside their union."""

BOUNDARY = 4.5
"""Where on the y axis the anterior part begins, in the anatomy's coordinates."""

NEIGHBOURS: tuple[tuple[Ellipsoid | Tube, float], ...] = (
    (Ellipsoid((-14, -8, 13), (8, 10, 8)), GREY),  # thalamus
    (Ellipsoid((-16, 12, -2), (5, 13, 7)), FLUID),  # cistern
    (Tube((7, -16, 6), (8.5, 10, 1.5), 2.2, 1.8), FLUID),  # the ventricle's temporal horn
    (Ellipsoid((0, 22, 4), (8, 5, 6)), GREY),  # amygdala
    (Tube((-6, -26, -9), (-4, 20, -12), 4, 4.5), GREY),  # parahippocampal gyrus
)
"""What lies beside it, with its signal."""


class Crop(NamedTuple):
    """One generated case.

    Attributes:
        image: int16, (x, y, z).
        label: uint8, (x, y, z); values as in :data:`LABELS`.
    """

    image: npt.NDArray[np.int16]
    label: npt.NDArray[np.uint8]


def generate_crop(seed: int, number: int) -> Crop:
    """Generate one case of 32-38 x 46-54 x 32-38 voxels; the same ``seed`` and ``number`` give the same case."""
    rng = np.random.default_rng([seed, number])
    size = tuple(int(n) for n in rng.integers((32, 46, 32), (39, 55, 39)))
    points = _anatomy(size, rng)
    signal = np.full(size, WHITE, np.float32)
    for shape, level in NEIGHBOURS:
        paint(signal, surface_distance(points, _vary(shape, rng)), level * rng.normal(1, 0.03), edge=1)
    thickness = rng.normal(0, 0.3)
    inside = np.stack([surface_distance(points, shape) for shape in HIPPOCAMPUS]).min(axis=0) - np.float32(thickness)
    paint(signal, inside, HIPPOCAMPAL * rng.normal(1, 0.03), edge=1)
    tilt = rng.normal(0, 0.1, 2)
    anterior = points[1] + tilt[0] * points[0] + tilt[1] * points[2] > BOUNDARY
    label = np.where(anterior, LABELS["Anterior"], LABELS["Posterior"]) * (inside < 0)
    return Crop(_scan(signal, rng), label.astype(np.uint8))


def _anatomy(size: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Give every voxel centre in the anatomy's coordinates, shape (3, x, y, z): turned, scaled, moved and bent."""
    axes = [np.arange(n) - (n - 1) / 2 for n in size]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"))
    turn = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(rng.normal(0, (5, 4, 7)))):
        turn = turn @ rotation(axis, angle)
    shift = rng.uniform((-2.5, -3, -2.5), (2.5, 3, 2.5))[:, None, None, None]
    scale = rng.uniform(0.9, 1.1, 3)[:, None, None, None]
    points = np.einsum("ij,jxyz->ixyz", turn, grid - shift) / scale
    for axis, phase in enumerate(rng.uniform(0, 2 * np.pi, 3)):
        points[axis] += 1.2 * np.sin(2 * np.pi * points[1] / 40 + phase)
    return np.asarray(points, np.float32)


def _vary(shape: Ellipsoid | Tube, rng: np.random.Generator) -> Ellipsoid | Tube:
    """Give this patient's form of a neighbour: moved by about 1 mm, thicker or thinner by about 8 %."""
    x, y, z = rng.normal(0, 1, 3)
    factor = float(np.clip(rng.normal(1, 0.08), 0.8, 1.2))

    def moved(point: tuple[float, float, float]) -> tuple[float, float, float]:
        return point[0] + x, point[1] + y, point[2] + z

    if isinstance(shape, Ellipsoid):
        a, b, c = shape.radii
        return Ellipsoid(moved(shape.centre), (a * factor, b * factor, c * factor), shape.turn)
    return Tube(moved(shape.start), moved(shape.end), shape.start_radius * factor, shape.end_radius * factor)


def _scan(signal: Array, rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """Turn tissue signal into an image: texture, blur, a gain of its own and noise."""
    texture = gaussian_filter(rng.standard_normal(signal.shape, dtype=np.float32), 1.5)
    image = gaussian_filter(signal * (1 + 0.04 * texture / texture.std()), 0.5)
    image += rng.normal(0, rng.uniform(4, 7), signal.shape)
    return np.asarray(np.round(image * rng.uniform(0.7, 1.4)), np.int16)


def write_dataset(raw: Path, training: int, test: int, seed: int) -> Path:
    """Write the data set in nnU-Net's raw format; where ``dataset.json`` lies, it is complete.

    Args:
        raw: nnU-Net's folder of raw data sets.
        training: number of cases in imagesTr and labelsTr.
        test: number of cases in imagesTs and labelsTs.
        seed: the same seed gives the same cases.

    Returns:
        The data set's folder.
    """
    folder = raw / DATASET
    for number in range(1, training + test + 1):
        part = "Tr" if number <= training else "Ts"
        crop = generate_crop(seed, number)
        for kind, suffix, voxels in (("images", "_0000", crop.image), ("labels", "", crop.label)):
            target = folder / f"{kind}{part}" / f"hippocampus_{number:03d}{suffix}.nii.gz"
            target.parent.mkdir(parents=True, exist_ok=True)
            save_volume(voxels, (1.0, 1.0, 1.0), target)
    description: dict[str, Any] = {
        "channel_names": {"0": "MRI"},
        "labels": LABELS,
        "numTraining": training,
        "file_ending": ".nii.gz",
    }
    write_json(folder / "dataset.json", description)
    return folder
