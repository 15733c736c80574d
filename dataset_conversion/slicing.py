"""Along which axis nnU-Net's planner will slice a data set, told before it plans.

nnU-Net's 2d configuration slices all cases along one axis, the one with the largest target spacing
(ExperimentPlanner.determine_transpose and determine_fullres_target_spacing, nnU-Net 2.8.1, file
default_experiment_planner.py). In an almost isotropic data set that may be another plane than the one the
scanner acquired, and then per-slice results are of another plane than the one reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

ANISOTROPY = 3
"""nnunetv2.configuration.ANISO_THRESHOLD."""

PLANES = {"L": "sagittal", "R": "sagittal", "A": "coronal", "P": "coronal", "S": "axial", "I": "axial"}


def target_spacing(spacings: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Work out the planner's target spacing.

    Args:
        spacings: ``(case, 3)``, mm, axes z, y, x.
        sizes: ``(case, 3)``, voxels after cropping to what is not zero, axes z, y, x.

    Returns:
        ``(3,)``, mm, axes z, y, x: the median, but the tenth percentile along an axis that is both far
        coarser and far shorter than the others.
    """
    target: NDArray[np.float64] = np.percentile(spacings, 50, 0)
    size = np.percentile(sizes, 50, 0)
    worst = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != worst]
    finest_other, shortest_other = max(target[others]), min(size[others])
    if target[worst] > ANISOTROPY * finest_other and size[worst] * ANISOTROPY < shortest_other:
        spacing = float(np.percentile(spacings[:, worst], 10))
        target[worst] = spacing if spacing >= finest_other else max(finest_other, spacing) + 1e-5
    return target


def slicing(training_cases: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """Tell along which axis nnU-Net will slice, and whether that is the plane of the files' slices.

    The slices are taken to have been acquired along the files' third axis, as NIfTI files of scanners have
    them; KiTS19 and TCIA Pancreas-CT are published so by their converters.

    Args:
        training_cases: the report's entries of the cases in imagesTr.

    Returns:
        The finding for the report, and warnings.
    """
    spacings = np.array([case["spacing"][::-1] for case in training_cases])
    sizes = np.array([case["nonzero_size"][::-1] for case in training_cases])
    target = target_spacing(spacings, sizes)
    axis = int(np.argmax(target))
    # The letters are in the file's order x, y, z; the planner's axes are z, y, x.
    planes = sorted({PLANES[case["orientation"][2 - axis]] for case in training_cases})
    finding = {
        "target_spacing": [round(float(value), 6) for value in target[::-1]],
        "axis": "xyz"[2 - axis],
        "plane": " or ".join(planes),
        "is_acquired_plane": axis == 0,
    }
    warnings = []
    if axis != 0:
        warnings.append(
            f"nnU-Net's 2d configuration will slice along {'xyz'[2 - axis]} ({finding['plane']} slices), not along "
            f"z, in which the slices were stored: the target spacing is largest there "
            f"({', '.join(f'{value:g}' for value in target[::-1])} mm for x, y, z)"
        )
    if len(planes) > 1:
        warnings.append(f"the cases are stored in different orientations: nnU-Net's slices will be {finding['plane']}")
    return finding, warnings
