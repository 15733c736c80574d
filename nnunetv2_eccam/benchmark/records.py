"""How each number came about: when, where, with what, how long, at what cost; kept beside the numbers."""

import os
import platform
import socket
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import nnunetv2_eccam
from nnunetv2_eccam.benchmark.parts import parts_of
from nnunetv2_eccam.benchmark.spec import Spec
from nnunetv2_eccam.benchmark.training_logs import read_checkpoint, read_debug, read_epochs
from nnunetv2_eccam.files import nnunet_folder, read_json, write_json

PACKAGES = ("nnunetv2", "torch", "numpy", "dynamic_network_architectures")
MACHINE = ("hostname", "cpu", "cores", "system", "versions")
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
"""What batch norm keeps in a network's state beside its parameters."""


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


def record_of(attempts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sum up the attempts that made a result together; of one that was killed, time and energy are not known."""
    last = attempts[-1]
    energies = [attempt.get("energy_joules") for attempt in attempts]
    return {
        "seconds": round(sum(attempt.get("seconds") or 0 for attempt in attempts), 1),
        "energy_joules": None if None in energies else sum(energy or 0 for energy in energies),
        **{key: last.get(key) for key in ("energy_note", "device", "gpu", *MACHINE)},
        "started": attempts[0].get("started"),
        "finished": last.get("finished"),
        "commands": [command for attempt in attempts for command in attempt.get("commands", ())],
        "attempts": len(attempts),
    }


def complete_training_record(fold: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Add to a training's record what its folder tells: epochs, parameters, the checkpoint it is about.

    Args:
        fold: the trained fold's folder.
        record: of :func:`record_of`.
    """
    epochs = read_epochs(fold)
    by_logs = round(sum(epoch.seconds for epoch in epochs if epoch.seconds == epoch.seconds), 1)
    measured = float(record.get("seconds") or 0)
    # The commands' time holds the epochs', unless the training was begun by hand, or a part of it was killed.
    whole = measured >= by_logs and measured > 0
    debug = read_debug(fold)
    return {
        **record,
        "train_seconds": measured if whole else by_logs or None,
        "train_seconds_from": "the commands, with start and validation" if whole else "nnU-Net's own epochs",
        "energy_joules": record.get("energy_joules") if whole else None,
        "epochs": len(epochs),
        "device": record.get("device") or str(debug.get("device", "")).partition(":")[0] or None,
        "gpu": record.get("gpu") or debug.get("gpu_name"),
        "parameters": count_parameters(fold / "checkpoint_final.pth"),
        "checkpoint": stamp(fold / "checkpoint_final.pth"),
    }


def training_record(fold: Path) -> dict[str, Any]:
    """Give the record of a trained fold; of one that no benchmark has trained, what nnU-Net's own files tell.

    Args:
        fold: its folder.
    """
    file = fold / "eccam_benchmark" / "record.json"
    if file.is_file():
        record = read_json(file)
        if isinstance(record, dict) and record.get("checkpoint") == stamp(fold / "checkpoint_final.pth"):
            return record
    debug = read_debug(fold)
    found = {"torch": debug["torch_version"]} if "torch_version" in debug else {}
    return complete_training_record(
        fold,
        {"hostname": debug.get("hostname"), "versions": found, "energy_joules": None, "started": None,
         "finished": None, "commands": [], "note": "trained outside this benchmark; from nnU-Net's own files"},
    )  # fmt: skip


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
