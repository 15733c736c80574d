"""DA-Net (the paper's reference 9): position attention and channel attention side by side on a dilated ResNet.

Jun Fu, Jing Liu, Haijie Tian, Yong Li, Yongjun Bao, Zhiwei Fang, Hanqing Lu, "Dual Attention Network for Scene
Segmentation", CVPR 2019, arXiv:1809.02983.

From the paper: a ResNet whose last two stages are dilated instead of strided, so that its output is 1/8 of the
image's size (Section 3.1, Fig. 2); position attention (Section 3.2, Fig. 3A, eq. 1 and 2) and channel attention
(Section 3.3, Fig. 3B, eq. 3 and 4), each with a residual connection and a learned scale that starts at zero;
their outputs, each after a convolution, added and classified by a 1x1 convolution (Section 3.4).

From the authors' code: a quarter of the backbone's channels in the attentions and an eighth of those in queries
and keys; 3x3-BN-ReLU before and after each attention; dropout of a tenth of the channels before the classifier;
bilinear enlargement with ``align_corners=True``; and the channel attention's energy, which is subtracted from
its row's maximum. A softmax does not change when a constant is added, so theirs is a softmax of *minus* eq. 3's
energy: it gathers from the channels least like one's own. The code is what gave the published results, so it
is followed.

Left out: the two auxiliary classifiers on either attention, which the authors use in training only (nnU-Net's
loss would not see them, and parameters without gradient break multi-GPU training); the multi-grid dilations of their
final Cityscapes model; ImageNet weights. EC-CaM-UNet's paper does not say which ResNet it used: ResNet-50 is
the smaller of the authors' two.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_eccam.architectures.compared.network import BackboneNetwork, segmentation_layer
from nnunetv2_eccam.blocks.convolution import ConvNormNonlin, LayerOps

DROPOUT = 0.1
"""Share of the channels dropped before the classifier: the authors' code."""

_CONV_BN_RELU = LayerOps(nn.Conv2d, False, nn.BatchNorm2d, nonlin=nn.ReLU, nonlin_kwargs={"inplace": True})


class PositionAttention(nn.Module):
    """Position attention (Section 3.2): ``E_j = alpha * sum_i s_ji D_i + A_j`` over all positions i (eq. 2).

    ``s_ji = softmax_i(B_i . C_j)`` (eq. 1) with ``B``, ``C`` and ``D`` 1x1 convolutions of the map ``A`` and no
    1/sqrt(C). The products are taken in single precision at least, since they leave the range of half precision,
    by scaled dot-product attention, so that the ``N x N`` map for N positions is never held.

    Args:
        channels: of the map, a multiple of ``reduction``.
        reduction: how many times fewer channels queries and keys have.

    Shape:
        ``(B, channels, H, W)`` to the same.
    """

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        self.reduction = reduction
        self.query = nn.Conv2d(channels, channels // reduction, 1)
        self.key = nn.Conv2d(channels, channels // reduction, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        """Add to each position what it gathers from all."""
        query, key, value = self.query(features), self.key(features), self.value(features)
        kept = torch.promote_types(features.dtype, torch.float32)
        with torch.autocast(features.device.type, enabled=False):
            # The attention kernels that do not hold the map want values as wide as queries, with adjacent
            # channels. So the values are cut into heads of that width, which all attend by the same map.
            heads = [
                part.unflatten(1, (-1, query.shape[1])).flatten(3).transpose(2, 3).to(kept).contiguous()
                for part in (query, key, value)
            ]
            shared = [part.expand(-1, self.reduction, -1, -1) for part in heads[:2]]
            gathered = F.scaled_dot_product_attention(shared[0], shared[1], heads[2], scale=1.0)
            gathered = gathered.transpose(2, 3).reshape(features.shape)
            return (self.scale * gathered + features).to(features.dtype)


class ChannelAttention(nn.Module):
    """Channel attention (Section 3.3): ``E_j = beta * sum_i x_ji A_i + A_j`` over all channels i (eq. 4).

    ``x_ji = softmax_i(max_k(A_j . A_k) - A_j . A_i)``: the weights come from the map's own channels, without
    convolutions, as the authors' code has them. Everything is computed in single precision at least: a product of two
    channels sums over all positions, far beyond the range of half precision.

    Shape:
        ``(B, C, H, W)`` to the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        """Add to each channel what it gathers from all."""
        with torch.autocast(features.device.type, enabled=False):
            channels = features.flatten(2).to(torch.promote_types(features.dtype, torch.float32))
            energy = channels @ channels.transpose(1, 2)
            gathered = ((energy.amax(-1, keepdim=True) - energy).softmax(-1) @ channels).reshape(features.shape)
            return (self.scale * gathered + features).to(features.dtype)


class DANet(BackboneNetwork):
    """DA-Net, two-dimensional, with batch norm.

    Args:
        input_channels: channels of the image.
        num_classes: logit maps.
        backbone: a ResNet of timm's. The authors report ``resnet50`` and ``resnet101``; smaller ones serve small data.
    """

    reduction = 8

    def __init__(self, input_channels: int, num_classes: int, backbone: str = "resnet50") -> None:
        super().__init__()
        from timm import create_model  # slow to import

        self.backbone = create_model(
            backbone,
            pretrained=False,
            in_chans=input_channels,
            features_only=True,
            output_stride=self.reduction,
            out_indices=(4,),
            zero_init_last=False,  # timm's habit, not the authors'
        )
        channels: int = self.backbone.feature_info.channels()[-1]
        width = channels // 4

        def conv(width_in: int) -> ConvNormNonlin:
            return ConvNormNonlin(width_in, width, (3, 3), (1, 1), _CONV_BN_RELU)

        self.position_reduction, self.channel_reduction = conv(channels), conv(channels)
        self.position_attention, self.channel_attention = PositionAttention(width), ChannelAttention()
        self.position_conv, self.channel_conv = conv(width), conv(width)
        self.classifier = nn.Sequential(nn.Dropout2d(DROPOUT), segmentation_layer(nn.Conv2d(width, num_classes, 1)))

    def segment(self, image: Tensor) -> Tensor:
        """Segment a batch of images whose size 8 divides."""
        features = self.backbone(image)[-1]
        position = self.position_conv(self.position_attention(self.position_reduction(features)))
        channel = self.channel_conv(self.channel_attention(self.channel_reduction(features)))
        logits = self.classifier(position + channel)
        return F.interpolate(logits, image.shape[2:], mode="bilinear", align_corners=True)
