"""Colours over an image, told apart by people who cannot tell red from green."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Colour = tuple[float, float, float]

# All colours are of the set that Okabe and Ito designed for every kind of colour vision ("Color Universal
# Design", jfly.uni-koeln.de/color, 2008).
REFERENCE: Colour = (0.94, 0.89, 0.26)  # yellow
PREDICTION: Colour = (0.34, 0.71, 0.91)  # sky blue
TRUE_POSITIVE: Colour = (0.00, 0.62, 0.45)  # bluish green
FALSE_POSITIVE: Colour = (0.84, 0.37, 0.00)  # vermillion
FALSE_NEGATIVE: Colour = PREDICTION

LABELS: tuple[Colour, ...] = (
    REFERENCE, PREDICTION, FALSE_POSITIVE, TRUE_POSITIVE, (0.80, 0.47, 0.65), (0.00, 0.45, 0.70), (0.90, 0.62, 0.00)
)  # fmt: skip
"""Colours of several labels, those that differ most first."""

OPACITY = 0.6
"""How much of a coloured pixel is colour; the rest is the image beneath."""
FILL_OPACITY = 0.45
"""The same where whole organs are filled, whose texture should stay visible."""


def colour_labels(
    image: npt.NDArray[Any], labels: npt.NDArray[Any], colours: Mapping[int, Colour], opacity: float = OPACITY
) -> npt.NDArray[np.float64]:
    """Colour the pixels of each label, (rows, columns), over an image; labels without a colour stay as they are.

    Images are grey values from 0 to 1, (rows, columns), or RGB from 0 to 1, (rows, columns, 3), which is returned.
    """
    picture = np.asarray(image, np.float64)
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=2)
    picture = picture.copy()
    for label, colour in colours.items():
        mask = labels == label
        picture[mask] = (1 - opacity) * picture[mask] + opacity * np.asarray(colour)
    return picture


def colour_errors(
    image: npt.NDArray[Any], reference: npt.NDArray[Any], prediction: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    """Colour hits, false alarms and misses of masks (not 0), as :func:`colour_labels` does."""
    outcome = np.asarray(reference > 0, np.uint8) + 2 * np.asarray(prediction > 0, np.uint8)
    return colour_labels(image, outcome, {3: TRUE_POSITIVE, 2: FALSE_POSITIVE, 1: FALSE_NEGATIVE})
