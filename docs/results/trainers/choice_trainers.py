"""The trainers that chose the parts' forms and the module's place; see docs/concepts/decisions.md.

Each is ``nnUNetTrainerECCaM_25x50`` of ``annealed_trainers``, or as long as its name says, with other switches of the
network. ``EC`` alone and ``CaM`` alone (CoAG-MuSFu without EC) are there.
"""

from annealed_trainers import (
    nnUNetTrainer_25x50_lr2,
    nnUNetTrainer_40x50,
    nnUNetTrainerECCaM_25x50,
    nnUNetTrainerECCaM_25x50_CaM,
    nnUNetTrainerECCaM_25x50_EC,
    nnUNetTrainerECCaM_30x40,
    nnUNetTrainerECCaM_100x50,
)

HE_SUM = {"branch_init": "he_sum"}
HE_RATE = {"branch_init": "he_rate"}
SCALE = {"branch_form": "scale", **HE_SUM}
NORM = {"branch_form": "batch_norm", **HE_SUM}
RESIDUAL = {"attention_residual": True}
AT_16 = {"attention_stages": "1/16", **RESIDUAL}


class nnUNetTrainerECCaM_25x50_EC_hesum(nnUNetTrainerECCaM_25x50_EC):
    """EC alone; at the start the kernels' sum has the variance of nnU-Net's own."""

    network_switches = {**nnUNetTrainerECCaM_25x50_EC.network_switches, **HE_SUM}


class nnUNetTrainerECCaM_25x50_EC_scale(nnUNetTrainerECCaM_25x50_EC):
    """EC alone, with a learned scale per branch and channel."""

    network_switches = {**nnUNetTrainerECCaM_25x50_EC.network_switches, **SCALE}


class nnUNetTrainerECCaM_25x50_EC_bn(nnUNetTrainerECCaM_25x50_EC):
    """EC alone, with a batch norm per branch before the plan's norm."""

    network_switches = {**nnUNetTrainerECCaM_25x50_EC.network_switches, **NORM}


class nnUNetTrainerECCaM_25x50_EC_bn_lr2(nnUNetTrainer_25x50_lr2, nnUNetTrainerECCaM_25x50_EC_bn):
    """The same, at twice the learning rate."""


class nnUNetTrainerECCaM_25x50_CaM_r(nnUNetTrainerECCaM_25x50_CaM):
    """CoAG-MuSFu alone, at the deepest stage, added to its input."""

    network_switches = {**nnUNetTrainerECCaM_25x50_CaM.network_switches, **RESIDUAL}


class nnUNetTrainerECCaM_25x50_CaM_16r(nnUNetTrainerECCaM_25x50_CaM):
    """CoAG-MuSFu alone, at 1/16 of the image, added to its input."""

    network_switches = {**nnUNetTrainerECCaM_25x50_CaM.network_switches, **AT_16}


class nnUNetTrainerECCaM_25x50_CaM_bothr(nnUNetTrainerECCaM_25x50_CaM):
    """CoAG-MuSFu alone, at 1/16 of the image and at the deepest stage, added to its input."""

    network_switches = {**nnUNetTrainerECCaM_25x50_CaM.network_switches, **AT_16, "attention_stages": "both"}


class nnUNetTrainerECCaM_25x50_scale_r(nnUNetTrainerECCaM_25x50):
    """A scale per branch and channel; the module at the deepest stage, added to its input."""

    network_switches = {**SCALE, **RESIDUAL}


class nnUNetTrainerECCaM_25x50_scale_16r(nnUNetTrainerECCaM_25x50):
    """A scale per branch and channel; the module at 1/16 of the image, added to its input."""

    network_switches = {**SCALE, **AT_16}


class nnUNetTrainerECCaM_25x50_bn_r(nnUNetTrainerECCaM_25x50):
    """A batch norm per branch; the module at the deepest stage, added to its input."""

    network_switches = {**NORM, **RESIDUAL}


class nnUNetTrainerECCaM_25x50_bn_16r(nnUNetTrainerECCaM_25x50):
    """A batch norm per branch; the module at 1/16 of the image, added to its input."""

    network_switches = {**NORM, **AT_16}


class nnUNetTrainerECCaM_25x50_hs(nnUNetTrainerECCaM_25x50):
    """EC-CaM-UNet whose enhanced kernels begin as one kernel of nnU-Net's."""

    network_switches = HE_SUM


class nnUNetTrainerECCaM_25x50_r_hs(nnUNetTrainerECCaM_25x50):
    """The same, with the module added to its input."""

    network_switches = {**HE_SUM, **RESIDUAL}


class nnUNetTrainerECCaM_100x50_hs(nnUNetTrainerECCaM_100x50):
    """EC-CaM-UNet as it is now, for 5000 steps."""

    network_switches = HE_SUM


class nnUNetTrainerECCaM_30x40_hs(nnUNetTrainerECCaM_30x40):
    """EC-CaM-UNet as it is now, for 1200 steps."""

    network_switches = HE_SUM


class nnUNetTrainerECCaM_30x40_rate(nnUNetTrainerECCaM_30x40):
    """The same, begun so that EC learns at nnU-Net's rate."""

    network_switches = HE_RATE


class nnUNetTrainerECCaM_30x40_r(nnUNetTrainerECCaM_30x40):
    """EC-CaM-UNet as it is now, with the module added to its input, for 1200 steps."""

    network_switches = nnUNetTrainerECCaM_25x50_r_hs.network_switches


class nnUNetTrainer_40x50_lr2(nnUNetTrainer_25x50_lr2, nnUNetTrainer_40x50):
    """nnU-Net's own network at twice its learning rate, for 2000 steps."""


class nnUNetTrainerECCaM_40x50_hs(nnUNetTrainer_40x50, nnUNetTrainerECCaM_25x50_hs):
    """EC-CaM-UNet as it is now, for 2000 steps."""


class nnUNetTrainerECCaM_40x50_rate(nnUNetTrainerECCaM_40x50_hs):
    """The same, begun so that EC learns at nnU-Net's rate."""

    network_switches = HE_RATE


class nnUNetTrainerECCaM_40x50_EC(nnUNetTrainer_40x50, nnUNetTrainerECCaM_25x50_EC_hesum):
    """EC alone, for 2000 steps."""


class nnUNetTrainerECCaM_40x50_CaM(nnUNetTrainer_40x50, nnUNetTrainerECCaM_25x50_CaM):
    """CoAG-MuSFu alone, for 2000 steps."""


class nnUNetTrainerECCaM_40x50_r(nnUNetTrainer_40x50, nnUNetTrainerECCaM_25x50_r_hs):
    """EC-CaM-UNet as it is now, with the module added to its input, for 2000 steps."""


class nnUNetTrainerECCaM_40x50_16r(nnUNetTrainerECCaM_40x50_hs):
    """EC-CaM-UNet as it is now, with the module at 1/16 of the image, added to its input, for 2000 steps."""

    network_switches = {**HE_SUM, **AT_16}


class nnUNetTrainerECCaM_40x50_r1(nnUNetTrainerECCaM_40x50_r):
    """The same, with gains that begin at one: the module counts as much as its input from the first step."""

    def initialize(self) -> None:
        """Build the network, and set its gains."""
        super().initialize()
        for name, parameter in self.network.named_parameters():
            if name.endswith(".gain"):
                parameter.data.fill_(1)


class nnUNetTrainerECCaM_30x40_EC(nnUNetTrainerECCaM_30x40):
    """EC alone, for 1200 steps."""

    network_switches = nnUNetTrainerECCaM_25x50_EC_hesum.network_switches


class nnUNetTrainerECCaM_30x40_CaM(nnUNetTrainerECCaM_30x40):
    """CoAG-MuSFu alone, for 1200 steps."""

    network_switches = nnUNetTrainerECCaM_25x50_CaM.network_switches


class nnUNetTrainerECCaM_30x40_16r(nnUNetTrainerECCaM_30x40):
    """The module at 1/16 of the image, added to its input, for 1200 steps."""

    network_switches = {**nnUNetTrainerECCaM_30x40.network_switches, **AT_16}


class nnUNetTrainerECCaM_30x40_16r_hs(nnUNetTrainerECCaM_30x40_16r):
    """The same, with enhanced kernels that begin as one kernel of nnU-Net's."""

    network_switches = {**HE_SUM, **AT_16}
