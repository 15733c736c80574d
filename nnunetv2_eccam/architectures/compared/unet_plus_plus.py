"""U-Net++: a U-Net whose skip connections are nested, dense convolution nodes.

Zhou et al., "UNet++: A Nested U-Net Architecture for Medical Image Segmentation", DLMIA 2018, and
"UNet++: Redesigning Skip Connections to Exploit Multiscale Features in Image Segmentation", IEEE
Transactions on Medical Imaging 39, 2020. The EC-CaM-UNet paper cites it as [18], which in its list is
ResUNet++ (Jha et al., 2019); but it calls it U-Net++ throughout, and says of it "dense connection",
"pruning" and "supervises each scale", all of Zhou's. With the authors' public code (Keras) the
parameters agree in number.
"""

from collections.abc import Sequence

from torch import Tensor, cat, nn

from nnunetv2_eccam.architectures.compared.network import UNetFamily, segmentation_layer
from nnunetv2_eccam.architectures.encoder import Encoder
from nnunetv2_eccam.architectures.unet_plan import UNetPlan
from nnunetv2_eccam.blocks.convolution import stacked


class NestedNode(nn.Module):
    """Node ``X^{i,j}`` with j > 0 (eq. 1): ``H([X^{i,0}, ..., X^{i,j-1}, U(X^{i+1,j-1})])``.

    U is a transposed convolution to the row's width and H the plan's convolutions of that decoder level:
    two in the authors' code, as in the U-Net.

    Args:
        plan: the stages.
        row: i, the stage whose size and width the node has; 0 is the image's size.
        column: j, so many maps of the row come before the node.

    Shape:
        j maps ``(B, width of i, *spatial of i)`` and ``(B, width of i + 1, *spatial of i + 1)`` to
        ``(B, width of i, *spatial of i)``.
    """

    def __init__(self, plan: UNetPlan, row: int, column: int) -> None:
        super().__init__()
        ops, width = plan.ops, plan.features_per_stage[row]
        n_convs = plan.n_conv_per_stage_decoder[-1 - row]  # lowest resolution first
        self.upsampling = ops.transposed_conv(plan.features_per_stage[row + 1], width, plan.strides[row + 1])
        self.convs = nn.Sequential(
            *stacked(n_convs, (column + 1) * width, width, plan.kernel_sizes[row], [1] * ops.dimension, ops)
        )

    def forward(self, row: Sequence[Tensor], below: Tensor) -> Tensor:
        """Fuse the row's earlier maps with the map below."""
        fused: Tensor = self.convs(cat((*row, self.upsampling(below)), 1))
        return fused


class UNetPlusPlus(UNetFamily):
    """The U-Net of the plan, with a node at every ``X^{i,j}``, i + j < stages, of the authors' Fig. 1.

    Column 0 is the encoder; each further column is one row shorter; ``X^{0,L}`` with L = stages - 1 has
    the one 1x1 head. Stages, widths, kernels, number of layers, norm and nonlinearity are the plan's. The
    authors' setting is five stages of 32 to 512, two 3x3 convolutions with ReLU and dropout of 0.5, no
    norm, max pooling, and transposed 2x2 convolutions (their code; the papers only speak of
    up-sampling): 9.04 million parameters. Dropout is the plan's here too, normally none.

    There is no deep supervision: the mode that the authors' TMI paper lists as "w/o DS". Theirs has a
    1x1 head on each of ``X^{0,1}`` to ``X^{0,L}``, all of the image's size, and serves pruning, unlike
    the side outputs that EC-CaM-UNet adds (DWS), which have the decoder levels' sizes. Heads without a
    loss would be left without gradient. Every node leads to ``X^{0,L}``, so each has one.
    """

    def __init__(self, plan: UNetPlan, input_channels: int, num_classes: int) -> None:
        super().__init__(plan)
        n_stages = len(plan.features_per_stage)
        self.encoder = Encoder(input_channels, plan)
        # Column by column: when a node's turn comes, all that it needs is there.
        self.places = [(row, column) for column in range(1, n_stages) for row in range(n_stages - column)]
        self.nodes = nn.ModuleList(NestedNode(plan, row, column) for row, column in self.places)
        self.head = segmentation_layer(
            plan.ops.conv(plan.features_per_stage[0], num_classes, [1] * plan.ops.dimension, bias=True)
        )

    def segment(self, image: Tensor) -> Tensor:
        """Segment images of a size that the strides divide."""
        rows = [[features] for features in self.encoder(image)]
        for (row, column), node in zip(self.places, self.nodes, strict=True):
            rows[row].append(node(rows[row], rows[row + 1][column - 1]))
        logits: Tensor = self.head(rows[0][-1])
        return logits
