"""DeepLabV3+: atrous spatial pyramid pooling over a dilated ResNet, and a small decoder.

Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation", ECCV 2018:
the paper's reference [6]. The network is that of segmentation_models_pytorch, which is optional.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_eccam.architectures.compared.network import LibraryNetwork

OUTPUT_STRIDE = 16
"""The image's size over that of the encoder's last map."""

ATROUS_RATES = (6, 12, 18)
"""The authors' for that stride; segmentation_models_pytorch's default, twice these, is for a stride of 8."""

DROPOUT = 0.1
"""After the pyramid: the authors' code; segmentation_models_pytorch's default is 0.5."""


class PooledBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that trains on one value per channel too, as a pooled map has at batch size 1.

    One value has no variance to normalise by, and PyTorch refuses it. Then the running statistics are
    used, as in evaluation, and not changed. If no batch is ever larger they stay at 0 and 1, so that what
    is left is the learned scale and shift, in training and in evaluation alike. Converted to synchronised
    batch norm, for several GPUs, it has one value of each and is an ordinary one.

    Shape:
        ``(B, C, H, W)`` to the same.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Normalise by the batch's statistics where it has any, else by the running ones."""
        if self.training and features.numel() == features.shape[1]:
            return F.batch_norm(
                features, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        return super().forward(features)


class DeepLabV3Plus(LibraryNetwork):
    """ResNet with its last stage dilated, atrous spatial pyramid pooling (ASPP), decoder.

    - Encoder: ResNet-50, 1/4 to 1/16 of the image's size. The authors use ResNet-101 and Xception; the
      EC-CaM-UNet paper does not say which it took.
    - ASPP, 256 channels per branch: 1x1, three atrous separable 3x3, the pooled map; concatenation, 1x1.
    - Decoder: enlarged by 4, concatenated with the 1/4 map reduced to 48 channels, separable 3x3, 1x1
      to the logits, enlarged by 4.

    In segmentation_models_pytorch the ASPP is followed by one more separable 3x3 convolution, where the
    authors have one more in the decoder. Rates and dropout are set to the authors'.

    An image is padded to at least 32 positions per axis, so that the map at 1/16 has 2x2. The pooled map
    has one position; at batch size 1 its norm would fail, so it is a :class:`PooledBatchNorm2d`.

    Args:
        input_channels: channels of the image.
        num_classes: logit maps.
        backbone: encoder, a name of segmentation_models_pytorch's, for example ``resnet101``.

    Raises:
        UserError: segmentation_models_pytorch is not installed.
    """

    title = "DeepLabV3+"
    reduction = OUTPUT_STRIDE

    def __init__(self, input_channels: int, num_classes: int, backbone: str = "resnet50") -> None:
        super().__init__(
            "DeepLabV3Plus",
            backbone,
            input_channels,
            num_classes,
            encoder_output_stride=OUTPUT_STRIDE,
            decoder_atrous_rates=ATROUS_RATES,
            decoder_aspp_dropout=DROPOUT,
        )
        _let_pooled_maps_train(self.model)


def _let_pooled_maps_train(model: nn.Module) -> None:
    """Replace the batch norms that follow a pooling to one position."""
    for part in list(model.modules()):
        if not any(isinstance(layer, nn.AdaptiveAvgPool2d) for layer in part.children()):
            continue
        for name, layer in list(part.named_children()):
            if isinstance(layer, nn.BatchNorm2d):
                setattr(part, name, PooledBatchNorm2d(layer.num_features, layer.eps, layer.momentum))
