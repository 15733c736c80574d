"""EC-CaM-UNet (III, Fig. 2): wiring of encoder, CoAG-MuSFu bottleneck and decoder with side outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from nnunetv2_eccam.architectures.decoder import Decoder
from nnunetv2_eccam.architectures.encoder import Encoder
from nnunetv2_eccam.architectures.padding import PadsToMultiple
from nnunetv2_eccam.architectures.unet_plan import Downsampling, UNetPlan
from nnunetv2_eccam.blocks.cbam import CBAM
from nnunetv2_eccam.blocks.channel_correlation import ChannelCorrelation, Upsampling
from nnunetv2_eccam.blocks.coag_musfu import CoAGMuSFu, Fusion
from nnunetv2_eccam.blocks.collaborative_attention import CollaborativeAttention
from nnunetv2_eccam.blocks.convolution import LayerOps
from nnunetv2_eccam.blocks.multi_scale import PAPER_DILATIONS, MultiScale, Rate
from nnunetv2_eccam.blocks.spatial_correlation import AttentionScale, SpatialCorrelation
from nnunetv2_eccam.blocks.squeeze_excitation import SqueezeExcitation

ComparedAttention = Literal["SE", "CBAM"]


class ECCaMUNet(PadsToMultiple):
    """EC-CaM-UNet, in two or three dimensions as ``conv_op`` says.

    The first arguments are those of ``PlainConvUNet`` in dynamic-network-architectures, so that nnU-Net's
    plans describe this network in their own words; the others switch the paper's parts. With all of them
    off it is the U-Net that the paper compares with.

    Args:
        input_channels: channels of the image.
        n_stages: stages of the encoder; the paper has five.
        features_per_stage: width of each stage, or one number for all.
        conv_op: ``torch.nn.Conv2d`` or ``torch.nn.Conv3d``.
        kernel_sizes: per stage, one odd number per axis (or one number).
        strides: per stage, one number per axis (or one number); the first stage's is normally 1.
        n_conv_per_stage: convolutions per encoder stage (the paper: 2).
        num_classes: logit maps.
        n_conv_per_stage_decoder: convolutions per decoder level, lowest resolution first (the paper: 2).
        conv_bias: whether convolutions have a bias.
        norm_op: normalisation, batch or instance.
        norm_op_kwargs: its arguments.
        dropout_op: dropout, or None.
        dropout_op_kwargs: its arguments.
        nonlin: nonlinearity.
        nonlin_kwargs: its arguments.
        deep_supervision: whether every head's logits are given, highest resolution first. Can be changed
            later as ``network.decoder.deep_supervision``, as nnU-Net does.
        enhanced_convolution: EC in the encoder.
        norm_per_branch: one normalisation per EC branch (the paper) or one after their sum.
        channel_correlation: CC in the bottleneck.
        spatial_correlation: SC in the bottleneck.
        compared_attention: ``SE`` or ``CBAM`` in the bottleneck instead of CC and SC (Table V), or None.
        multi_scale: MuS in the bottleneck.
        fusion: of attention and multi-scale features: ``concatenation`` (eq. 10), ``series``, ``sum``.
        attention_scale: of SC's dot products: 1.0 (eq. 9) or ``"1/sqrt(C)"``.
        correlation_channels: width of CC's autoencoder.
        correlation_upsampling: ``transposed`` or ``interpolation``, CC's way back to C values.
        dilations: MuS's rates; each one number, or one per axis.
        multi_scale_channels: width of each MuS branch; a quarter of the bottleneck's by default.
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
        n_conv_per_stage: int | Sequence[int],
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
        enhanced_convolution: bool = True,
        norm_per_branch: bool = False,
        channel_correlation: bool = True,
        spatial_correlation: bool = True,
        compared_attention: ComparedAttention | None = None,
        multi_scale: bool = True,
        fusion: Fusion = "concatenation",
        attention_scale: AttentionScale = "1/sqrt(C)",
        correlation_channels: int = 8,
        correlation_upsampling: Upsampling = "transposed",
        dilations: Sequence[Rate] = PAPER_DILATIONS,
        multi_scale_channels: int | None = None,
        downsampling: Downsampling = "stride",
        side_outputs: bool = True,
    ) -> None:
        super().__init__()
        plan = UNetPlan.of(
            n_stages,
            features_per_stage,
            conv_op,
            kernel_sizes,
            strides,
            n_conv_per_stage,
            n_conv_per_stage_decoder,
            conv_bias,
            norm_op,
            norm_op_kwargs,
            dropout_op,
            dropout_op_kwargs,
            nonlin,
            nonlin_kwargs,
            downsampling,
        )
        self.plan = plan
        self.encoder = Encoder(input_channels, plan, enhanced_convolution, norm_per_branch)
        channels, ops = plan.features_per_stage[-1], plan.ops
        attention: nn.Module | None = None
        if compared_attention is not None:
            if channel_correlation or spatial_correlation:
                raise ValueError(
                    f"{compared_attention} takes the place of CC and SC: switch channel_correlation and "
                    "spatial_correlation off"
                )
            attention = _compared(compared_attention, channels, ops)
        elif channel_correlation or spatial_correlation:
            attention = CollaborativeAttention(
                ChannelCorrelation(channels, ops, correlation_channels, correlation_upsampling)
                if channel_correlation
                else None,
                SpatialCorrelation(attention_scale) if spatial_correlation else None,
            )
        scales = MultiScale(channels, ops, dilations, multi_scale_channels) if multi_scale else None
        self.bottleneck = CoAGMuSFu(channels, ops, attention, scales, fusion)
        self.decoder = Decoder(num_classes, plan, side_outputs, deep_supervision)

    def segment(self, image: Tensor) -> Tensor | list[Tensor]:
        """Segment a batch of images whose size the strides divide."""
        self._check_bottleneck(image)
        maps = self.encoder(image)
        maps[-1] = self.bottleneck(maps[-1])
        output: Tensor | list[Tensor] = self.decoder(maps)
        return output

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
            + self.bottleneck.compute_conv_feature_map_size(sizes[-1])
            + self.decoder.compute_conv_feature_map_size(sizes)
        )

    @staticmethod
    def initialize(module: nn.Module) -> None:
        """Initialise a module as nnU-Net does: He, for a leaky ReLU of slope 0.01. For ``network.apply``."""
        InitWeights_He(1e-2)(module)


def _compared(name: ComparedAttention, channels: int, ops: LayerOps) -> nn.Module:
    if name == "SE":
        return SqueezeExcitation(channels, ops)
    if name == "CBAM":
        return CBAM(channels, ops)
    raise ValueError(f"compared_attention must be 'SE', 'CBAM' or None, got {name!r}")
