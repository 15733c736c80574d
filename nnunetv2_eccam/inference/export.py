"""A trained model as one file for other programs: ONNX, or the weights of the folded network."""

import contextlib
import io
import logging
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import written_whole
from nnunetv2_eccam.inference.folding import folded
from nnunetv2_eccam.inference.trained_model import CHECKPOINT, load_predictor

LARGEST_DIFFERENCE = 1e-3
"""Of a logit from PyTorch's, as a share of the largest logit: above it nothing is written. Single precision's own
noise through a deep network is some 1e-5."""

TIMED_CALLS = 7
"""Calls of each network that are timed."""


class LoadedModel(NamedTuple):
    """What an export needs of a trained model.

    Attributes:
        network: in eval mode, without deep supervision.
        weights: of each fold.
        halvings: what a size must be a multiple of, per axis, so that nothing is padded.
    """

    network: nn.Module
    weights: dict[str, dict[str, Tensor]]
    channels: int
    patch: list[int]
    halvings: list[int]


def load_model(folder: Path, folds: Sequence[str] | None, checkpoint: str = CHECKPOINT) -> LoadedModel:
    """Load a model's folds, those that are there if none are named, on the CPU.

    Raises:
        UserError: see :func:`nnunetv2_eccam.inference.trained_model.checked_model`.
    """
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

    predictor, found = load_predictor(folder, folds, checkpoint, device=torch.device("cpu"))
    configuration = predictor.configuration_manager
    channels = determine_num_input_channels(predictor.plans_manager, configuration, predictor.dataset_json)
    patch = [int(n) for n in configuration.patch_size]
    strides = [np.broadcast_to(each, len(patch)) for each in configuration.network_arch_init_kwargs["strides"]]
    halvings = np.prod(strides, axis=0).tolist()
    network = getattr(predictor.network, "_orig_mod", predictor.network).eval()
    weights = dict(zip(found, predictor.list_of_parameters, strict=True))
    return LoadedModel(network, weights, channels, patch, halvings)


def export_model(
    model: LoadedModel, target: Path, size: Sequence[int] | None = None, dynamic: bool = False
) -> list[str]:
    """Write one file for each fold, and check each against PyTorch before it appears.

    Args:
        model: the folds.
        target: ``.onnx``, or ``.pth`` or ``.pt`` for the weights alone. Of several folds the files are called
            ``NAME_fold_0.onnx`` and so on: nnU-Net averages their logits.
        size: voxels per axis of the ONNX input; None: the patch, which nnU-Net cuts images into.
        dynamic: any size that is a multiple of the network's halvings, instead. The batch is free in any case.

    Returns:
        A line on each file: how far its logits are from PyTorch's, and how long a tile takes through it and through
        PyTorch's network on this CPU, the medians of calls in turn.

    Raises:
        UserError: the network cannot be exported, or the file gives other logits; then no file is left.
    """
    if target.suffix not in (".onnx", ".pth", ".pt"):
        raise UserError(f"-o {target} must end in .onnx, or in .pth for the weights alone")
    size = list(size or model.patch)
    if len(size) != len(model.patch):
        raise UserError(f"the model is of {len(model.patch)} dimensions, --size has {len(size)} numbers")
    if target.suffix == ".onnx":
        _check_installed()
    target.parent.mkdir(parents=True, exist_ok=True)
    said = []
    for fold, weights in model.weights.items():
        path = target if len(model.weights) == 1 else target.with_stem(f"{target.stem}_fold_{fold}")
        model.network.load_state_dict(weights)
        network = folded(model.network)
        with written_whole(path) as partial:
            if target.suffix == ".onnx":
                larger = [n + step for n, step in zip(size, model.halvings, strict=True)]
                shapes = [(1, *size), (2, *size), *([(1, *larger)] if dynamic else [])]
                _write_onnx(network, partial, model, size, dynamic)
                given: Any = _by_onnxruntime(partial)
            else:
                shapes = [(1, *size)]
                torch.save(network.state_dict(), partial)
                network.load_state_dict(torch.load(partial, weights_only=True))
                given = network
            difference, largest = _compared(model.network, given, model.channels, shapes)
            if not difference <= LARGEST_DIFFERENCE * largest:
                raise UserError(
                    f"{path} would give other logits than PyTorch: they differ by {difference:.2g} where the largest "
                    f"is {largest:.2g}; nothing was written"
                )
            ours, torchs = _seconds(given, model.network, torch.randn(1, model.channels, *size))
        said.append(
            f"{path}: fold {fold}, {path.stat().st_size / 2**20:.1f} MiB; logits differ from PyTorch's by "
            f"{difference:.1e} at most, the largest is {largest:.1f}; a tile takes {1e3 * ours:.0f} ms on this CPU, "
            f"through PyTorch {1e3 * torchs:.0f} ms"
        )
    return said


def _check_installed() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"ONNX needs {error.name}: pip install 'nnunetv2-eccam[export]'") from error


def _write_onnx(network: nn.Module, path: Path, model: LoadedModel, size: Sequence[int], dynamic: bool) -> None:
    axes = ["depth", "height", "width"][-len(size) :]
    shape: dict[int, Any] = {0: torch.export.Dim("batch", min=1)}
    if dynamic:
        for axis, (name, step) in enumerate(zip(axes, model.halvings, strict=True), start=2):
            shape[axis] = step * torch.export.Dim(f"{name}_over_{step}", min=1) if step > 1 else torch.export.Dim(name)
    image = torch.randn(2, model.channels, *size)
    try:
        with _silent():
            torch.onnx.export(
                network, (image,), os.fspath(path), dynamo=True, external_data=False, input_names=["image"],
                output_names=["logits"], dynamic_shapes=(shape,), verbose=False,
            )  # fmt: skip
    except Exception as error:  # torch has an error for each thing that it cannot export
        reason = " ".join(str(error).split())[:300]
        advice = "; without --dynamic its size is fixed" if dynamic else ""
        raise UserError(f"this network cannot be exported{advice}: {reason}") from error


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep torch's exporter from telling what it tries; its error says enough."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        out, err = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
        with out, err, warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


def _by_onnxruntime(path: Path) -> Callable[[Tensor], Tensor]:
    """Give a file as a function that runs it on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


@torch.inference_mode()
def _compared(network: nn.Module, other: Any, channels: int, shapes: Sequence[Sequence[int]]) -> tuple[float, float]:
    """Give the largest difference of logits on random images, and the largest logit."""
    torch.manual_seed(0)
    difference = largest = 0.0
    for batch, *size in shapes:
        image = torch.randn(batch, channels, *size)
        expected = network(image)
        difference = max(difference, float((other(image) - expected).abs().max()))
        largest = max(largest, float(expected.abs().max()))
    return difference, largest


@torch.inference_mode()
def _seconds(first: Any, second: Any, image: Tensor) -> tuple[float, float]:
    """Give the median time of each network's calls, in turn."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(TIMED_CALLS):
        for seconds, network in zip(taken, (first, second), strict=True):
            start = time.perf_counter()
            network(image)
            seconds.append(time.perf_counter() - start)
    return statistics.median(taken[0]), statistics.median(taken[1])
