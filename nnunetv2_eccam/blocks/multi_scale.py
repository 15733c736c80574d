"""Multi-Scale block, MuS (III.A.2, Fig. 2c): parallel dilated convolutions, DeepLab's ASPP."""

from collections.abc import Sequence

from torch import Tensor, nn

from nnunetv2_eccam.blocks.convolution import ConvNormNonlin, LayerOps
from nnunetv2_eccam.blocks.recomputation import convolution

PAPER_DILATIONS = (6, 12, 18)
"""The paper's rates (III.A.2), which it uses on a bottleneck of 32x32: 512x512 after four halvings."""

PAPER_BOTTLENECK = 32

Rate = int | Sequence[int]
"""Distance of the outer taps, in positions: one number, or one per axis."""


class DilatedConvolution(nn.Module):
    """Dilated convolution, normalisation, nonlinearity, without the taps that meet only padding.

    A tap at distance ``dilation`` from the centre meets the map only where the map is larger than that.
    Along an axis where it is not, the kernel is cut to its centre: the result is the same, and neither
    the multiplications nor the padding are paid for. The kernel keeps its full shape as a parameter, so a
    checkpoint fits any input size.

    Args:
        input_channels: channels of the input.
        output_channels: channels of the output.
        dilation: distance of the outer taps, in positions; one number for all axes, or one per axis.
        ops: the operators.

    Shape:
        ``(B, input_channels, *spatial)`` to ``(B, output_channels, *spatial)``.
    """

    def __init__(self, input_channels: int, output_channels: int, dilation: Rate, ops: LayerOps) -> None:
        super().__init__()
        self.dilation = dilation
        self.rates = _per_axis(dilation, ops.dimension)
        self.conv = ops.conv(input_channels, output_channels, [3] * ops.dimension)
        self.dropout = ops.dropout()
        self.norm = ops.norm(output_channels)
        self.nonlin = ops.activation()

    def forward(self, features: Tensor) -> Tensor:
        """Apply the layer."""
        kernel: Tensor = self.conv.weight
        padding: list[int] = []
        for axis, (size, rate) in enumerate(zip(features.shape[2:], self.rates, strict=True), start=2):
            reaches = rate < size
            padding.append(rate if reaches else 0)
            if not reaches:
                kernel = kernel.narrow(axis, 1, 1)
        ones = [1] * len(padding)
        convolved = convolution(features, kernel, self.conv.bias, ones, padding, self.rates)
        output: Tensor = self.nonlin(self.norm(self.dropout(convolved)))
        return output


class MultiScale(nn.Module):
    """``Conv1x1(Concat(F, conv1x1(F), conv3x3_d1(F), conv3x3_d2(F), conv3x3_d3(F)))``.

    Each convolution is followed by normalisation and nonlinearity. That the input is concatenated with
    the branches is in the paper's section II, the rates are in III.

    Args:
        channels: C of the input and the output.
        ops: the operators.
        dilations: the branches' rates, in positions; each one number, or one per axis.
        branch_channels: width of each branch; C/4 by default, which is DeepLab's 256 at the paper's
            C = 1024.

    Shape:
        ``(B, C, *spatial)`` to the same.

    Raises:
        ValueError: no dilations, one below 1, or one with another number of axes.
    """

    def __init__(
        self,
        channels: int,
        ops: LayerOps,
        dilations: Sequence[Rate] = PAPER_DILATIONS,
        branch_channels: int | None = None,
    ) -> None:
        super().__init__()
        if not dilations or any(rate < 1 for dilation in dilations for rate in _per_axis(dilation, ops.dimension)):
            raise ValueError(f"dilations must be one or more numbers of at least 1, got {list(dilations)}")
        width = max(1, channels // 4) if branch_channels is None else branch_channels
        ones = [1] * ops.dimension
        self.pointwise = ConvNormNonlin(channels, width, ones, ones, ops)
        self.dilated = nn.ModuleList(DilatedConvolution(channels, width, rate, ops) for rate in dilations)
        self.restore = ConvNormNonlin(channels + width * (1 + len(dilations)), channels, ones, ones, ops)

    def forward(self, features: Tensor) -> Tensor:
        """Gather the scales."""
        scales = [features, self.pointwise(features), *(branch(features) for branch in self.dilated)]
        restored: Tensor = self.restore(*scales)
        return restored


def _per_axis(rate: Rate, dimension: int) -> tuple[int, ...]:
    rates = (rate,) * dimension if isinstance(rate, int) else tuple(rate)
    if len(rates) != dimension:
        raise ValueError(f"a dilation must be one number or {dimension}, one per axis; got {list(rates)}")
    return rates


def dilations_for(bottleneck_size: Sequence[int]) -> tuple[Rate, ...]:
    """Scale the paper's rates to a bottleneck of another size, so that they cover the same share of it.

    Rates of 6, 12 and 18 belong to 32 positions. On the 10x12 bottleneck of a 160x192 patch the larger
    two reach outside from everywhere and are 1x1 convolutions at nine times the weights; there this
    gives 2, 4 and 6.

    In two dimensions the smaller axis decides. In three each axis has rates of its own: nnU-Net's patch of a
    stack of thick slices is a slab, of which 5x20x16 positions are left, and what suits the 5 would see next
    to nothing along the other two.

    Args:
        bottleneck_size: positions along each axis.

    Returns:
        three rates that increase along each axis, at least 1; a number where it is the same for all axes.
    """
    if len(bottleneck_size) < 3:
        return _scaled(min(bottleneck_size))
    per_axis = zip(*map(_scaled, bottleneck_size), strict=True)
    return tuple(rates[0] if len(set(rates)) == 1 else rates for rates in per_axis)


def scaled_dilations(rates: Sequence[Rate], of_size: Sequence[int], size: Sequence[int]) -> tuple[Rate, ...]:
    """Scale the rates of one map to another one of the same network, as :func:`dilations_for` scales the paper's.

    Args:
        rates: of the smaller map, each one number or one per axis.
        of_size: its positions along each axis.
        size: those of the larger map.

    >>> scaled_dilations([1, 3], [5, 6], [20, 24])
    (4, 12)
    """
    if len(size) < 3 and all(isinstance(rate, int) for rate in rates):
        of_size, size = [min(of_size)], [min(size)]
    scaled: list[Rate] = []
    for rate in rates:
        per_axis = zip(_per_axis(rate, len(size)), of_size, size, strict=True)
        axes = [max(1, round(n * larger / max(1, smaller))) for n, smaller, larger in per_axis]
        scaled.append(axes[0] if len(set(axes)) == 1 else axes)
    return tuple(scaled)


def _scaled(size: int) -> tuple[int, ...]:
    rates: list[int] = []
    for rate in PAPER_DILATIONS:
        scaled = round(rate * size / PAPER_BOTTLENECK)
        rates.append(max(scaled, rates[-1] + 1 if rates else 1))
    return tuple(rates)
