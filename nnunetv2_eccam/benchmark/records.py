"""What a benchmark is made of, a training or the prediction of a test set each, and where the files of each lie.

Beside the numbers is kept how each came about: when, where, with what, how long, at what cost.
"""

from __future__ import annotations

import os
import platform
import socket
import zipfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import nnunetv2_eccam
from nnunetv2_eccam.benchmark.spec import Entry, Spec
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import nnunet_folder, read_json, write_json

if TYPE_CHECKING:
    from pandas import DataFrame

KEYS = ("repeat", "dataset", "system", "fold", "subset")
"""What every row of scores says of its origin. ``fold`` is text, empty for test sets; ``subset`` is val or test."""

PACKAGES = ("nnunetv2", "torch", "numpy", "dynamic_network_architectures")
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
"""What batch norm keeps in a network's state beside its parameters."""
LOGGED = {
    "train_losses": "train_loss", "val_losses": "val_loss", "mean_fg_dice": "pseudo_dice",
    "epoch_start_timestamps": "start", "epoch_end_timestamps": "end",
}  # fmt: skip
"""nnU-Net's name of what it logs to the column."""


class Part(NamedTuple):
    """What one training gives, or the prediction of a test set.

    Attributes:
        repeat: from 0.
        dataset: folder name.
        system: trainer, plans and configuration.
        fold: number, or None for the test set, which is predicted by the folds together.
    """

    repeat: int
    dataset: str
    system: Entry
    fold: int | None

    @property
    def stem(self) -> str:
        """What its files begin with."""
        return "test" if self.fold is None else f"fold_{self.fold}"

    @property
    def keys(self) -> dict[str, Any]:
        """The columns :data:`KEYS`."""
        fold, subset = ("", "test") if self.fold is None else (str(self.fold), "val")
        return dict(zip(KEYS, (self.repeat, self.dataset, self.system.title, fold, subset), strict=True))

    def folder(self, parent: Path) -> Path:
        """Give its folder in WORK/scores, WORK/records or WORK/predictions."""
        return parent / f"repeat_{self.repeat}" / self.dataset / self.system.folder

    def model_folder(self, work_dir: Path) -> Path:
        """Give the trained fold's folder."""
        own = work_dir / f"repeat_{self.repeat}" / "nnUNet_results"
        results = own if self.repeat else known_folder("nnUNet_results")
        return results / self.dataset / self.system.model / self.stem

    def predictions(self, work_dir: Path) -> Path:
        """Give the folder of its predicted masks."""
        if self.fold is None:
            return self.folder(work_dir / "predictions") / "test"
        return self.model_folder(work_dir) / "validation"


def known_folder(variable: str) -> Path:
    """Give one of nnU-Net's folders, or, where its environment variable is not set, a path where nothing is."""
    return Path(os.environ.get(variable) or f"${variable}")


def parts_of(spec: Spec) -> Iterator[Part]:
    """List all parts: folds first, then, where they are asked for, test sets."""
    folds: tuple[int | None, ...] = (*spec.folds, *((None,) if spec.predict_test or spec.predict_unlabelled else ()))
    for dataset in spec.datasets:
        for system in spec.trainers:
            for repeat in range(spec.repeats):
                yield from (Part(repeat, dataset, system, fold) for fold in folds)


def stamp(file: Path) -> list[int] | None:
    """Tell a file's state apart from its earlier and later ones: bytes, and nanoseconds of its last change."""
    try:
        found = file.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def machine_record() -> dict[str, Any]:
    """Describe this machine and its software."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "hostname": socket.gethostname(),
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "versions": {
            "python": platform.python_version(),
            "nnunetv2_eccam": nnunetv2_eccam.__version__,
            **{name: metadata.version(name) for name in PACKAGES},
        },
    }


def gpu_energy(gpus: str) -> tuple[str | None, float | None]:
    """Read the energy counters of GPUs by NVML (nvidia-ml-py); Volta and newer ones have them.

    Args:
        gpus: as ``CUDA_VISIBLE_DEVICES`` names them, separated by commas: indices in PCI order, or UUIDs.

    Returns:
        name of the first GPU, and joules since the driver was loaded; None where there is no GPU, NVML or counter: a
        number that is missing is no reason to end a training.
    """
    words = [word.strip() for word in gpus.split(",") if word.strip()]
    try:
        import pynvml

        pynvml.nvmlInit()
        by_index, by_uuid = pynvml.nvmlDeviceGetHandleByIndex, pynvml.nvmlDeviceGetHandleByUUID
        handles = [by_index(int(word)) if word.isdigit() else by_uuid(word) for word in words]
        name = pynvml.nvmlDeviceGetName(handles[0])
        joules = float(sum(map(pynvml.nvmlDeviceGetTotalEnergyConsumption, handles))) / 1000
        return name.decode() if isinstance(name, bytes) else str(name), joules
    except Exception:  # NVML has an error of its own for everything
        return None, None


def begun(before: Mapping[str, Any], command: str, now: str) -> dict[str, Any]:
    """Give the record of a further attempt at a result, by that of the attempts before, which is empty for the first.

    How long it takes and its energy are added when it ends: of one that is killed they are not known.
    """
    return {
        **before, **machine_record(), "commands": [*before.get("commands", ()), command], "energy_joules": None,
        "attempts": before.get("attempts", 0) + 1, "started": before.get("started", now),
    }  # fmt: skip


def training_record(fold: Path, measured: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Give the record of a trained fold, with what its folder tells: epochs, parameters, the checkpoint it is about.

    Args:
        fold: its folder.
        measured: the record of its attempts, see :func:`begun`. None: the whole one that a benchmark has left in the
            folder; of a fold that none has trained, what nnU-Net's own files tell.
    """
    checkpoint, debug = stamp(fold / "checkpoint_final.pth"), read_debug(fold)
    if measured is None:
        file = fold / "eccam_benchmark" / "record.json"
        left = read_json(file) if file.is_file() else None
        if isinstance(left, dict) and left.get("checkpoint") == checkpoint:
            return left
        measured = {
            "hostname": debug.get("hostname"), "started": None, "finished": None, "commands": [],
            "versions": {"torch": debug["torch_version"]} if "torch_version" in debug else {},
            "note": "trained outside this benchmark; from nnU-Net's own files",
        }  # fmt: skip
    epochs = read_epochs(fold)
    by_logs, by_commands = round(float(epochs["seconds"].sum()), 1), float(measured.get("seconds") or 0)
    # The commands' time holds the epochs', unless the training was begun by hand, or a part of it was killed.
    whole = by_commands >= by_logs and by_commands > 0
    return {
        **measured,
        "train_seconds": by_commands if whole else by_logs or None,
        "train_seconds_from": "the commands, with start and validation" if whole else "nnU-Net's own epochs",
        "energy_joules": measured.get("energy_joules") if whole else None,
        "epochs": len(epochs),
        "device": measured.get("device") or str(debug.get("device", "")).partition(":")[0] or None,
        "gpu": measured.get("gpu") or debug.get("gpu_name"),
        "parameters": count_parameters(fold / "checkpoint_final.pth"),
        "checkpoint": checkpoint,
    }


def write_training_records(work: Path, spec: Spec) -> None:
    """Write WORK/records/.../fold_K.json of each fold that is trained, where it is not there for this checkpoint."""
    nnunet_folder("nnUNet_results")  # where it is not known, no training would be found in silence
    for part in parts_of(spec):
        fold, target = part.model_folder(work), part.folder(work / "records") / f"{part.stem}.json"
        checkpoint = stamp(fold / "checkpoint_final.pth")
        if checkpoint and not (target.is_file() and read_json(target).get("checkpoint") == checkpoint):
            target.parent.mkdir(parents=True, exist_ok=True)
            write_json(target, training_record(fold))


def count_parameters(checkpoint: Path) -> int | None:
    """Count the parameters in nnU-Net's checkpoint; one that stands under several names counts once.

    Returns:
        None where the file is no checkpoint of PyTorch's.
    """
    tensors = {
        (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tuple(tensor.shape)): tensor.numel()
        for name, tensor in read_checkpoint(checkpoint).get("network_weights", {}).items()
        if not name.endswith(BUFFERS)
    }
    return int(sum(tensors.values())) or None


def read_epochs(fold: Path) -> DataFrame:
    """Read the epochs of a fold from the checkpoint that a training would go on from, in order.

    Args:
        fold: its folder, ``.../fold_0``; without a checkpoint, there are no epochs.

    Returns:
        A row for each: ``epoch`` from 0; ``train_loss`` and ``val_loss`` on nnU-Net's training and validation patches;
        ``pseudo_dice``, mean over labels of nnU-Net's Dice on validation patches, from 0 to 1, NaN where it is
        undefined; ``seconds`` that it took, its ``start`` and ``end``; ``steps`` of the optimiser in each epoch, from
        ``debug.json``, 0 where it is not known.
    """
    from pandas import DataFrame

    checkpoints = (read_checkpoint(fold / f"checkpoint_{kind}.pth") for kind in ("final", "latest", "best"))
    logged: dict[str, Any] = next((each["logging"] for each in checkpoints if "logging" in each), {})
    rows = list(zip(*(logged.get(name, ()) for name in LOGGED), strict=False))
    epochs = DataFrame(rows, columns=list(LOGGED.values()), dtype=float)
    steps = int(read_debug(fold).get("num_iterations_per_epoch", 0))
    return epochs.assign(epoch=range(len(rows)), seconds=epochs["end"] - epochs["start"], steps=steps)


def read_debug(fold: Path) -> dict[str, Any]:
    """Read what nnU-Net notes of machine and network when a training starts; nothing where it is not there."""
    try:
        content = read_json(fold / "debug.json")
    except UserError:
        return {}
    return content if isinstance(content, dict) else {}


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Read a checkpoint of nnU-Net's; its tensors stay on the disk until they are used. Nothing where it is none."""
    if not zipfile.is_zipfile(file):
        return {}
    import torch

    try:
        # As nnU-Net loads it: its checkpoints hold more than tensors.
        content = torch.load(file, map_location="cpu", weights_only=False, mmap=True)
    except Exception:  # a file that is cut off or of something else is no reason to write no report
        return {}
    return content if isinstance(content, dict) else {}
