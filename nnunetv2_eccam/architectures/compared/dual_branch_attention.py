"""A U-Net with a dual-branch multi-scale attention module: both branches in parallel, their results added.

H. Li, H. Luo, W. Huan, Z. Shi, C. Yan, L. Wang, Y. Mu, Y. Liu, "Automatic lumbar spinal MRI image segmentation
with a multi-scale attention network", Neural Computing and Applications 33 (2021) 11589-11602: reference 20 of
EC-CaM-UNet's paper, its Fig. 1c. No code of the authors is known; what is here was written from the paper's
abstract and from EC-CaM-UNet's description, without its equations and figures.

From the abstract (doi 10.1007/s00521-021-05856-4): a dual-branch multi-scale attention module is embedded into
the network; it has multi-scale feature extraction "based on three 3 x 3 convolution operators", and selects
vital information by attention.

From EC-CaM-UNet's paper (I, II, Table III): the network is a U-Net; attention maps and multi-scale feature maps
are obtained in parallel and added.

Filled in, by the plainest choice:

- Where the module stands: once, at the end of the encoder, where EC-CaM-UNet's paper compares its way of
  fusing the two (Table III, "CoA + MuS [20]").
- The three 3x3 convolutions follow one another, since three undilated ones side by side would see the same
  scale and no dilation is spoken of: their outputs see 3, 5 and 7 positions. They are concatenated, and a 1x1
  convolution brings them back to the module's width. Each has a quarter of it, as the branches of this
  package's multi-scale block, so that the two systems differ in form more than in size.
- The attention is CBAM's, channels and then positions (Woo et al., ECCV 2018): the abstract does not say which.
  What is added is the features that it has weighted.
"""

import torch
from torch import Tensor, nn

from nnunetv2_eccam.architectures.compared.network import UNetFamily
from nnunetv2_eccam.architectures.decoder import Decoder
from nnunetv2_eccam.architectures.encoder import Encoder
from nnunetv2_eccam.architectures.unet_plan import UNetPlan
from nnunetv2_eccam.blocks.compared_attention import CBAM
from nnunetv2_eccam.blocks.convolution import ConvNormNonlin, LayerOps

N_SCALES = 3


class DualBranchAttentionUNet(UNetFamily):
    """The U-Net with :class:`DualBranchMultiScaleAttention` between encoder and decoder.

    What its paper defines and what was filled in stands in the module's docstring. There is one head.
    """

    def __init__(self, plan: UNetPlan, input_channels: int, num_classes: int) -> None:
        super().__init__(plan)
        self.encoder = Encoder(input_channels, plan)
        self.bottleneck = DualBranchMultiScaleAttention(plan.features_per_stage[-1], plan.ops)
        self.decoder = Decoder(num_classes, plan, side_outputs=False, deep_supervision=False)

    def segment(self, image: Tensor) -> Tensor | list[Tensor]:
        """Segment a batch of images whose size the strides divide."""
        *skips, deepest = self.encoder(image)
        output: Tensor | list[Tensor] = self.decoder([*skips, self.bottleneck(deepest)])
        return output


class DualBranchMultiScaleAttention(nn.Module):
    """``CBAM(F) + conv1x1(Concat(F_1, F_2, F_3))`` with ``F_k = conv3x3(F_(k-1))`` and ``F_0 = F``.

    Each convolution is followed by normalisation and nonlinearity. ``F_1`` to ``F_3`` have C/4 channels.

    Args:
        channels: C of the input and the output.
        ops: the operators.

    Shape:
        ``(B, C, *spatial)`` to the same.
    """

    def __init__(self, channels: int, ops: LayerOps) -> None:
        super().__init__()
        width = max(1, channels // 4)
        ones, threes = [1] * ops.dimension, [3] * ops.dimension
        self.attention = CBAM(channels, ops)
        self.scales = nn.ModuleList(
            ConvNormNonlin(channels if scale == 0 else width, width, threes, ones, ops) for scale in range(N_SCALES)
        )
        self.restore = ConvNormNonlin(N_SCALES * width, channels, ones, ones, ops)

    def multi_scale(self, features: Tensor) -> Tensor:
        """Gather what the growing receptive fields see."""
        gathered: list[Tensor] = []
        for scale in self.scales:
            features = scale(features)
            gathered.append(features)
        restored: Tensor = self.restore(torch.cat(gathered, 1))
        return restored

    def forward(self, features: Tensor) -> Tensor:
        """Add the two branches."""
        attended: Tensor = self.attention(features)
        return attended + self.multi_scale(features)
