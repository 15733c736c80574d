"""The numbers that the paper prints, in percent, by table and row; to stand beside what was measured.

Source: Tables I to V and section IV.G.3 of the paper. Its tables disagree in places (Table II's and Table
V's rows for CC, SC and the attention alone); each is given as printed.
"""

from collections.abc import Mapping
from typing import Final

DATASETS: Final = ("TCIA", "MSD", "KiTS", "Cardiac")
METRICS: Final = ("DSC", "sensitivity", "precision")

Scores = Mapping[str, Mapping[str, float]]
"""Data set to metric to percent."""


def _three(*values: float) -> Scores:
    """Read a row of Tables I, II and V: three metrics for each of four data sets."""
    assert len(values) == len(DATASETS) * len(METRICS)
    return {name: dict(zip(METRICS, values[3 * i : 3 * i + 3], strict=True)) for i, name in enumerate(DATASETS)}


def _dice(*values: float) -> Scores:
    """Read a row of Tables III and IV: Dice for each of four data sets."""
    return {name: {"DSC": value} for name, value in zip(DATASETS, values, strict=True)}


PUBLISHED: Final[Mapping[str, Mapping[str, Scores]]] = {
    "I": {
        "U-Net": _three(67.80, 64.92, 81.44, 65.35, 70.74, 77.56, 93.83, 96.20, 94.60, 74.41, 75.86, 78.03),
        "U-Net++": _three(71.47, 71.44, 80.48, 68.75, 70.42, 78.71, 94.10, 96.25, 94.11, 75.58, 75.93, 80.65),
        "DeepLabV3+": _three(68.08, 62.86, 80.74, 69.02, 71.21, 73.13, 94.54, 93.81, 96.01, 78.26, 77.05, 79.50),
        "Attention U-Net": _three(71.37, 71.30, 81.17, 70.01, 72.94, 78.98, 94.45, 96.18, 94.73, 74.61, 77.48, 79.47),
        "DA-Net": _three(69.17, 67.70, 80.97, 70.77, 72.70, 78.37, 94.57, 96.10, 94.79, 77.82, 73.45, 82.75),
        "HR-Net": _three(71.13, 68.43, 80.12, 71.03, 73.51, 76.38, 94.66, 95.53, 96.72, 78.43, 77.55, 79.33),
        "SegFormer": _three(69.17, 67.70, 80.97, 70.77, 72.70, 78.37, 94.57, 96.10, 95.30, 77.27, 72.88, 82.23),
        "CE-Net": _three(71.75, 69.74, 79.29, 69.22, 70.29, 77.97, 94.08, 94.02, 96.78, 78.19, 78.64, 82.13),
        "MSU-Net": _three(70.34, 69.38, 79.72, 70.21, 74.50, 76.50, 94.71, 96.25, 95.34, 75.62, 75.18, 80.75),
        "Our": _three(72.64, 72.07, 82.34, 71.68, 74.96, 79.06, 95.02, 96.28, 95.29, 79.32, 80.31, 82.51),
    },
    "II": {
        "U-Net": _three(67.80, 64.92, 81.44, 65.35, 70.74, 77.56, 93.83, 96.20, 94.60, 74.41, 75.86, 78.03),
        "CC": _three(68.05, 65.92, 81.07, 69.67, 72.26, 78.03, 94.49, 96.13, 94.86, 75.79, 77.95, 79.00),
        "SC": _three(68.71, 67.14, 82.12, 67.92, 72.36, 76.73, 94.19, 95.99, 94.38, 77.31, 80.04, 77.97),
        "MuS": _three(68.14, 67.23, 80.50, 69.68, 74.50, 75.94, 93.42, 95.67, 93.74, 76.73, 79.07, 77.96),
        "EC": _three(70.70, 67.23, 80.51, 70.22, 74.11, 78.71, 94.35, 96.10, 94.59, 77.63, 79.72, 80.19),
        "DWS": _three(68.83, 67.03, 80.15, 69.32, 73.11, 77.76, 94.12, 96.05, 93.94, 76.85, 78.06, 80.44),
        "row 7": _three(69.58, 69.24, 81.65, 70.21, 74.50, 76.50, 94.71, 95.34, 94.25, 77.52, 78.36, 80.83),
        "CC + SC + MuS": _three(71.45, 69.23, 80.14, 70.28, 73.32, 77.29, 93.80, 94.06, 93.10, 78.67, 79.32, 80.53),
        "CC + SC + MuS + EC": _three(
            71.65, 71.98, 80.58, 71.06, 73.65, 77.36, 94.90, 96.19, 95.14, 78.89, 79.85, 82.24
        ),
        "all": _three(72.64, 72.07, 82.34, 71.68, 74.96, 79.06, 95.02, 96.28, 95.29, 79.32, 80.31, 82.51),
    },
    "III": {
        "CoA -> MuS": _dice(69.58, 70.91, 94.64, 77.19),
        "CoA + MuS": _dice(70.23, 71.24, 94.74, 77.83),
        "Ours": _dice(72.64, 71.68, 95.02, 79.32),
    },
    "IV": {
        "Dice": _dice(67.80, 65.35, 93.83, 74.41),
        "BCE": _dice(65.77, 65.85, 93.66, 73.13),
        "Dice + BCE": _dice(68.02, 66.47, 93.89, 75.03),
    },
    "V": {
        "U-Net + SE": _three(68.00, 66.82, 79.81, 66.46, 72.61, 71.96, 94.08, 96.71, 93.73, 75.22, 78.36, 78.09),
        "U-Net + CBAM": _three(68.16, 67.70, 78.98, 67.49, 69.41, 72.90, 94.19, 96.45, 93.82, 75.52, 80.14, 75.67),
        "U-Net + CC": _three(68.05, 65.92, 81.07, 69.67, 72.26, 75.80, 94.49, 96.13, 94.86, 76.06, 78.10, 79.01),
        "U-Net + SC": _three(68.71, 67.14, 82.12, 67.92, 72.36, 76.73, 94.19, 95.99, 94.38, 76.27, 80.94, 76.76),
        "U-Net + CoA": _three(70.24, 68.68, 82.10, 70.15, 73.83, 76.24, 94.97, 96.55, 95.41, 79.02, 80.97, 80.74),
    },
    # The figure's curve has no printed values; the text of IV.G.3 gives its best point.
    "Fig. 5": {"alpha = 0.3": {"TCIA": {"DSC": 73.14}}},
}
"""Table, row, data set, metric: percent."""
