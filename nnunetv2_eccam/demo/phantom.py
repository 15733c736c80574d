"""The phantom: MR-like volumes with an atrium among chambers and vessels that look like it, laid out as a download.

``python -m nnunetv2_eccam.demo.phantom FOLDER LABELLED UNLABELLED SEED`` writes it.

Intensity alone does not find the atrium: the other chambers and the great vessels are as bright, and several times its
volume. What sets it apart is anatomy: it lies in front of the spine and behind the ventricles, and veins run into it
from both sides. A thin grey wall keeps it from its neighbours, except at the mitral valve.
"""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from nnunetv2_eccam.files import write_json

Array = npt.NDArray[np.float32]
Tube = tuple[tuple[float, float, float], tuple[float, float, float], float]
"""A round tube with round ends: its axis from start to end, and its radius. In mm around the heart's centre; x grows to
the patient's right, y to the front, z to the head."""

BLOOD, TISSUE, WALL = 200.0, 100.0, 112.0
NEIGHBOURS: tuple[tuple[Tube, float], ...] = (
    (((74, -4, -40), (74, -4, 40), 42), 24),  # lungs
    (((-76, -8, -40), (-76, -8, 40), 40), 24),
    (((0, 16, -64), (40, 16, -60), 30), 158),  # liver
    (((0, -54, -90), (0, -54, 90), 15), 138),  # spine
)
"""What says where the atrium is, and its signal."""

LOOK_ALIKES: tuple[Tube, ...] = (
    ((-32, 22, -34), (-25, 17, -12), 19),  # ventricles, left and right
    ((-2, 42, -20), (28, 38, -12), 14),
    ((36, 13, -10), (36, 13, 4), 16),  # right atrium
    ((2, 13, 14), (8, 17, 70), 12),  # ascending aorta
    ((-12, 34, 8), (-16, 16, 60), 11),  # pulmonary artery
    ((-21, -42, -90), (-17, -42, 90), 10),  # descending aorta
    ((27, 5, 18), (27, 5, 80), 8),  # caval veins, upper and lower
    ((25, -4, -30), (24, -10, -90), 10),
)
"""As bright as the atrium, and next to it."""

ATRIUM: tuple[Tube, ...] = (
    ((-11, -12, 8), (12, -10, 3), 16),
    ((-12, -15, 15), (-42, -24, 23), 5),  # the four pulmonary veins
    ((-12, -16, 0), (-42, -30, -3), 5),
    ((12, -14, 15), (42, -20, 23), 5),
    ((12, -16, 0), (42, -27, -4), 5),
    ((-20, -4, 12), (-36, 9, 15), 7),  # the appendage
)
"""The atrium is the union of these; the label is what lies inside."""

MITRAL_VALVE: Tube = ((-12, -4, -1), (-26, 13, -14), 8)
"""The opening in the wall towards the left ventricle: here only the shape says where the atrium ends."""


class Case(NamedTuple):
    """Image (int16) and label (uint8; 1 inside the atrium), both (x, y, z), and mm per voxel along these axes."""

    image: npt.NDArray[np.int16]
    label: npt.NDArray[np.uint8]
    spacing: tuple[float, float, float]


def generate_case(seed: int, number: int) -> Case:
    """Generate one case; the same ``seed`` and ``number`` give the same case, whatever else is generated.

    Sizes are 90-105 x 90-105 x 20-28 voxels, spacings 1.16-1.36 mm within and 2.8-3.7 mm between slices.
    """
    rng = np.random.default_rng([seed, number])
    in_plane, between = round(rng.uniform(1.16, 1.36), 3), round(rng.uniform(2.8, 3.7), 2)
    spacing = np.array((in_plane, in_plane, between))
    drawn = np.round(rng.uniform((114, 114, 72), (126, 126, 80)) / spacing)
    size = tuple(int(n) for n in np.clip(drawn, (90, 90, 20), (105, 105, 28)))

    def field(smooth_mm: float) -> Array:
        """Draw smooth noise with a standard deviation of 1."""
        noise = gaussian_filter(rng.standard_normal(size, np.float32), smooth_mm / spacing)
        return np.asarray(noise / noise.std(), np.float32)

    # A patient differs from the anatomy by tilt, size, position, a bend, and the form of each part.
    axes = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(size, spacing, strict=True)]
    shift = rng.uniform((-8, -5, -11), (8, 11, -1))[:, None, None, None]
    turn = Rotation.from_euler("zxy", rng.normal(0, (11, 5, 5)), degrees=True).as_matrix()
    turned = np.einsum("ij,jxyz->ixyz", turn, np.stack(np.meshgrid(*axes, indexing="ij")) - shift)
    bend = 2.5 * np.stack([field(12) for _ in axes])
    points = (turned / rng.uniform(0.9, 1.1, (3, 1, 1, 1))).astype(np.float32) + bend

    def distance(tube: Tube) -> Array:
        """Give each voxel's distance (mm) to this patient's form of a tube, negative inside."""
        start, end = (np.asarray(point) + rng.normal(0, 2) for point in tube[:2])
        local = points - start.astype(np.float32)[:, None, None, None]
        along = np.einsum("j,jxyz->xyz", (end - start).astype(np.float32), local) / np.sum((end - start) ** 2)
        nearest = (end - start)[:, None, None, None] * np.clip(along, 0, 1)
        gap = np.linalg.norm(local - nearest, axis=0) - tube[2] * np.clip(rng.normal(1, 0.09), 0.75, 1.25)
        return np.asarray(gap, np.float32)

    signal = np.full(size, TISSUE, np.float32)

    def paint(distances: Array, level: float) -> None:
        """Paint the inside of a surface, mixing the tissues over a pixel: the partial volume."""
        share = np.clip(0.5 - distances / in_plane, 0, 1)
        signal[:] += share * (np.float32(level) - signal)

    for tube, level in (*NEIGHBOURS, *((each, BLOOD) for each in LOOK_ALIKES)):
        paint(distance(tube), level * rng.normal(1, 0.05))
    atrium = np.min([distance(tube) for tube in ATRIUM], axis=0)
    paint(atrium - 1.6, WALL)  # mm of wall
    paint(distance(MITRAL_VALVE), BLOOD)
    paint(atrium, BLOOD * rng.normal(1, 0.05))
    # Texture, blur, the coil's sensitivity, Rician noise and a gain.
    image = gaussian_filter(signal * (1 + 0.09 * field(2.5)), (0.45, 0.45, 0.4)) * np.exp(0.1 * field(40))
    noise = rng.normal(0, rng.uniform(14, 22), (2, *size))
    image = np.hypot(image + noise[0], noise[1]) * rng.uniform(0.75, 1.3)
    return Case(np.round(image).astype(np.int16), (atrium < 0).astype(np.uint8), (in_plane, in_plane, between))


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
        _save(case.image, case.spacing, folder / ("imagesTr" if index < labelled else "imagesTs") / name)
        if index < labelled:
            _save(case.label, case.spacing, folder / "labelsTr" / name)
    pairs = [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names[:labelled]]
    write_json(folder / "dataset.json", {
        "name": "LeftAtriumPhantom", "description": "Left Atrium, generated phantom", "tensorImageSize": "3D",
        "modality": {"0": "MRI"}, "labels": {"0": "background", "1": "left atrium"}, "numTraining": labelled,
        "numTest": unlabelled, "training": pairs, "test": [f"./imagesTs/{name}" for name in names[labelled:]],
    })  # fmt: skip


def _save(voxels: npt.NDArray[Any], spacing: tuple[float, float, float], target: Path) -> None:
    """Save (x, y, z) as NIfTI, with the header's codes of the real download."""
    image = nibabel.Nifti1Image(voxels, None)
    image.header.set_zooms(spacing)
    image.set_sform(np.diag((*spacing, 1.0)), code="aligned")
    image.set_qform(None, code="unknown")
    nibabel.save(image, target)


if __name__ == "__main__":
    write_phantom(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
