"""CE-Net: a ResNet-34 U-shape with dense atrous convolution and multi-kernel pooling at the bottleneck.

Gu et al., "CE-Net: Context Encoder Network for 2D Medical Image Segmentation", IEEE Transactions on
Medical Imaging 38 (10), 2019 (arXiv 1903.02740): the paper's reference [12]. What is shared, what is
normalised and what the last layers are follows the authors' public code.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_eccam.architectures.compared.network import BackboneNetwork, segmentation_layer

ENCODER_WIDTHS = (64, 128, 256, 512)
"""Of ResNet-34's four stages, at 1/4 to 1/32 of the image's size."""

POOLING_KERNELS = (2, 3, 5, 6)
"""The pooling windows of the RMP block, in positions of the 1/32 map."""

HEAD_WIDTH = 32


class DenseAtrousConvolution(nn.Module):
    """DAC block: the input plus four cascades of atrous convolutions, of receptive fields 3, 7, 9 and 19.

    The rates are 1; 3; 1 and 3; 1, 3 and 5. All but the first end in a 1x1 convolution, and each in a
    ReLU; nothing is between the convolutions of a cascade, and nothing is normalised. Convolutions of one
    rate share their weights among the cascades, and so do the 1x1 ones: the authors' code. What cascades
    have in common is computed once, which changes no result.

    Args:
        channels: C of the input and the output.

    Shape:
        ``(B, C, H, W)`` to the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rate_1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.rate_3 = nn.Conv2d(channels, channels, 3, padding=3, dilation=3)
        self.rate_5 = nn.Conv2d(channels, channels, 3, padding=5, dilation=5)
        self.pointwise = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Add the cascades to the input."""
        first = self.rate_1(features)
        first_and_third = self.rate_3(first)
        output = features + F.relu(first)
        output = output + F.relu(self.pointwise(self.rate_3(features)))
        output = output + F.relu(self.pointwise(first_and_third))
        return output + F.relu(self.pointwise(self.rate_5(first_and_third)))


class ResidualMultiKernelPooling(nn.Module):
    """RMP block: the input concatenated with four summaries of itself, one channel each.

    Per window of :data:`POOLING_KERNELS`: max pooling by it, a 1x1 convolution to one channel, bilinear
    enlargement to the input's size. The four share the 1x1 convolution: the authors' code.

    Along an axis that is shorter than a window, the window is cut to the axis: the map of a 224x160 patch
    is 7x5, on which the authors' 6x6 pooling fails. Elsewhere the result is the authors'.

    Args:
        channels: C of the input.

    Shape:
        ``(B, C, H, W)`` to ``(B, 4 + C, H, W)``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.summarise = nn.Conv2d(channels, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Append the summaries, before the input."""
        size = [int(n) for n in features.shape[2:]]  # exporters that trace give tensors
        maps: list[Tensor] = []
        for kernel in POOLING_KERNELS:
            pooled = F.max_pool2d(features, [min(kernel, n) for n in size])
            maps.append(F.interpolate(self.summarise(pooled), size=size, mode="bilinear", align_corners=False))
        return torch.cat([*maps, features], 1)


class CENet(BackboneNetwork):
    """Encoder, context extractor (DAC, RMP) and decoder.

    - Encoder: ResNet-34's stem and four stages.
    - Context extractor: the DAC block, then the RMP block, at 1/32.
    - Decoder: four times a 1x1 convolution to a quarter of the channels, a transposed 3x3 one of stride 2
      and a 1x1 one, each followed by batch normalisation and ReLU; after the first three, the encoder's
      map of that size is added, not concatenated.
    - Head: from 1/2 to the image's size by a transposed 4x4 convolution of stride 2, ReLU, a 3x3
      convolution, ReLU, a 3x3 convolution to the classes: the authors' code.

    The authors' final sigmoid is left out, since nnU-Net's loss takes logits. The image may have any number of
    channels; the authors' code takes three.

    At the encoder's end and in the first decoder level there are batch normalisations at 1/32, so an
    image is padded to at least 64 positions per axis, of which the map has 2x2. The DAC and RMP blocks
    normalise nothing, so that a pooled map of one position trains at batch size 1.
    """

    reduction = 32

    def __init__(self, input_channels: int, num_classes: int) -> None:
        super().__init__()
        import timm  # slow to import

        # zero_init_last: timm starts every residual branch at zero, torchvision's ResNet, which the
        # authors use, does not.
        self.encoder = timm.create_model(
            "resnet34",
            pretrained=False,
            in_chans=input_channels,
            features_only=True,
            out_indices=(1, 2, 3, 4),
            zero_init_last=False,
        )
        quarter, eighth, sixteenth, deepest = ENCODER_WIDTHS
        self.dense_atrous = DenseAtrousConvolution(deepest)
        self.multi_kernel = ResidualMultiKernelPooling(deepest)
        self.levels = nn.ModuleList(
            [
                _decoder_level(deepest + len(POOLING_KERNELS), sixteenth),
                _decoder_level(sixteenth, eighth),
                _decoder_level(eighth, quarter),
                _decoder_level(quarter, quarter),
            ]
        )
        self.head = nn.Sequential(
            nn.ConvTranspose2d(quarter, HEAD_WIDTH, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(HEAD_WIDTH, HEAD_WIDTH, 3, padding=1),
            nn.ReLU(),
            segmentation_layer(nn.Conv2d(HEAD_WIDTH, num_classes, 3, padding=1)),
        )

    def segment(self, image: Tensor) -> Tensor:
        """Segment images of a size that 32 divides."""
        *skips, features = self.encoder(image)
        features = self.multi_kernel(self.dense_atrous(features))
        for level, skip in zip(self.levels[:-1], reversed(skips), strict=True):
            features = level(features) + skip
        logits: Tensor = self.head(self.levels[-1](features))
        return logits


def _decoder_level(input_channels: int, output_channels: int) -> nn.Sequential:
    """Make a decoder level: 1x1, transposed 3x3 of stride 2, 1x1, as a ResNet's bottleneck."""
    width = input_channels // 4
    return nn.Sequential(
        nn.Conv2d(input_channels, width, 1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.ConvTranspose2d(width, width, 3, stride=2, padding=1, output_padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, output_channels, 1),
        nn.BatchNorm2d(output_channels),
        nn.ReLU(),
    )
