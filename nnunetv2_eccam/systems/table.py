"""The table: every row of Tables I to V and Fig. 5, and the related systems of section II.

Adding a system is a row here and, where its network is new, a class in ``architectures/compared``. Trainers
in both recipes, ``nnUNetv2_eccam trainers``, the contract tests and the docs' table follow from it.
"""

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
        network: dotted path of the network's class: ``ECCaMUNet``, or a compared network's.
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


PARTS: Mapping[str, str] = {
    "CC": "channel_correlation",
    "SC": "spatial_correlation",
    "MuS": "multi_scale",
    "EC": "enhanced_convolution",
    "DWS": "side_outputs",
}
"""Table II's columns, as arguments of ``ECCaMUNet``."""

_COMPARED = "nnunetv2_eccam.architectures.compared"
_OWN_BACKBONE = "its own backbone and batch norm, 2D"
_PLANS_WIDTHS = "the plan's widths and norm"


def _ablation(
    name: str,
    title: str,
    parts: str,
    *rows: PaperRow,
    differs: str | None = None,
    switches: Mapping[str, Any] | None = None,
    **more: Any,
) -> System:
    """Make a row of Table II's kind: the U-Net with some of the five parts."""
    present = parts.split()
    chosen = {argument: part in present for part, argument in PARTS.items()}
    return System(
        name,
        title,
        rows,
        differs or f"the plain U-Net with {', '.join(present)}",
        switches={**chosen, **(switches or {})},
        side_outputs="DWS" in present,
        **more,
    )


def _compared(name: str, title: str, path: str, reference: int, differs: str, **more: Any) -> System:
    """Make a network of Table I."""
    more.setdefault("rows", (PaperRow("I", title),))
    more.setdefault("side_outputs", False)
    return System(name, title, differs=differs, network=f"{_COMPARED}.{path}", reference=reference, **more)


EC_CAM_UNET = System(
    "",
    "EC-CaM-UNet",
    (PaperRow("I", "Our"), PaperRow("II", "all"), PaperRow("III", "Ours")),
    "CC, SC, MuS, EC and DWS, fused by a 1x1 convolution",
)
"""The paper's own system."""

_TABLE_I = (
    _ablation(
        "UNet", "U-Net", "", PaperRow("I", "U-Net"), PaperRow("II", "U-Net"),
        differs="the plain U-Net: none of the five parts", reference=25,
    ),
    _compared(
        "UNetPlusPlus", "U-Net++", "unet_plus_plus.UNetPlusPlus", 18, f"nested dense skip connections; {_PLANS_WIDTHS}"
    ),
    _compared(
        "DeepLabV3Plus", "DeepLabV3+", "deeplab_v3_plus.DeepLabV3Plus", 6, f"ResNet-50, ASPP; {_OWN_BACKBONE}",
        dimensions=(2,),
    ),
    _compared(
        "AttentionUNet", "Attention U-Net", "attention_unet.AttentionUNet", 23,
        f"attention gates on the skip connections; {_PLANS_WIDTHS}",
    ),
    _compared(
        "DANet", "DA-Net", "da_net.DANet", 9,
        f"dilated ResNet-50, position and channel self-attention; {_OWN_BACKBONE}", dimensions=(2,),
    ),
    _compared(
        "HRNet", "HR-Net", "hr_net.HRNet", 36, f"HRNetV2-W18, four resolutions in parallel; {_OWN_BACKBONE}",
        dimensions=(2,),
    ),
    _compared(
        "SegFormer", "SegFormer", "segformer.SegFormer", 40, "MiT-B2 transformer, MLP decoder; 2D", dimensions=(2,)
    ),
    _compared(
        "CENet", "CE-Net", "ce_net.CENet", 12,
        f"ResNet-34, dense atrous convolution, residual pooling; {_OWN_BACKBONE}", dimensions=(2,),
    ),
    _compared(
        "MSUNet", "MSU-Net", "msu_net.MSUNet", 28,
        f"parallel convolution sequences of two kernel sizes; {_PLANS_WIDTHS}, 2D", dimensions=(2,),
    ),
)  # fmt: skip

_TABLE_II_AND_V = (
    _ablation("UNet_CC", "U-Net + CC", "CC", PaperRow("II", "CC"), PaperRow("V", "U-Net + CC")),
    _ablation("UNet_SC", "U-Net + SC", "SC", PaperRow("II", "SC"), PaperRow("V", "U-Net + SC")),
    _ablation("UNet_MuS", "U-Net + MuS", "MuS", PaperRow("II", "MuS")),
    _ablation("UNet_EC", "U-Net + EC", "EC", PaperRow("II", "EC")),
    _ablation("UNet_DWS", "U-Net + DWS", "DWS", PaperRow("II", "DWS")),
    _ablation(
        "UNet_SC_MuS", "U-Net + SC + MuS", "SC MuS", PaperRow("II", "row 7"),
        differs="the plain U-Net with SC, MuS: row 7 by its ticks",
    ),
    _ablation(
        "UNet_CoA", "U-Net + CoA", "CC SC", PaperRow("II", "row 7"), PaperRow("V", "U-Net + CoA"),
        differs="the plain U-Net with CC, SC: row 7 by the text (IV.F.2)",
    ),
    _ablation("UNet_CoA_MuS", "U-Net + CoAG-MuSFu", "CC SC MuS", PaperRow("II", "CC + SC + MuS")),
    _ablation("UNet_CoA_MuS_EC", "U-Net + CoAG-MuSFu + EC", "CC SC MuS EC", PaperRow("II", "CC + SC + MuS + EC")),
    _ablation(
        "UNet_SE", "U-Net + SE", "", PaperRow("V", "U-Net + SE"),
        differs="the plain U-Net with SE at the encoder's end", switches={"compared_attention": "SE"}, reference=15,
    ),
    _ablation(
        "UNet_CBAM", "U-Net + CBAM", "", PaperRow("V", "U-Net + CBAM"),
        differs="the plain U-Net with CBAM at the encoder's end", switches={"compared_attention": "CBAM"}, reference=39,
    ),
)  # fmt: skip

_TABLE_III = (
    System(
        "Series", "CoA -> MuS", (PaperRow("III", "CoA -> MuS"),),
        "EC-CaM-UNet with MuS after CoA instead of the fusion", switches={"fusion": "series"},
    ),
    System(
        "Sum", "CoA + MuS", (PaperRow("III", "CoA + MuS"),), "EC-CaM-UNet with CoA and MuS added instead of fused",
        switches={"fusion": "sum"},
    ),
)  # fmt: skip

# Alpha is eq. 17's weight: 1 leaves Dice alone, 0 cross-entropy alone, None adds them (eq. 13).
_TABLE_IV = tuple(
    _ablation(
        f"UNet_{name}", f"U-Net, {label}", "", PaperRow("IV", label),
        differs=f"the plain U-Net trained with {label}", supervision="dice_ce_all", alpha=alpha,
    )
    for name, label, alpha in (("Dice", "Dice", 1.0), ("BCE", "BCE", 0.0), ("DiceBCE", "Dice + BCE", None))
)  # fmt: skip

_FIGURE_5 = tuple(
    System(
        f"alpha_0{tenths}0", f"alpha = 0.{tenths}", (PaperRow("Fig. 5", f"alpha = 0.{tenths}"),),
        f"EC-CaM-UNet with Dice weighted by 0.{tenths} and cross-entropy by 0.{10 - tenths}", alpha=tenths / 10,
    )
    for tenths in range(1, 10)
)  # fmt: skip

_RELATED = (
    _compared(
        "MSFACSA", "MSF-ACSA", "msf_acsa.MSFACSA", 10,
        f"additive channel-spatial attention on the skips, multi-scale side outputs; {_PLANS_WIDTHS}",
        rows=(), side_outputs=True,
    ),
    _compared(
        "MCDALNet", "MCDALNet", "mcdal_net.MCDALNet", 13,
        f"multi-scale modules on the skips, dual attention in the decoder; {_PLANS_WIDTHS}", rows=(),
    ),
    _compared(
        "DualBranch", "Dual-branch multi-scale attention", "dual_branch_attention.DualBranchAttentionUNet", 20,
        f"attention and multi-scale features in parallel, added; {_PLANS_WIDTHS}", rows=(),
    ),
)  # fmt: skip

SYSTEMS: tuple[System, ...] = (
    EC_CAM_UNET, *_TABLE_I, *_TABLE_II_AND_V, *_TABLE_III, *_TABLE_IV, *_FIGURE_5, *_RELATED
)  # fmt: skip
"""Every system, EC-CaM-UNet first."""
