"""EC-CaM-UNet (III, Fig. 2): wiring of encoder, CoAG-MuSFu bottleneck and decoder with side outputs."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from dynamic_network_architectures.building_blocks.residual import BasicBlockD, BottleneckD
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.utils._python_dispatch import TorchDispatchMode

from nnunetv2_eccam.architectures.decoder import Decoder
from nnunetv2_eccam.architectures.encoder import Encoder, begin_as_identity
from nnunetv2_eccam.architectures.padding import PadsToMultiple
from nnunetv2_eccam.architectures.unet_plan import UNetPlan, divisors
from nnunetv2_eccam.blocks.channel_correlation import ChannelCorrelation, Upsampling
from nnunetv2_eccam.blocks.coag_musfu import CoAGMuSFu, Fusion
from nnunetv2_eccam.blocks.collaborative_attention import CollaborativeAttention
from nnunetv2_eccam.blocks.compared_attention import COMPARED_ATTENTIONS, ComparedAttention
from nnunetv2_eccam.blocks.enhanced_convolution import BranchForm, BranchInit, EnhancedConvolution
from nnunetv2_eccam.blocks.multi_scale import PAPER_DILATIONS, MultiScale, Rate
from nnunetv2_eccam.blocks.spatial_correlation import AttentionScale, SpatialCorrelation

AttentionStages = Literal["deepest", "1/16", "both", "from 1/16"] | Sequence[int]
ATTENTION_STAGES = ("deepest", "1/16", "both", "from 1/16")

PAPER_REDUCTION = 16
"""Of the paper's bottleneck, along each axis: 32x32 positions of a 512x512 slice."""


class ECCaMUNet(PadsToMultiple):
    """EC-CaM-UNet, in two or three dimensions as ``conv_op`` says.

    The first arguments and ``stages`` are those of ``PlainConvUNet`` and ``ResidualEncoderUNet`` in
    dynamic-network-architectures, so that nnU-Net's plans describe this network in their own words; the others
    switch the paper's parts. With all of them off it is that network; on a plain plan this is the U-Net that the
    paper compares with.

    Args:
        input_channels: channels of the image.
        num_classes: logit maps.
        deep_supervision: whether every head's logits are given, highest resolution first. Can be changed
            later as ``network.decoder.deep_supervision``, as nnU-Net does.
        enhanced_convolution: EC in the encoder.
        norm_per_branch: the plan's norm in each EC branch (the paper), or one after their sum.
        branch_form: of EC with one norm after the sum, ``sum``, ``scale``, ``weight_norm`` or ``batch_norm``;
            see :class:`EnhancedConvolution`.
        branch_init: of EC, ``he_rate``, ``he_sum`` or ``he_each``; None chooses by ``norm_per_branch``; see there.
        channel_correlation: CC in CoAG-MuSFu.
        spatial_correlation: SC in CoAG-MuSFu.
        compared_attention: ``SE`` or ``CBAM`` instead of CC and SC (Table V), or None.
        multi_scale: MuS in CoAG-MuSFu.
        fusion: of attention and multi-scale features: ``concatenation`` (eq. 10), ``series``, ``sum``.
        attention_stages: which stages CoAG-MuSFu follows: ``deepest`` (the paper: at 1/16 of the image),
            ``1/16``, ``both``, ``from 1/16``, or a list of stages from 0; see :func:`stages_with_attention`.
            The map that it gives goes on into the next stage and into the skip connection.
        attention_residual: an identity path around each CoAG-MuSFu, with a gain that begins at zero.
        attention_scale: of SC's dot products: 1.0 (eq. 9) or ``"1/sqrt(C)"``.
        correlation_channels: width of CC's autoencoder.
        correlation_upsampling: ``transposed`` or ``interpolation``, CC's way back to C values.
        dilations: MuS's rates, each one number or one per axis; or such rates by stage, ``{"4": [6, 12, 18]}``.
        multi_scale_channels: width of each MuS branch; a quarter of its stage's by default.
        side_outputs: a head at each decoder level (DWS), or one head.
        stages: number, widths, kernels, strides and layers of the stages: the arguments of :class:`UNetPlan`.

    Shape:
        ``(B, input_channels, *spatial)`` to logits ``(B, num_classes, *spatial)``, or a list of them with
        deep supervision. An axis that the product of its strides does not divide is padded inside.

    Raises:
        ValueError: arguments that do not fit each other, with what was given and what is needed.

    Example:
        >>> network = ECCaMUNet(
        ...     input_channels=1, num_classes=2, n_stages=3, features_per_stage=[8, 16, 32], conv_op=nn.Conv2d,
        ...     kernel_sizes=3, strides=[1, 2, 2], n_conv_per_stage=2, n_conv_per_stage_decoder=2,
        ...     norm_op=nn.InstanceNorm2d, nonlin=nn.LeakyReLU, dilations=[1, 2, 3],
        ... )
        >>> network(torch.zeros(1, 1, 64, 48)).shape
        torch.Size([1, 2, 64, 48])
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        deep_supervision: bool = False,
        enhanced_convolution: bool = True,
        norm_per_branch: bool = False,
        branch_form: BranchForm = "sum",
        branch_init: BranchInit | None = None,
        channel_correlation: bool = True,
        spatial_correlation: bool = True,
        compared_attention: ComparedAttention | None = None,
        multi_scale: bool = True,
        fusion: Fusion = "concatenation",
        attention_stages: AttentionStages = "deepest",
        attention_residual: bool = False,
        attention_scale: AttentionScale = "1/sqrt(C)",
        correlation_channels: int = 8,
        correlation_upsampling: Upsampling = "transposed",
        dilations: Sequence[Rate] | Mapping[str, Sequence[Rate]] = PAPER_DILATIONS,
        multi_scale_channels: int | None = None,
        side_outputs: bool = True,
        **stages: Any,
    ) -> None:
        super().__init__()
        plan = UNetPlan(**stages)
        self.input_channels = input_channels
        self.plan = plan
        branches = {"norm_per_branch": norm_per_branch, "branch_form": branch_form, "branch_init": branch_init}
        self.encoder = Encoder(input_channels, plan, enhanced_convolution, branches)
        if compared_attention not in (None, *COMPARED_ATTENTIONS):
            raise ValueError(f"compared_attention must be 'SE', 'CBAM' or None, got {compared_attention!r}")
        if compared_attention is not None and (channel_correlation or spatial_correlation):
            raise ValueError(
                f"{compared_attention} takes the place of CC and SC: switch channel_correlation and "
                "spatial_correlation off"
            )

        def fusion_at(stage: int) -> CoAGMuSFu:
            channels, ops = plan.features_per_stage[stage], plan.ops
            attention: nn.Module | None = None
            if compared_attention is not None:
                attention = COMPARED_ATTENTIONS[compared_attention](channels, ops)
            elif channel_correlation or spatial_correlation:
                attention = CollaborativeAttention(
                    ChannelCorrelation(channels, ops, correlation_channels, correlation_upsampling)
                    if channel_correlation
                    else None,
                    SpatialCorrelation(attention_scale) if spatial_correlation else None,
                )
            rates = dilations[str(stage)] if isinstance(dilations, Mapping) else dilations
            scales = MultiScale(channels, ops, rates, multi_scale_channels) if multi_scale else None
            return CoAGMuSFu(channels, ops, attention, scales, fusion, attention_residual)

        deepest = len(plan.strides) - 1
        places = stages_with_attention(attention_stages, plan.strides)
        self.earlier_fusions = nn.ModuleDict({str(n): fusion_at(n) for n in places if n < deepest})
        self.bottleneck = (
            fusion_at(deepest) if deepest in places else CoAGMuSFu(plan.features_per_stage[-1], plan.ops, None, None)
        )
        self.decoder = Decoder(num_classes, plan, side_outputs, deep_supervision)

    def segment(self, image: Tensor) -> Tensor | list[Tensor]:
        """Segment a batch of images whose size the strides divide."""
        self._check_bottleneck(image)
        fusions = {int(stage): module for stage, module in self.earlier_fusions.items()}
        fusions[len(self.plan.strides) - 1] = self.bottleneck
        output: Tensor | list[Tensor] = self.decoder(self.encoder(image, fusions))
        return output

    def _check_bottleneck(self, image: Tensor) -> None:
        size, norm_op = list(image.shape[2:]), self.plan.ops.norm_op
        per_image = norm_op is not None and issubclass(norm_op, _InstanceNorm)
        if size == self.divisors and (per_image or (self.training and image.shape[0] == 1)):
            raise ValueError(
                f"an image of size {size} leaves one position at the bottleneck, of which there is no variance to "
                f"normalise by; use at least twice that along one axis"
            )

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> int:
        """Count the values that all convolutions write in training for one sample: nnU-Net's measure of GPU memory.

        Args:
            input_size: of the image, without batch and channels.
        """
        network, weights, outputs = copy.deepcopy(self).train(), self.state_dict(), _ConvolutionOutputs()
        with FakeTensorMode(), torch.no_grad(), outputs:  # nothing is computed there but sizes
            weights = {name: torch.empty(value.shape, dtype=value.dtype) for name, value in weights.items()}
            functional_call(network, weights, torch.empty(1, self.input_channels, *input_size), tie_weights=False)
        return outputs.values

    @staticmethod
    def initialize(module: nn.Module) -> None:
        """Initialise a module as nnU-Net does, and what is ours as its form asks."""
        PadsToMultiple.initialize(module)
        if isinstance(module, EnhancedConvolution):  # after its convolutions, which ``apply`` comes to first
            module.begin()
        if isinstance(module, (BasicBlockD, BottleneckD)):
            begin_as_identity(module)


class _ConvolutionOutputs(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Count the values of the maps that convolutions write: not of sequences, and not of single positions, as SE's."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.values = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = operation(*args, **(kwargs or {}))
        if operation is torch.ops.aten.convolution.default and output.ndim > 3 and output[0, 0].numel() > 1:
            self.values += int(output.numel())
        return output


def stages_with_attention(where: AttentionStages, strides: Sequence[Sequence[int]]) -> list[int]:
    """Give the stages that CoAG-MuSFu follows.

    Args:
        where: ``deepest``; ``1/16``, the first stage whose map is a sixteenth of the image or less along some
            axis (the paper's place), the deepest where there is none; ``both``; ``from 1/16``, every stage from
            there; or stages from 0.
        strides: per stage, one number per axis.

    Raises:
        ValueError: another word, or a stage that there is not.

    >>> stages_with_attention("both", [[1, 1], [2, 2], [2, 2], [2, 2], [2, 2], [2, 2]])
    [4, 5]
    """
    deepest = len(strides) - 1
    if isinstance(where, str):
        if where not in ATTENTION_STAGES:
            raise ValueError(f"attention_stages must be one of {ATTENTION_STAGES} or a list, got {where!r}")
        reduced = [max(divisors(strides[: n + 1])) for n in range(len(strides))]
        first = next((n for n, factor in enumerate(reduced) if factor >= PAPER_REDUCTION), deepest)
        chosen = {"deepest": [deepest], "1/16": [first], "both": [first, deepest]}
        return sorted(set(chosen.get(where, range(first, deepest + 1))))
    stages = sorted({int(n) for n in where})
    if not stages or stages[0] < 0 or stages[-1] > deepest:
        raise ValueError(f"attention_stages must be stages from 0 to {deepest}, got {list(where)}")
    return stages
