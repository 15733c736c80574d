"""One fold of a trained model, loaded to be looked at, and a case preprocessed for it, with the way back to its file.

nnU-Net takes an image as (z, y, x), turned to right, anterior, superior by some readers; it transposes the axes, crops
to what is not zero, and resamples. Here each step is undone, last first, as nnU-Net undoes it for its segmentations.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform
from torch import Tensor, nn

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.inference.trained_model import CHECKPOINT, checked_model
from nnunetv2_eccam.volumes import Volume, check_same_grid

AS_STORED = np.array([[0, 1], [1, 1], [2, 1]], float)
"""nibabel's notation of an orientation: for each axis of the file the reader's axis, and 1 or -1 for its direction."""


@dataclass(frozen=True)
class OriginalVoxels:
    """The way between a file's voxels and the network's grid, of one case.

    Attributes:
        shape: voxels of the file, (x, y, z).
        turns: from the file's axes to the reader's, both (x, y, z), as :data:`AS_STORED`.
        transpose: for each axis of the network's grid, the reader's, (z, y, x).
        crop: for each axis of the network's grid, where what is not zero begins and ends, before resampling.
        grid: the network's grid.
        spacings: mm of the network's grid and of the cropped image, along the network's axes.
        resample: nnU-Net's function for logits: maps (K, *grid), new shape, spacing, new spacing.
    """

    shape: tuple[int, int, int]
    turns: npt.NDArray[np.float64]
    transpose: tuple[int, ...]
    crop: tuple[tuple[int, int], ...]
    grid: tuple[int, ...]
    spacings: tuple[tuple[float, ...], tuple[float, ...]]
    resample: Callable[..., Any]

    @property
    def to_file(self) -> npt.NDArray[np.float64]:
        """The 4x4 matrix from a voxel of the network's grid to the file's voxel (x, y, z)."""
        to_reader = np.zeros((4, 4))
        to_reader[3, 3] = 1
        for axis, ((low, high), n) in enumerate(zip(self.crop, self.grid, strict=True)):
            step, reader_axis = (high - low) / n, 2 - self.transpose[axis]
            to_reader[reader_axis, axis] = step
            to_reader[reader_axis, 3] = low + (step - 1) / 2
        return np.asarray(inv_ornt_aff(self.turns, self.shape) @ to_reader)

    @property
    def slicing_axis(self) -> int:
        """The file's axis, 0 for x, along which a 2D model goes slice by slice."""
        return int(np.abs(self.to_file[:3, 0]).argmax())

    def file_voxel(self, place: Sequence[float]) -> tuple[int, int, int]:
        """Give the voxel of the file, (x, y, z), that is closest to a place in the network's grid."""
        x, y, z = np.floor(self.to_file @ [*place, 1.0] + 0.5)[:3]
        return int(x), int(y), int(z)

    def locate(self, voxel: Sequence[float]) -> tuple[float, ...]:
        """Give where a voxel of the file, (x, y, z), is in the network's grid.

        Raises:
            UserError: it is outside of what nnU-Net crops to, so that the network does not see it.
        """
        place = tuple(float(at) for at in np.linalg.solve(self.to_file, [*voxel, 1.0])[:3])
        if not all(-0.5 <= at < n - 0.5 for at, n in zip(place, self.grid, strict=True)):
            raise UserError(
                f"the point, voxel {' '.join(f'{at:g}' for at in voxel)}, is in the empty margin of the image that "
                f"nnU-Net crops off, so the network does not see it; give one in the body"
            )
        return place

    def restore(self, maps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Bring maps, (K, *grid), to the file's voxels.

        Returns:
            ``(K, x, y, z)``; zero outside of what nnU-Net cropped to.
        """
        cropped = [high - low for low, high in self.crop]
        resampled = self.resample(torch.from_numpy(maps), cropped, *self.spacings)
        back = ornt_transform(AS_STORED, self.turns)
        readers_shape = [self.shape[int(axis)] for axis in back[::-1, 0]]  # (z, y, x)
        whole = np.zeros((len(maps), *(readers_shape[axis] for axis in self.transpose)), np.float32)
        whole[(slice(None), *(slice(low, high) for low, high in self.crop))] = np.asarray(resampled)
        readers = whole.transpose(0, *(int(axis) + 1 for axis in np.argsort(self.transpose)))
        return np.stack([apply_orientation(each.T, back) for each in readers])


@dataclass(frozen=True)
class PreparedCase:
    """A case as the network is given it.

    Attributes:
        data: ``(C, *grid)``, three axes, preprocessed by nnU-Net.
        origin: the way back to the voxels of the file.
    """

    data: Tensor
    origin: OriginalVoxels


class TrainedModel:
    """One fold of a model that nnU-Net trained, with any trainer, in two or three dimensions.

    Args:
        folder: with ``plans.json``, ``dataset.json`` and ``fold_0`` and so on.
        fold: a number, or ``all``.
        checkpoint: name of the file.
        device: where the network runs.
        step_size: of the sliding window, over the size of a tile.
        progress: whether to show a progress bar.

    Raises:
        UserError: a file is missing or broken, the checkpoint does not fit, or the model is the second of a cascade.
    """

    def __init__(
        self,
        folder: Path,
        fold: str = "0",
        checkpoint: str = CHECKPOINT,
        device: torch.device | str = "cpu",
        step_size: float = 0.5,
        progress: bool = False,
    ) -> None:
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        self.folder, self.device, self.progress = folder, torch.device(device), progress
        # nnU-Net comments on settings that do not matter here.
        with checked_model(folder, (fold,), checkpoint), contextlib.redirect_stdout(io.StringIO()):
            self._predictor: Any = nnUNetPredictor(
                tile_step_size=step_size, device=self.device, allow_tqdm=progress, verbose=False
            )
            self._predictor.initialize_from_trained_model_folder(str(folder), (fold,), checkpoint)
        if self._predictor.configuration_manager.previous_stage_name is not None:
            raise UserError(
                f"{folder} is the second model of a cascade, which also takes another model's segmentation; look at "
                f"the first one, or at 3d_fullres"
            )
        network: Any = self._predictor.network
        self.network: nn.Module = getattr(network, "_orig_mod", network).to(self.device).eval()

    @property
    def title(self) -> str:
        """What a picture calls the model: of this package's trainers the system's name, of others the trainer's."""
        from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

        name = str(self._predictor.trainer_name)
        with contextlib.redirect_stdout(io.StringIO()):  # it tells where it looks
            trainer = recursive_find_trainer_class_by_name(name)
        return str(getattr(getattr(trainer, "system", None), "title", name))

    @property
    def patch_size(self) -> list[int]:
        """Voxels of a tile, per axis of the network."""
        return [int(n) for n in self._predictor.configuration_manager.patch_size]

    @property
    def channels(self) -> list[str]:
        """Names of the image's channels."""
        description = self._predictor.dataset_json
        return [str(name) for name in description.get("channel_names", description.get("modality", {})).values()]

    @property
    def exclusive_labels(self) -> bool:
        """Whether each voxel has one label, or may be in several of nnU-Net's regions."""
        return not self._predictor.label_manager.has_regions

    @property
    def heads(self) -> dict[str, int]:
        """The labels that are predicted, without background, by name, and their logit maps."""
        foreground = [
            (name, value)
            for name, value in self._predictor.dataset_json["labels"].items()
            if name != "ignore" and value not in (0, [0])
        ]
        if self.exclusive_labels:
            return {name: int(np.ravel(value)[0]) for name, value in foreground}
        return {name: number for number, (name, _) in enumerate(foreground)}

    def prepare(self, images: Sequence[Volume]) -> PreparedCase:
        """Preprocess a case as nnU-Net does: transpose, crop, normalise, resample.

        Args:
            images: one for each channel, in the order of ``dataset.json``, or one with all of them.

        Raises:
            UserError: there are more or fewer channels than the model takes, or they are on different grids.
        """
        for image in images[1:]:
            check_same_grid(images[0], image, advice="resample the channels of a case to one grid")
        plans, manager = self._predictor.plans_manager, self._predictor.configuration_manager
        reorients = plans.image_reader_writer_class.__name__.endswith("WithReorient")
        turned = [image.to_ras() for image in images] if reorients else images
        array = np.concatenate([image.nnunet_array for image in turned]).astype(np.float32)
        path = images[0].path
        if len(array) != len(self.channels):
            raise UserError(
                f"{path}: the model in {self.folder} takes {len(self.channels)} channels "
                f"({', '.join(self.channels)}), {len(array)} were given; give -i one file for each"
            )
        if not array.any():
            raise UserError(f"{path} is zero everywhere: nnU-Net crops to what is not zero, so nothing is left")
        properties: dict[str, Any] = {"spacing": turned[0].nnunet_spacing}
        data, _, properties = manager.preprocessor_class(verbose=False).run_case_npy(
            array, None, properties, plans, manager, self._predictor.dataset_json
        )
        original = [properties["spacing"][axis] for axis in plans.transpose_forward]
        # A 2D configuration leaves the distance of the slices as it is.
        here = [*original[: 3 - len(manager.spacing)], *manager.spacing]
        origin = OriginalVoxels(
            shape=images[0].shape,
            turns=np.asarray(io_orientation(images[0].affine), float) if reorients else AS_STORED,
            transpose=tuple(plans.transpose_forward),
            crop=tuple((int(low), int(high)) for low, high in properties["bbox_used_for_cropping"]),
            grid=tuple(data.shape[1:]),
            spacings=(tuple(here), tuple(original)),
            resample=manager.resampling_fn_probabilities,
        )
        return PreparedCase(torch.from_numpy(data), origin)

    def tile_slicers(self, grid: Sequence[int]) -> list[Any]:
        """Give nnU-Net's sliding window: indices into ``(C, *grid)``, of a 2D model with a number for the slice."""
        return list(self._predictor._internal_get_sliding_window_slicers(tuple(grid)))

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """Run the network in nnU-Net's precision: half on CUDA, single elsewhere."""
        return torch.autocast("cuda") if self.device.type == "cuda" else contextlib.nullcontext()
