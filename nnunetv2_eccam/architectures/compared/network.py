"""What a network must offer to be compared: any image size, and a constructor that nnU-Net's plans can feed."""

import importlib
from collections import OrderedDict
from typing import Any, ClassVar

from dynamic_network_architectures.initialization.weight_init import InitWeights_He
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


def segmentation_models_pytorch(needed_by: str) -> Any:
    """Import segmentation_models_pytorch: late, since few need it and it is slow to import.

    Args:
        needed_by: the network, as the error names it.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(_MODULE)
    except ModuleNotFoundError as error:
        if error.name != _MODULE:
            raise  # it is there, but something that it needs itself is not: that message says more
        raise UserError(
            f"{needed_by} needs segmentation-models-pytorch: pip install 'nnunetv2-eccam[compared]'"
        ) from error


class ComparedNetwork(PadsToMultiple):
    """A network of Table I, or one of the related systems: a :class:`UNetFamily` or a :class:`BackboneNetwork`.

    Logits have the image's size and no softmax. Every parameter gets a gradient.
    """

    @staticmethod
    def initialize(module: nn.Module) -> None:
        """Initialise a convolution as nnU-Net does: the same for all systems (IV.C). For ``network.apply``."""
        InitWeights_He(1e-2)(module)


class UNetFamily(ComparedNetwork):
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


class BackboneNetwork(ComparedNetwork):
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
