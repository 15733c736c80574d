"""The trainers of the annealed comparisons in docs/results.md: nnU-Net's schedule in small.

nnU-Net lowers its learning rate once an epoch, and its shortened trainers keep 250 steps an epoch: five epochs end at a
learning rate of 0.0023, where a thousand end at 0.00002, so a short training is cut off amid large steps. Here the same
1250 steps are 25 epochs of 50, which end at 0.0006; longer trainings are 100 of 50, and 40 of 90 on a GPU. Nothing else
differs. nnU-Net finds these trainers where ``nnUNet_extTrainer`` names their folder.

When these were trained, each kernel of EC began as a layer of its own (``EACH``), which was the default then. Trainers
that begin as ``nnUNetTrainerECCaM`` does now, as one kernel, have names that end in ``_hs``: see ``choice_trainers``.
"""

from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn

from nnunetv2_eccam.blocks.enhanced_convolution import EnhancedConvolution
from nnunetv2_eccam.trainers import nnUNetTrainerECCaM

EACH = {"branch_init": "he_each"}


class Annealed(nnUNetTrainer):
    """A training of a length of its own."""

    length = (25, 50, 5)
    """Epochs, steps of each, and batches of each for the pseudo Dice."""

    def initialize(self) -> None:
        """Set the length, and build all."""
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = self.length
        super().initialize()


class nnUNetTrainer_25x50(Annealed):
    """nnU-Net's own network."""


class Begun(nnUNetTrainerECCaM):
    """EC-CaM-UNet as ``nnUNetTrainerECCaM`` had it then."""

    network_switches = EACH


class nnUNetTrainerECCaM_25x50(Annealed, Begun):
    """EC-CaM-UNet."""


class nnUNetTrainer_25x50_lr2(nnUNetTrainer_25x50):
    """nnU-Net's own network at twice the learning rate: what a part gains beyond it is not a matter of step size."""

    learning_rate = 2e-2

    def initialize(self) -> None:
        """Set the learning rate, and build all."""
        self.initial_lr = self.learning_rate
        super().initialize()


class nnUNetTrainer_25x50_lr4(nnUNetTrainer_25x50_lr2):
    """nnU-Net's own network at four times the learning rate."""

    learning_rate = 4e-2


class nnUNetTrainer_30x40(Annealed):
    """nnU-Net's own network, for 1200 steps."""

    length = (30, 40, 5)


class nnUNetTrainer_30x40_lr2(nnUNetTrainer_25x50_lr2, nnUNetTrainer_30x40):
    """nnU-Net's own network at twice the learning rate, for 1200 steps."""


class nnUNetTrainerECCaM_30x40(nnUNetTrainer_30x40, Begun):
    """EC-CaM-UNet, for 1200 steps."""


class nnUNetTrainer_40x50(Annealed):
    """nnU-Net's own network, for 2000 steps."""

    length = (40, 50, 5)


class nnUNetTrainer_40x90(Annealed):
    """nnU-Net's own network, on a GPU."""

    length = (40, 90, 2)


class nnUNetTrainerECCaM_40x90(nnUNetTrainer_40x90, Begun):
    """EC-CaM-UNet, on a GPU."""


class nnUNetTrainer_100x50(Annealed):
    """nnU-Net's own network, for 5000 steps."""

    length = (100, 50, 5)


class nnUNetTrainerECCaM_100x50(nnUNetTrainer_100x50, Begun):
    """EC-CaM-UNet, for 5000 steps."""


class nnUNetTrainerECCaM_25x50_EC(nnUNetTrainerECCaM_25x50):
    """EC without CoAG-MuSFu."""

    network_switches = {**EACH, "channel_correlation": False, "spatial_correlation": False, "multi_scale": False}


class nnUNetTrainerECCaM_25x50_CaM(nnUNetTrainerECCaM_25x50):
    """CoAG-MuSFu without EC."""

    network_switches = {"enhanced_convolution": False}


class nnUNetTrainerECCaM_25x50_zero(nnUNetTrainerECCaM_25x50):
    """EC's one-dimensional kernels begin at zero, so that each block begins as a plain convolution."""

    def initialize(self) -> None:
        """Build all, and set the kernels to zero."""
        super().initialize()
        for block in self.network.modules():
            if isinstance(block, EnhancedConvolution):
                for conv in block.asymmetric:
                    nn.init.zeros_(conv.weight)


class Residual(nn.Module):
    """A bottleneck that is added to its input."""

    def __init__(self, bottleneck: nn.Module) -> None:
        super().__init__()
        self.inner = bottleneck

    def forward(self, features: Tensor) -> Tensor:
        """Add the two."""
        return features + self.inner(features)


class nnUNetTrainerECCaM_25x50_residual(nnUNetTrainerECCaM_25x50):
    """CoAG-MuSFu is added to the encoder's features."""

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """Build the network and wrap its bottleneck."""
        network: Any = super().build_network_architecture(
            plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision
        )
        network.bottleneck = Residual(network.bottleneck)
        return network


class nnUNetTrainerECCaM_25x50_zero_residual(nnUNetTrainerECCaM_25x50_zero, nnUNetTrainerECCaM_25x50_residual):
    """Both changes."""
