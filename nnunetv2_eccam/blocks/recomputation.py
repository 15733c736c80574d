"""Convolutions that keep less for the backward pass: what is cheap is computed there anew.

Autograd keeps a convolution's input and kernel, and a normalisation's input. Where these are put together from
tensors that are kept anyway, or follow from them by a cheap convolution, the copies need not be kept:

- :func:`convolve` keeps neither the concatenation of its maps, whose gradients are taken one by one, nor its kernels
  times their scales, nor their sum, which is added up again.
- :func:`normalised_branch` does not keep the convolution's output, and convolves again.

The results are the plain formulas'. Both are ordinary tensor operations to ``torch.compile``, with no break of the
graph. It decides by itself what to keep, and where the backward pass repeats an operation of the forward pass it keeps
the result; so :func:`normalised_branch` does not repeat its convolution, but convolves with the negative kernel.
"""

import itertools
from collections.abc import Sequence
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def convolve(
    maps: Sequence[Tensor],
    kernels: Sequence[Tensor],
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    scales: Sequence[Tensor] = (),
) -> Tensor:
    """Convolve the concatenation of maps with a sum of kernels, and keep neither.

    Args:
        maps: ``(B, C_m, *spatial)`` each, concatenated along the channels.
        kernels: ``(C_out, sum of C_m, *size)`` each, odd along every axis; the first is the largest, and the
            others are added at its centre.
        bias: ``(C_out,)``, or None.
        stride: one number per axis.
        padding: one number per axis.
        scales: ``(C_out,)`` each, by which each kernel is multiplied before they are added; none: 1.

    Returns:
        ``(B, C_out, *spatial')``.
    """
    # Exporters that trace record the plain operations; they would lose a function with a backward pass of its own.
    if (len(maps) > 1 or len(kernels) > 1) and torch.is_grad_enabled() and not is_traced():
        shape = (tuple(stride), tuple(padding), len(maps), len(kernels))
        output: Tensor = _Convolution.apply(shape, bias, *maps, *kernels, *scales)
        return output
    return convolution(concatenate(maps), sum_kernels(kernels, scales), bias, stride, padding)


def concatenate(maps: Sequence[Tensor]) -> Tensor:
    """Concatenate maps along the channels."""
    return maps[0] if len(maps) == 1 else torch.cat(list(maps), 1)


def sum_kernels(kernels: Sequence[Tensor], scales: Sequence[Tensor] = ()) -> Tensor:
    """Add kernels, each times its scale, at the centre of the first, which is the largest."""
    if len(kernels) == 1 and not scales:
        return kernels[0]
    if is_traced():
        return _padded_sum(kernels, scales)
    summed = kernels[0] * _per_output(scales[0], kernels[0]) if scales else kernels[0].clone()
    for index, smaller in enumerate(kernels[1:], start=1):
        centre = centre_of(summed, smaller)
        if scales:
            centre.addcmul_(smaller, _per_output(scales[index], smaller))
        else:
            centre.add_(smaller)
    return summed


def is_traced() -> bool:
    """Say whether ``torch.jit.trace`` or the older ONNX exporter, which traces too, records what is done."""
    traced: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return traced


def _padded_sum(kernels: Sequence[Tensor], scales: Sequence[Tensor]) -> Tensor:
    """Add kernels without writing into a view, which exporters that trace lose in silence; four times as slow."""
    if scales:
        kernels = [kernel * _per_output(scale, kernel) for kernel, scale in zip(kernels, scales, strict=True)]
    summed = kernels[0]
    for smaller in kernels[1:]:
        # The last axis comes first in the padding, and axes 0 and 1 are the channels.
        missing = [int(have) - int(want) for have, want in zip(summed.shape, smaller.shape, strict=True)][:1:-1]
        summed = summed + F.pad(smaller, [side for n in missing for side in (n // 2, n // 2)])
    # The shape in so many words: the older ONNX exporter does not know it behind a padding.
    return summed.reshape([int(n) for n in kernels[0].shape])


class _Convolution(torch.autograd.Function):
    """See :func:`convolve`."""

    @staticmethod
    def forward(
        ctx: Any, shape: tuple[tuple[int, ...], tuple[int, ...], int, int], bias: Tensor | None, *parts: Tensor
    ) -> Tensor:
        ctx.stride, ctx.padding, ctx.n_maps, n_kernels = shape
        ctx.scales_at = ctx.n_maps + n_kernels
        ctx.save_for_backward(*parts)
        maps, kernels, scales = parts[: ctx.n_maps], parts[ctx.n_maps : ctx.scales_at], parts[ctx.scales_at :]
        return convolution(concatenate(maps), sum_kernels(kernels, scales), bias, ctx.stride, ctx.padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        parts = ctx.saved_tensors
        maps, kernels, scales = parts[: ctx.n_maps], parts[ctx.n_maps : ctx.scales_at], parts[ctx.scales_at :]
        bias_wanted, *wanted = ctx.needs_input_grad[1:]
        kernel_wanted = any(wanted[ctx.n_maps :])
        starts = list(itertools.accumulate(part.shape[1] for part in maps[:-1]))  # of each map but the first
        columns = sum_kernels(kernels, scales).tensor_split(starts, 1)
        of_maps: list[Tensor | None] = []
        of_columns: list[Tensor] = []
        of_bias: Tensor | None = None
        for part, its_kernel, part_wanted in zip(maps, columns, wanted, strict=False):
            asked = (part_wanted, kernel_wanted, bias_wanted and not of_maps)
            of_map, of_kernel, found = _convolution_backward(gradient, part, its_kernel, ctx.stride, ctx.padding, asked)
            of_maps.append(None if of_map is None else of_map.to(part.dtype))
            of_columns += [] if of_kernel is None else [of_kernel]
            of_bias = of_bias if found is None else found
        if not kernel_wanted:
            return (None, of_bias, *of_maps, *[None] * (len(kernels) + len(scales)))
        whole = concatenate(of_columns)
        of_kernels = [centre_of(whole, kernel).to(kernel.dtype) for kernel in kernels]
        # Of kernel and scale each gradient is the product's, times the other.
        of_scales: list[Tensor] = []
        if scales:
            of_scales = [(of * kernel).flatten(1).sum(1) for of, kernel in zip(of_kernels, kernels, strict=True)]
            of_kernels = [of * _per_output(scale, of) for of, scale in zip(of_kernels, scales, strict=True)]
        return (None, of_bias, *of_maps, *of_kernels, *of_scales)


def normalised_branch(
    features: Tensor, kernel: Tensor, norm: _BatchNorm, stride: Sequence[int], padding: Sequence[int]
) -> Tensor:
    """Convolve, and normalise by the batch's statistics as ``norm`` does in training, without keeping what is between.

    Args:
        features: ``(B, C, *spatial)``.
        kernel: ``(C_out, C, *size)``.
        norm: a batch norm for which :func:`is_recomputable` holds; its running statistics are updated.
        stride: one number per axis.
        padding: one number per axis.

    Returns:
        ``(B, C_out, *spatial')``.
    """
    output, mean, inverse_deviation = _NormalisedBranch.apply(
        features, kernel, norm.weight, norm.bias, tuple(stride), tuple(padding), norm.eps
    )
    _update_running_statistics(norm, mean, inverse_deviation, output.numel() // output.shape[1])
    result: Tensor = output
    return result


def is_recomputable(norm: nn.Module) -> TypeGuard[_BatchNorm]:
    """Say whether :func:`normalised_branch` does what ``norm`` does: batch norm, in training, over one process."""
    return isinstance(norm, _BatchNorm) and not isinstance(norm, nn.SyncBatchNorm) and norm.training


class _NormalisedBranch(torch.autograd.Function):
    """See :func:`normalised_branch`.

    The backward pass takes the negative of the convolved map, ``(-W) x``, and of its mean: the normalised map changes
    its sign, and of all gradients only the weight's does. (A scaled kernel with the bias ``-mean / deviation`` gives
    the normalised map too, but torch.compile works the bias out in the forward pass, in a kernel that Triton 3.6
    cannot compile.)
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        kernel: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        convolved = convolution(features, kernel, None, stride, padding)
        output, mean, inverse_deviation = torch.native_batch_norm(convolved, weight, bias, None, None, True, 0.0, eps)
        # So they are on every device already, but torch.compile takes a CPU's for half precision.
        precise = torch.promote_types(kernel.dtype, torch.float32)
        mean, inverse_deviation = mean.to(precise), inverse_deviation.to(precise)
        ctx.stride, ctx.padding, ctx.eps, ctx.dtype = stride, padding, eps, convolved.dtype
        ctx.save_for_backward(features, kernel, weight, mean, inverse_deviation)
        ctx.mark_non_differentiable(mean, inverse_deviation)
        return output, mean, inverse_deviation

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient = gradients[0]
        features, kernel, weight, mean, inverse_deviation = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        features, dtype = features.to(ctx.dtype), ctx.dtype
        negative = convolution(features, -kernel.to(dtype), None, ctx.stride, ctx.padding)
        of_convolved, of_negative_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient.to(dtype),
            negative,
            weight,
            None,
            None,
            -mean,
            inverse_deviation,
            True,
            ctx.eps,
            [True, wanted[2], wanted[3]],
        )
        of_features, of_kernel, _ = _convolution_backward(
            of_convolved, features, kernel, ctx.stride, ctx.padding, (wanted[0], wanted[1], False)
        )
        return (
            of_features if wanted[0] else None,
            None if of_kernel is None else of_kernel.to(kernel.dtype),
            -of_negative_weight if wanted[2] else None,
            of_bias if wanted[3] else None,
            None,
            None,
            None,
        )


def _update_running_statistics(norm: _BatchNorm, mean: Tensor, inverse_deviation: Tensor, count: int) -> None:
    """Do what torch's batch norm does in training."""
    if norm.running_mean is None or norm.running_var is None:
        return
    with torch.no_grad():
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
        share: Tensor | float = norm.momentum if norm.momentum is not None else 1 / norm.num_batches_tracked.double()
        variance = (inverse_deviation.pow(-2) - norm.eps).clamp(min=0) * (count / (count - 1))
        for running, now in ((norm.running_mean, mean), (norm.running_var, variance)):
            running.add_(((now - running) * share).to(running.dtype))


def convolution(
    features: Tensor,
    kernel: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    """Convolve along as many axes as there are, as torch does."""
    output: Tensor = _CONVOLUTIONS[features.ndim - 2](features, kernel, bias, stride, padding, dilation)
    return output


def _convolution_backward(
    gradient: Tensor,
    features: Tensor,
    kernel: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Give the gradients of a convolution's input, kernel and bias, in the gradient's precision."""
    zeros = [0] * len(stride)
    found = torch.ops.aten.convolution_backward(
        gradient,
        features.to(gradient.dtype),
        kernel.to(gradient.dtype),
        [kernel.shape[0]],
        stride,
        padding,
        [1] * len(stride),
        False,
        zeros,
        1,
        wanted,
    )
    return tuple(tensor if asked else None for tensor, asked in zip(found, wanted, strict=True))  # type: ignore[return-value]


def _per_output(scale: Tensor, kernel: Tensor) -> Tensor:
    """Shape a number per output channel to be multiplied with a kernel."""
    return scale.view(-1, *[1] * (kernel.ndim - 1))


def centre_of(kernel: Tensor, smaller: Tensor) -> Tensor:
    """Cut ``kernel`` to the size of ``smaller``, around its centre."""
    for axis, (have, want) in enumerate(zip(kernel.shape[2:], smaller.shape[2:], strict=True), start=2):
        kernel = kernel.narrow(axis, (have - want) // 2, want)
    return kernel
