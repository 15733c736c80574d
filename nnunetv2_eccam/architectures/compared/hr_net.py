"""HR-Net (the paper's reference 36) with the HRNetV2 head: four resolutions side by side, mixed and classified.

Jingdong Wang, Ke Sun, Tianheng Cheng, Borui Jiang et al., "Deep High-Resolution Representation Learning for
Visual Recognition", IEEE TPAMI 43 (2021), arXiv:1908.07919.

From the paper: the stem and the four stages of parallel branches with repeated fusion, and the HRNetV2 head
(Fig. 4b), in which all branches are brought to the highest resolution bilinearly, concatenated and mixed by a
1x1 convolution; the logits are enlarged four times, bilinearly.

From the authors' segmentation code: batch norm and ReLU after the mixing convolution, that convolution's bias
(which the batch norm cancels; kept for the parameter count), and interpolation by pixel areas
(``align_corners=False``; their later branch with OCR takes the other).

The branches are timm's, whose fusions enlarge by nearest neighbour, as in the authors' earlier pose network; they are
set to bilinear here, as the paper and the segmentation code have it. Left out: the classifier behind the
branches, OCR, and ImageNet weights (EC-CaM-UNet's paper trains every network from scratch). That paper does not
say which width it used; W18 is the default, as the smallest full-depth HRNetV2.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_eccam.architectures.compared.network import BackboneNetwork, segmentation_layer
from nnunetv2_eccam.blocks.convolution import ConvNormNonlin, LayerOps

_MIXING = LayerOps(nn.Conv2d, True, nn.BatchNorm2d, nonlin=nn.ReLU, nonlin_kwargs={"inplace": True})


class HRNetV2Head(nn.Module):
    """Enlarge all branches to the first one's size, concatenate, mix by 1x1-BN-ReLU, classify by 1x1 (Fig. 4b).

    Args:
        channels: of each branch, highest resolution first.
        num_classes: logit maps.

    Shape:
        One map ``(B, channels[i], H_i, W_i)`` per branch to ``(B, num_classes, H_0, W_0)``.
    """

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.mixing = ConvNormNonlin(sum(channels), sum(channels), (1, 1), (1, 1), _MIXING)
        self.classifier = segmentation_layer(nn.Conv2d(sum(channels), num_classes, 1))

    def forward(self, branches: Sequence[Tensor]) -> Tensor:
        """Give the logits at the first branch's resolution."""
        size = branches[0].shape[2:]
        enlarged = [F.interpolate(branch, size, mode="bilinear", align_corners=False) for branch in branches[1:]]
        logits: Tensor = self.classifier(self.mixing(torch.cat([branches[0], *enlarged], 1)))
        return logits


class HRNet(BackboneNetwork):
    """HRNetV2 for segmentation, two-dimensional, with batch norm.

    A stem of two strided 3x3 convolutions, four bottleneck blocks, then stages of two, three and four parallel
    branches of widths ``width`` times 1, 2, 4 and 8 at 1/4, 1/8, 1/16 and 1/32 of the image's size: one, four
    and three modules, each of four residual blocks per branch and a fusion of every branch into every other.
    Then :class:`HRNetV2Head`, and the logits enlarged four times.

    Args:
        input_channels: channels of the image.
        num_classes: logit maps.
        width: of the highest-resolution branch, one of timm's ``hrnet_w``: 18 is HRNetV2-W18, 48 HRNetV2-W48.
    """

    reduction = 32

    def __init__(self, input_channels: int, num_classes: int, width: int = 18) -> None:
        super().__init__()
        from timm import create_model  # slow to import

        self.backbone = create_model(
            f"hrnet_w{width}",
            pretrained=False,
            in_chans=input_channels,
            features_only=True,
            feature_location="",  # the branches themselves, without the classifier's widening blocks
            out_indices=(1, 2, 3, 4),
        )
        for module in self.backbone.modules():
            if isinstance(module, nn.Upsample):  # the fusions' enlargement, which has no parameters
                module.mode, module.align_corners = "bilinear", False
        self.head = HRNetV2Head(self.backbone.feature_info.channels(), num_classes)

    def segment(self, image: Tensor) -> Tensor:
        """Segment a batch of images whose size 32 divides."""
        logits = self.head(self.backbone(image))
        return F.interpolate(logits, image.shape[2:], mode="bilinear", align_corners=False)
