"""Side-output loss (III.B, eq. 11-13, 17): Dice on the prediction, cross-entropy on the side outputs."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.utilities.helpers import softmax_helper_dim1
from torch import Tensor, nn

Supervision = Literal["dice_main_ce_side", "dice_ce_all"]
SUPERVISIONS: tuple[Supervision, ...] = ("dice_main_ce_side", "dice_ce_all")


class DiceAndCrossEntropy(nn.Module):
    """The two terms for one output, for exclusive labels or for regions, with or without an ignore label.

    Dice is one minus nnU-Net's soft Dice (eq. 11), averaged over the foreground classes or regions;
    under several GPUs with ``batch_dice`` it is that of the whole batch. Cross-entropy (eq. 12) is the
    softmax one for labels, which for two classes is the binary one, and the binary one for regions.
    Where every voxel of a batch is to be ignored, cross-entropy is 0 and still has a gradient, of zeros.

    Args:
        regions: targets are one map per region (``(B, R, *spatial)``) instead of a label map
            (``(B, 1, *spatial)``).
        ignore_label: the label to leave out, or None. With regions its value does not matter: nnU-Net
            gives it as the target's last map.
        batch_dice: Dice over the batch as one image.
        ddp: whether several processes share the batch.
    """

    def __init__(self, regions: bool, ignore_label: int | None, batch_dice: bool, ddp: bool) -> None:
        super().__init__()
        self.regions = regions
        self.ignore_label = ignore_label
        self.soft_dice = MemoryEfficientSoftDiceLoss(
            apply_nonlin=torch.sigmoid if regions else softmax_helper_dim1,
            batch_dice=batch_dice,
            do_bg=regions,
            smooth=1e-5,
            ddp=ddp,
        )

    def dice(self, logits: Tensor, target: Tensor) -> Tensor:
        """One minus soft Dice, in [0, 1]."""
        labels, mask = self._without_ignored(target)
        loss: Tensor = 1 + self.soft_dice(logits, labels, loss_mask=mask)
        return loss

    def cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy, averaged over the voxels (and regions) that are not ignored."""
        labels, mask = self._without_ignored(target)
        if self.regions:
            voxelwise = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
            voxelwise = voxelwise.mean(1)
        else:
            voxelwise = F.cross_entropy(logits, labels[:, 0].long(), reduction="none")
        if mask is None:
            return voxelwise.mean()
        kept = mask[:, 0].to(voxelwise.dtype)
        return (voxelwise * kept).sum() / kept.sum().clamp_min(1)

    def _without_ignored(self, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """Split a target into labels or regions, and the mask ``(B, 1, *spatial)`` of what counts."""
        if self.ignore_label is None:
            return target, None
        if self.regions:
            ignored = target[:, -1:].bool()
            return target[:, :-1], ~ignored
        mask = target != self.ignore_label
        return torch.where(mask, target, torch.zeros_like(target)), mask


class SideOutputLoss(nn.Module):
    """The loss over the prediction and the side outputs.

    ``dice_main_ce_side``, the paper's: ``L = a * Dice(main) + b * mean over side outputs of BCE(side)``.
    The prediction is supervised by Dice alone, as the paper's plain U-Net is (its rows in Tables I, II and
    IV agree), and each side output by cross-entropy against nnU-Net's target at its resolution.

    ``dice_ce_all``, the hybrid of eq. 13 on every output: ``L = sum over outputs of w_i * (a * Dice + b *
    BCE)``, with nnU-Net's weights ``w_i`` (halved from one resolution to the next, the lowest output
    left out, sum 1).

    ``a = b = 1`` (eq. 13), or ``a = alpha`` and ``b = 1 - alpha`` (eq. 17).

    Args:
        terms: the two terms for one output.
        supervision: which outputs get which term.
        alpha: eq. 17's weight of Dice, or None for the plain sum.
        lowest_weight: for ``dice_ce_all``, the lowest output's weight before normalisation. Under
            non-compiled multi-GPU training nnU-Net gives it 1e-6, since a head without gradient is an
            error there.

    Raises:
        ValueError: an unknown ``supervision``, or ``alpha`` outside [0, 1].
    """

    def __init__(
        self,
        terms: DiceAndCrossEntropy,
        supervision: Supervision = "dice_main_ce_side",
        alpha: float | None = None,
        lowest_weight: float = 0.0,
    ) -> None:
        super().__init__()
        if supervision not in SUPERVISIONS:
            raise ValueError(f"supervision must be one of {', '.join(SUPERVISIONS)}, got {supervision!r}")
        if alpha is not None and not 0 <= alpha <= 1:
            raise ValueError(f"alpha must lie in [0, 1], got {alpha}")
        self.terms = terms
        self.supervision = supervision
        self.dice_weight, self.ce_weight = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
        self.lowest_weight = lowest_weight

    def forward(self, output: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor]) -> Tensor:
        """Compute the loss.

        Args:
            output: logits ``(B, K, *spatial)``, or one such tensor per output, highest resolution first.
            target: the target, or one per output.

        Returns:
            a scalar.
        """
        outputs = [output] if isinstance(output, Tensor) else list(output)
        targets = [target] if isinstance(target, Tensor) else list(target)
        if self.supervision == "dice_ce_all":
            return self._hybrid_on_all(outputs, targets)
        loss = self.dice_weight * self.terms.dice(outputs[0], targets[0])
        sides = [self.terms.cross_entropy(o, t) for o, t in zip(outputs[1:], targets[1:], strict=True)]
        if sides:
            loss = loss + self.ce_weight * torch.stack(sides).mean()
        return loss

    def _hybrid_on_all(self, outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        weights = [0.5**level for level in range(len(outputs))]
        if len(outputs) > 1:
            weights[-1] = self.lowest_weight
        total = sum(weights)
        losses = [
            weight / total * self._hybrid(output, target)
            for weight, output, target in zip(weights, outputs, targets, strict=True)
            if weight > 0
        ]
        return torch.stack(losses).sum()

    def _hybrid(self, output: Tensor, target: Tensor) -> Tensor:
        terms = ((self.dice_weight, self.terms.dice), (self.ce_weight, self.terms.cross_entropy))
        # A term of no weight (Table IV's Dice alone, BCE alone) is not computed.
        return torch.stack([weight * term(output, target) for weight, term in terms if weight > 0]).sum()
