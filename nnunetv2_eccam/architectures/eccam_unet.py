"""EC-CaM-UNet (III, Fig. 2): wiring of encoder, CoAG-MuSFu bottleneck and decoder with side outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from dynamic_network_architectures.building_blocks.residual import BasicBlockD, BottleneckD
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from nnunetv2_eccam.architectures.decoder import Decoder
from nnunetv2_eccam.architectures.encoder import Encoder, begin_as_identity
from nnunetv2_eccam.architectures.padding import PadsToMultiple
from nnunetv2_eccam.architectures.unet_plan import Downsampling, ResidualBlocks, UNetPlan
from nnunetv2_eccam.blocks.channel_correlation import ChannelCorrelation, Upsampling
from nnunetv2_eccam.blocks.coag_musfu import CoAGMuSFu, Fusion
from nnunetv2_eccam.blocks.collaborative_attention import CollaborativeAttention
from nnunetv2_eccam.blocks.compared_attention import ComparedAttention, make_compared_attention
from nnunetv2_eccam.blocks.enhanced_convolution import BranchForm, BranchInit, EnhancedConvolution
from nnunetv2_eccam.blocks.multi_scale import PAPER_DILATIONS, MultiScale, Rate
from nnunetv2_eccam.blocks.spatial_correlation import AttentionScale, SpatialCorrelation

CONVS_IN_PLACE_OF_BLOCKS = 2
"""Convolutions a stage where a network cannot follow a plan's residual blocks."""

AttentionStages = Literal["deepest", "1/16", "both", "from 1/16"] | Sequence[int]
ATTENTION_STAGES = ("deepest", "1/16", "both", "from 1/16")

PAPER_REDUCTION = 16
"""Of the paper's bottleneck, along each axis: 32x32 positions of a 512x512 slice."""


class ECCaMUNet(PadsToMultiple):
    """EC-CaM-UNet, in two or three dimensions as ``conv_op`` says.

    The first arguments are those of ``PlainConvUNet`` and ``ResidualEncoderUNet`` in
    dynamic-network-architectures, so that nnU-Net's plans describe this network in their own words; the others
    switch the paper's parts. With all of them off it is that network; on a plain plan this is the U-Net that the
    paper compares with.

    Args:
        input_channels: channels of the image.
        n_stages: stages of the encoder; the paper has five.
        features_per_stage: width of each stage, or one number for all.
        conv_op: ``torch.nn.Conv2d`` or ``torch.nn.Conv3d``.
        kernel_sizes: per stage, one odd number per axis (or one number).
        strides: per stage, one number per axis (or one number); the first stage's is normally 1.
        n_conv_per_stage: convolutions per encoder stage (the paper: 2), or None where there are residual blocks.
        num_classes: logit maps.
        n_conv_per_stage_decoder: convolutions per decoder level, lowest resolution first (the paper: 2).
        conv_bias: whether convolutions have a bias.
        norm_op: normalisation, batch or instance.
        norm_op_kwargs: its arguments.
        dropout_op: dropout, or None.
        dropout_op_kwargs: its arguments.
        nonlin: nonlinearity.
        nonlin_kwargs: its arguments.
        nonlin_first: nonlinearity before normalisation.
        n_blocks_per_stage: residual blocks per encoder stage, for a residual encoder; see :class:`ResidualBlocks`
            for this and the next.
        block: the kind of block.
        bottleneck_channels: width inside a ``BottleneckD``, per stage.
        stem_channels: width of the convolution in front of the first stage.
        stochastic_depth_p: how likely a block is left out.
        squeeze_excitation: SE in each block.
        squeeze_excitation_reduction_ratio: of its hidden layer.
        deep_supervision: whether every head's logits are given, highest resolution first. Can be changed
            later as ``network.decoder.deep_supervision``, as nnU-Net does.
        enhanced_convolution: EC in the encoder.
        norm_per_branch: the plan's norm in each EC branch (the paper), or one after their sum.
        branch_form: of EC with one norm after the sum, ``sum``, ``scale``, ``weight_norm`` or ``batch_norm``;
            see :class:`EnhancedConvolution`.
        branch_init: of EC, ``he_each`` or ``he_sum``; see there.
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
        downsampling: ``stride`` or ``max_pool``.
        side_outputs: a head at each decoder level (DWS), or one head.

    Shape:
        ``(B, input_channels, *spatial)`` to logits ``(B, num_classes, *spatial)``, or a list of them with
        deep supervision. An axis that the product of its strides does not divide is padded inside.

    Raises:
        ValueError: arguments that do not fit each other, with what was given and what is needed.

    Example:
        >>> network = ECCaMUNet(1, 3, [8, 16, 32], nn.Conv2d, 3, [1, 2, 2], 2, 2, 2, norm_op=nn.InstanceNorm2d,
        ...                     nonlin=nn.LeakyReLU, dilations=[1, 2, 3])
        >>> network(torch.zeros(1, 1, 64, 48)).shape
        torch.Size([1, 2, 64, 48])
    """

    def __init__(
        self,
        input_channels: int,
        n_stages: int,
        features_per_stage: int | Sequence[int],
        conv_op: type[nn.Module],
        kernel_sizes: int | Sequence[int | Sequence[int]],
        strides: int | Sequence[int | Sequence[int]],
        n_conv_per_stage: int | Sequence[int] | None,
        num_classes: int,
        n_conv_per_stage_decoder: int | Sequence[int],
        conv_bias: bool = True,
        norm_op: type[nn.Module] | None = None,
        norm_op_kwargs: Mapping[str, Any] | None = None,
        dropout_op: type[nn.Module] | None = None,
        dropout_op_kwargs: Mapping[str, Any] | None = None,
        nonlin: type[nn.Module] | None = None,
        nonlin_kwargs: Mapping[str, Any] | None = None,
        deep_supervision: bool = False,
        nonlin_first: bool = False,
        n_blocks_per_stage: int | Sequence[int] | None = None,
        block: type[nn.Module] | None = None,
        bottleneck_channels: int | Sequence[int] | None = None,
        stem_channels: int | None = None,
        stochastic_depth_p: float = 0.0,
        squeeze_excitation: bool = False,
        squeeze_excitation_reduction_ratio: float = 1 / 16,
        enhanced_convolution: bool = True,
        norm_per_branch: bool = False,
        branch_form: BranchForm = "sum",
        branch_init: BranchInit = "he_each",
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
        downsampling: Downsampling = "stride",
        side_outputs: bool = True,
    ) -> None:
        super().__init__()
        if (n_conv_per_stage is None) == (n_blocks_per_stage is None):
            raise ValueError(
                "give n_conv_per_stage, for a plain encoder, or n_blocks_per_stage, for a residual one; got "
                f"{n_conv_per_stage} and {n_blocks_per_stage}"
            )
        residual = None
        if n_blocks_per_stage is not None:
            residual = ResidualBlocks.of(
                n_stages,
                n_blocks_per_stage,
                block,
                bottleneck_channels,
                stem_channels=stem_channels,
                stochastic_depth_p=stochastic_depth_p,
                squeeze_excitation=squeeze_excitation,
                squeeze_excitation_reduction_ratio=squeeze_excitation_reduction_ratio,
            )
        plan = UNetPlan.of(
            n_stages,
            features_per_stage,
            conv_op,
            kernel_sizes,
            strides,
            CONVS_IN_PLACE_OF_BLOCKS if n_conv_per_stage is None else n_conv_per_stage,
            n_conv_per_stage_decoder,
            conv_bias,
            norm_op,
            norm_op_kwargs,
            dropout_op,
            dropout_op_kwargs,
            nonlin,
            nonlin_kwargs,
            downsampling,
            nonlin_first,
            residual,
        )
        self.plan = plan
        branches = {"norm_per_branch": norm_per_branch, "branch_form": branch_form, "branch_init": branch_init}
        self.encoder = Encoder(input_channels, plan, enhanced_convolution, branches)
        if compared_attention is not None and (channel_correlation or spatial_correlation):
            raise ValueError(
                f"{compared_attention} takes the place of CC and SC: switch channel_correlation and "
                "spatial_correlation off"
            )

        def fusion_at(stage: int) -> CoAGMuSFu:
            channels, ops = plan.features_per_stage[stage], plan.ops
            attention: nn.Module | None = None
            if compared_attention is not None:
                attention = make_compared_attention(compared_attention, channels, ops)
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

        deepest = n_stages - 1
        stages = stages_with_attention(attention_stages, plan.strides)
        self.earlier_fusions = nn.ModuleDict({str(n): fusion_at(n) for n in stages if n < deepest})
        self.bottleneck = (
            fusion_at(deepest) if deepest in stages else CoAGMuSFu(plan.features_per_stage[-1], plan.ops, None, None)
        )
        self.decoder = Decoder(num_classes, plan, side_outputs, deep_supervision)

    def segment(self, image: Tensor) -> Tensor | list[Tensor]:
        """Segment a batch of images whose size the strides divide."""
        self._check_bottleneck(image)
        output: Tensor | list[Tensor] = self.decoder(self.encoder(image, self._fusions()))
        return output

    def _fusions(self) -> dict[int, nn.Module]:
        earlier = {int(stage): module for stage, module in self.earlier_fusions.items()}
        return {**earlier, len(self.plan.strides) - 1: self.bottleneck}

    @property
    def divisors(self) -> list[int]:
        """What the encoder's strides divide each axis by; other sizes are padded."""
        return self.plan.divisors

    def _check_bottleneck(self, image: Tensor) -> None:
        size, norm_op = list(image.shape[2:]), self.plan.ops.norm_op
        per_image = norm_op is not None and issubclass(norm_op, _InstanceNorm)
        if size == self.divisors and (per_image or (self.training and image.shape[0] == 1)):
            raise ValueError(
                f"an image of size {size} leaves one position at the bottleneck, of which there is no variance to "
                f"normalise by; use at least twice that along one axis"
            )

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> int:
        """Count the values that all convolutions write for one sample: nnU-Net's measure of GPU memory.

        Args:
            input_size: of the image, without batch and channels.
        """
        sizes = self.plan.sizes(input_size)
        return (
            self.encoder.compute_conv_feature_map_size(input_size)
            + sum(
                cast(CoAGMuSFu, module).compute_conv_feature_map_size(sizes[stage])
                for stage, module in self._fusions().items()
            )
            + self.decoder.compute_conv_feature_map_size(sizes)
        )

    @staticmethod
    def initialize(module: nn.Module) -> None:
        """Initialise a module as nnU-Net does: He, for a leaky ReLU of slope 0.01. For ``network.apply``."""
        InitWeights_He(1e-2)(module)
        if isinstance(module, EnhancedConvolution):  # after its convolutions, which ``apply`` comes to first
            module.begin()
        if isinstance(module, (BasicBlockD, BottleneckD)):
            begin_as_identity(module)


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
        reduced = [max(math.prod(axis) for axis in zip(*strides[: n + 1], strict=True)) for n in range(len(strides))]
        first = next((n for n, factor in enumerate(reduced) if factor >= PAPER_REDUCTION), deepest)
        chosen = {"deepest": [deepest], "1/16": [first], "both": [first, deepest]}
        return sorted(set(chosen.get(where, range(first, deepest + 1))))
    stages = sorted({int(n) for n in where})
    if not stages or stages[0] < 0 or stages[-1] > deepest:
        raise ValueError(f"attention_stages must be stages from 0 to {deepest}, got {list(where)}")
    return stages
