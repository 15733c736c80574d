"""Any image size: pad to what a network's halvings divide, segment, and crop the logits again."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch.nn.functional as F
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import Tensor, nn

from nnunetv2_eccam.architectures.origin import KnowsItsOrigin
from nnunetv2_eccam.architectures.unet_plan import UNetPlan


class PadsToMultiple(KnowsItsOrigin, ABC):
    """A network that takes images of any size.

    The image is padded with zeros at the far end of each axis (nnU-Net's images are zero-centred, and it
    pads with zeros itself), to a multiple of :attr:`divisors` and at least :attr:`smallest`; the logits
    are cropped to the image's size, a side output in proportion. Where nothing is missing nothing is
    done. What padding costs is the ratio of the areas.

    Shape:
        ``(B, C_in, *spatial)`` to logits ``(B, num_classes, *spatial)``, or a list of them, highest
        resolution first.

    Raises:
        ValueError: the image has another number of axes than the network.
    """

    plan: UNetPlan
    """The network's stages, of one that is built from a plan."""

    @property
    def smallest(self) -> int:
        """Positions along each axis below which the network cannot train.

        Of a map of one position there is no variance to normalise by.
        """
        return 1

    @property
    def divisors(self) -> list[int]:
        """What each axis is padded to a multiple of: what the plan's strides divide it by."""
        return self.plan.divisors

    @staticmethod
    def initialize(module: nn.Module) -> None:
        """Initialise a convolution as nnU-Net does: the same for all systems (IV.C). For ``network.apply``."""
        InitWeights_He(1e-2)(module)

    @abstractmethod
    def segment(self, image: Tensor) -> Tensor | list[Tensor]:
        """Give the logits of an image whose size fits."""

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Give the logits of an image of any size."""
        size = [int(n) for n in image.shape[2:]]  # exporters that trace give tensors
        if len(size) != len(self.divisors):
            raise ValueError(
                f"the network has {len(self.divisors)} spatial axes, the image {len(size)}: {list(image.shape)}"
            )
        padded = padded_size(size, self.divisors, self.smallest)
        if padded == size:
            return self.segment(image)
        missing = [needed - n for n, needed in zip(size, padded, strict=True)]
        output = self.segment(F.pad(image, [pad for n in reversed(missing) for pad in (0, n)]))
        if isinstance(output, Tensor):
            return _cropped(output, size, padded)
        return [_cropped(logits, size, padded) for logits in output]


def padded_size(size: Sequence[int], divisors: Sequence[int], smallest: int = 1) -> list[int]:
    """Give the least multiple of ``divisors`` that holds ``size`` and ``smallest``, per axis.

    >>> padded_size([30, 33], [16, 16])
    [32, 48]
    """
    return [-(-max(n, smallest) // d) * d for n, d in zip(size, divisors, strict=True)]


def _cropped(logits: Tensor, size: Sequence[int], padded: Sequence[int]) -> Tensor:
    """Crop an output to the image's size, a side output to its share of it, rounded as nnU-Net's targets are."""
    for axis, (n, whole) in enumerate(zip(size, padded, strict=True), start=2):
        kept = max(1, round(n * int(logits.shape[axis]) / whole))
        logits = logits.narrow(axis, 0, kept)
    return logits
