"""A checkpoint to continue from: read without its weights, and checked before nnU-Net takes it."""

import pickle
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from nnunetv2_eccam.architectures.origin import (
    CheckpointMismatch,
    KnowsItsOrigin,
    Origin,
    changed_meaning,
    explanation,
    weight_misfits,
)
from nnunetv2_eccam.errors import UserError

NEEDED = ("network_weights", "optimizer_state", "logging", "_best_ema", "current_epoch", "init_args")
"""What nnU-Net reads of a checkpoint when it continues a training."""


def read_checkpoint(file: str) -> Mapping[str, Any]:
    """Read a checkpoint of nnU-Net; of the weights, which may be large, only what is looked at.

    Raises:
        UserError: the file is not there, is damaged or is no checkpoint of nnU-Net.
    """
    try:
        # Mapped into memory, so that a gigabyte of weights and optimiser state is not read twice.
        checkpoint = torch.load(file, map_location="cpu", weights_only=False, mmap=True)
    except FileNotFoundError as error:
        raise UserError(f"there is no checkpoint {file}") from error
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{file} cannot be read ({reason}): it is damaged, as by a training that was stopped while it wrote it. "
            "nnU-Net continues from checkpoint_final.pth, else checkpoint_latest.pth, else checkpoint_best.pth: "
            "remove the damaged one"
        ) from error
    if not isinstance(checkpoint, Mapping) or "network_weights" not in checkpoint:
        raise UserError(f"{file} is not a checkpoint of nnU-Net: it has no 'network_weights'")
    return checkpoint


def check_continues(checkpoint: Mapping[str, Any], file: str, network: nn.Module, optimizer: Optimizer) -> str | None:
    """See that a training can go on from a checkpoint.

    Args:
        checkpoint: from :func:`read_checkpoint`.
        file: its name, for messages.
        network: the trainer's, without wrappers.
        optimizer: the trainer's.

    Returns:
        What is not as it was in the training so far, or None.

    Raises:
        UserError: it cannot, with what the checkpoint was trained with, what is here and what to do.
    """
    if missing := [key for key in NEEDED if key not in checkpoint]:
        raise UserError(f"{file} cannot be continued from: it has no {', '.join(map(repr, missing))}")
    found = Origin.of(checkpoint["network_weights"])
    here = network.origin if isinstance(network, KnowsItsOrigin) else None
    own = network.state_dict()
    given = {
        name if name in own else name.removeprefix("module."): value  # as nnU-Net reads them
        for name, value in checkpoint["network_weights"].items()
    }
    misfits = weight_misfits(given, own) if here else []  # of a user's own network torch is to judge
    if misfits:
        says = "" if found else f" Its trainer was {checkpoint.get('trainer_name', 'an unknown one')}."
        raise CheckpointMismatch(
            f"{file} does not fit this network. {explanation(found, here)}.{says} {'; '.join(misfits)}"
        )
    theirs, ours = (_kind(groups) for groups in (checkpoint["optimizer_state"]["param_groups"], optimizer.param_groups))
    if theirs != ours:
        raise UserError(
            f"{file} was trained with {theirs} and this trainer uses {ours}: a training cannot be continued under "
            f"another recipe. Use {checkpoint.get('trainer_name', 'the trainer that it was trained with')}, or begin "
            "from its weights: -pretrained_weights"
        )
    return changed_meaning(found, here)


def unwrapped(network: Any) -> nn.Module:
    """Give the network inside multi-GPU training's and ``torch.compile``'s wrappers."""
    inner = network.module if isinstance(network, DistributedDataParallel) else network
    module: nn.Module = getattr(inner, "_orig_mod", inner)
    return module


def _kind(param_groups: Any) -> str:
    """Tell Adam's parameters from SGD's; loaded into each other they would fail at the first step, by a key."""
    settings = param_groups[0]
    return "Adam" if "betas" in settings else "SGD" if "momentum" in settings else "another optimiser"
