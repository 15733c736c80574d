"""Phantom cases on disk, in the layout of a download of the Medical Segmentation Decathlon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunetv2_eccam.demo.phantom import generate_case
from nnunetv2_eccam.files import write_json, written_whole

STRAY_FILE = bytes.fromhex("0005160700020000") + b"Mac OS X        " + bytes(152)
"""What macOS puts beside a file under the name ``._FILE``; the real downloads hold some of these."""


def write_phantom(folder: Path, labelled: int, unlabelled: int, seed: int) -> None:
    """Write a phantom data set: imagesTr, labelsTr, imagesTs, dataset.json and one stray ``._`` file.

    The headers are those of the real download: images int16, labels uint8, an sform with code 2
    ("aligned"), no qform. The axes grow to the right, front and head, in mm.
    ``dataset.json`` is written last: where it lies, the data set is complete.

    Args:
        folder: where to write; created when missing.
        labelled: number of cases with a label.
        unlabelled: number of cases without.
        seed: the same seed gives the same cases.
    """
    from tqdm import tqdm

    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    names = [f"phantom_{number:03d}" for number in range(1, labelled + unlabelled + 1)]
    for index, name in enumerate(tqdm(names, desc="phantom cases", unit="case", disable=None)):
        case = generate_case(seed, index + 1)
        images = "imagesTr" if index < labelled else "imagesTs"
        save_volume(case.image, case.spacing, folder / images / f"{name}.nii.gz")
        if index < labelled:
            save_volume(case.label, case.spacing, folder / "labelsTr" / f"{name}.nii.gz")
    (folder / "imagesTr" / f"._{names[0]}.nii.gz").write_bytes(STRAY_FILE)
    write_json(folder / "dataset.json", _description(names[:labelled], names[labelled:]))


def save_volume(voxels: npt.NDArray[Any], spacing: tuple[float, float, float], target: Path) -> None:
    """Save an (x, y, z) array as NIfTI, with the origin in its centre."""
    import nibabel

    affine = np.diag((*spacing, 1.0))
    affine[:3, 3] = -(np.array(voxels.shape) - 1) / 2 * spacing
    image = nibabel.Nifti1Image(voxels, None)
    image.header.set_zooms(spacing)
    image.set_sform(affine, code="aligned")
    image.set_qform(None, code="unknown")
    with written_whole(target) as partial:
        nibabel.save(image, partial)


def _description(labelled: list[str], unlabelled: list[str]) -> dict[str, Any]:
    """Give the content of ``dataset.json``, with the keys of the real download, in their order."""
    return {
        "name": "LeftAtriumPhantom",
        "description": "Left Atrium, generated phantom",
        "tensorImageSize": "3D",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "left atrium"},
        "numTraining": len(labelled),
        "numTest": len(unlabelled),
        "training": [
            {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in labelled
        ],
        "test": [f"./imagesTs/{name}.nii.gz" for name in unlabelled],
    }
