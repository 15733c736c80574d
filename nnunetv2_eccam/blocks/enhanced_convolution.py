"""Enhanced Convolution, EC (III, Fig. 2a): a square kernel strengthened by one kernel along each axis.

The paper runs 3x3, 1x3 and 3x1 convolutions in parallel and adds them, after ACNet (Ding et al., ICCV
2019, the paper's reference 7). In three dimensions the same idea gives 3x3x3 with 3x1x1, 1x3x1 and
1x1x3. At inference the branches are one plain convolution. In training they are as well, unless each has a
norm of its own: the paper's form, and ``batch_norm``. docs/concepts/decisions.md has a table of the forms, and why
there is one with a norm or a scale before the sum. Batch norm folds at inference (ACNet, section 3.3). Instance norm
depends on the image and never folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from dynamic_network_architectures.building_blocks.helper import get_matching_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nnunetv2_eccam.blocks.convolution import LayerOps
from nnunetv2_eccam.blocks.recomputation import (
    centre_of,
    convolution,
    convolve,
    is_recomputable,
    is_traced,
    normalised_branch,
    sum_kernels,
)

BranchForm = Literal["sum", "scale", "weight_norm", "batch_norm"]
BRANCH_FORMS: tuple[BranchForm, ...] = ("sum", "scale", "weight_norm", "batch_norm")

BranchInit = Literal["he_each", "he_sum", "he_rate"]
BRANCH_INITS: tuple[BranchInit, ...] = ("he_each", "he_sum", "he_rate")

RECOMPUTED_UP_TO = 128
"""Input channels up to which training computes a one-dimensional kernel's output anew rather than keep it: each
value of it costs as many multiply-adds as there are channels, and the maps with few channels are the large ones."""


class EnhancedConvolution(nn.Module):
    """``nonlin(norm(sum_b branch_b(x)))`` over the square and the one-dimensional kernels b.

    An axis gets a one-dimensional kernel where the square kernel is wider than 1 along it and along
    another axis; a kernel that is one-dimensional already is not doubled, and has no scale.

    Args:
        input_channels: channels of the input.
        output_channels: channels of the output.
        kernel_size: one odd number per axis.
        stride: one number per axis.
        ops: the operators. The bias, where they ask for one, is the square kernel's: parallel branches
            that are added need only one.
        norm_per_branch: the plan's norm in each branch (the paper) and none after the sum.
        branch_form: what each branch has before the sum: nothing (``sum``); a learned scale per output channel
            (``scale``, OREPA, Hu et al., CVPR 2022); such a scale, and a kernel of length 1 (``weight_norm``, Salimans
            and Kingma, 2016); or a batch norm, after which the plan's norm still follows the sum (``batch_norm``).
        branch_init: ``he_sum``: the sum begins as nnU-Net initialises a convolution, He's way: at each position
            the variance that He gives one kernel of this size is shared equally by the kernels that reach it, and
            norms of branches begin with weights that keep these shares. ``he_rate``: the same, with this variance
            times the mean number of kernels that reach a position, 5/3 of 3x3. A step under SGD moves the sum
            that many times as far as one kernel, and a norm behind the sum divides what it does by the sum's squared
            length: so the sum learns at the rate of nnU-Net's kernel. ``he_each``: each kernel begins as nnU-Net's,
            and the sum cross-shaped, with seven times a corner's variance at the centre; behind one norm it
            learns slowly at first (docs/concepts/decisions.md). None: ``he_each`` with ``norm_per_branch``, as the
            paper has it, else ``he_sum``.

    Shape:
        ``(B, input_channels, *spatial)`` to ``(B, output_channels, *spatial / stride)``.

    Raises:
        ValueError: an even kernel size, whose branches cannot be aligned; an unknown form or initialisation;
            a form together with ``norm_per_branch``.
    """

    def __init__(
        self,
        input_channels: int,
        output_channels: int,
        kernel_size: Sequence[int],
        stride: Sequence[int],
        ops: LayerOps,
        norm_per_branch: bool = False,
        branch_form: BranchForm = "sum",
        branch_init: BranchInit | None = None,
    ) -> None:
        super().__init__()
        if any(size % 2 == 0 for size in kernel_size):
            raise ValueError(f"kernel_size must be odd along each axis, got {list(kernel_size)}")
        if branch_form not in BRANCH_FORMS:
            raise ValueError(f"branch_form must be one of {', '.join(BRANCH_FORMS)}, got {branch_form!r}")
        if branch_init not in (None, *BRANCH_INITS):
            raise ValueError(f"branch_init must be one of {', '.join(BRANCH_INITS)}, got {branch_init!r}")
        if norm_per_branch and branch_form != "sum":
            raise ValueError(f"norm_per_branch is a form of its own: it cannot be combined with {branch_form!r}")
        self.ops = ops
        self.output_channels = output_channels
        self.stride = tuple(stride)
        self.norm_per_branch = norm_per_branch
        self.branch_init = branch_init or ("he_each" if norm_per_branch else "he_sum")
        self.square = ops.conv(input_channels, output_channels, kernel_size, stride=self.stride)
        self.asymmetric = nn.ModuleList(
            ops.conv(input_channels, output_channels, size, stride=self.stride, bias=False)
            for size in one_dimensional_kernels(kernel_size)
        )
        n_branches = 1 + len(self.asymmetric)
        self.branch_form = branch_form if n_branches > 1 else "sum"
        self.dropout = ops.dropout()
        self.norms = nn.ModuleList(ops.norm(output_channels) for _ in range(n_branches if norm_per_branch else 1))
        if self.branch_form == "batch_norm":
            batch_norm = get_matching_batchnorm(dimension=ops.dimension)
            self.branch_norms = nn.ModuleList(batch_norm(output_channels) for _ in range(n_branches))
        if self.branch_form in ("scale", "weight_norm"):
            self.scales = nn.ParameterList(torch.ones(output_channels) for _ in range(n_branches))
        self.nonlin = ops.activation()
        self._kept: tuple[list[tuple[int, int]], tuple[Tensor, Tensor | None], list[Any]] | None = None
        self.begin()

    @torch.no_grad()
    def begin(self) -> None:
        """Initialise what is no convolution's own; call it after the convolutions are initialised."""
        kernels = self._kernels()
        if self.branch_init != "he_each" and len(kernels) > 1:
            # How many kernels reach each position, and so the share that each of them has of it.
            reach = sum_kernels([torch.ones_like(kernel[:1, :1]) for kernel in kernels])
            variance = 2 / (1 + 1e-2**2) / kernels[0][0].numel()  # He's, for a leaky ReLU of slope 0.01
            if self.branch_init == "he_rate":
                variance *= float(reach.mean())
            all_shares = [1 / centre_of(reach, kernel) for kernel in kernels]
            for kernel, shares in zip(kernels, all_shares, strict=True):
                kernel.copy_(torch.randn_like(kernel) * (variance * shares).sqrt())
            for norm, shares in zip(self._norms_of_branches() or [], all_shares, strict=False):
                if isinstance(norm.weight, Tensor):
                    norm.weight.copy_((shares.sum() / reach.numel()).sqrt().expand_as(norm.weight))
        if self.branch_form == "weight_norm":
            for scale, kernel in zip(self.scales, self._kernels(), strict=True):
                scale.copy_(_length(kernel))

    @property
    def folds(self) -> bool:
        """Whether the branches are one convolution at inference."""
        return all(map(_folds, self._norms_of_branches() or []))

    def forward(self, features: Tensor) -> Tensor:
        """Apply the block, as one convolution where its branches are one."""
        norms = self._norms_of_branches()
        padding = self.square.padding
        if norms is not None and (self.training or not self.folds):
            summed = norms[0](self.square(features))
            for norm, conv in zip(norms[1:], self.asymmetric, strict=True):
                summed = summed + self._branch(features, conv, norm)
        elif self.training:
            summed = convolve([features], self._kernels(), self.square.bias, self.stride, padding, self._scales())
        else:
            kernel, bias = self._kernel_of_inference()
            summed = convolution(features, kernel, bias, self.stride, padding)
        output: Tensor = self.dropout(summed)
        if self.norm_per_branch:
            return self.nonlin(output)  # type: ignore[no-any-return]
        if self.ops.nonlin_first:
            return self.norms[0](self.nonlin(output))  # type: ignore[no-any-return]
        return self.nonlin(self.norms[0](output))  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> EnhancedConvolution:
        """Switch between training and inference; training forgets the kernel that inference keeps."""
        if mode:
            self._kept = None
        return super().train(mode)

    def _kernel_of_inference(self) -> tuple[Tensor, Tensor | None]:
        """Give the one kernel and bias, made once for as long as nothing that they are made of changes."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or is_traced():
            return self.one_kernel()
        made_of = [*self.parameters(), *self.buffers()]
        if any(tensor.is_inference() for tensor in made_of):  # which have no versions
            return self.one_kernel()
        versions = [(tensor.data_ptr(), tensor._version) for tensor in made_of]
        if self._kept is None or self._kept[0] != versions:
            # With the storages, whose addresses no other tensor takes meanwhile.
            self._kept = (versions, self.one_kernel(), [tensor.untyped_storage() for tensor in made_of])
        return self._kept[1]

    def one_kernel(self) -> tuple[Tensor, Tensor | None]:
        """Give the kernel and the bias of the one convolution that the branches are at inference.

        The kernels are added, each times its scale, at the centre of the square one. A batch norm of a branch is the
        scale ``gamma / sqrt(var + eps)``, and adds ``beta - scale * mean`` to the bias.

        Returns:
            kernel ``(output_channels, input_channels, *kernel_size)`` and bias ``(output_channels,)``.
        """
        bias: Tensor | None = self.square.bias
        norms = self._norms_of_branches()
        if norms is None:
            return sum_kernels(self._kernels(), self._scales()), bias
        scales, shifts = zip(*map(_as_affine, norms), strict=True)
        first = shifts[0] if bias is None else shifts[0] + scales[0] * bias
        return sum_kernels(self._kernels(), scales), sum(shifts[1:], first)

    def _convs(self) -> list[nn.Module]:
        return [self.square, *self.asymmetric]

    def _kernels(self) -> list[Tensor]:
        return [cast(Tensor, conv.weight) for conv in self._convs()]

    def _norms_of_branches(self) -> list[nn.Module] | None:
        if self.norm_per_branch:
            return list(self.norms)
        return list(self.branch_norms) if self.branch_form == "batch_norm" else None

    def _scales(self) -> list[Tensor]:
        if self.branch_form == "scale":
            return list(self.scales)
        if self.branch_form == "weight_norm":
            return [scale / _length(kernel) for scale, kernel in zip(self.scales, self._kernels(), strict=True)]
        return []

    def _branch(self, features: Tensor, conv: nn.Module, norm: nn.Module) -> Tensor:
        if features.shape[1] <= RECOMPUTED_UP_TO and is_recomputable(norm):
            weight, padding = cast(Tensor, conv.weight), cast(tuple[int, ...], conv.padding)
            return normalised_branch(features, weight, norm, self.stride, padding)
        output: Tensor = norm(conv(features))
        return output


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


def _folds(norm: nn.Module) -> bool:
    return isinstance(norm, _BatchNorm) and norm.running_mean is not None


def _length(kernel: Tensor) -> Tensor:
    """Give the Euclidean length of each output channel's kernel, ``(C_out,)``."""
    length: Tensor = torch.linalg.vector_norm(kernel.flatten(1), dim=1)
    return length


def _as_affine(norm: Any) -> tuple[Tensor, Tensor]:
    """Give the scale and shift, each ``(C,)``, that a batch norm applies in eval mode."""
    scale = torch.rsqrt(norm.running_var + norm.eps)
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias
