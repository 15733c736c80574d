"""``BatchedPredictor``: nnU-Net's predictor with several tiles, of one image or more, in one call of the network."""

import itertools
import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.configuration import default_num_processes
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.utilities.helpers import empty_cache
from torch import Tensor
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

LARGEST_BATCH = 64
"""Samples in one batch at most; beyond that a GPU is full with the smallest patches."""

BATCH_VOXELS = {"cuda": 2**22}
"""Voxels of the samples in one batch, per type of device: 64 of 256x256 fill a GPU, or 2 of 128x128x128."""

BATCH_VOXELS_ELSEWHERE = 2**15
"""The same for the CPU: eight patches of 64x64 gain from each other, one of 192x192 keeps its cores busy by itself."""

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")

Place = tuple[int, tuple[Any, ...]]
"""The number of an image, and where a tile lies in it, (C, *image): one of nnU-Net's slicers. A 2D tile has a number
for the first axis."""

Sums = tuple[Tensor, Tensor]
"""Of one image the sum of its tiles' weighted logits, (K, *image), and that of the weights, (*image). Both are in half
precision, as nnU-Net's."""


class BatchedPredictor(nnUNetPredictor):
    """Predict preprocessed images as nnU-Net, equal within float tolerance, in fewer and larger calls of the network.

    A *sample* is one tile in one of its mirrored copies. A batch holds whole tiles with all their copies, of one image
    or of several, or, where that is too much, some copies of one tile. How many depends on the patch and the device
    (:data:`BATCH_VOXELS`); a batch that does not fit into memory is halved.

    Tiles, folds, padding, precision and the second attempt with results on the CPU are nnU-Net's.

    Args:
        args: nnU-Net's.
        batch_size: samples in one call of the network at most, or None for what the device and the patch suggest.
        kwargs: nnU-Net's.
    """

    def __init__(self, *args: Any, batch_size: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.batch_size = batch_size
        self._fits = math.inf  # samples, once memory has run out

    def predict_sliding_window_return_logits(self, input_image: Tensor) -> Tensor:
        """Predict one image with the weights that the network has.

        Args:
            input_image: (C, *image) with three axes.

        Returns:
            logits, (K, *image), in half precision, on the device of the results.

        Raises:
            RuntimeError: half precision overflowed.
        """
        (logits,) = self.predict_images([input_image])
        if torch.any(torch.isinf(logits)):
            raise RuntimeError(
                "the predicted logits have infinite values: nnU-Net adds them up in half precision, which ends at "
                "65504, with weights up to 10. The network's logits are far larger than trained ones are"
            )
        return logits

    @torch.inference_mode()
    def predict_logits(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Predict images with every fold, and average.

        Args:
            images: each (C, *image) with three axes; their sizes may differ.

        Returns:
            of each its logits, (K, *image), in half precision, on the CPU. They may be infinite.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(min(default_num_processes, threads))
        sums: list[Tensor] = []
        try:
            for parameters in self.list_of_parameters:
                network = self.network._orig_mod if isinstance(self.network, OptimizedModule) else self.network
                network.load_state_dict(parameters)
                found = [logits.to("cpu") for logits in self.predict_images(images)]
                sums = [total.add_(more) for total, more in zip(sums, found, strict=True)] if sums else found
        finally:
            torch.set_num_threads(threads)
        folds = len(self.list_of_parameters)
        return [total.div_(folds) for total in sums] if folds > 1 else sums

    @torch.inference_mode()
    def predict_images(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Predict images with the weights that the network has.

        Args:
            images: each (C, *image) with three axes; their sizes may differ.

        Returns:
            of each its logits, (K, *image), in half precision, on the device of the results. They may be infinite.
        """
        if not images:
            return []
        self.network.to(self.device).eval()
        with torch.autocast("cuda") if self.device.type == "cuda" else nullcontext():
            if self.perform_everything_on_device:
                try:
                    return self._predict_images(images, self.device)
                except RuntimeError:
                    print("Prediction on device failed, probably for lack of memory. Moving results to the CPU")
                # Here, not above: while the error is handled, its frames keep the device's memory.
                empty_cache(self.device)
                self._fits = math.inf
            return self._predict_images(images, torch.device("cpu"))

    def samples_of(self, image: Tensor) -> int:
        """Give how many samples an image, (C, *image) with three axes, has."""
        patch = self.configuration_manager.patch_size
        size = [max(n, tile) for n, tile in zip(image.shape[-len(patch) :], patch, strict=True)]
        tiles = self._internal_get_sliding_window_slicers((*image.shape[1 : -len(patch)], *size))
        return len(tiles) * len(self._mirrorings(len(patch)))

    @property
    def samples_at_once(self) -> int:
        """Samples in one call of the network at most."""
        voxels = BATCH_VOXELS.get(self.device.type, BATCH_VOXELS_ELSEWHERE)
        fill_the_device = voxels // math.prod(self.configuration_manager.patch_size)
        chosen = self.batch_size or max(1, min(LARGEST_BATCH, fill_the_device))
        return int(min(chosen, self._fits))

    @property
    def _tiles_at_once(self) -> int:
        copies = len(self._mirrorings(len(self.configuration_manager.patch_size)))
        return max(1, self.samples_at_once // copies)

    def _mirrorings(self, dimension: int) -> list[tuple[int, ...]]:
        """Give the axes of (B, C, *patch) that each copy is mirrored along, the unmirrored copy first."""
        allowed = self.allowed_mirroring_axes if self.use_mirroring else None
        axes = [axis + 2 for axis in allowed or ()]
        if axes and max(axes) > dimension + 1:
            raise ValueError(f"the model allows mirroring along the axes {allowed}, its tiles have {dimension} axes")
        return [some for n in range(len(axes) + 1) for some in itertools.combinations(axes, n)]

    def _predict_images(self, images: Sequence[Tensor], results_device: torch.device) -> list[Tensor]:
        """Pad the images, predict their tiles, and cut the padding off again."""
        patch = tuple(self.configuration_manager.patch_size)
        heads = self.label_manager.num_segmentation_heads
        weight: Tensor | int = 1
        if self.use_gaussian:
            weight = compute_gaussian(patch, sigma_scale=1.0 / 8, value_scaling_factor=10, device=results_device)
        zeros = partial(torch.zeros, dtype=torch.half, device=results_device)
        padded, kept, sums, places = [], [], [], []
        for number, image in enumerate(images):
            data, inside = pad_nd_image(image, patch, "constant", {"value": 0}, True, None)
            padded.append(data.to(results_device))
            kept.append((slice(None), *inside[1:]))
            sums.append((zeros((heads, *data.shape[1:])), zeros(data.shape[1:])))
            places += [(number, place) for place in self._internal_get_sliding_window_slicers(data.shape[1:])]
        self._predict_tiles(padded, places, sums, weight)
        return [torch.div(total, weights, out=total)[each] for (total, weights), each in zip(sums, kept, strict=True)]

    def _predict_tiles(
        self, images: Sequence[Tensor], places: Sequence[Place], sums: Sequence[Sums], weight: Tensor | int
    ) -> None:
        """Cut the images' tiles, predict and add them up; ``weight`` is of a tile's pixels, (*patch), or 1.

        One thread cuts and sends the next tiles and another fetches and adds the last ones while the network runs,
        which matters where images and results lie on the CPU and the network does not.
        """
        at_once = self._tiles_at_once
        groups = [places[start : start + at_once] for start in range(0, len(places), at_once)]
        # Of several small images there is a bar for all cases already.
        progress = tqdm(desc="tiles", total=len(places), disable=not self.allow_tqdm or len(images) > 1, leave=False)
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as adder, progress:
            reading = reader.submit(_read_tiles, images, groups[0], self.device)
            adding: Future[None] | None = None
            for number, group in enumerate(groups, start=1):
                tiles = reading.result()
                if number < len(groups):
                    reading = reader.submit(_read_tiles, images, groups[number], self.device)
                logits = self._predict_group(tiles)
                if adding is not None:
                    adding.result()
                adding = adder.submit(_add_tiles, sums, weight, logits, group)
                progress.update(len(group))
            if adding is not None:
                adding.result()

    def _predict_group(self, tiles: Tensor) -> Tensor:
        """Predict tiles, (T, C, *patch) to (T, K, *patch), in smaller batches when memory runs out."""
        while True:
            try:
                parts = torch.split(tiles, self._tiles_at_once)
                return torch.cat([self._internal_maybe_mirror_and_predict(part) for part in parts])
            except RuntimeError as error:
                if not is_out_of_memory(error) or self.samples_at_once == 1:
                    raise
                self._fits = self.samples_at_once // 2
            # Here, not above: while the error is handled, its frames keep their memory.
            empty_cache(self.device)

    @torch.inference_mode()
    def _internal_maybe_mirror_and_predict(self, x: Tensor) -> Tensor:
        """Predict tiles, and the mean of their mirrored copies if there are any, as far as a batch goes.

        Args:
            x: (T, C, *patch), on the network's device.

        Returns:
            logits, (T, K, *patch).
        """
        mirrorings = self._mirrorings(x.ndim - 2)
        together = max(1, self.samples_at_once // len(x))
        total: Tensor | None = None
        for start in range(0, len(mirrorings), together):
            some = mirrorings[start : start + together]
            copies = [torch.flip(x, axes) if axes else x for axes in some]
            logits = self._call_network(torch.cat(copies) if len(copies) > 1 else copies[0])
            for axes, part in zip(some, torch.split(logits, len(x)), strict=True):
                upright = torch.flip(part, axes) if axes else part
                # One after the other in the network's own precision, as nnU-Net adds them.
                total = upright if total is None else total.add_(upright)
        assert total is not None  # there is always the unmirrored copy
        return total.div_(len(mirrorings)) if len(mirrorings) > 1 else total

    def _call_network(self, samples: Tensor) -> Tensor:
        """Call the network, (B, C, *patch) to (B, K, *patch), with the last sample again where a batch is filled up.

        The wrapper for training on several GPUs is left out: it would exchange batch norm's statistics at
        every call, and processes with fewer tiles would leave the others waiting.
        """
        network = self.network.module if isinstance(self.network, DistributedDataParallel) else self.network
        count = len(samples)
        missing = self._padded_length(count, isinstance(network, OptimizedModule)) - count
        if missing > 0:  # not zeros, which may lead a norm to divide by nothing
            samples = torch.cat([samples, samples[-1:].expand(missing, *samples.shape[1:])])
        logits: Tensor = network(samples)
        return logits[:count]

    def _padded_length(self, samples: int, compiled: bool) -> int:
        """Give the samples to fill a batch up to that is not full: an image's last.

        A new batch size costs a compiled network a minute of compiling, so there is one only. On a GPU it
        costs cuDNN's search for its fastest algorithms, so there are a few, halves of each other, and less
        than half of such a batch is filling. On the CPU it costs nothing.
        """
        if not compiled and self.device.type == "cpu":
            return samples
        copies = len(self._mirrorings(len(self.configuration_manager.patch_size)))
        full = min(self.samples_at_once, self._tiles_at_once * copies)
        length = max(samples, full)
        while not compiled and length % 2 == 0 and length // 2 >= samples:
            length //= 2
        return length


@torch.inference_mode()
def _read_tiles(images: Sequence[Tensor], places: Sequence[Place], device: torch.device) -> Tensor:
    """Cut tiles, (T, C, *patch), from images, (C, *image), and send them to the network's device."""
    return torch.stack([images[number][place] for number, place in places]).to(device)


@torch.inference_mode()
def _add_tiles(sums: Sequence[Sums], weight: Tensor | int, logits: Tensor, places: Sequence[Place]) -> None:
    """Add tiles' logits, (T, K, *patch), on any device, to the sums of their images; they are changed in place."""
    logits = logits.to(sums[0][0].device)
    logits *= weight
    for tile, (number, place) in zip(logits, places, strict=True):
        total, weights = sums[number]
        # Indices and slices give views, so this adds in place; ``total[place] += tile`` would also copy the sum
        # onto itself.
        total[place].add_(tile)
        weights[place[1:]].add_(weight)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out, by its words; other devices than CUDA have no class for it."""
    return isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in _OUT_OF_MEMORY)
