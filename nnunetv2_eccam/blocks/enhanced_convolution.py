"""Enhanced Convolution, EC (III, Fig. 2a): a square kernel strengthened by one kernel along each axis.

The paper runs 3x3, 1x3 and 3x1 convolutions in parallel and adds them, after ACNet (Ding et al., ICCV
2019, the paper's reference 7). In three dimensions the same idea gives 3x3x3 with 3x1x1, 1x3x1 and
1x1x3.

Where each branch has its own normalisation (``norm_per_branch``, the paper's and ACNet's form), training
runs all branches. At inference batch normalisation is a fixed scale and shift, so the branches are one
square kernel and one bias (ACNet, section 3.3), which is what is run. Instance normalisation depends on
the image and never folds. With one normalisation after the sum, the sum of the branches is one square
kernel in training too, whatever the normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nnunetv2_eccam.blocks.convolution import LayerOps, feature_map_volume
from nnunetv2_eccam.blocks.recomputation import convolve, is_recomputable, normalised_branch, sum_kernels

RECOMPUTED_UP_TO = 128
"""Input channels up to which training computes a one-dimensional kernel's output anew rather than keep it: each
value of it costs as many multiply-adds as there are channels, and the maps with few channels are the large ones."""


class EnhancedConvolution(nn.Module):
    """``nonlin(sum_b norm_b(conv_b(x)))`` over the square and the one-dimensional kernels b.

    An axis gets a one-dimensional kernel where the square kernel is wider than 1 along it and along
    another axis; a kernel that is one-dimensional already is not doubled.

    Args:
        input_channels: channels of the input.
        output_channels: channels of the output.
        kernel_size: one odd number per axis.
        stride: one number per axis.
        ops: the operators. The bias, where they ask for one, is the square kernel's: parallel branches
            that are added need only one.
        norm_per_branch: one normalisation per branch (the paper), or one after the sum.

    Shape:
        ``(B, input_channels, *spatial)`` to ``(B, output_channels, *spatial / stride)``.

    Raises:
        ValueError: an even kernel size, whose branches cannot be aligned.
    """

    def __init__(
        self,
        input_channels: int,
        output_channels: int,
        kernel_size: Sequence[int],
        stride: Sequence[int],
        ops: LayerOps,
        norm_per_branch: bool,
    ) -> None:
        super().__init__()
        if any(size % 2 == 0 for size in kernel_size):
            raise ValueError(f"kernel_size must be odd along each axis, got {list(kernel_size)}")
        self.ops = ops
        self.output_channels = output_channels
        self.stride = tuple(stride)
        self.norm_per_branch = norm_per_branch
        self.square = ops.conv(input_channels, output_channels, kernel_size, stride=self.stride)
        self.asymmetric = nn.ModuleList(
            ops.conv(input_channels, output_channels, size, stride=self.stride, bias=False)
            for size in one_dimensional_kernels(kernel_size)
        )
        self.dropout = ops.dropout()
        n_norms = 1 + len(self.asymmetric) if norm_per_branch else 1
        self.norms = nn.ModuleList(ops.norm(output_channels) for _ in range(n_norms))
        self.nonlin = ops.activation()

    def forward(self, features: Tensor) -> Tensor:
        """Apply the block, as one convolution where its branches are one."""
        if self.norm_per_branch and (self.training or not self._norms_fold()):
            summed = self.norms[0](self.square(features))
            for norm, conv in zip(list(self.norms)[1:], self.asymmetric, strict=True):
                summed = summed + self._branch(features, conv, norm)
            summed = self.dropout(summed)
        elif self.norm_per_branch:
            summed = self._convolve(features, *self.folded_kernel())
        else:
            convolved = convolve([features], self._kernels(), self.square.bias, self.stride, self.square.padding)
            summed = self.norms[0](self.dropout(convolved))
        output: Tensor = self.nonlin(summed)
        return output

    def summed_kernel(self) -> Tensor:
        """Add the branches' kernels, each at the centre of the square one.

        Returns:
            ``(output_channels, input_channels, *kernel_size)``.
        """
        return sum_kernels(self._kernels())

    def folded_kernel(self) -> tuple[Tensor, Tensor]:
        """Give the one kernel and bias that equal the branches with their batch norms in eval mode.

        With ``scale_b = gamma_b / sqrt(var_b + eps)`` the kernel is ``sum_b scale_b * W_b`` and the bias
        ``sum_b beta_b + scale_b * (bias_b - mean_b)``.

        Returns:
            kernel ``(output_channels, input_channels, *kernel_size)`` and bias ``(output_channels,)``.
        """
        kernels: list[Tensor] = []
        bias = torch.zeros_like(self.square.weight[:, 0].flatten(1)[:, 0])
        for conv, norm in zip([self.square, *self.asymmetric], self.norms, strict=True):
            scale, shift = _as_affine(norm)
            kernels.append(conv.weight * scale.view(-1, *[1] * (conv.weight.ndim - 1)))
            bias = bias + shift + (0 if conv.bias is None else scale * conv.bias)
        return sum_kernels(kernels), bias

    def _kernels(self) -> list[Tensor]:
        return [self.square.weight, *(cast(Tensor, conv.weight) for conv in self.asymmetric)]

    def _branch(self, features: Tensor, conv: nn.Module, norm: nn.Module) -> Tensor:
        if features.shape[1] <= RECOMPUTED_UP_TO and is_recomputable(norm):
            assert isinstance(norm, _BatchNorm)
            weight, padding = cast(Tensor, conv.weight), cast(tuple[int, ...], conv.padding)
            return normalised_branch(features, weight, norm, self.stride, padding)
        output: Tensor = norm(conv(features))
        return output

    def _convolve(self, features: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        return self.ops.functional_conv(features, kernel, bias, stride=self.stride, padding=self.square.padding)

    def _norms_fold(self) -> bool:
        return all(isinstance(norm, _BatchNorm) and norm.running_mean is not None for norm in self.norms)

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> int:
        """Count the values that training writes for one sample: every branch's, where they are run apart."""
        n_maps = len(self.norms)
        return n_maps * self.output_channels * feature_map_volume(input_size, self.stride)


def one_dimensional_kernels(kernel_size: Sequence[int]) -> list[list[int]]:
    """Give the sizes of the kernels along each axis that strengthen a kernel of ``kernel_size``.

    >>> one_dimensional_kernels([3, 3])
    [[3, 1], [1, 3]]
    >>> one_dimensional_kernels([1, 3])
    []
    """
    wide = [axis for axis, size in enumerate(kernel_size) if size > 1]
    if len(wide) < 2:
        return []
    return [[size if axis == a else 1 for a, size in enumerate(kernel_size)] for axis in wide]


def _as_affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Give the scale and shift, each ``(C,)``, that a batch norm applies in eval mode."""
    assert isinstance(norm, _BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias
    return scale, shift
