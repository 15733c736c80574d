"""Enhanced convolutions as the plain convolutions that they are at inference."""

import copy
from dataclasses import replace
from typing import TypeVar

import torch
from torch import nn

from nnunetv2_eccam.blocks.convolution import ConvNormNonlin
from nnunetv2_eccam.blocks.enhanced_convolution import EnhancedConvolution

Network = TypeVar("Network", bound=nn.Module)


def folded(network: Network) -> Network:
    """Give a network whose enhanced convolutions are plain ones, with the same output in eval mode.

    Branches are added to one kernel, with their batch norms where each has one (ACNet, section 3.3). Branches with
    instance norms of their own depend on the image, and stay.

    Args:
        network: any; it is not changed.

    Returns:
        a copy in eval mode.
    """
    network = copy.deepcopy(network).eval()
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, EnhancedConvolution) and child.folds:
                setattr(module, name, plain_layer(child))
    return network


@torch.no_grad()
def plain_layer(block: EnhancedConvolution) -> ConvNormNonlin:
    """Make the plain layer that equals a block in eval mode."""
    kernel, bias = block.one_kernel()
    ops = replace(block.ops, conv_bias=bias is not None, norm_op=None if block.norm_per_branch else block.ops.norm_op)
    layer = ConvNormNonlin(kernel.shape[1], kernel.shape[0], kernel.shape[2:], block.stride, ops).to(kernel)
    layer.conv.weight.copy_(kernel)
    if bias is not None:
        layer.conv.bias.copy_(bias)
    if not block.norm_per_branch:
        layer.norm = block.norms[0]
    return layer.eval()
