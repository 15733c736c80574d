"""``BatchedPredictor``: nnU-Net's predictor with several tiles, of one image or more, in one call of the network."""

from __future__ import annotations

import itertools
import math
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import nullcontext
from operator import itemgetter
from typing import Any

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.configuration import default_num_processes
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from nnunetv2.utilities.helpers import empty_cache
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from nnunetv2_eccam.inference import measurement
from nnunetv2_eccam.inference.batch_choice import BatchChoice
from nnunetv2_eccam.inference.logit_sum import LogitSum

Place = tuple[Any, ...]
"""Where a tile lies in (C, *image): one of nnU-Net's slicers. A 2D tile has a number for the first axis."""


class BatchedPredictor(nnUNetPredictor):
    """Predict preprocessed images as nnU-Net, equal within float tolerance, in fewer and larger calls of the network.

    A *sample* is one tile in one of its mirrored copies. A batch holds whole tiles with all their copies, of one image
    or of several, or, where that is too much, some copies of one tile. The batch size is measured while predicting
    (:class:`BatchChoice`), anew for each size of tile.

    Tiles, folds, padding, precision and the second attempt with results on the CPU are nnU-Net's.

    Args:
        args: nnU-Net's.
        batch_size: samples in one call of the network at most, or None to measure.
        kwargs: nnU-Net's.
    """

    batch_size: int | None = None
    """Samples in one call of the network at most, or None to measure; a subclass may set it."""

    def __init__(self, *args: Any, batch_size: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if batch_size is not None:
            self.batch_size = batch_size
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        self._choices: dict[tuple[Any, ...], BatchChoice] = {}
        self._choice = BatchChoice(1, fixed=1)  # outside of an image: nnU-Net's own way

    def predict_logits_from_preprocessed_data(self, data: Tensor) -> Tensor:
        """Predict one image, (C, *image) with three axes, with every fold; see :meth:`predict_logits`."""
        return self.predict_logits([data])[0]

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
        if not images:
            return []
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
        self.network.to(self.device).eval()
        patch = self.configuration_manager.patch_size
        padded, kept = [], []
        for image in images:
            data, inside = pad_nd_image(image, patch, "constant", {"value": 0}, True, None)
            padded.append(data)
            kept.append((slice(None), *inside[1:]))
        places = [self._internal_get_sliding_window_slicers(data.shape[1:]) for data in padded]
        with torch.autocast("cuda") if self.device.type == "cuda" else nullcontext():
            try:
                logits = self._predict_padded(padded, places, self.perform_everything_on_device)
            except RuntimeError:
                if not self.perform_everything_on_device:
                    raise
                print("Prediction on device was unsuccessful, probably for lack of memory. Moving results to the CPU")
                logits = self._predict_padded(padded, places, False)
        return [found[inside] for found, inside in zip(logits, kept, strict=True)]

    def samples_of(self, image: Tensor) -> int:
        """Give how many samples an image, (C, *image) with three axes, has."""
        patch = self.configuration_manager.patch_size
        size = [max(n, tile) for n, tile in zip(image.shape[-len(patch) :], patch, strict=True)]
        tiles = math.prod(map(len, compute_steps_for_sliding_window(size, patch, self.tile_step_size)))
        slices = image.shape[1] if len(patch) < image.ndim - 1 else 1
        return slices * tiles * len(self._mirrorings(len(patch)))

    def _predict_padded(
        self, images: Sequence[Tensor], places: Sequence[Sequence[Place]], do_on_device: bool
    ) -> list[Tensor]:
        """Predict padded images, each with the places of its tiles."""
        results_device = self.device if do_on_device else torch.device("cpu")
        try:
            images = [image.to(results_device) for image in images]
            weight = self._tile_weight(results_device)
            heads = self.label_manager.num_segmentation_heads
            sums = [LogitSum(heads, image.shape[1:], weight, results_device) for image in images]
            self._choice = self._choice_for(images[0].shape[0], do_on_device)
            self._choice.start_image(measurement.usable_memory(self.device))
            self._predict_tiles(images, [(n, place) for n, some in enumerate(places) for place in some], sums)
            self._choice.finish_image()
            if self.verbose:
                print(f"batch size {self._choice.size}{'' if self._choice.settled else ', still measuring'}")
            return [each.mean() for each in sums]
        except Exception as error:
            # It is tried again with the results on the CPU, so the device's memory has to be free; but the frames
            # that the error came through hold on to it.
            images = weight = sums = None  # type: ignore[assignment]
            traceback.clear_frames(error.__traceback__)
            empty_cache(self.device)
            raise

    @torch.inference_mode()
    def _internal_maybe_mirror_and_predict(self, x: Tensor) -> Tensor:
        """Predict tiles, and the mean of their mirrored copies if there are any, as far as a batch goes.

        Args:
            x: (T, C, *patch), on the network's device.

        Returns:
            logits, (T, K, *patch).
        """
        mirrorings = self._mirrorings(x.ndim - 2)
        together = max(1, self._choice.size // len(x))
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

    def _tile_weight(self, device: torch.device) -> Tensor | int:
        if not self.use_gaussian:
            return 1
        weight: Tensor = compute_gaussian(
            tuple(self.configuration_manager.patch_size), sigma_scale=1.0 / 8, value_scaling_factor=10, device=device
        )
        return weight

    def _choice_for(self, channels: int, do_on_device: bool) -> BatchChoice:
        # Where the results lie decides how much memory is left.
        key = (id(self.network), channels, tuple(self.configuration_manager.patch_size), do_on_device)
        if key not in self._choices:
            self._choices[key] = BatchChoice(measurement.largest_batch(self.device), self.batch_size)
        return self._choices[key]

    def _mirrorings(self, dimension: int) -> list[tuple[int, ...]]:
        """Give the axes of (B, C, *patch) that each copy is mirrored along, the unmirrored copy first."""
        allowed = self.allowed_mirroring_axes if self.use_mirroring else None
        axes = [axis + 2 for axis in allowed or ()]
        if axes and max(axes) > dimension + 1:
            raise ValueError(f"the model allows mirroring along the axes {allowed}, its tiles have {dimension} axes")
        return [some for n in range(len(axes) + 1) for some in itertools.combinations(axes, n)]

    @property
    def _tiles_at_once(self) -> int:
        return max(1, self._choice.size // len(self._mirrorings(len(self.configuration_manager.patch_size))))

    @property
    def _full_batch(self) -> int:
        """Samples of a batch with as many tiles as go in: fewer than its size where copies do not fill it."""
        copies = len(self._mirrorings(len(self.configuration_manager.patch_size)))
        return min(self._choice.size, self._tiles_at_once * copies)

    def _predict_tiles(
        self, images: Sequence[Tensor], places: Sequence[tuple[int, Place]], sums: Sequence[LogitSum]
    ) -> None:
        """Cut the images' tiles, predict and add them up.

        Where images and results lie on the CPU and the network does not, a thread cuts and sends the next
        tiles and another fetches and adds the last ones while the network runs. On one device there is
        nothing to gain: calls of a GPU return at once anyway, and on the CPU the network uses all threads.
        """
        apart = images[0].device.type != self.device.type
        # Of several small images there is a bar for all cases already.
        progress = tqdm(desc="tiles", total=len(places), disable=not self.allow_tqdm or len(images) > 1, leave=False)
        with _executor(apart) as reader, _executor(apart) as adder, progress:
            adding: Future[None] | None = None
            for group, tiles in self._read_ahead(images, places, reader):
                logits = self._predict_group(tiles)
                if adding is not None:
                    adding.result()
                adding = adder.submit(_add_tiles, sums, logits, group)
                progress.update(len(group))
            if adding is not None:
                adding.result()

    def _read_ahead(
        self, images: Sequence[Tensor], places: Sequence[tuple[int, Place]], reader: Executor
    ) -> Iterator[tuple[Sequence[tuple[int, Place]], Tensor]]:
        """Give groups of places with their tiles, one group being read beforehand."""
        ahead: tuple[Sequence[tuple[int, Place]], Future[Tensor]] | None = None
        start = 0
        while start < len(places):
            group = places[start : start + self._tiles_at_once]
            start += len(group)
            ready, ahead = ahead, (group, reader.submit(_read_tiles, images, group, self.device))
            if ready is not None:
                yield ready[0], ready[1].result()
        if ahead is not None:
            yield ahead[0], ahead[1].result()

    def _predict_group(self, tiles: Tensor) -> Tensor:
        """Predict tiles, (T, C, *patch) to (T, K, *patch), in smaller batches when memory runs out."""
        while True:
            try:
                parts = [
                    self._internal_maybe_mirror_and_predict(part) for part in torch.split(tiles, self._tiles_at_once)
                ]
                return torch.cat(parts) if len(parts) > 1 else parts[0]
            except RuntimeError as error:
                if not measurement.is_out_of_memory(error) or not self._choice.halve():
                    raise
            # Here, not above: while the error is handled, its frames keep their memory.
            empty_cache(self.device)

    def _call_network(self, samples: Tensor) -> Tensor:
        """Call the network, (B, C, *patch) to (B, K, *patch), and measure it while the batch is not settled.

        The wrapper for training on several GPUs is left out: it would exchange batch norm's statistics at
        every call, and processes with fewer tiles would leave the others waiting. A compiled network is
        called in eager mode while sizes are tried, since it would compile for each.
        """
        network = self.network
        if isinstance(network, DistributedDataParallel):
            network = network.module
        compiled = isinstance(network, OptimizedModule)
        if not self._choice.settled:
            return self._measure(network._orig_mod if compiled else network, samples)
        missing = self._padded_length(len(samples), compiled) - len(samples)
        if missing > 0:
            # The last sample again, rather than zeros, which may lead a norm to divide by nothing.
            samples = torch.cat([samples, samples[-1:].expand(missing, *samples.shape[1:])])
        logits: Tensor = network(samples)
        return logits[: len(logits) - missing] if missing > 0 else logits

    def _measure(self, network: nn.Module, samples: Tensor) -> Tensor:
        logits, cost = measurement.measured_call(network, samples)
        self._choice.record(len(samples), cost.seconds, cost.used, measurement.usable_memory(self.device))
        return logits

    def _padded_length(self, samples: int, compiled: bool) -> int:
        """Give the samples to fill a batch up to that is not full: an image's last.

        A new batch size costs a compiled network a minute of compiling, so there is one only. On a GPU it
        costs cuDNN's search for its fastest algorithms, so there are a few, halves of each other, and less
        than half of such a batch is filling. On the CPU it costs nothing.
        """
        if not compiled and self.device.type == "cpu":
            return samples
        length = max(samples, self._full_batch)
        while not compiled and length % 2 == 0 and length // 2 >= samples:
            length //= 2
        return length


@torch.inference_mode()
def _read_tiles(images: Sequence[Tensor], places: Sequence[tuple[int, Place]], device: torch.device) -> Tensor:
    """Cut tiles, (T, C, *patch), from images, (C, *image), and send them to the network's device."""
    return torch.stack([images[number][place] for number, place in places]).to(device)


def _add_tiles(sums: Sequence[LogitSum], logits: Tensor, places: Sequence[tuple[int, Place]]) -> None:
    """Add tiles' logits, (T, K, *patch), to the sums of their images."""
    start = 0
    for number, of_image in itertools.groupby(places, key=itemgetter(0)):
        some = [place for _, place in of_image]
        sums[number].add(logits[start : start + len(some)], some)
        start += len(some)


class _SameThread(Executor):
    """Does what is submitted at once."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def _executor(apart: bool) -> Executor:
    return ThreadPoolExecutor(max_workers=1) if apart else _SameThread()
