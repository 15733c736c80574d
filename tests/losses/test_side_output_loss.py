"""The loss against eq. 11, 12, 13 and 17, written voxel by voxel in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunetv2_eccam.losses.side_output import DiceAndCrossEntropy, SideOutputLoss

SMOOTH = 1e-5
# nnU-Net's soft Dice sums in float32.
CLOSE = {"rtol": 2e-6, "atol": 2e-6}


def sample(shape, classes, seed, ignore=None, regions=False):
    """Logits, and a target as nnU-Net's loader gives it."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=(shape[0], classes, *shape[1:])) * 2)
    if regions:
        target = rng.random((shape[0], classes + (ignore is not None), *shape[1:])) < 0.4
        return logits, torch.from_numpy(target)
    labels = rng.integers(0, classes, (shape[0], 1, *shape[1:]))
    if ignore is not None:
        labels[rng.random(labels.shape) < 0.3] = ignore
    return logits, torch.from_numpy(labels.astype(np.int16))


def reference_terms(logits, target, regions, ignore, batch_dice):
    """Dice (eq. 11) and cross-entropy (eq. 12), of the voxels that are kept."""
    logits, target = logits.numpy(), target.numpy()
    n, classes = logits.shape[:2]
    logits = logits.reshape(n, classes, -1)
    target = target.reshape(n, target.shape[1], -1)
    voxels = logits.shape[2]
    if regions:
        probabilities = 1 / (1 + np.exp(-logits))
        kept = ~target[:, -1] if ignore is not None else np.ones((n, voxels), bool)
        truth = target[:, :classes].astype(float)
        right = truth * np.log(probabilities) + (1 - truth) * np.log(1 - probabilities)
        entropies = -right.mean(1)[kept]
    else:
        exponentials = np.exp(logits)
        probabilities = exponentials / exponentials.sum(1, keepdims=True)
        kept = target[:, 0] != ignore if ignore is not None else np.ones((n, voxels), bool)
        truth = np.stack([target[:, 0] == c for c in range(classes)], 1).astype(float)
        entropies = -np.log((probabilities * truth).sum(1)[kept])
    entropy = float(entropies.mean()) if kept.any() else 0.0
    scores = []
    groups = [range(n)] if batch_dice else [[b] for b in range(n)]
    for group in groups:
        for c in range(0 if regions else 1, classes):
            both = sum((probabilities[b, c] * truth[b, c])[kept[b]].sum() for b in group)
            total = sum((probabilities[b, c] + truth[b, c])[kept[b]].sum() for b in group)
            scores.append((2 * both + SMOOTH) / (total + SMOOTH))
    return 1 - float(np.mean(scores)), entropy


@given(
    regions=st.booleans(),
    with_ignore=st.booleans(),
    batch_dice=st.booleans(),
    classes=st.integers(2, 4),
    size=st.lists(st.integers(1, 5), min_size=2, max_size=3),
    seed=st.integers(0, 1000),
    alpha=st.one_of(st.none(), st.floats(0, 1)),
)
@settings(max_examples=25, deadline=None)
def test_the_papers_loss_is_dice_on_the_prediction_plus_mean_cross_entropy_on_the_side_outputs(
    regions, with_ignore, batch_dice, classes, size, seed, alpha
):
    ignore = classes if with_ignore else None
    levels = [sample((2, *size), classes, seed + level, ignore, regions) for level in range(3)]
    terms = DiceAndCrossEntropy(regions, ignore, batch_dice, ddp=False)
    loss = SideOutputLoss(terms, "dice_main_ce_side", alpha)
    measured = loss([logits for logits, _ in levels], [target for _, target in levels])
    references = [reference_terms(*level, regions, ignore, batch_dice) for level in levels]
    a, b = (1, 1) if alpha is None else (alpha, 1 - alpha)
    expected = a * references[0][0] + b * (references[1][1] + references[2][1]) / 2
    torch.testing.assert_close(measured.double(), torch.tensor(expected, dtype=torch.float64), **CLOSE)


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("lowest", [0.0, 1e-6])
def test_the_hybrid_on_all_outputs_has_nnunets_weights(regions, lowest):
    levels = [sample((2, 4, 4), 3, level, None, regions) for level in range(4)]
    terms = DiceAndCrossEntropy(regions, None, batch_dice=False, ddp=False)
    measured = SideOutputLoss(terms, "dice_ce_all", lowest_weight=lowest)(*map(list, zip(*levels, strict=True)))
    weights = np.array([1, 1 / 2, 1 / 4, lowest])
    values = [sum(reference_terms(*level, regions, None, batch_dice=False)) for level in levels]
    expected = float((weights / weights.sum() * values).sum())
    torch.testing.assert_close(measured.double(), torch.tensor(expected, dtype=torch.float64), **CLOSE)


@pytest.mark.parametrize("regions", [False, True])
def test_a_batch_of_nothing_but_ignored_voxels_gives_a_finite_loss_and_zero_gradients(regions):
    logits, target = sample((2, 4, 4), 2, 0, ignore=2, regions=regions)
    if regions:
        target[:, -1] = True
    else:
        target[:] = 2
    terms = DiceAndCrossEntropy(regions, 2, batch_dice=True, ddp=False)
    outputs = [logits.clone().requires_grad_() for _ in range(2)]
    loss = SideOutputLoss(terms)(outputs, [target, target])
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.equal(output.grad, torch.zeros_like(output)) for output in outputs)


def test_bad_settings_are_refused():
    terms = DiceAndCrossEntropy(regions=False, ignore_label=None, batch_dice=False, ddp=False)
    with pytest.raises(ValueError, match=r"alpha must lie in \[0, 1\], got 1.5"):
        SideOutputLoss(terms, alpha=1.5)
    with pytest.raises(ValueError, match="dice_main_ce_side, dice_ce_all"):
        SideOutputLoss(terms, "hybrid")
