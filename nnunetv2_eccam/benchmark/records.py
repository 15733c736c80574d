"""How each number came about: when, where, with what, how long, at what cost; kept beside the numbers."""

from __future__ import annotations

import os
import platform
import socket
import zipfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from nnunetv2_eccam.benchmark.attempts import DONE, Attempt
from nnunetv2_eccam.benchmark.places import OWN
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json, write_json

PACKAGES = ("nnunetv2", "nnunetv2_eccam", "torch", "numpy", "dynamic_network_architectures")
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
"""What batch norm keeps in a network's state beside its parameters."""


def versions() -> dict[str, str | None]:
    """Give the versions of Python and the packages that matter, None for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def processor() -> str:
    """Name this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def machine_record() -> dict[str, Any]:
    """Describe this machine and its software."""
    return {
        "hostname": socket.gethostname(),
        "cpu": processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "versions": versions(),
    }


def record_of(attempts: Sequence[Attempt]) -> dict[str, Any]:
    """Sum up the attempts that made a result together.

    Args:
        attempts: at a job, in order, the last of which has just succeeded; those up to an earlier success made an
            earlier result and are left out.
    """
    chain: list[Attempt] = []
    for attempt in attempts[:-1]:
        chain = [] if attempt.outcome == DONE else [*chain, attempt]
    chain.append(attempts[-1])
    last = chain[-1].content
    energies = [attempt.content.get("energy_joules") for attempt in chain if attempt.seconds]
    measured = [energy for energy in energies if energy is not None]
    return {
        "seconds": round(sum(attempt.seconds for attempt in chain), 1),
        "energy_joules": sum(measured) if energies and len(measured) == len(energies) else None,
        "energy_note": last.get("energy_note"),
        "device": last.get("device"),
        "gpu": last.get("gpu"),
        **{key: last.get(key) for key in ("hostname", "cpu", "cores", "system", "versions")},
        "started": chain[0].content.get("started"),
        "finished": last.get("finished"),
        "commands": [command for attempt in chain for command in attempt.content.get("commands", ())],
        "attempts": len(chain),
    }


def complete_training_record(fold: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Add to a training's record what its folder tells: epochs, parameters, the checkpoint it is about.

    Args:
        fold: the trained fold's folder.
        record: of :func:`record_of`.
    """
    from nnunetv2_eccam.benchmark.job import stamp
    from nnunetv2_eccam.report.training_logs import read_training_logs

    epochs = read_training_logs(fold)
    by_logs = round(sum(epoch.seconds for epoch in epochs if epoch.seconds == epoch.seconds), 1)
    measured = float(record.get("seconds") or 0)
    # The commands' time holds the epochs', unless the training was begun by hand, before the benchmark.
    whole = measured >= by_logs and measured > 0
    debug = _debug(fold)
    return {
        **record,
        "train_seconds": measured if whole else by_logs or None,
        "train_seconds_from": "the commands, with start and validation" if whole else "the epochs in nnU-Net's logs",
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
    from nnunetv2_eccam.benchmark.job import stamp

    file = fold / OWN / "record.json"
    if file.is_file():
        record = read_json(file)
        if isinstance(record, dict) and record.get("checkpoint") == stamp(fold / "checkpoint_final.pth"):
            return record
    debug = _debug(fold)
    found = {"torch": debug["torch_version"]} if "torch_version" in debug else {}
    return complete_training_record(
        fold,
        {"hostname": debug.get("hostname"), "versions": found, "energy_joules": None, "started": None,
         "finished": None, "commands": [], "note": "trained outside this benchmark; from nnU-Net's own files"},
    )  # fmt: skip


def write_record(file: Path, record: Mapping[str, Any]) -> None:
    """Write a record, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, dict(record))


def count_parameters(checkpoint: Path) -> int | None:
    """Count the parameters in nnU-Net's checkpoint; one that stands under several names counts once.

    Returns:
        None where the file is no checkpoint of PyTorch's.
    """
    if not zipfile.is_zipfile(checkpoint):
        return None
    import torch

    try:
        # As nnU-Net loads it: its checkpoints hold more than tensors. Mapped, so that the tensors are not read.
        weights = torch.load(checkpoint, map_location="cpu", weights_only=False, mmap=True)["network_weights"]
    except Exception:  # a record is no reason to fail
        return None
    tensors = {
        (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tuple(tensor.shape)): tensor.numel()
        for name, tensor in weights.items()
        if not name.endswith(BUFFERS)
    }
    return int(sum(tensors.values()))


def _debug(fold: Path) -> dict[str, Any]:
    """Read what nnU-Net notes of its surroundings when a training starts."""
    try:
        content = read_json(fold / "debug.json")
    except UserError:
        return {}
    return content if isinstance(content, dict) else {}
