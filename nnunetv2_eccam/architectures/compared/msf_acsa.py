"""MSF-ACSA: additive channel-spatial attention on a U-Net's skips, and scales fused under supervision.

C. Gao, H. Ye, F. Cao, C. Wen, Q. Zhang, F. Zhang, "Multiscale fused network with additive channel-spatial
attention for image segmentation", Knowledge-Based Systems 214 (2021) 106754: reference 10 of EC-CaM-UNet's
paper, its Fig. 1a. No code of the authors is known; what is here was written from the paper's abstract and
from EC-CaM-UNet's description, without its equations and figures.

From the abstract (doi 10.1016/j.knosys.2021.106754, as library catalogues have it): a U-shaped network; an
additive channel-spatial attention (ACSA) module in which high-level features guide low-level ones, to focus on
regions of interest and to recalibrate the channels; a "multiscale fusion with deep supervision" module that
brings fine-grained details and coarse-grained semantics of diverse scales together; a focal weighted Tversky
loss.

From EC-CaM-UNet's paper (I, II): ACSA stands on the skips; the multi-scale module supervises the decoder.

Filled in, by the plainest choice:

- *Additive* is taken as in additive attention, whose U-Net form is the gate of Attention U-Net (Oktay et al.,
  MIDL 2018, eq. 1): skip and gating features are each projected to half the width and added. The module has
  it twice, once per position and once, on the means of the maps, per channel; both gates multiply the skip.
- The gating features are the decoder's, brought to the skip's size by the level's own transposed convolution.
  No normalisation in the gates: that of one channel, or of one position, would take away what is measured.
- The scales are fused as logits: every level has a 1x1 head, its logits are interpolated to full resolution,
  and one 1x1 convolution of all of them is the prediction. All heads below the last are side outputs.

Left out: the loss, so that all systems are trained with the same one.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, cat, nn

from nnunetv2_eccam.architectures.compared.network import UNetFamily, segmentation_layer
from nnunetv2_eccam.architectures.decoder import Decoder
from nnunetv2_eccam.architectures.encoder import Encoder
from nnunetv2_eccam.architectures.unet_plan import UNetPlan
from nnunetv2_eccam.blocks.convolution import LayerOps


class MSFACSA(UNetFamily):
    """MSF-ACSA: plain encoder, attention on every skip, a head at every level and their fusion.

    What its paper defines and what was filled in stands in the module's docstring. With ``decoder.deep_supervision``,
    which is off at first, it gives a list, one per decoder level, highest resolution first: the fused prediction, then
    the heads below. The parameters are the same either way.
    """

    def __init__(self, plan: UNetPlan, input_channels: int, num_classes: int) -> None:
        super().__init__(plan)
        self.encoder = Encoder(input_channels, plan)
        self.decoder = ScaleFusingDecoder(num_classes, plan)


class ScaleFusingDecoder(Decoder):
    """The U-Net's decoder with ACSA before each concatenation and the fusion of all levels' logits at the end.

    With or without deep supervision every head takes part in the prediction, so every head has a gradient.

    Args:
        num_classes: logit maps of each head and of the prediction.
        plan: the stages.
    """

    def __init__(self, num_classes: int, plan: UNetPlan) -> None:
        super().__init__(num_classes, plan, side_outputs=True, deep_supervision=False)
        ops, n_levels = plan.ops, len(self.levels)
        widths = plan.features_per_stage[-2::-1]
        self.attentions = nn.ModuleList(AdditiveChannelSpatialAttention(width, ops) for width in widths)
        self.fusion = segmentation_layer(ops.conv(n_levels * num_classes, num_classes, [1] * ops.dimension, bias=True))
        self.interpolation = ops.interpolation

    def forward(self, maps: Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Decode the encoder's maps, highest resolution first; see :meth:`Decoder.forward`."""
        features = maps[-1]
        logits: list[Tensor] = []
        for level, (upsampling, convs) in enumerate(zip(self.upsamplings, self.levels, strict=True)):
            gate = upsampling(features)
            skip = self.attentions[level](maps[-2 - level], gate)
            features = convs(gate, skip)
            logits.append(self.seg_layers[str(level)](features))
        prediction = self.fuse(logits)
        return [prediction, *logits[-2::-1]] if self.deep_supervision else prediction

    def spare_heads(self) -> list[nn.Module]:
        """Give none: every head takes part in the prediction."""
        return []

    def fuse(self, logits: Sequence[Tensor]) -> Tensor:
        """Bring every level's logits, lowest resolution first, to the last one's size and combine them."""
        size = logits[-1].shape[2:]
        enlarged = [F.interpolate(coarse, size=size, mode=self.interpolation) for coarse in logits[:-1]]
        fused: Tensor = self.fusion(cat((*enlarged, logits[-1]), 1))
        return fused


class AdditiveChannelSpatialAttention(nn.Module):
    """ACSA: ``s(E_p(x, g)) * s(E_c(mean x, mean g)) * x``, with ``s`` the sigmoid and ``E`` additive energies.

    ``E_p`` gives one energy per position and ``E_c`` one per channel, from skip ``x`` and gate ``g``.

    Args:
        channels: C of the skip and of the gate.
        ops: the operators; only their number of dimensions matters.

    Shape:
        skip ``(B, C, *spatial)`` and gate, the same, to ``(B, C, *spatial)``.
    """

    def __init__(self, channels: int, ops: LayerOps) -> None:
        super().__init__()
        self.position_energy = AdditiveEnergy(channels, 1, ops)
        self.channel_energy = AdditiveEnergy(channels, channels, ops)

    def forward(self, skip: Tensor, gate: Tensor) -> Tensor:
        """Weight the skip's positions and channels as the gate says."""
        axes = list(range(2, skip.ndim))
        positions: Tensor = self.position_energy(skip, gate).sigmoid()
        channels: Tensor = self.channel_energy(skip.mean(axes, keepdim=True), gate.mean(axes, keepdim=True)).sigmoid()
        return skip * channels * positions


class AdditiveEnergy(nn.Module):
    """``psi(relu(W_x x + W_g g + b_g)) + b_psi``: Attention U-Net's additive attention before its sigmoid (eq. 1).

    Args:
        channels: C of both inputs; the hidden layer has half of it.
        output_channels: energies per position.
        ops: the operators; only their number of dimensions matters.

    Shape:
        two times ``(B, C, *spatial)`` to ``(B, output_channels, *spatial)``.
    """

    def __init__(self, channels: int, output_channels: int, ops: LayerOps) -> None:
        super().__init__()
        ones = [1] * ops.dimension
        hidden = max(1, channels // 2)
        self.of_skip = ops.conv(channels, hidden, ones, bias=False)
        self.of_gate = ops.conv(channels, hidden, ones, bias=True)
        self.nonlin = nn.ReLU()
        self.energy = ops.conv(hidden, output_channels, ones, bias=True)

    def forward(self, skip: Tensor, gate: Tensor) -> Tensor:
        """Give the energies of the skip under the gate."""
        energy: Tensor = self.energy(self.nonlin(self.of_skip(skip) + self.of_gate(gate)))
        return energy
