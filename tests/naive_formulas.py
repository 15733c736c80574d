"""Layers as loops and sums in float64, to compare this package's modules with; and a count of convolutions."""

import itertools

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def sample(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in float64, with every parameter and running statistic away from its default."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape, generator=generator, dtype=torch.float64))
        elif name.endswith("running_var"):
            buffer.copy_(torch.rand(buffer.shape, generator=generator, dtype=torch.float64) + 0.3)
    return module


def naive_convolution(image, kernel, bias, stride=1, dilation=1):
    """Zero-padded convolution, tap by tap, over any number of dimensions; the window is centred."""
    image, kernel = image.detach().numpy(), kernel.detach().numpy()
    size, taps = image.shape[2:], kernel.shape[2:]
    strides, rates = ([n] * len(size) if isinstance(n, int) else n for n in (stride, dilation))
    out_size = [(n - 1) // s + 1 for n, s in zip(size, strides, strict=True)]
    output = np.zeros((image.shape[0], kernel.shape[0], *out_size))
    for position in itertools.product(*map(range, out_size)):
        for tap in itertools.product(*map(range, taps)):
            source = tuple(
                p * s + (t - k // 2) * r for p, s, t, k, r in zip(position, strides, tap, taps, rates, strict=True)
            )
            if all(0 <= i < n for i, n in zip(source, size, strict=True)):
                output[(slice(None), slice(None), *position)] += (
                    image[(slice(None), slice(None), *source)] @ kernel[(slice(None), slice(None), *tap)].T
                )
    if bias is not None:
        output += bias.detach().numpy().reshape(1, -1, *[1] * len(size))
    return torch.from_numpy(output)


def naive_batch_norm(x, norm):
    """In eval mode."""
    values = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    mean, variance, weight, bias = (value.view(1, -1, *[1] * (x.ndim - 2)) for value in values)
    return (x - mean) / torch.sqrt(variance + norm.eps) * weight + bias


def naive_layer(layer, features, stride=1, dilation=1):
    """Convolution, batch norm in eval mode, ReLU."""
    convolved = naive_convolution(features, layer.conv.weight, layer.conv.bias, stride, dilation)
    return naive_batch_norm(convolved, layer.norm).clamp_min(0)


def dense(conv, vectors):
    """A 1x1 convolution as a matrix, over ``(..., channels)``."""
    return vectors @ conv.weight.flatten(1).T + conv.bias


def linear_enlargement(image, size, corners=False):
    """Linear along each axis: between the centres of pixels, constant beyond the ends; or from corner to corner."""
    for axis, n in enumerate(size, start=2):
        was = image.shape[axis]
        matrix = torch.zeros(n, was, dtype=image.dtype)
        for row in range(n):
            at = row * (was - 1) / (n - 1) if corners else min(max((row + 0.5) * was / n - 0.5, 0.0), was - 1.0)
            below = int(at)
            matrix[row, below] += 1 - (at - below)
            matrix[row, min(below + 1, was - 1)] += at - below
        image = torch.tensordot(image, matrix, dims=([axis], [1])).movedim(-1, axis)
    return image


class Convolutions(TorchDispatchMode):
    """Counts convolutions of maps and the values that they write."""

    n = values = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        output = operation(*args, **(kwargs or {}))
        if operation is torch.ops.aten.convolution.default and output.ndim > 3:
            self.n += 1
            self.values += output.numel()
        return output
