"""The decoder with side outputs (III.B, Fig. 2e): the U-Net's own, and a 1x1 head at each level."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, cat, nn

from nnunetv2_eccam.blocks.convolution import ConvNormNonlin, LayerOps


class Decoder(nn.Module):
    """Per level: transposed convolution, concatenation with the skip, plain convolutions, 1x1 head.

    Args:
        num_classes: logit maps of each head.
        features_per_stage: width of each encoder stage, highest resolution first.
        kernel_sizes: per encoder stage.
        strides: per encoder stage.
        n_conv_per_stage: convolutions of each level, lowest resolution first, as in nnU-Net's plans.
        ops: the operators.
        side_outputs: a head at every level (the paper's DWS), or one at the last level only. Without
            them there are no spare heads, since parameters without gradient break multi-GPU training.
        deep_supervision: whether :meth:`forward` gives every head's logits or the last one's. nnU-Net
            switches this attribute; it does not change the parameters.

    Raises:
        ValueError: ``deep_supervision`` without ``side_outputs``.
    """

    def __init__(
        self,
        num_classes: int,
        features_per_stage: Sequence[int],
        kernel_sizes: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        n_conv_per_stage: Sequence[int],
        ops: LayerOps,
        side_outputs: bool,
        deep_supervision: bool,
    ) -> None:
        super().__init__()
        if deep_supervision and not side_outputs:
            raise ValueError("deep_supervision needs side_outputs: there is only one head to supervise")
        self.num_classes = num_classes
        self.deep_supervision = deep_supervision
        self.upsamplings = nn.ModuleList()
        self.levels = nn.ModuleList()
        self.heads = nn.ModuleList()
        ones = [1] * ops.dimension
        n_levels = len(features_per_stage) - 1
        for level, n_convs in enumerate(n_conv_per_stage):
            below, skip = features_per_stage[n_levels - level], features_per_stage[n_levels - level - 1]
            kernel_size = kernel_sizes[n_levels - level - 1]
            self.upsamplings.append(ops.transposed_conv(below, skip, strides[n_levels - level]))
            self.levels.append(
                nn.Sequential(
                    *(
                        ConvNormNonlin(2 * skip if position == 0 else skip, skip, kernel_size, ones, ops)
                        for position in range(n_convs)
                    )
                )
            )
            if side_outputs or level == n_levels - 1:
                self.heads.append(ops.conv(skip, num_classes, ones, bias=True))

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
            features = convs(cat((upsampling(features), maps[-2 - level]), 1))
            if self.deep_supervision:
                outputs.append(self.heads[level](features))
        if self.deep_supervision:
            return outputs[::-1]
        logits: Tensor = self.heads[-1](features)
        return logits

    def compute_conv_feature_map_size(self, sizes: Sequence[Sequence[int]]) -> int:
        """Count the values that the convolutions write for one sample.

        Args:
            sizes: the size of each encoder stage's map, highest resolution first.
        """
        total = 0
        for level, convs in enumerate(self.levels):
            assert isinstance(convs, nn.Sequential)
            size = sizes[len(sizes) - 2 - level]
            volume = 1
            for n in size:
                volume *= n
            maps = [conv for conv in convs if isinstance(conv, ConvNormNonlin)]
            total += sum(conv.compute_conv_feature_map_size(size) for conv in maps)
            total += maps[-1].output_channels * volume  # the transposed convolution
            if len(self.heads) > 1 or level == len(self.levels) - 1:
                total += self.num_classes * volume
        return total
