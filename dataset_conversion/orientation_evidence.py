"""How do label files without a trustworthy header lie on their images? The voxels tell.

A label array can be transposed and flipped in sixteen ways. For each way, the CT under the label is scored:
soft tissue, not air, of one kind, alike from slice to slice, and with edges where the label has its border.
A wrong way may lie on soft tissue too (the liver, say), but hardly ever has the image's edges on its border,
so that counts most. All cases vote, since the files of one release were made in one way.
"""

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunetv2_eccam.errors import UserError

from .cases import bounding_box

SOFT_TISSUE = (-30.0, 200.0)
"""HU of an abdominal organ with its fat lobules, with and without contrast agent."""

BODY = -200.0
"""HU; fat is above, air and lung are below."""

WINDOW = (-200.0, 300.0)
"""HU; edges are measured in it, so that neither metal nor air outweighs the organ's border."""

EDGE_WEIGHT = 3.0
"""Of seven; the four other parts have one each."""

SMALLEST_MARGIN = 0.03
"""Between the mean scores of the best way and the next, for a decision. Half of what the pancreas of a real
CT at 3 mm gives, and above what symmetric anatomy gives by noise."""

SMALLEST_SHARE = 0.6
"""Of the cases must have the same best way."""

CONTRADICTION = 0.1
"""A case that another way fits better by this much is not like the others."""


class Way(NamedTuple):
    """How a label's array, ``(i, j, k)`` as nibabel gives it, becomes the image's ``(x, y, z)``.

    First x and y are exchanged, then axes are flipped.
    """

    transpose: bool
    flip_x: bool
    flip_y: bool
    flip_z: bool

    def __str__(self) -> str:
        flips = "".join(axis for axis, flip in zip("xyz", self[1:], strict=True) if flip)
        parts = ["transpose"] * self.transpose + [f"flip {' '.join(flips)}"] * bool(flips)
        return " + ".join(parts) or "as stored"

    def place(self, label: NDArray[Any]) -> NDArray[Any]:
        """Turn a label's array ``(i, j, k)`` to the image's ``(x, y, z)``; a view, nothing is copied."""
        turned = label.transpose(1, 0, 2) if self.transpose else label
        return np.flip(turned, tuple(axis for axis, flip in enumerate(self[1:]) if flip))

    def undo(self, image: NDArray[Any]) -> NDArray[Any]:
        """Turn an image ``(x, y, z)`` to the label's ``(i, j, k)``; a view."""
        inverse = self._replace(flip_x=self.flip_y, flip_y=self.flip_x) if self.transpose else self
        return inverse.place(image)


WAYS = tuple(Way(*flags) for flags in itertools.product((False, True), repeat=4))


def way_scores(image: NDArray[Any], label: NDArray[Any]) -> dict[str, float]:
    """Score every way in which a label can lie on its image.

    Args:
        image: HU, ``(x, y, z)``.
        label: ``(i, j, k)``, not empty.

    Returns:
        A score from 0 to 1 by the way's name; ways that do not have the image's shape are not in it.
    """
    mask = label != 0
    ends = bounding_box(mask)
    assert ends is not None
    box = tuple(slice(max(axis.start - 1, 0), axis.stop + 1) for axis in ends)
    mask = np.ascontiguousarray(mask[box])
    return {str(way): score_under(way.undo(image)[box], mask) for way in WAYS if way.undo(image).shape == label.shape}


def score_under(image: NDArray[Any], mask: NDArray[np.bool_]) -> float:
    """Score what lies under a mask, from 0 to 1.

    Args:
        image: HU, three axes, slices along the third.
        mask: of the same shape, not empty.
    """
    values = image[mask].astype(np.float32)
    windowed = np.clip(image, *WINDOW).astype(np.float32)
    soft = float(np.mean((values > SOFT_TISSUE[0]) & (values < SOFT_TISSUE[1])))
    body = float(np.mean(values > BODY))
    alike = float(np.mean(np.abs(values - np.median(values)) < 40))  # HU: noise, vessels and lobules
    steady = 1 / (1 + _slice_to_slice(windowed, mask) / 30)
    return (soft + body + alike + steady + EDGE_WEIGHT * _edges_at_border(windowed, mask)) / (4 + EDGE_WEIGHT)


def _slice_to_slice(image: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """Mean change in HU of the mask's mean from one slice to the next."""
    counts = mask.sum(axis=(0, 1))
    sums = np.where(mask, image, 0).sum(axis=(0, 1), dtype=np.float64)
    means = sums[counts > 0] / counts[counts > 0]
    return float(np.abs(np.diff(means)).mean()) if len(means) > 1 else 0.0


def _edges_at_border(image: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """Steps in HU across the border, beside those inside: 0.5 where the border means nothing, up to 1."""
    across, inside = [], []
    for axis in (0, 1):
        steps = np.moveaxis(np.abs(np.diff(image, axis=axis)), axis, 0)
        first, second = np.moveaxis(mask, axis, 0)[:-1], np.moveaxis(mask, axis, 0)[1:]
        across.append(steps[first != second])
        inside.append(steps[first & second])
    border, within = (float(np.concatenate(part).mean()) if sum(map(len, part)) else 0.0 for part in (across, inside))
    return border / (border + within) if border + within > 0 else 0.5


def decide_way(measured: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, Way]]:
    """Decide by all cases how the labels lie on the images.

    Slices can be counted along their positions or by DICOM's instance numbers; where the cases differ in
    that, both are tried.

    Args:
        measured: for each case ``scores``, by the way's name, with slices along their positions, and
            ``descending``: whether instance numbers fall along them, or None.

    Returns:
        The finding for the report, and each case's way, with slices along their positions.

    Raises:
        UserError: no way fits decisively better than all others, or a case contradicts the others.
    """
    candidates = _candidates(measured)
    table = {  # a way that does not give a label its image's shape has no score
        name: np.array([measured[case]["scores"].get(str(way), 0.0) for case, way in ways.items()])
        for name, ways in candidates.items()
    }
    ranking = sorted(table, key=lambda name: -float(table[name].mean()))
    best = ranking[0]
    scores = {name: round(float(table[name].mean()), 6) for name in ranking}
    margin = float((table[best] - table[ranking[1]]).mean())
    # Ways whose scores are equal in a case, such as two ways to count its slices, share its vote.
    share = float(np.mean(table[best] >= np.max(list(table.values()), axis=0) - 1e-9))
    if margin < SMALLEST_MARGIN or share < SMALLEST_SHARE:
        raise UserError(
            f"the orientation of the labels cannot be decided from {len(measured)} case(s): "
            f"{', '.join(f'{name} {scores[name]:.3f}' for name in ranking[:4])}; "
            f"margin {margin:.3f} (at least {SMALLEST_MARGIN} is needed), best in {share:.0%} of the "
            f"cases (at least {SMALLEST_SHARE:.0%}); are images and labels of the same release?"
        )
    own = {case: max(entry["scores"], key=entry["scores"].__getitem__) for case, entry in sorted(measured.items())}
    for case, way in candidates[best].items():
        its_best, score = max(measured[case]["scores"].values()), measured[case]["scores"].get(str(way), 0.0)
        if its_best > score + CONTRADICTION:
            raise UserError(
                f"{case}: its label fits as '{own[case]}' ({its_best:.3f}), while the others fit as '{best}', which "
                f"gives it {score:.3f}; look at it, or leave it out with --leave-out {case}"
            )
    finding = {
        "question": "Orientation of the label files on the images, from the voxels",
        "answer": f"{best}: mean score {scores[best]:.3f}, {margin:.3f} above the next, best in {share:.0%} of "
        f"{len(measured)} cases",
        "decision": best,
        "margin": round(margin, 6),
        "share_of_cases": round(share, 6),
        "scores": scores,
        "best_by_case": own,
    }
    return finding, candidates[best]


def _candidates(measured: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Way]]:
    """Give each hypothesis and what it says of each case."""
    if len({entry["descending"] for entry in measured.values()}) == 1:
        # The two ways to count slices differ by the same flip in all cases.
        return {str(way): dict.fromkeys(sorted(measured), way) for way in WAYS}
    found = {}
    for way in WAYS:
        flipped = way._replace(flip_z=not way.flip_z)
        found[f"{way}, slices by position"] = dict.fromkeys(sorted(measured), way)
        found[f"{way}, slices by instance number"] = {
            case: flipped if measured[case]["descending"] else way for case in sorted(measured)
        }
    return found
