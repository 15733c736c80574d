"""One compared system: what it is in the paper, what it switches, what its trainers are called."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nnunetv2_eccam.systems.published import PUBLISHED, Scores

RECIPES: Mapping[str, str] = {"nnunet": "nnUNetTrainerECCaM", "paper": "nnUNetTrainerECCaMPaper"}
"""The two recipes, nnU-Net's and the paper's (IV.C), and what their trainers' names begin with."""

ECCAM_UNET = "nnunetv2_eccam.architectures.eccam_unet.ECCaMUNet"


class PaperRow(NamedTuple):
    """A row of the paper.

    Attributes:
        table: ``I`` to ``V``, or ``Fig. 5``.
        label: the row, as :data:`PUBLISHED` names it.
    """

    table: str
    label: str

    def __str__(self) -> str:
        where = self.table if self.table.startswith("Fig") else f"Table {self.table}"
        return f"{where}: {self.label}"

    @property
    def published(self) -> Scores:
        """The numbers that the paper prints for it, none for most points of Fig. 5."""
        return PUBLISHED[self.table].get(self.label, {})


@dataclass(frozen=True)
class System:
    """A system of the paper's tables and figures.

    Args:
        name: the trainers' suffix; empty for EC-CaM-UNet itself.
        title: as the paper calls it.
        rows: where it stands in the paper.
        differs: what it is, or how it differs from EC-CaM-UNet, in a few words.
        network: dotted path of the network's class: ``ECCaMUNet``, or a ``ComparedNetwork``.
        switches: arguments of ``ECCaMUNet``.
        side_outputs: whether there are side outputs to supervise.
        supervision: of the loss, where the system fixes it; else the recipe's.
        alpha: eq. 17's weight of Dice, where the system fixes it.
        dimensions: how many spatial axes it works on.
        reference: its number in the paper's list of references, or None for the paper's own.
    """

    name: str
    title: str
    rows: tuple[PaperRow, ...]
    differs: str
    network: str = ECCAM_UNET
    switches: Mapping[str, Any] = field(default_factory=dict)
    side_outputs: bool = True
    supervision: str | None = None
    alpha: float | None = None
    dimensions: tuple[int, ...] = (2, 3)
    reference: int | None = None

    @property
    def where(self) -> str:
        """Its rows, in words."""
        return "; ".join(map(str, self.rows)) or f"reference {self.reference}"

    def trainer_name(self, recipe: str = "nnunet", epochs: int | None = None) -> str:
        """Name its trainer.

        Args:
            recipe: ``nnunet`` or ``paper``.
            epochs: the training's length, or None for the recipe's.
        """
        length = None if epochs is None else f"{epochs}epoch{'s' if epochs > 1 else ''}"
        return "_".join(filter(None, (RECIPES[recipe], self.name, length)))
