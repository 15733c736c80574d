"""Which network weights belong to and who trained it: kept in the weights, so that a mismatch can be explained.

A state dict carries, beside the tensors, a note for each module, in which torch keeps the version of the
module's layout. The root's note is given one entry more. It goes wherever the state dict goes: into every
checkpoint that nnU-Net saves, through ``torch.save`` and back, and into ``load_state_dict``, which is all
that nnU-Net's predictor calls. No key of the checkpoint changes, so any program reads it as before.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import nnunetv2_eccam
from nnunetv2_eccam.errors import UserError

KEY = "nnunetv2_eccam"
"""The entry's name, in ``state_dict._metadata[""]``."""

BLOCKS = "n_blocks_per_stage"
"""The argument that makes an encoder residual, which no version up to 0.1.0 knew."""

ONLY_AT_THE_START = frozenset({"branch_init"})
"""Arguments that say how weights begin: trained ones mean the same under any of them."""

LENGTH = re.compile(r"_([1-9]\d*)epochs?$")
"""What a trainer's name ends with: the length of a training changes nothing about the network."""

_SHOWN = 3


class CheckpointMismatch(UserError, RuntimeError):
    """Weights are another network's; a ``RuntimeError`` too, as torch's own is."""


@dataclass(frozen=True)
class Origin:
    """Which network weights belong to.

    Args:
        version: of nnunetv2-eccam.
        network: dotted path of the network's class.
        arguments: of its constructor, defaults included, in JSON's types.
        trainer: the trainer that built it, or empty.
        system: the trainer's system, as the paper calls it, or empty.
        switches: the trainer's ``network_switches``, in JSON's types.
    """

    version: str
    network: str
    arguments: Mapping[str, Any]
    trainer: str = ""
    system: str = ""
    switches: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def here(cls, network: str, arguments: Mapping[str, Any]) -> Origin:
        """Describe a network that this installation builds."""
        return cls(nnunetv2_eccam.__version__, network, plain(arguments))

    @classmethod
    def of(cls, weights: Any) -> Origin | None:
        """Read the entry of a state dict, or give None where there is none that can be understood."""
        entry = getattr(weights, "_metadata", {}).get("", {}).get(KEY)
        if not isinstance(entry, Mapping):
            return None
        known = {name: value for name, value in entry.items() if name in cls.__dataclass_fields__}
        try:
            return cls(**known)
        except TypeError:  # an entry without what every version writes
            return None

    def __str__(self) -> str:
        system = f" ({self.system})" if self.system else ""
        return f"{self.trainer or self.network.rsplit('.', 1)[-1]}{system} of nnunetv2-eccam {self.version}"


class KnowsItsOrigin(nn.Module):
    """A network that writes its :class:`Origin` into its state dict, and explains why another does not fit.

    Raises:
        CheckpointMismatch: in ``load_state_dict``, where torch would raise a bare ``RuntimeError``.
    """

    origin: Origin | None = None

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.origin is not None and hasattr(destination, "_metadata"):
            destination._metadata.setdefault(prefix[:-1], {})[KEY] = asdict(self.origin)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights; where they fit but were trained in another network, warn."""
        found = Origin.of(state_dict)
        try:
            outcome = super().load_state_dict(state_dict, strict, assign)
        except RuntimeError:
            misfits = weight_misfits(state_dict, self.state_dict())
            if not misfits:  # of another kind, which torch explains itself
                raise
            # torch's error names each weight, hundreds of them, and none of the reasons.
            raise CheckpointMismatch(
                f"the checkpoint does not fit this network. {explanation(found, self.origin)}. {'; '.join(misfits)}"
            ) from None
        if said := changed_meaning(found, self.origin):
            warnings.warn(said, stacklevel=2)
        return outcome


def weight_misfits(given: Mapping[str, Any], own: Mapping[str, Tensor]) -> list[str]:
    """Say in what way weights do not fit, in one phrase for each way, with a few examples.

    Args:
        given: the checkpoint's weights.
        own: the network's.
    """
    both = [name for name in own if torch.is_tensor(given.get(name))]
    shapes = [
        f"{name} of {'x'.join(map(str, given[name].shape))} instead of {'x'.join(map(str, own[name].shape))}"
        for name in both
        if given[name].shape != own[name].shape
    ]
    phrases = {
        "does not have": [name for name in own if name not in given],
        "has and this network has not": [name for name in given if name not in own],
        "has in another shape": shapes,
    }
    return [f"Weights that the checkpoint {way}: {_some(names)}" for way, names in phrases.items() if names]


def explanation(found: Origin | None, here: Origin | None) -> str:
    """Say what a checkpoint was trained with, what is here, how they differ and what to do.

    Args:
        found: the checkpoint's entry, or None.
        here: the network's, or None for one that was built without a plan.
    """
    here_is = "" if here is None else f"; here is {here}"
    if found is None:
        return (
            "The checkpoint does not say what it was trained with: another program or trainer wrote it, or a "
            f"nnunetv2-eccam that did not keep that yet{here_is}. "
            "Check that trainer (-tr), configuration (-c) and plans (-p) are those of the training"
        )
    trained = f"The checkpoint was trained with {found}{here_is}"
    if here is None:
        return trained
    if here.arguments.get(BLOCKS) is not None and BLOCKS not in found.arguments and found.network == here.network:
        return (
            f"{trained}. Up to 0.1.0 this package put two convolutions a stage in place of a plan's residual blocks; "
            "now it builds the plan's residual encoder, which these weights are not of. Predict and continue with "
            "nnunetv2-eccam 0.1.0, in an environment of its own, or train anew"
        )
    if differences := _differences(found, here):
        trained += f"; they differ in {', '.join(differences)}"
    return f"{trained}. {_advice(found, here)}"


def changed_meaning(found: Origin | None, here: Origin | None) -> str | None:
    """Say that weights fit a network that computes something else than the one that was trained, or give None."""
    if found is None or here is None or not _differences(found, here):
        return None
    return (
        f"The checkpoint's weights fit, but they were trained in another network. {explanation(found, here)}. "
        "Until then the results are not those of the training"
    )


def plain(value: Any) -> Any:
    """Turn a value into JSON's types: tuples to lists, classes to dotted paths, what is unknown to its text."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    return str(value)


def _differences(found: Origin, here: Origin) -> list[str]:
    """Name what differs: the network's class, and arguments that both know and that trained weights depend on."""
    both = [name for name in here.arguments if name in found.arguments and name not in ONLY_AT_THE_START]
    pairs = {"network": (found.network, here.network)}
    pairs |= {name: (found.arguments[name], here.arguments[name]) for name in both}
    return [f"{name} ({theirs}, here {ours})" for name, (theirs, ours) in pairs.items() if theirs != ours]


def _advice(found: Origin, here: Origin) -> str:
    if found.trainer and LENGTH.sub("", found.trainer) != LENGTH.sub("", here.trainer):
        return f"Use the trainer of the checkpoint, -tr {found.trainer}, or a checkpoint of {here.trainer}"
    if found.version != here.version:
        return (
            f"Install nnunetv2-eccam {found.version}, and take the plans.json that lies beside the checkpoint's fold; "
            "or train anew"
        )
    if _differences(found, here):
        return (
            "The plans or the trainer have changed since the training: take the plans.json that lies beside the "
            "checkpoint's fold, or train anew"
        )
    return "The weights were changed after the training, or the file is damaged"


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
