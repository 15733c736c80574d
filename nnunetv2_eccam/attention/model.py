"""One fold of a trained model, loaded to be looked at, and a case preprocessed for it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nibabel.orientations import io_orientation
from torch import Tensor, nn

from nnunetv2_eccam.attention.original_voxels import AS_STORED, OriginalVoxels
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.inference.trained_model import CHECKPOINT, checked_model
from nnunetv2_eccam.volumes import Volume, check_same_grid


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

    def tile_places(self, grid: Sequence[int]) -> list[Any]:
        """Give nnU-Net's sliding window: indices into ``(C, *grid)``, of a 2D model with a number for the slice."""
        return list(self._predictor._internal_get_sliding_window_slicers(tuple(grid)))

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """Run the network in nnU-Net's precision: half on CUDA, single elsewhere."""
        return torch.autocast("cuda") if self.device.type == "cuda" else contextlib.nullcontext()
