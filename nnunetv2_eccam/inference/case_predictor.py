"""``CasePredictor``: many cases, from files or arrays, through a network that is kept busy."""

import math
import os
import sys
import traceback
from collections.abc import Callable, Generator, Iterable, Sequence, Sized
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from nnunetv2.configuration import default_num_processes
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
    export_prediction_from_logits,
)
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.utilities.helpers import empty_cache
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.inference.batched_predictor import BatchedPredictor
from nnunetv2_eccam.inference.cases import CasesFailed, Failure, case_from_array, case_from_files, find_cases, reason_of
from nnunetv2_eccam.inference.trained_model import CHECKPOINT, check_device, checked_model
from nnunetv2_eccam.inference.work_ahead import WorkAhead

AHEAD_BYTES = 2**30
"""Bytes of preprocessed cases, and of logits to be written, that may wait for their turn."""

BATCHES_TOGETHER = 4
"""Largest batches that cases are taken together for: more would only leave the first of them waiting."""

BYTES_TOGETHER = 2**29
"""Bytes of images and logits of the cases that are taken together; a larger case goes alone."""


class CasePredictor(BatchedPredictor):
    """Predict files and arrays as nnU-Net, with batches that go across cases.

    Reading and preprocessing, the network, and writing run beside each other, in threads, in the order of the cases.
    A case that cannot be read, predicted or written is named and left out; once the others are done,
    :class:`CasesFailed` tells which. A file appears whole or not at all.

    nnU-Net's methods keep their arguments; numbers of processes are numbers of threads here.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._failed: list[Failure] = []  # of the cases that are being predicted

    def initialize_from_trained_model_folder(
        self, model_training_output_dir: str, use_folds: Any, checkpoint_name: str = CHECKPOINT
    ) -> None:
        """Load a model as nnU-Net does.

        Raises:
            UserError: torch cannot use the device, or something of the model is missing or broken.
        """
        check_device(self.device.type)
        with checked_model(Path(model_training_output_dir), use_folds, checkpoint_name):
            super().initialize_from_trained_model_folder(model_training_output_dir, use_folds, checkpoint_name)

    def predict_from_files_sequential(
        self,
        list_of_lists_or_source_folder: Any,
        output_folder_or_list_of_truncated_output_files: Any,
        save_probabilities: bool = False,
        overwrite: bool = True,
        folder_with_segs_from_prev_stage: str | None = None,
    ) -> Any:
        """Do what ``predict_from_files`` does with one thread for reading and one for writing."""
        files = list_of_lists_or_source_folder, output_folder_or_list_of_truncated_output_files
        return self.predict_from_files(*files, save_probabilities, overwrite, 1, 1, folder_with_segs_from_prev_stage)

    def _manage_input_and_output_lists(self, source: Any, *args: Any, **kwargs: Any) -> Any:
        self._failed = []
        if isinstance(source, str):
            source, self._failed = find_cases(Path(source), self.dataset_json["file_ending"])
            for failure in self._failed:
                self._tell(failure)
        lists = super()._manage_input_and_output_lists(source, *args, **kwargs)
        if not lists[0]:
            self._raise_failed(None)
        return lists

    def _internal_get_data_iterator_from_lists_of_filenames(
        self,
        input_list_of_lists: Sequence[Sequence[str]],
        seg_from_prev_stage_files: Sequence[str | None] | None,
        output_filenames_truncated: Sequence[str] | None,
        num_processes: int,
    ) -> WorkAhead[int, dict[str, Any] | Failure]:
        ending = len(self.dataset_json["file_ending"]) + len("_0000")
        names = [os.path.basename(files[0])[:-ending] for files in input_list_of_lists]
        jobs = list(zip(input_list_of_lists, seg_from_prev_stage_files or [None] * len(names), strict=True))
        return self._ahead(case_from_files, names, jobs, output_filenames_truncated, num_processes)

    def get_data_iterator_from_raw_npy_data(
        self,
        image_or_list_of_images: Any,
        segs_from_prev_stage_or_list_of_segs_from_prev_stage: Any,
        properties_or_list_of_properties: Any,
        truncated_ofname: Any,
        num_processes: int = 3,
    ) -> WorkAhead[int, dict[str, Any] | Failure]:
        """Preprocess arrays in threads; see nnU-Net's method."""

        def listed(value: Any) -> Any:
            return value if value is None or isinstance(value, list) else [value]

        images, previous = listed(image_or_list_of_images), listed(segs_from_prev_stage_or_list_of_segs_from_prev_stage)
        properties, outputs = listed(properties_or_list_of_properties), listed(truncated_ofname)
        names = [os.path.basename(name) for name in outputs] if outputs else [f"image {n}" for n in range(len(images))]
        jobs = list(zip(images, previous or [None] * len(images), properties, strict=True))
        return self._ahead(case_from_array, names, jobs, outputs, num_processes)

    def _ahead(
        self,
        read: Callable[..., tuple[Tensor, dict[str, Any]]],
        names: Sequence[str],
        jobs: Sequence[Any],
        outputs: Sequence[str] | None,
        threads: int,
    ) -> WorkAhead[int, dict[str, Any] | Failure]:
        def item(index: int) -> dict[str, Any] | Failure:
            try:
                data, properties = read(self, *jobs[index])
            except Exception as error:  # each library has its own for a damaged file
                return self._failure(names[index], error)
            return {"data": data, "data_properties": properties, "ofile": outputs[index] if outputs else None}

        def size(item: dict[str, Any] | Failure) -> int:
            return 0 if isinstance(item, Failure) else int(item["data"].nbytes)

        return WorkAhead(item, range(len(jobs)), threads, AHEAD_BYTES, size)

    def predict_from_data_iterator(
        self,
        data_iterator: Iterable[Any],
        save_probabilities: bool = False,
        num_processes_segmentation_export: int = default_num_processes,
    ) -> list[Any]:
        """Predict preprocessed cases, several at a time, and write them or give them back.

        Args:
            data_iterator: gives nnU-Net's dicts (data, ofile, data_properties), or :class:`Failure`.
            save_probabilities: whether probabilities are written or given, too.
            num_processes_segmentation_export: threads that write.

        Returns:
            for each case None, where ``ofile`` is given, or what nnU-Net gives: the segmentation.

        Raises:
            CasesFailed: some could not be predicted.
        """
        results: list[Future[Any] | Failure] = []
        writing: dict[Future[Any], int] = {}  # and the bytes that wait with it
        threads = max(1, num_processes_segmentation_export)
        total = len(data_iterator) if isinstance(data_iterator, Sized) else None
        bar = tqdm(desc="cases", total=total, disable=not self.allow_tqdm)
        # Closed whatever happens: an error's traceback keeps this frame, and threads that read would wait for ever.
        with closing(self._groups(data_iterator)) as groups, bar, ThreadPoolExecutor(threads) as writer:
            for group in groups:
                cases = [item for item in group if not isinstance(item, Failure)]
                logits = iter(self.predict_logits([item["data"] for item in cases]))
                for item in group:
                    if isinstance(item, Failure):
                        results.append(item)
                        continue
                    writing = {each: size for each, size in writing.items() if not each.done()}
                    while len(writing) > threads and sum(writing.values()) >= AHEAD_BYTES:
                        done, _ = wait(writing, return_when=FIRST_COMPLETED)
                        writing = {each: size for each, size in writing.items() if each not in done}
                    found = next(logits)
                    job = (found, item["data_properties"], item["ofile"], save_probabilities, len(results))
                    future = writer.submit(self._export, *job)
                    writing[future] = found.nbytes
                    results.append(future)
                bar.update(len(group))
        given = [each if isinstance(each, Failure) else each.result() for each in results]
        self._failed += [each for each in given if isinstance(each, Failure)]
        compute_gaussian.cache_clear()
        empty_cache(self.device)
        given = [None if isinstance(each, Failure) else each for each in given]
        self._raise_failed(given)
        return given

    def _groups(self, items: Iterable[Any]) -> Generator[list[Any], None, None]:
        """Take cases together until they fill some batches, within a bound of memory."""
        heads = self.label_manager.num_segmentation_heads
        group: list[Any] = []
        samples = size = 0
        for item in items:
            n = more = 0
            if not isinstance(item, Failure):
                n = self.samples_of(item["data"])
                more = item["data"].nbytes + (2 * heads + 2) * math.prod(item["data"].shape[1:])
            if group and (samples + n > BATCHES_TOGETHER * self.samples_at_once or size + more > BYTES_TOGETHER):
                yield group
                group, samples, size = [], 0, 0
            group.append(item)
            samples, size = samples + n, size + more
        if group:
            yield group

    def _export(
        self, logits: Tensor, properties: dict[str, Any], output: str | None, save_probabilities: bool, index: int
    ) -> Any:
        """Write one case, whole or not at all, or give what would be written; in a thread."""
        # On the CPU a thread that asked for another number would change it for the network, too.
        threads = torch.get_num_threads() if self.device.type == "cpu" else default_num_processes
        plans, configuration, dataset = self.plans_manager, self.configuration_manager, self.dataset_json
        folder, name = os.path.split(output) if output else ("", f"image {index}")
        partial = os.path.join(folder, f".partial_{name}")
        endings = [*([".npz", ".pkl"] if save_probabilities else []), dataset["file_ending"]] if output else []
        try:
            array = _finite(logits)
            if output is None:
                return convert_predicted_logits_to_segmentation_with_correct_shape(
                    array, plans, configuration, self.label_manager, properties, save_probabilities, threads
                )
            export_prediction_from_logits(
                array, properties, configuration, plans, dataset, partial, save_probabilities, threads
            )
            for ending in endings:
                os.replace(partial + ending, output + ending)
        except Exception as error:
            return self._failure(name, error)
        finally:
            for ending in endings:
                Path(partial + ending).unlink(missing_ok=True)
        return None

    def _failure(self, case: str, error: Exception) -> Failure:
        """Make of an error what is wrong with a case, and say so at once; in a thread."""
        if self.verbose:
            traceback.print_exception(error)
        return self._tell(Failure(case, reason_of(error)))

    def _tell(self, failure: Failure) -> Failure:
        tqdm.write(f"{failure.case} cannot be predicted: {failure.reason}", file=sys.stderr)
        return failure

    def _raise_failed(self, results: list[Any] | None) -> None:
        if self._failed:
            failed, self._failed = self._failed, []
            raise CasesFailed(failed, results)


def _finite(logits: Tensor) -> NDArray[Any]:
    if not bool(torch.isfinite(logits).all()):
        raise UserError("the network's logits are not finite, or too large for half precision, in which they are added")
    array: NDArray[Any] = logits.numpy()
    return array
