"""Attention U-Net: additive attention gates on the skip connections.

Oktay et al., "Attention U-Net: Learning Where to Look for the Pancreas", MIDL 2018 (arXiv 1804.03999):
the paper's reference [23]. Equation and figure numbers below are theirs. What the text leaves open follows
the authors' public code, of which some extras are left out: see :class:`AttentionUNet`.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2_eccam.architectures.compared.network import UNetFamily
from nnunetv2_eccam.architectures.decoder import Decoder
from nnunetv2_eccam.architectures.encoder import Encoder
from nnunetv2_eccam.architectures.unet_plan import UNetPlan
from nnunetv2_eccam.blocks.convolution import LayerOps


class AttentionGate(nn.Module):
    """Grid-based additive attention (eq. 1-2, Fig. 2): each position of a skip map x times its coefficient.

    ``alpha = sigmoid(psi^T relu(W_x^T x + W_g^T g + b_g) + b_psi)`` on the grid of the gating signal g,
    enlarged to the grid of x linearly along each axis; the output is ``alpha * x``. ``W_x`` brings x to
    the grid of g by a convolution whose kernel is its stride, without bias; ``W_g`` and ``psi`` are 1x1.
    The kernel of ``W_x`` and the inner width (the paper's F_int), which is that of x, are as in the
    authors' code.

    Args:
        skip_channels: channels of x.
        gating_channels: channels of g.
        stride: size of x over that of g, per axis.
        ops: the operators; no norm and no nonlinearity of theirs is used.

    Shape:
        x ``(B, skip_channels, *spatial)`` and g ``(B, gating_channels, *spatial / stride)`` to the shape of x.
    """

    def __init__(self, skip_channels: int, gating_channels: int, stride: Sequence[int], ops: LayerOps) -> None:
        super().__init__()
        ones = [1] * ops.dimension
        self.interpolation = ops.interpolation
        # Not ops.conv, which would pad a stride of three and more.
        self.skip_transform = ops.conv_op(skip_channels, skip_channels, tuple(stride), tuple(stride), bias=False)
        self.gating_transform = ops.conv(gating_channels, skip_channels, ones, bias=True)
        self.score = ops.conv(skip_channels, 1, ones, bias=True)

    def attention_coefficients(self, skip: Tensor, gating: Tensor) -> Tensor:
        """Give alpha, in (0, 1), ``(B, 1, *spatial)`` on the grid of ``skip``."""
        scores = self.score(F.relu(self.skip_transform(skip) + self.gating_transform(gating)))
        return F.interpolate(scores.sigmoid(), size=skip.shape[2:], mode=self.interpolation, align_corners=False)

    def forward(self, skip: Tensor, gating: Tensor) -> Tensor:
        """Weight each position of ``skip``."""
        return skip * self.attention_coefficients(skip, gating)


class GatedDecoder(Decoder):
    """The U-Net's decoder, whose skip maps pass a gate by the map of the level below (Fig. 1).

    The map of the image's own resolution, the last, passes none: it does not represent the image in a
    high-dimensional space, the paper says.

    Args:
        num_classes: logit maps of the one head.
        plan: the stages, three or more.

    Raises:
        ValueError: a plan of one or two stages.
    """

    def __init__(self, num_classes: int, plan: UNetPlan) -> None:
        super().__init__(num_classes, plan, side_outputs=False, deep_supervision=False)
        widths, n_stages = plan.features_per_stage, len(plan.features_per_stage)
        if n_stages < 3:
            raise ValueError(
                f"Attention U-Net gates all skips but the first: it needs three stages or more, the plan has {n_stages}"
            )
        self.gates = nn.ModuleList(
            AttentionGate(widths[stage], widths[stage + 1], plan.strides[stage + 1], plan.ops)
            for stage in range(n_stages - 2, 0, -1)
        )

    def skip(self, level: int, skip: Tensor, features: Tensor) -> Tensor:
        """Gate the encoder's map by the decoder's map one level below."""
        gated: Tensor = self.gates[level](skip, features) if level < len(self.gates) else skip
        return gated


class AttentionUNet(UNetFamily):
    """The U-Net of the plan, with an :class:`AttentionGate` on every skip connection but the first.

    Stages, widths, kernels, number of layers, norm and nonlinearity are the plan's. The gating signal is
    the decoder's map one level below, at the first level the encoder's last map (Fig. 1; IV.B.2 of the
    EC-CaM-UNet paper says the same).

    Left out, of the authors' code for CT:

    - multi-scale supervision: logits of all levels, enlarged and joined by a 1x1 convolution. The paper
      has deep supervision too, but it is no part of the gates, and in the comparison it is what
      EC-CaM-UNet adds (DWS);
    - a 1x1 convolution with batch norm and ReLU on the encoder's last map, before it gates;
    - what follows ``alpha * x``: a 1x1 convolution with batch norm (``W`` in the code), then another with
      ReLU. Neither is in eq. 1-2 or Fig. 2;
    - a second gate per skip (the paper's multi-dimensional attention, for several classes).

    By its count, the network of the authors' table (3D, 16 to 256, 6.40 million parameters against 5.88 of
    its U-Net) has two gates per skip and all of these but the convolution before the first gate.
    Enlargement in the decoder is the plan's transposed convolution; theirs is trilinear.

    Each gate's coefficients, which the paper draws over the image, can be read during a forward pass::

        def record(gate, inputs):
            coefficients.append(gate.attention_coefficients(*inputs))

        handles = [gate.register_forward_pre_hook(record) for gate in network.decoder.gates]

    They come lowest resolution first and have the size of the skip map, of a padded image where it was
    padded (:class:`PadsToMultiple`).

    Raises:
        ValueError: a plan of one or two stages.
    """

    def __init__(self, plan: UNetPlan, input_channels: int, num_classes: int) -> None:
        super().__init__(plan)
        self.encoder = Encoder(input_channels, plan)
        self.decoder = GatedDecoder(num_classes, plan)
