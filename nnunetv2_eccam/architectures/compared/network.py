"""What a network must offer to be compared: any image size, and construction from nnU-Net's plans."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import nn

from nnunetv2_eccam.architectures.padding import PadsToMultiple
from nnunetv2_eccam.architectures.unet_plan import UNetPlan


class ComparedNetwork(PadsToMultiple):
    """A network of Table I, or one of the related systems.

    Logits have the image's size and no softmax. Every parameter gets a gradient. A network of the U-Net
    family takes stages, widths, norm and nonlinearity from the plan, so that it differs from EC-CaM-UNet
    in what its paper proposes; one with a backbone of its own takes that from its paper.
    """

    has_side_outputs: ClassVar[bool] = False
    """Whether there is a ``decoder.deep_supervision`` for nnU-Net to switch, as in :class:`Decoder`."""

    @classmethod
    @abstractmethod
    def from_plan(
        cls, plan: UNetPlan, input_channels: int, num_classes: int, deep_supervision: bool
    ) -> ComparedNetwork:
        """Build the network for a configuration.

        Args:
            plan: the configuration's stages, norm and nonlinearity.
            input_channels: channels of the image, any number.
            num_classes: logit maps, any number.
            deep_supervision: whether the side outputs are given, of a network that has them.

        Raises:
            ValueError: the network cannot be built so.
        """

    @staticmethod
    def initialize(module: nn.Module) -> None:
        """Initialise a convolution as nnU-Net does: the same for all systems (IV.C). For ``network.apply``."""
        InitWeights_He(1e-2)(module)
