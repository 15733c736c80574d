"""The phantom: MR-like volumes with an atrium among chambers and vessels that look like it, laid out as a download.

``python -m nnunetv2_eccam.demo.phantom FOLDER LABELLED UNLABELLED SEED`` writes it.

Intensity alone does not find the atrium: the ventricles, the right atrium and the great vessels draw
their brightness and texture from the same distribution, and make up several times its volume. What sets
it apart is anatomy: it lies in front of the spine and behind the ventricles, and veins run into it from
both sides. A thin grey wall keeps it from its neighbours, except at the mitral valve.

Axes are x, y, z as in the NIfTI file, growing to the patient's right, front and head. The anatomy is
described in millimetres around the heart's centre, so it is the same for every spacing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from nnunetv2_eccam.files import write_json, written_whole

Array = npt.NDArray[np.float32]
Point = tuple[float, float, float]

POOL = 200.0
"""Mean signal of blood, which is what the atrium, the other chambers and the vessels are filled with."""
TISSUE, WALL, MUSCLE, LUNG, BONE, LIVER = 100.0, 112.0, 124.0, 24.0, 138.0, 158.0


class Ellipsoid(NamedTuple):
    """A ball with three radii, turned about the z axis (mm, degrees)."""

    centre: Point
    radii: Point
    turn: float = 0.0


class Tube(NamedTuple):
    """A round tube with hemispherical ends whose radius goes linearly from one end to the other (mm)."""

    start: Point
    end: Point
    start_radius: float
    end_radius: float


class Structure(NamedTuple):
    """Something of one tissue, with the thickness of the coat (mm) that is painted around it first."""

    shape: Ellipsoid | Tube
    signal: float = POOL
    coat: float = 0.0
    coat_signal: float = WALL


NEIGHBOURS = (
    Structure(Ellipsoid((76, -4, 0), (40, 56, 90)), LUNG),
    Structure(Ellipsoid((-78, -8, 0), (38, 52, 90)), LUNG),
    Structure(Ellipsoid((14, 16, -62), (52, 44, 28)), LIVER),
    Structure(Tube((0, -54, -90), (0, -54, 90), 15, 15), BONE, coat=2),
    Structure(Tube((0, -74, -90), (0, -74, 90), 8, 8), POOL),  # spinal canal
)
"""Painted first; none of it can be taken for the atrium, but it says where the atrium is."""

LOOK_ALIKES = (
    # left and right ventricle
    Structure(Ellipsoid((-29, 19, -22), (18, 22, 21), 20), POOL, coat=8, coat_signal=MUSCLE),
    Structure(Ellipsoid((13, 41, -17), (27, 13, 22), -12), POOL, coat=3, coat_signal=MUSCLE),
    Structure(Ellipsoid((35, 13, -4), (16, 19, 22)), POOL, coat=2),  # right atrium
    Structure(Tube((2, 13, 9), (8, 17, 70), 12, 12), POOL, coat=2),  # ascending aorta
    Structure(Tube((-12, 34, 8), (-16, 16, 60), 11, 11), POOL, coat=2),  # pulmonary artery
    Structure(Tube((-21, -40, -90), (-17, -39, 90), 9.5, 10.5), POOL, coat=1.5),  # descending aorta
    Structure(Tube((27, 5, 18), (27, 5, 80), 8, 7), POOL, coat=1.5),  # upper caval vein
    Structure(Tube((25, -4, -24), (24, -10, -90), 10, 11), POOL, coat=1.5),  # lower caval vein
    Structure(Ellipsoid((-1, -25, -31), (13, 8, 10)), POOL, coat=2),  # hiatal hernia with contrast medium
)
"""As bright as the atrium, and next to it."""

ATRIUM: tuple[Ellipsoid | Tube, ...] = (
    Ellipsoid((0, -13, 6), (26, 15, 18)),
    Ellipsoid((9, -9, 1), (16, 14, 16)),
    Ellipsoid((-11, -11, 9), (15, 15, 16)),
    Tube((-19, -15, 15), (-45, -24, 23), 7.5, 3.2),  # the four pulmonary veins
    Tube((-19, -16, 0), (-43, -30, -3), 7.0, 3.2),
    Tube((19, -14, 15), (45, -20, 23), 7.5, 3.2),
    Tube((19, -16, 0), (43, -27, -4), 7.0, 3.2),
    Tube((-20, -4, 12), (-37, 10, 15), 8.5, 4.0),  # the appendage
)
"""The atrium is the union of these; the label is what lies inside."""

ATRIUM_WALL = 1.6
"""Thickness (mm) of the grey wall around the atrium."""

MITRAL_VALVE = Tube((-12, -4, -1), (-26, 13, -14), 8, 8)
"""The opening in the wall towards the left ventricle: here only the shape says where the atrium ends."""


class Case(NamedTuple):
    """One generated case.

    Attributes:
        image: int16, (x, y, z).
        label: uint8, (x, y, z); 1 inside the atrium.
        spacing: mm per voxel along x, y, z.
    """

    image: npt.NDArray[np.int16]
    label: npt.NDArray[np.uint8]
    spacing: Point


def generate_case(seed: int, number: int) -> Case:
    """Generate one case; the same ``seed`` and ``number`` give the same case, whatever else is generated.

    Sizes are 90-105 x 90-105 x 20-28 voxels, spacings 1.16-1.36 mm within and 2.8-3.7 mm between slices.
    """
    rng = np.random.default_rng([seed, number])
    spacing, size = _draw_grid(rng)
    points = _warp(_patient_points(rng, spacing, size), rng)
    signal = np.full(size, TISSUE, np.float32)
    edge = spacing[0]
    for structure in NEIGHBOURS + LOOK_ALIKES:
        shape = _vary(structure.shape, rng)
        level = structure.signal * rng.normal(1, 0.05)
        distance = surface_distance(points, shape)
        if structure.coat:
            paint(signal, distance - structure.coat, structure.coat_signal, edge)
        paint(signal, distance, level, edge)
    atrium = np.stack([surface_distance(points, _vary(shape, rng)) for shape in ATRIUM]).min(axis=0)
    paint(signal, atrium - ATRIUM_WALL, WALL, edge)
    paint(signal, surface_distance(points, _vary(MITRAL_VALVE, rng)), POOL, edge)
    paint(signal, atrium, POOL * rng.normal(1, 0.05), edge)
    return Case(_scan(signal, spacing, rng), (atrium < 0).astype(np.uint8), spacing)


def _draw_grid(rng: np.random.Generator) -> tuple[Point, tuple[int, int, int]]:
    """Draw spacing (mm) and size (voxels) so that the field of view always holds the heart."""
    in_plane, between = round(rng.uniform(1.16, 1.36), 3), round(rng.uniform(2.8, 3.7), 2)
    field = rng.uniform((114, 114, 72), (126, 126, 80))
    low, high = np.array((90, 90, 20)), np.array((105, 105, 28))
    size = np.clip(np.round(field / (in_plane, in_plane, between)), low, high).astype(int)
    return (in_plane, in_plane, between), (int(size[0]), int(size[1]), int(size[2]))


def _patient_points(rng: np.random.Generator, spacing: Point, size: tuple[int, int, int]) -> Array:
    """Give every voxel centre in the anatomy's coordinates (mm), shape (3, x, y, z).

    A patient differs from the anatomy by size, tilt and position.
    """
    axes = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(size, spacing, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"))
    about_z, about_x, about_y = np.deg2rad(rng.normal(0, (11, 5, 5)))
    turn = rotation(2, about_z) @ rotation(0, about_x) @ rotation(1, about_y)
    scale = rng.uniform(0.9, 1.1, 3)
    shift = rng.uniform((-8, -5, -5), (8, 11, 5))
    moved = np.einsum("ij,jxyz->ixyz", turn, grid - shift[:, None, None, None])
    return np.asarray(moved / scale[:, None, None, None], np.float32)


def rotation(axis: int, angle: float) -> npt.NDArray[np.float64]:
    """Give the matrix, (3, 3), that turns by an angle (radians) about an axis."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[second, first] = np.sin(angle)
    matrix[first, second] = -np.sin(angle)
    return matrix


def _warp(points: Array, rng: np.random.Generator) -> Array:
    """Bend space smoothly by a few millimetres, so that nothing is exactly round; (3, x, y, z)."""
    warped = points.copy()
    for wavelength, amplitude in ((70.0, 3.2), (45.0, 1.9), (28.0, 1.0)):
        directions = rng.normal(size=(3, 3))
        directions *= 2 * np.pi / wavelength / np.linalg.norm(directions, axis=1, keepdims=True)
        phases = rng.uniform(0, 2 * np.pi, 3)
        for axis in range(3):
            wave = np.einsum("j,jxyz->xyz", directions[axis].astype(np.float32), points)
            warped[axis] += amplitude * np.sin(wave + phases[axis], dtype=np.float32)
    return np.asarray(warped)


def _vary(shape: Ellipsoid | Tube, rng: np.random.Generator) -> Ellipsoid | Tube:
    """Give this patient's form of a shape: moved by about 2 mm, thicker or thinner by about 9 %."""
    factor = float(np.clip(rng.normal(1, 0.09), 0.75, 1.25))

    def moved(point: Point) -> Point:
        x, y, z = np.asarray(point) + rng.normal(0, 2, 3)
        return float(x), float(y), float(z)

    if isinstance(shape, Ellipsoid):
        x, y, z = shape.radii
        return Ellipsoid(moved(shape.centre), (x * factor, y * factor, z * factor), shape.turn + rng.normal(0, 6))
    return Tube(moved(shape.start), moved(shape.end), shape.start_radius * factor, shape.end_radius * factor)


def surface_distance(points: Array, shape: Ellipsoid | Tube) -> Array:
    """Give the distance (mm) of each point to a shape's surface, negative inside; exact on the surface.

    Args:
        points: (3, x, y, z), mm.
        shape: the shape.
    """
    if isinstance(shape, Ellipsoid):
        angle = np.deg2rad(shape.turn)
        local = points - np.asarray(shape.centre, np.float32)[:, None, None, None]
        turned = np.stack([np.cos(angle) * local[0] + np.sin(angle) * local[1],
                           np.cos(angle) * local[1] - np.sin(angle) * local[0], local[2]])
        radii = np.asarray(shape.radii, np.float32)[:, None, None, None]
        level = np.linalg.norm(turned / radii, axis=0)
        slope = np.linalg.norm(turned / radii**2, axis=0)
        # To first order, the distance is the level function over the length of its gradient.
        return np.asarray((level - 1) * level / np.maximum(slope, 1e-4), np.float32)
    start = np.asarray(shape.start, np.float32)
    axis = np.asarray(shape.end, np.float32) - start
    local = points - start[:, None, None, None]
    along = np.clip(np.einsum("j,jxyz->xyz", axis, local) / np.dot(axis, axis), 0, 1)
    gap = np.linalg.norm(local - along * axis[:, None, None, None], axis=0)
    return np.asarray(gap - shape.start_radius - along * (shape.end_radius - shape.start_radius), np.float32)


def paint(signal: Array, distance: Array, level: float, edge: float) -> None:
    """Paint the inside of a surface in place, mixing the tissues over ``edge`` mm: the partial volume."""
    share = np.clip(0.5 - distance / edge, 0, 1)
    signal += share * (np.float32(level) - signal)


def _scan(signal: Array, spacing: Point, rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """Turn tissue signal into an image: texture, slice profile, coil sensitivity, gain and Rician noise."""
    voxel = np.asarray(spacing)
    texture = gaussian_filter(rng.standard_normal(signal.shape, dtype=np.float32), 2.5 / voxel)
    image = signal * (1 + 0.09 * texture / texture.std())
    image = gaussian_filter(image, (0.45, 0.45, 0.4))  # in voxels: in-plane blur and slice profile
    image *= _sensitivity(signal.shape, rng)
    noise = rng.normal(0, rng.uniform(14, 22), (2, *signal.shape)).astype(np.float32)
    image = np.hypot(image + noise[0], noise[1])
    return np.asarray(np.round(image * rng.uniform(0.75, 1.3)), np.int16)


def _sensitivity(size: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Draw the coil's smooth sensitivity, between about 0.75 and 1.25, shape ``size``."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n, dtype=np.float32) for n in size], indexing="ij", sparse=True)
    slope, bend = rng.uniform(-0.14, 0.14, 3), rng.uniform(-0.1, 0.1, 3)
    field = sum(float(a) * axis + float(b) * axis**2 for a, b, axis in zip(slope, bend, axes, strict=True))
    return np.asarray(np.exp(field), np.float32)


def write_phantom(folder: Path, labelled: int, unlabelled: int, seed: int) -> None:
    """Write a phantom data set as an MSD download: imagesTr, labelsTr, imagesTs and dataset.json, which is the last.

    Args:
        folder: where to write; created when missing.
        labelled: number of cases with a label.
        unlabelled: number of cases without.
        seed: the same seed gives the same cases.
    """
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    names = [f"phantom_{number:03d}.nii.gz" for number in range(1, labelled + unlabelled + 1)]
    for index, name in enumerate(tqdm(names, desc="phantom cases", unit="case", disable=None)):
        case = generate_case(seed, index + 1)
        save_volume(case.image, case.spacing, folder / ("imagesTr" if index < labelled else "imagesTs") / name)
        if index < labelled:
            save_volume(case.label, case.spacing, folder / "labelsTr" / name)
    pairs = [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names[:labelled]]
    write_json(folder / "dataset.json", {
        "name": "LeftAtriumPhantom", "description": "Left Atrium, generated phantom", "tensorImageSize": "3D",
        "modality": {"0": "MRI"}, "labels": {"0": "background", "1": "left atrium"}, "numTraining": labelled,
        "numTest": unlabelled, "training": pairs, "test": [f"./imagesTs/{name}" for name in names[labelled:]],
    })  # fmt: skip


def save_volume(voxels: npt.NDArray[Any], spacing: Point, target: Path) -> None:
    """Save an (x, y, z) array as NIfTI, with the origin in its centre and the header's codes of the real download."""
    affine = np.diag((*spacing, 1.0))
    affine[:3, 3] = -(np.array(voxels.shape) - 1) / 2 * spacing
    image = nibabel.Nifti1Image(voxels, None)
    image.header.set_zooms(spacing)
    image.set_sform(affine, code="aligned")
    image.set_qform(None, code="unknown")
    with written_whole(target) as partial:
        nibabel.save(image, partial)


if __name__ == "__main__":
    write_phantom(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
