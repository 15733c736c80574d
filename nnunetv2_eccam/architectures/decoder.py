"""The decoder with side outputs (III.B, Fig. 2e): the U-Net's own, and a 1x1 head at each level."""

from collections.abc import Sequence

from torch import Tensor, nn

from nnunetv2_eccam.architectures.unet_plan import UNetPlan
from nnunetv2_eccam.blocks.convolution import stacked


class DecoderLevel(nn.Sequential):
    """The convolutions of a level, the first of which takes several maps as one; see :class:`ConvNormNonlin`."""

    def forward(self, *maps: Tensor) -> Tensor:
        """Convolve the concatenation of maps of one size."""
        first, *rest = self
        features: Tensor = first(*maps)
        for layer in rest:
            features = layer(features)
        return features


class Decoder(nn.Module):
    """Per level: transposed convolution, concatenation with the skip, plain convolutions, 1x1 head.

    Args:
        num_classes: logit maps of each head.
        plan: the stages.
        side_outputs: a head at every level (the paper's DWS), or one at the last level only. Without
            them there are no spare heads, since parameters without gradient break multi-GPU training.
        deep_supervision: whether :meth:`forward` gives every head's logits or the last one's. nnU-Net
            switches this attribute; it does not change the parameters.

    Raises:
        ValueError: ``deep_supervision`` without ``side_outputs``.
    """

    def __init__(self, num_classes: int, plan: UNetPlan, side_outputs: bool, deep_supervision: bool) -> None:
        super().__init__()
        ops, features_per_stage = plan.ops, plan.features_per_stage
        if deep_supervision and not side_outputs:
            raise ValueError("deep_supervision needs side_outputs: there is only one head to supervise")
        self.deep_supervision = deep_supervision
        self.upsamplings = nn.ModuleList()
        self.levels = nn.ModuleList()
        # The heads, by level: the last level's has one name, with side outputs or without. They are called as
        # nnU-Net's are, by which -pretrained_weights knows what to begin anew for other classes.
        self.seg_layers = nn.ModuleDict()
        ones = [1] * ops.dimension
        n_levels = len(features_per_stage) - 1
        for level, n_convs in enumerate(plan.n_conv_per_stage_decoder):
            below, skip = features_per_stage[n_levels - level], features_per_stage[n_levels - level - 1]
            kernel_size = plan.kernel_sizes[n_levels - level - 1]
            self.upsamplings.append(ops.transposed_conv(below, skip, plan.strides[n_levels - level]))
            self.levels.append(DecoderLevel(*stacked(n_convs, 2 * skip, skip, kernel_size, ones, ops)))
            if side_outputs or level == n_levels - 1:
                self.seg_layers[str(level)] = ops.conv(skip, num_classes, ones, bias=True)

    def forward(self, maps: Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Decode.

        Args:
            maps: the encoder's, highest resolution first, the last one replaced by the bottleneck's.

        Returns:
            logits ``(B, num_classes, *spatial)``; with deep supervision a list of them, one per level,
            highest resolution first.
        """
        features = maps[-1]
        outputs: list[Tensor] = []
        for level, (upsampling, convs) in enumerate(zip(self.upsamplings, self.levels, strict=True)):
            skip = self.skip(level, maps[-2 - level], features)
            features = convs(upsampling(features), skip)
            if self.deep_supervision:
                outputs.append(self.seg_layers[str(level)](features))
        if self.deep_supervision:
            return outputs[::-1]
        logits: Tensor = self.seg_layers[str(len(self.levels) - 1)](features)
        return logits

    def spare_heads(self) -> list[nn.Module]:
        """Give the heads that no output depends on while ``deep_supervision`` is off."""
        return list(self.seg_layers.values())[:-1]

    def skip(self, level: int, skip: Tensor, features: Tensor) -> Tensor:  # noqa: ARG002
        """Give what of the encoder's map is concatenated; all of it, where a subclass does not gate it.

        Args:
            level: of the decoder, 0 the lowest.
            skip: the encoder's map.
            features: the decoder's map one level below.
        """
        return skip
