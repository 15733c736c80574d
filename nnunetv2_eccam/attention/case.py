"""One fold of a trained model, loaded to be looked at, and a case preprocessed for it, with the way back to its file.

nnU-Net takes an image as (z, y, x), turned to right, anterior, superior by some readers; it transposes the axes, crops
to what is not zero, and resamples. Here each step is undone, last first, as nnU-Net undoes it for its segmentations.
"""

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import insert_crop_into_image
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nibabel.orientations import apply_orientation, io_orientation, ornt_transform
from torch import Tensor, nn
from tqdm import tqdm

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.inference.cases import case_from_array
from nnunetv2_eccam.inference.trained_model import CHECKPOINT, load_predictor
from nnunetv2_eccam.volumes import Volume, check_same_grid

AS_STORED = np.array([[0, 1], [1, 1], [2, 1]], float)
"""nibabel's notation of an orientation: for each axis of the file the reader's axis, and 1 or -1 for its direction."""


class PreparedCase(NamedTuple):
    """A case as the network is given it, and what the way back to its file's voxels needs.

    Attributes:
        data: ``(C, *grid)``, three axes, preprocessed by nnU-Net.
        properties: what nnU-Net's preprocessing noted: shapes, crop and spacing.
        turns: from the file's axes to the reader's, both (x, y, z), as :data:`AS_STORED`.
    """

    data: Tensor
    properties: dict[str, Any]
    turns: npt.NDArray[np.float64]


class TrainedModel:
    """One fold of a model that nnU-Net trained, with any trainer, in two or three dimensions.

    Args:
        folder: with ``plans.json``, ``dataset.json`` and ``fold_0`` and so on.
        fold: a number, or ``all``.
        checkpoint: name of the file.
        device: where the network runs.
        step_size: of the sliding window, over the size of a tile.
        progress: whether to show a progress bar.

    Attributes:
        network: in evaluation mode, on the device.
        patch_size: voxels of a tile, per axis of the network.
        channels: names of the image's channels.
        exclusive_labels: each voxel has one label; else it may be in several of nnU-Net's regions.
        heads: the labels that are predicted, without background, by name, and their logit maps.

    Raises:
        UserError: a file is missing or broken, the checkpoint does not fit, or the model is the second of a cascade.
    """

    def __init__(
        self, folder: Path, fold: str = "0", checkpoint: str = CHECKPOINT, device: torch.device | str = "cpu",
        step_size: float = 0.5, progress: bool = False,
    ) -> None:  # fmt: skip
        self.folder, self.device, self.progress = folder, torch.device(device), progress
        settings = {"tile_step_size": step_size, "device": self.device, "allow_tqdm": progress}
        self._predictor, _ = load_predictor(folder, (fold,), checkpoint, **settings)
        manager, described = self._predictor.configuration_manager, self._predictor.dataset_json
        if manager.previous_stage_name is not None:
            raise UserError(
                f"{folder} is the second model of a cascade, which also takes another model's segmentation; look at "
                f"the first one, or at 3d_fullres"
            )
        network: Any = self._predictor.network
        self.network: nn.Module = getattr(network, "_orig_mod", network).to(self.device).eval()
        self.patch_size = [int(n) for n in manager.patch_size]
        self.channels = [str(name) for name in described.get("channel_names", described.get("modality", {})).values()]
        self.exclusive_labels = not self._predictor.label_manager.has_regions
        foreground = {name: value for name, value in described["labels"].items() if value not in (0, [0])}
        foreground.pop("ignore", None)
        self.heads = {str(name): number for number, name in enumerate(foreground)}
        if self.exclusive_labels:
            self.heads = {str(name): int(np.ravel(value)[0]) for name, value in foreground.items()}

    @property
    def title(self) -> str:
        """What a picture calls the model: of this package's trainers the system's name, of others the trainer's."""
        from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

        name = str(self._predictor.trainer_name)
        with contextlib.redirect_stdout(io.StringIO()):  # it tells where it looks
            trainer = recursive_find_trainer_class_by_name(name)
        return str(getattr(getattr(trainer, "system", None), "title", name))

    @property
    def _reorients(self) -> bool:
        """Whether nnU-Net's reader turns images to right, anterior, superior."""
        return str(self._predictor.plans_manager.image_reader_writer_class.__name__).endswith("WithReorient")

    def _turns(self, image: Volume) -> npt.NDArray[np.float64]:
        return np.asarray(io_orientation(image.affine), float) if self._reorients else AS_STORED

    def slicing_axis(self, image: Volume) -> int:
        """Give the file's axis, 0 for x, along which a 2D model goes slice by slice."""
        along = 2 - self._predictor.plans_manager.transpose_forward[0]
        return int(np.flatnonzero(self._turns(image)[:, 0] == along)[0])

    def prepare(self, images: Sequence[Volume]) -> PreparedCase:
        """Preprocess a case as nnU-Net does: transpose, crop, normalise, resample.

        Args:
            images: one for each channel, in the order of ``dataset.json``, or one with all of them.

        Raises:
            UserError: there are more or fewer channels than the model takes, or they are on different grids.
        """
        for image in images[1:]:
            check_same_grid(images[0], image, advice="resample the channels of a case to one grid")
        turned = [image.to_ras() for image in images] if self._reorients else images
        array = np.concatenate([image.nnunet_array for image in turned]).astype(np.float32)
        path = images[0].path
        if len(array) != len(self.channels):
            raise UserError(
                f"{path}: the model in {self.folder} takes {len(self.channels)} channels "
                f"({', '.join(self.channels)}), {len(array)} were given; give -i one file for each"
            )
        if not array.any():
            raise UserError(f"{path} is zero everywhere: nnU-Net crops to what is not zero, so nothing is left")
        case = case_from_array(self._predictor, array, None, {"spacing": turned[0].nnunet_spacing})
        return PreparedCase(*case, self._turns(images[0]))

    def restore(self, case: PreparedCase, maps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Bring maps of a case, (K, *grid), to the voxels of its file.

        Returns:
            ``(K, x, y, z)``; zero outside of what nnU-Net cropped to.
        """
        noted, manager = case.properties, self._predictor.configuration_manager
        transpose = self._predictor.plans_manager.transpose_forward
        size, before = noted["shape_after_cropping_and_before_resampling"], noted["shape_before_cropping"]
        spacing = [noted["spacing"][axis] for axis in transpose]
        # A 2D configuration leaves the distance of the slices as it is.
        of_grid = (*spacing[: 3 - len(manager.spacing)], *manager.spacing)
        resampled = manager.resampling_fn_probabilities(torch.from_numpy(maps), size, of_grid, spacing)
        whole = np.zeros((len(maps), *before), np.float32)
        whole = insert_crop_into_image(whole, np.asarray(resampled), noted["bbox_used_for_cropping"])
        readers = whole.transpose(0, *(int(axis) + 1 for axis in np.argsort(transpose)))
        back = ornt_transform(AS_STORED, case.turns)
        return np.stack([apply_orientation(each.T, back) for each in readers])

    def padded(self, data: Tensor) -> tuple[Tensor, tuple[slice, ...]]:
        """Pad ``(C, *grid)`` to a tile's size at least, as nnU-Net does, and give where the data is in it."""
        padded, inner = pad_nd_image(data, self.patch_size, "constant", {"value": 0}, True, None)
        return padded, tuple(inner[1:])

    def tiles(self, data: Tensor) -> Iterator[tuple[tuple[Any, ...], Tensor]]:
        """Go through padded data, ``(C, *grid)``, by nnU-Net's sliding window.

        Yields:
            Where a tile is (of a 2D model with a number for the slice), and the tile, ``(1, C, *tile)``, on the
            network's device.
        """
        places = self._predictor._internal_get_sliding_window_slicers(tuple(data.shape[1:]))
        for place in tqdm(places, desc=self.title, unit="tile", disable=None if self.progress else True):
            yield place, data[place].unsqueeze(0).to(self.device)

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """Run the network in nnU-Net's precision: half on CUDA, single elsewhere."""
        return torch.autocast("cuda") if self.device.type == "cuda" else contextlib.nullcontext()

    def merged(self, data: Tensor, read: Callable[[Tensor], Tensor]) -> npt.NDArray[np.float32]:
        """Read maps tile by tile, and merge tiles as nnU-Net merges logits: by a mean with Gaussian weights.

        nnU-Net adds logits up in half precision; maps differ by more than that holds, so here it is single.

        Args:
            data: ``(C, *grid)``.
            read: gives maps of a tile, ``(1, K, *tile)``.

        Returns:
            ``(K, *grid)``.
        """
        from nnunetv2.inference.sliding_window_prediction import compute_gaussian

        padded, inner = self.padded(data)
        weight = compute_gaussian(tuple(self.patch_size), 1.0 / 8, 10, device=torch.device("cpu")).float()
        sums, weights = torch.zeros(0), torch.zeros(padded.shape[1:])
        for place, tile in self.tiles(padded):
            with self.precision():
                maps = read(tile)[0].float().cpu()
            if not len(sums):
                sums = torch.zeros(len(maps), *padded.shape[1:])
            sums[place] += maps * weight
            weights[place[1:]] += weight
        return np.asarray((sums / weights)[(slice(None), *inner)].numpy())
