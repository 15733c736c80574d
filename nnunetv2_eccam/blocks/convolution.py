"""The plain convolution of the U-Net, and the operators that all blocks share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dynamic_network_architectures.building_blocks.helper import (
    convert_conv_op_to_dim,
    get_matching_convtransp,
    get_matching_pool_op,
)
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from nnunetv2_eccam.blocks.recomputation import concatenate, convolve

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class LayerOps:
    """Which operators the layers are made of, in the words of nnU-Net's plans.

    Args:
        conv_op: ``torch.nn.Conv2d`` or ``torch.nn.Conv3d``; decides the number of dimensions.
        conv_bias: whether convolutions have a bias.
        norm_op: normalisation after each convolution, or None.
        norm_op_kwargs: its arguments besides the number of channels.
        dropout_op: dropout between convolution and normalisation, or None.
        dropout_op_kwargs: its arguments.
        nonlin: nonlinearity, or None.
        nonlin_kwargs: its arguments.
        nonlin_first: nonlinearity, then normalisation.
    """

    conv_op: type[nn.Module]
    conv_bias: bool = True
    norm_op: type[nn.Module] | None = None
    norm_op_kwargs: Mapping[str, Any] | None = None
    dropout_op: type[nn.Module] | None = None
    dropout_op_kwargs: Mapping[str, Any] | None = None
    nonlin: type[nn.Module] | None = None
    nonlin_kwargs: Mapping[str, Any] | None = None
    nonlin_first: bool = False

    @property
    def dimension(self) -> int:
        """Number of spatial dimensions, 1 to 3."""
        return int(convert_conv_op_to_dim(self.conv_op))

    @property
    def interpolation(self) -> str:
        """Mode of ``interpolate`` that is linear along every axis."""
        return _LINEAR[self.dimension]

    def conv(self, input_channels: int, output_channels: int, kernel_size: Sequence[int], **kwargs: Any) -> Any:
        """Make a bare convolution that keeps the size where its stride is 1."""
        kwargs.setdefault("bias", self.conv_bias)
        dilation = kwargs.get("dilation", 1)
        padding = [(k - 1) // 2 * dilation for k in kernel_size]
        return self.conv_op(input_channels, output_channels, tuple(kernel_size), padding=padding, **kwargs)

    def transposed_conv(self, input_channels: int, output_channels: int, stride: Sequence[int]) -> nn.Module:
        """Make a transposed convolution that enlarges by ``stride`` without overlap."""
        module: nn.Module = get_matching_convtransp(conv_op=self.conv_op)(
            input_channels, output_channels, tuple(stride), tuple(stride), bias=self.conv_bias
        )
        return module

    def max_pool(self, stride: Sequence[int]) -> nn.Module:
        """Make a max pooling that reduces by ``stride``."""
        module: nn.Module = get_matching_pool_op(conv_op=self.conv_op, pool_type="max")(tuple(stride), tuple(stride))
        return module

    def norm(self, channels: int) -> nn.Module:
        """Make a normalisation of ``channels`` channels, or an identity where there is none."""
        return nn.Identity() if self.norm_op is None else self.norm_op(channels, **(self.norm_op_kwargs or {}))

    def norm_1d(self, channels: int) -> nn.Module:
        """Make the one-dimensional counterpart of :meth:`norm`, for sequences ``(B, channels, L)``.

        Raises:
            ValueError: the normalisation is neither batch nor instance normalisation.
        """
        if self.norm_op is None:
            return nn.Identity()
        if not issubclass(self.norm_op, (_BatchNorm, _InstanceNorm)):
            raise ValueError(f"norm_op must be a batch or instance normalisation, got {self.norm_op.__name__}")
        counterpart = nn.BatchNorm1d if issubclass(self.norm_op, _BatchNorm) else nn.InstanceNorm1d
        return counterpart(channels, **(self.norm_op_kwargs or {}))

    def dropout(self) -> nn.Module:
        """Make the dropout, or an identity where there is none."""
        return nn.Identity() if self.dropout_op is None else self.dropout_op(**(self.dropout_op_kwargs or {}))

    def activation(self) -> nn.Module:
        """Make the nonlinearity, or an identity where there is none."""
        return nn.Identity() if self.nonlin is None else self.nonlin(**(self.nonlin_kwargs or {}))


class ConvNormNonlin(nn.Module):
    """Convolution, dropout, normalisation, nonlinearity: the U-Net's basic layer (III).

    Args:
        input_channels: channels of the input.
        output_channels: channels of the output.
        kernel_size: one odd number per axis.
        stride: one number per axis.
        ops: the operators.

    Shape:
        ``(B, input_channels, *spatial)`` to ``(B, output_channels, *spatial / stride)``.
    """

    def __init__(
        self,
        input_channels: int,
        output_channels: int,
        kernel_size: Sequence[int],
        stride: Sequence[int],
        ops: LayerOps,
    ) -> None:
        super().__init__()
        self.stride = tuple(stride)
        self.nonlin_first = ops.nonlin_first
        self.conv = ops.conv(input_channels, output_channels, kernel_size, stride=self.stride)
        self.dropout = ops.dropout()
        self.norm = ops.norm(output_channels)
        self.nonlin = ops.activation()

    def forward(self, *maps: Tensor) -> Tensor:
        """Apply the layer to a map, or to the concatenation of several, which is not kept for the backward pass."""
        if len(maps) == 1 or not self.training:  # the layer itself, which others may watch
            convolved = self.conv(concatenate(maps))
        else:
            convolved = convolve(maps, [self.conv.weight], self.conv.bias, self.stride, self.conv.padding)
        output: Tensor = self.dropout(convolved)
        if self.nonlin_first:
            return self.norm(self.nonlin(output))  # type: ignore[no-any-return]
        return self.nonlin(self.norm(output))  # type: ignore[no-any-return]


def stacked(
    n_convs: int, input_channels: int, width: int, kernel_size: Sequence[int], stride: Sequence[int], ops: LayerOps
) -> list[ConvNormNonlin]:
    """Make layers of one width that follow each other, the first with the stride."""
    inputs = [input_channels] + [width] * (n_convs - 1)
    strides = [stride] + [[1] * ops.dimension] * (n_convs - 1)
    return [ConvNormNonlin(n, width, kernel_size, step, ops) for n, step in zip(inputs, strides, strict=True)]
