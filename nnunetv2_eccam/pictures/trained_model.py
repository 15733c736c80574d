"""A trained model as nnU-Net stores it, loaded to be looked at, and a case preprocessed for it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.inference.trained_model import CHECKPOINT, checked_model
from nnunetv2_eccam.pictures.original_voxels import OriginalVoxels


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
        UserError: a file is missing, the checkpoint does not fit, or the model is the second of a cascade.
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
        with contextlib.redirect_stdout(io.StringIO()):  # it comments on settings that do not matter here
            self._predictor: Any = nnUNetPredictor(
                tile_step_size=step_size, device=self.device, allow_tqdm=progress, verbose=False
            )
            with checked_model(folder, (fold,), checkpoint):
                self._predictor.initialize_from_trained_model_folder(str(folder), (fold,), checkpoint)
        if self._predictor.configuration_manager.previous_stage_name is not None:
            raise UserError(
                f"{folder} is the second model of a cascade, which also takes another model's segmentation; look at "
                f"the first one, or at 3d_fullres"
            )
        network: Any = self._predictor.network
        self.network: nn.Module = getattr(network, "_orig_mod", network).to(self.device).eval()

    @property
    def trainer_name(self) -> str:
        """The trainer, as ``-tr`` takes it."""
        return str(self._predictor.trainer_name)

    @property
    def title(self) -> str:
        """What a picture calls the model: of this package's trainers the system's name, of others the trainer's."""
        from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

        with contextlib.redirect_stdout(io.StringIO()):  # it tells where it looks
            trainer = recursive_find_trainer_class_by_name(self.trainer_name)
        system = getattr(trainer, "system", None)
        return str(getattr(system, "title", self.trainer_name))

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

    def prepare(self, files: Sequence[Path]) -> PreparedCase:
        """Read and preprocess a case as nnU-Net does: transpose, crop, normalise, resample.

        Args:
            files: one for each channel, in the order of ``dataset.json``, or one with all of them.

        Raises:
            UserError: a file is missing or cannot be read, or there are more or fewer channels.
        """
        for file in files:
            if not file.is_file():
                raise UserError(f"{file} is not a file; -i takes the files of one case, one for each channel")
        predictor = self._predictor
        reader = predictor.plans_manager.image_reader_writer_class()
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                image, properties = reader.read_images([str(file) for file in files])
        except Exception as error:  # readers raise what their libraries do, and nnU-Net's own errors are empty
            reason = " ".join((str(error) or said.getvalue()).split())
            raise UserError(f"{', '.join(map(str, files))} cannot be read: {reason}") from error
        if len(image) != len(self.channels):
            raise UserError(
                f"{files[0]}: the model in {self.folder} takes {len(self.channels)} channels "
                f"({', '.join(self.channels)}), {len(image)} were given; give -i one file for each"
            )
        if not image.any():
            raise UserError(f"{files[0]} is zero everywhere: nnU-Net crops to what is not zero, so nothing is left")
        manager = predictor.configuration_manager
        data, _, properties = manager.preprocessor_class(verbose=False).run_case_npy(
            image, None, properties, predictor.plans_manager, manager, predictor.dataset_json
        )
        origin = OriginalVoxels.of(properties, predictor.plans_manager, manager, data.shape[1:], image.shape[1:])
        return PreparedCase(torch.from_numpy(data), origin)

    def tile_places(self, grid: Sequence[int]) -> list[Any]:
        """Give nnU-Net's sliding window: indices into ``(C, *grid)``, of a 2D model with a number for the slice."""
        return list(self._predictor._internal_get_sliding_window_slicers(tuple(grid)))

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """Run the network in nnU-Net's precision: half on CUDA, single elsewhere."""
        return torch.autocast("cuda") if self.device.type == "cuda" else contextlib.nullcontext()

