"""What a network must offer to be compared: any image size, and a constructor that nnU-Net's plans can feed."""

import importlib
from collections import OrderedDict
from typing import Any, ClassVar

from torch import Tensor, nn

from nnunetv2_eccam.architectures.padding import PadsToMultiple
from nnunetv2_eccam.architectures.unet_plan import UNetPlan
from nnunetv2_eccam.errors import UserError

_MODULE = "segmentation_models_pytorch"


def segmentation_layer(layer: nn.Module) -> nn.Sequential:
    """Name a layer that gives logits as nnU-Net names its own.

    By this part of a weight's name ``nnUNetv2_train -pretrained_weights`` knows what depends on the classes and
    begins anew; all else must fit (``nnunetv2.run.load_pretrained_weights``).
    """
    return nn.Sequential(OrderedDict(seg_layers=layer))


class UNetFamily(PadsToMultiple):
    """A network with the plan's stages, widths, norm and nonlinearity.

    So it differs from EC-CaM-UNet in what its paper proposes. A subclass is called with the plan, the channels of the
    image and the number of logit maps, and sets ``encoder`` and ``decoder``, or has a :meth:`segment` of its own. An
    image is padded so that the deepest map has two positions along one axis, if the plan normalises.

    Args:
        plan: the stages.

    Shape:
        ``(B, input_channels, *spatial)`` to ``(B, num_classes, *spatial)``.
    """

    encoder: nn.Module
    decoder: nn.Module

    def __init__(self, plan: UNetPlan) -> None:
        super().__init__()
        self.plan = plan

    def segment(self, image: Tensor) -> Tensor | list[Tensor]:
        """Segment a batch of images whose size the strides divide."""
        output: Tensor | list[Tensor] = self.decoder(self.encoder(image))
        return output

    @property
    def smallest(self) -> int:
        """Twice the smallest divisor: two positions along one axis of the deepest map, if the plan normalises."""
        return 1 if self.plan.ops.norm_op is None else 2 * min(self.divisors)


class BackboneNetwork(PadsToMultiple):
    """A two-dimensional network with a backbone of its own, whose widths and norm are its paper's.

    A subclass is called with the channels of the image and the number of logit maps. It is trained from scratch, as all
    systems are in the comparison (IV.C), also where its paper starts from ImageNet. An image is padded to a multiple of
    :attr:`reduction` and at least twice that, so that the norms of the deepest map see four positions even of a single
    image.

    Shape:
        ``(B, input_channels, H, W)`` to ``(B, num_classes, H, W)``.
    """

    reduction: ClassVar[int]
    """Pixels of the image per position of the deepest map, along each axis."""

    @property
    def divisors(self) -> list[int]:
        """What the backbone divides each axis by."""
        return [self.reduction, self.reduction]

    @property
    def smallest(self) -> int:
        """Twice the reduction: 2x2 positions of the deepest map."""
        return 2 * self.reduction


class LibraryNetwork(BackboneNetwork):
    """A network of segmentation_models_pytorch, which few need and which is slow to import: so it is optional.

    Args:
        name: the library's class.
        backbone: its encoder.
        input_channels: channels of the image.
        num_classes: logit maps.
        settings: further arguments of the library's class.

    Raises:
        UserError: segmentation_models_pytorch is not installed.
    """

    title: ClassVar[str]
    """As an error names the network."""

    def __init__(self, name: str, backbone: str, input_channels: int, num_classes: int, **settings: Any) -> None:
        super().__init__()
        self.model: Any = getattr(self.library(), name)(
            backbone, encoder_weights=None, in_channels=input_channels, classes=num_classes, **settings
        )
        head = self.model.segmentation_head
        head[0] = segmentation_layer(head[0])

    @classmethod
    def library(cls) -> Any:
        """Import segmentation_models_pytorch.

        Raises:
            UserError: it is not installed.
        """
        try:
            return importlib.import_module(_MODULE)
        except ModuleNotFoundError as error:
            if error.name != _MODULE:
                raise  # it is there, but something that it needs itself is not: that message says more
            raise UserError(
                f"{cls.title} needs segmentation-models-pytorch: pip install 'nnunetv2-eccam[compared]'"
            ) from error

    def segment(self, image: Tensor) -> Tensor:
        """Segment images of a size that :attr:`reduction` divides."""
        logits: Tensor = self.model(image)
        return logits
