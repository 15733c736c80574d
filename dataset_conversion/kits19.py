"""KiTS19: kidneys and their tumours in CT, from the repository neheller/kits19.

Layout: ``data/case_00000/imaging.nii.gz`` and ``segmentation.nii.gz``; the images are fetched by the
repository's ``starter_code.get_imaging``. Labels: 1 kidney, 2 tumour, for 210 cases; folders of the
challenge's test cases may be there without a label. Arrays are slices first (slice, row, column) with an
antidiagonal affine, so a reader that takes the third axis for the slices cuts across them. One case
(case_00160) has 512 x 796 pixels; some label files are uint16. Source: the repository's README and the
headers of all 210 label files.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from nnunetv2_eccam.volumes import Volume, read_image, read_labels
from nnunetv2_eccam.volumes.listing import similar_file

from .cases import header_warnings
from .model import Case, Conversion, DatasetCard, Scan
from .source_folder import check_source

CARD = DatasetCard(
    title="KiTS19",
    dataset_id=219,
    name="KiTS19",
    reference="https://github.com/neheller/kits19",
    licence="CC BY-NC-SA 4.0",
    citation=(
        "N. Heller et al., The KiTS19 Challenge Data: 300 Kidney Tumor Cases with Clinical Context, CT Semantic "
        "Segmentations, and Surgical Outcomes, arXiv:1904.00445 (2019)",
        "N. Heller et al., The state of the art in kidney and kidney tumor segmentation in contrast-enhanced CT "
        "imaging: Results of the KiTS19 challenge, Medical Image Analysis 67, 101821 (2021)",
    ),
    labels={0: "background", 1: "kidney", 2: "tumor"},
    default_labels="merged",
    organ="kidney",
    soft_tissue=True,
    paper_counts={210: (170, 10, 30)},
)
EXPECTED = "data/case_00000 and so on (the clone of neheller/kits19)"
CASE_FOLDERS = "data/case_" + "[0-9]" * 5
IMAGE, LABEL = "imaging.nii.gz", "segmentation.nii.gz"
FETCH = "fetch it with the repository's 'python -m starter_code.get_imaging'"


def plan_kits19(source: Path) -> Conversion:
    """Plan KiTS19's conversion to axial volumes.

    Args:
        source: the clone of neheller/kits19, with the images fetched.

    Raises:
        UserError: it is another folder.
    """
    plan = Conversion(CARD, check_source(source, (CASE_FOLDERS,), EXPECTED), read_case)
    for entry in sorted(plan.source.glob(CASE_FOLDERS)):
        image, label = entry / IMAGE, entry / LABEL
        if not label.exists() and (similar := similar_file(label)):
            plan.refuse(entry.name, f"{label} is missing{similar}")
        elif not (label.exists() or label.is_symlink()):
            plan.left_out[entry.name] = f"no {LABEL}"
        elif not image.exists() and not image.is_symlink():
            plan.refuse(entry.name, f"{image} is missing{similar_file(image) or '; ' + FETCH}")
        else:
            plan.cases.append(Case(entry.name, (image,), label))
    return plan


def read_case(case: Case) -> Scan:
    """Read a case with its axes to the right, to the front and to the head (RAS).

    Image and label are turned by their headers, so that they stay on each other. No voxel is interpolated.

    Raises:
        UserError: a file is damaged.
    """
    assert case.label is not None
    image, label = read_image(case.images[0]), read_labels(case.label)
    done = f"turned from {image.orientation} to RAS"
    checks = {"source_orientation": image.orientation, "source_size": list(image.shape)}
    return Scan(_turned(image), _turned(label), (done, done), header_warnings(image), checks)


def _turned(volume: Volume) -> Volume:
    """Turn to RAS, with one copy in the file's order: every later pass over strided voxels would cost more."""
    turned = volume.to_ras()
    return replace(turned, voxels=np.asfortranarray(turned.voxels))
