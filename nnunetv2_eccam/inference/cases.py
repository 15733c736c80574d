"""Cases to predict: found in a folder, read, checked and preprocessed, each by itself."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.volumes import ending_of, hidden_line, list_volumes, present_file, read_image
from nnunetv2_eccam.volumes.volume import by

UNCHECKED = (".nii.gz", ".nii", ".gipl", ".tif", ".tiff")
"""Endings of files that nnU-Net's readers take damaged, and fill up with zeros."""


class Failure(NamedTuple):
    """A case that cannot be predicted, and why."""

    case: str
    reason: str


class CasesFailed(UserError):
    """Some cases could not be predicted; all others are done.

    Attributes:
        failed: why, by case.
        results: of a list of arrays, in its order, None for those that failed; of files, None.
    """

    def __init__(self, failed: Sequence[Failure], results: list[Any] | None) -> None:
        lines = "".join(f"\n  {case}: {reason}" for case, reason in failed)
        super().__init__(f"{len(failed)} could not be predicted, all others are done:{lines}")
        self.failed, self.results = dict(failed), results


def find_cases(folder: Path, ending: str) -> tuple[list[list[str]], list[Failure]]:
    """Find a folder's cases, as nnU-Net does: ``case_0000`` and so on, a number for each channel.

    Hidden files (macOS and some archives leave ``._case_0000.nii.gz``) are passed over with one line.

    Returns:
        the files of each case, sorted; and what is no case though its name ends so.

    Raises:
        UserError: there is no such folder, or no image in it.
    """
    volumes = list_volumes(folder, ending)
    if line := hidden_line(folder):
        print(line, file=sys.stderr)
    cases: dict[str, list[str]] = {}
    failures = []
    for name, path in volumes.items():
        if match := re.fullmatch(r"(.+)_\d{4}", name):
            cases.setdefault(match[1], []).append(str(path))
        else:
            failures.append(Failure(path.name, f"its name has no number of a channel, as case_0000{ending} has"))
    if not cases:
        raise UserError(
            f"{folder} has no images of this data set: their names end in _0000{ending}, _0001{ending} and so on, one "
            f"for each channel"
        )
    # Names sort otherwise than cases do: a_b_0000 stands before a_0000.
    return [cases[case] for case in sorted(cases)], failures


def case_from_files(predictor: Any, files: Sequence[str], previous: str | None) -> tuple[Tensor, dict[str, Any]]:
    """Read and preprocess one case as nnU-Net does.

    Args:
        predictor: nnU-Net's, with a model.
        files: one for each channel, or one with all of them.
        previous: segmentation of a cascade's first stage.

    Returns:
        the case as the network is given it, (C, *image) with three axes; and what nnU-Net notes of it.

    Raises:
        UserError: a file is damaged, or there are more or fewer channels than the model takes.
    """
    for file in files:
        present_file(Path(file))
        if ending_of(Path(file)) in UNCHECKED:
            read_image(Path(file))
    reader = predictor.plans_manager.image_reader_writer_class()
    image, properties = _read(reader, files)
    segmentation = None
    if previous is not None:
        if not os.path.isfile(previous):
            raise UserError(f"{previous} is missing, the segmentation of the cascade's first stage")
        segmentation, _ = reader.read_seg(previous)
    return case_from_array(predictor, image, segmentation, properties, files)


def case_from_array(
    predictor: Any,
    image: NDArray[Any],
    previous: NDArray[Any] | None,
    properties: dict[str, Any],
    files: Sequence[str] = (),
) -> tuple[Tensor, dict[str, Any]]:
    """Preprocess one case, (C, *image) with three axes, which may be of files; see :func:`case_from_files`."""
    from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot

    plans, configuration, dataset = predictor.plans_manager, predictor.configuration_manager, predictor.dataset_json
    _check(image, files, list(map(str, (dataset.get("channel_names") or dataset["modality"]).values())))
    if previous is not None and previous.shape[1:] != image.shape[1:]:
        raise UserError(
            f"its image is of {by(image.shape[1:])} voxels, the first stage's segmentation of {by(previous.shape[1:])}"
        )
    preprocessor = configuration.preprocessor_class(verbose=predictor.verbose_preprocessing)
    data, onto, properties = preprocessor.run_case_npy(image, previous, properties, plans, configuration, dataset)
    if previous is not None:
        labels = plans.get_label_manager(dataset).foreground_labels
        data = np.vstack((data, convert_labelmap_to_one_hot(onto[0], labels, data.dtype)))
    return torch.from_numpy(data).to(dtype=torch.float32, memory_format=torch.contiguous_format), properties


def _check(image: NDArray[Any], files: Sequence[str], channels: Sequence[str]) -> None:
    names = [os.path.basename(file) for file in files]
    if len(image) != len(channels):
        of_files = f" ({', '.join(names)})" if names else ""
        raise UserError(
            f"it has {len(image)} channels{of_files}, the model takes {len(channels)} ({', '.join(channels)})"
        )
    for number, name in enumerate(names if len(names) == len(image) else ()):
        if not re.search(rf"_{number:04d}\.", name):
            raise UserError(f"{name} stands where the file of channel _{number:04d} should")
    for number, channel in enumerate(image):
        bad = int(np.count_nonzero(~np.isfinite(channel)))
        if bad:
            where = files[number] if len(files) == len(image) else f"channel {number}"
            raise UserError(f"{bad} voxels of {where} are NaN or infinite")


def _read(reader: Any, files: Sequence[str]) -> tuple[NDArray[Any], dict[str, Any]]:
    """Read a case with nnU-Net's reader, whose own error has no words where the files differ."""
    try:
        image, properties = reader.read_images(files)
        return image, properties
    except Exception as error:
        sizes = []
        for file in files:
            try:
                sizes.append(f"{os.path.basename(file)} {by(reader.read_images([file])[0].shape[1:])}")
            except Exception as cause:
                raise UserError(f"{file} cannot be read: {reason_of(cause)}") from cause
        reason = f"its files differ in size or spacing: {', '.join(sizes)}" if len(files) > 1 else reason_of(error)
        raise UserError(reason) from error


def reason_of(error: BaseException) -> str:
    """Say an exception in one line; libraries' own errors may be empty, or a word that needs its kind."""
    words = " ".join(str(error).split())
    return words if isinstance(error, UserError) else f"{type(error).__name__}: {words}".removesuffix(": ")
