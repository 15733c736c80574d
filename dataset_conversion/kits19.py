"""KiTS19: kidneys and their tumours in CT, from the repository neheller/kits19.

Layout: ``data/case_00000/imaging.nii.gz`` and ``segmentation.nii.gz``; the images are fetched by the
repository's ``starter_code.get_imaging``. Labels: 1 kidney, 2 tumour, for 210 cases; folders of the
challenge's test cases may be there without a label. Arrays are slices first (slice, row, column) with an
antidiagonal affine, so a reader that takes the third axis for the slices cuts across them. One case
(case_00160) has 512 x 796 pixels; some label files are uint16. Source: the repository's README and the
headers of all 210 label files.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunetv2_eccam.errors import UserError

from .case_checks import check_image, check_label, check_label_on_tissue, check_same_grid
from .checksums import source_name
from .engine import convert
from .geometry import header_warnings, simpleitk_geometry
from .labels import label_policy, relabelled
from .model import Case, CaseResult, DatasetCard, LabelPolicy, Options, Outcome, Plan, Problem, case_result
from .nifti import Nifti, read_both
from .parallel import default_processes
from .source_folder import check_source
from .volumes import publish_volume, smallest_type

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
    soft_tissue=True,
)
LABELS = {0: "background", 1: "kidney", 2: "tumor"}
PAPER_COUNTS = {210: (170, 10, 30)}
EXPECTED = "data/case_00000 and so on (the clone of neheller/kits19)"
CASE_FOLDER = re.compile(r"case_\d{5}")
IMAGE, LABEL = "imaging.nii.gz", "segmentation.nii.gz"


def convert_kits19(
    source: Path | str,
    *,
    dataset_id: int | None = None,
    name: str | None = None,
    labels: str | None = None,
    split: str = "cv",
    hold_out: int = 0,
    seed: int = 12345,
    leave_out: tuple[str, ...] = (),
    processes: int | None = None,
    dry_run: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Outcome:
    """Convert KiTS19 to axial volumes in ``$nnUNet_raw/Dataset219_KiTS19``.

    Args:
        source: the clone of neheller/kits19, with the images fetched.
        dataset_id: None for 219.
        name: None for KiTS19.
        labels: ``merged`` (the paper's and the default), ``apart`` or ``regions``.
        split: ``cv`` (nnU-Net's five folds) or ``paper`` (170/10/30).
        hold_out: labelled cases to hold out for testing, with ``cv``.
        seed: decides which cases are held out.
        leave_out: names of cases not to convert.
        processes: None for eight, or the number of cores if less.
        dry_run: only find and print every problem.
        overwrite: replace an existing data set, once the new one is complete.
        progress: show a progress bar.

    Raises:
        UserError: the source, an option or the target is wrong; the target is as it was.
    """
    folder = check_source(Path(source), _looks_right, EXPECTED)
    options = Options(
        dataset_id=CARD.dataset_id if dataset_id is None else dataset_id,
        name=CARD.name if name is None else name,
        labels=labels or "merged",
        split=split,
        hold_out=hold_out,
        seed=seed,
        leave_out=tuple(leave_out),
        processes=processes or default_processes(),
        dry_run=dry_run,
        overwrite=overwrite,
        progress=progress,
    )
    policy = label_policy(options.labels, LABELS, "kidney")
    plan = Plan(CARD, folder, {"0": "CT"}, policy, [], partial(convert_case, policy=policy), paper_counts=PAPER_COUNTS)
    _find_cases(plan)
    return convert(plan, options)


def _looks_right(folder: Path) -> bool:
    data = folder / "data"
    return data.is_dir() and any(CASE_FOLDER.fullmatch(entry.name) for entry in data.iterdir())


def _find_cases(plan: Plan) -> None:
    without_label = []
    without_image = []
    for entry in sorted((plan.source / "data").iterdir()):
        if not (entry.is_dir() and CASE_FOLDER.fullmatch(entry.name)):
            continue
        image, label = entry / IMAGE, entry / LABEL
        if not label.exists():
            without_label.append(entry.name)
        elif not image.exists():
            without_image.append(image)
        else:
            plan.cases.append(Case(entry.name, (image,), label))
    plan.left_out.update(dict.fromkeys(without_label, f"no {LABEL}"))
    if without_label:
        plan.notes.append(f"{len(without_label)} case folders have no {LABEL} and are skipped.")
    fetch = "fetch it with the repository's 'python -m starter_code.get_imaging'"
    if without_image and not plan.cases:
        plan.problems.append(
            Problem("", f"{without_image[0]} and the images of all other labelled cases are missing; {fetch}")
        )
    else:
        plan.problems += [
            Problem(
                image.parent.name,
                f"{image} is missing, its label is there; {fetch}, or leave the case out with "
                f"--leave-out {image.parent.name}",
            )
            for image in without_image
        ]


def convert_case(case: Case, folder: Path | None, *, policy: LabelPolicy) -> CaseResult:
    """Check one case and publish it with its axes to the right, to the front and to the head (RAS).

    Image and label are turned together, by the same header, so that they stay on each other. No voxel is
    interpolated.

    Args:
        case: the case.
        folder: the data set's folder; None only checks.
        policy: its labels.

    Raises:
        UserError: a file is damaged or the case is wrong.
    """
    path = case.images[0]
    image, label = read_both(path, case.label)
    assert case.label is not None
    assert label is not None
    for file, content in ((path, image), (case.label, label)):
        if content.voxels.ndim != 3:
            raise UserError(
                f"{file} has {content.voxels.ndim} dimensions "
                f"({' x '.join(map(str, content.voxels.shape))}), not three; download it again"
            )
    geometry = simpleitk_geometry(path)
    check_same_grid(path, geometry, case.label, simpleitk_geometry(case.label))
    warnings = header_warnings(image.header.get_best_affine(), geometry)

    voxels, affine = canonical(image, geometry.affine_ras)
    mask, _ = canonical(label, geometry.affine_ras)
    checks: dict[str, Any] = {
        "size": list(voxels.shape),
        "spacing": [float(length) for length in np.linalg.norm(affine[:3, :3], axis=0)],
        "orientation": "RAS",
        "source_orientation": geometry.orientation,
        "source_size": list(geometry.size),
    }
    found, more = check_image(path, voxels.T, "CT")
    warnings += more
    checks |= found | check_label(case.label, mask.T, policy.declared)
    found, _ = check_label_on_tissue(voxels.T, mask.T, case.label, checks["label_box"], soft_tissue=True)
    checks |= found
    names = (f"images{case.subset}/{case.case}_0000.nii.gz", f"labels{case.subset}/{case.case}.nii.gz")
    if folder is not None:
        seen = publish_volume(folder / names[0], smallest_type(voxels), affine)
        checks["spacing"] = list(seen.spacing)
        publish_volume(folder / names[1], relabelled(mask, policy), affine)
    sources = {source_name(path): image.sha256, source_name(case.label): label.sha256}
    done = f"turned from {geometry.orientation} to RAS"
    return case_result(case, checks, sources, {names[0]: done, names[1]: f"{done}, labels {policy.policy}"}, warnings)


def canonical(nifti: Nifti, affine_ras: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Turn ``(slice, row, column)`` or any other axes to RAS, by exchanging and flipping axes only.

    Args:
        nifti: the file.
        affine_ras: where its voxels are, as nnU-Net's reader sees it.

    Returns:
        Voxels ``(x, y, z)`` with x to the right, y to the front and z to the head, and their affine.
    """
    import nibabel

    # NIfTI images cannot be made of int64, which a float label of another program may come as.
    turned = nibabel.as_closest_canonical(nibabel.Nifti1Image(nifti.voxels, affine_ras, dtype=nifti.voxels.dtype))
    # One copy in the file's order now: every later pass over strided voxels would cost more than that.
    return np.asfortranarray(turned.dataobj), np.asarray(turned.affine, dtype=np.float64)
