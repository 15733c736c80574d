"""Trainers by name: a recipe, a system, a length, put together when the name is asked for.

``nnUNetTrainerECCaM`` or ``nnUNetTrainerECCaMPaper`` (the recipe), ``_UNetPlusPlus`` (a system of
:mod:`nnunetv2_eccam.systems`; EC-CaM-UNet without it), ``_20epochs`` (the length; the recipe's without it).
Each is an ordinary class: importable from :mod:`nnunetv2_eccam.trainers`, picklable, found by nnU-Net.
"""

import functools
import sys
from difflib import get_close_matches
from typing import Any

import nnunetv2_eccam
from nnunetv2_eccam.architectures.origin import LENGTH
from nnunetv2_eccam.systems import RECIPES, SYSTEMS
from nnunetv2_eccam.trainers.eccam import nnUNetTrainerECCaM
from nnunetv2_eccam.trainers.paper import nnUNetTrainerECCaMPaper

_NAMED = {system.trainer_name(recipe): (recipe, system) for recipe in RECIPES for system in SYSTEMS}

TRAINER_NAMES = tuple(_NAMED)
"""Every system under both recipes, at the recipe's own length."""


@functools.cache
def make_trainer(name: str) -> type[nnUNetTrainerECCaM] | None:
    """Make the trainer of this name, once, or give None where it names none.

    It is found in ``nnunetv2_eccam.trainers`` under its name, so it can be pickled.
    """
    length = LENGTH.search(name)
    epochs = int(length[1]) if length else None
    recipe_name, system = _NAMED.get(LENGTH.sub("", name), ("", None))
    if system is None or name != system.trainer_name(recipe_name, epochs):
        return None  # the latter for "_1epochs", "_5epoch"
    recipe: type[nnUNetTrainerECCaM] = nnUNetTrainerECCaMPaper if recipe_name == "paper" else nnUNetTrainerECCaM
    if name == recipe.__name__:
        return recipe
    fixed = {"epochs": epochs, "supervision": system.supervision, "alpha": system.alpha}
    content: dict[str, Any] = {
        "system": system,
        "network_switches": {**recipe.network_switches, **system.switches},
        **{setting: value for setting, value in fixed.items() if value is not None},
        "__module__": "nnunetv2_eccam.trainers",
        "__qualname__": name,
        "__doc__": f"{system.where}: {system.differs}. Recipe: that of {recipe.__name__}.",
    }
    return type(name, (recipe,), content)


def asked_by_nnunet(name: str) -> type[nnUNetTrainerECCaM]:
    """Give the trainer that nnU-Net's search asks for; where the name is nearly one, say which it may be.

    Raises:
        AttributeError: there is no such trainer; the search goes on with the next folder.
    """
    if trainer := make_trainer(name):
        return trainer
    if name.startswith(RECIPES["nnunet"]):
        near = get_close_matches(name, TRAINER_NAMES, n=3, cutoff=0.8)
        question = f"; did you mean {' or '.join(near)}?" if near else "."
        print(
            f"nnunetv2-eccam {nnunetv2_eccam.__version__} has no trainer {name}{question} "
            "`nnUNetv2_eccam trainers` lists all; append _1epoch or _Nepochs for another length",
            file=sys.stderr,
        )
    raise AttributeError(name)
