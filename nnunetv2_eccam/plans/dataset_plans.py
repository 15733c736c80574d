"""A data set's plans file: found by the data set's number or name, read, and changed whole or not at all."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_eccam.arguments import dataset_name
from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import nnunet_folder, read_json, write_json


@dataclass(frozen=True)
class DatasetPlans:
    """The plans of one data set.

    Args:
        file: the plans file.
        plans: its content.
        dataset_json: the data set's ``dataset.json``.
    """

    file: Path
    plans: dict[str, Any]
    dataset_json: dict[str, Any]

    @property
    def dataset_name(self) -> str:
        """``DatasetXXX_Name``."""
        return self.file.parent.name

    def add(self, configurations: Mapping[str, Mapping[str, Any]], overwrite: bool) -> dict[str, str]:
        """Add configurations to the file; what it has besides them stays as it is.

        Args:
            configurations: the entries by name.
            overwrite: replace a configuration of the same name that is not ours.

        Returns:
            what became of each: ``added``, ``changed`` or ``unchanged``.

        Raises:
            UserError: a name is taken by a configuration that is not ours.
        """
        from nnunetv2_eccam.plans.configuration import MARK  # with it comes torch, which finding plans can do without

        present = self.plans["configurations"]
        outcome: dict[str, str] = {}
        for name, entry in configurations.items():
            if name not in present:
                outcome[name] = "added"
            elif present[name] == entry:
                outcome[name] = "unchanged"
            elif MARK in present[name] or overwrite:
                outcome[name] = "changed"
            else:
                raise UserError(
                    f"{self.file} has a configuration {name} that this command did not write; "
                    "rename it, or replace it with --overwrite"
                )
        if set(outcome.values()) != {"unchanged"}:
            write_json(self.file, {**self.plans, "configurations": {**present, **configurations}})
        return outcome


def find_dataset_plans(dataset: str, plans_name: str = "nnUNetPlans") -> DatasetPlans:
    """Find a data set's plans.

    Args:
        dataset: its number (``7``) or name (``Dataset007_Pancreas``).
        plans_name: the plans identifier, as nnU-Net's ``-p``.

    Raises:
        UserError: ``nnUNet_preprocessed`` is not set, or there are no such plans.
    """
    base = nnunet_folder("nnUNet_preprocessed")
    try:
        folder = base / dataset_name(dataset, "nnUNet_preprocessed")
    except UserError as error:
        raise UserError(f"{error}; plan it first: nnUNetv2_plan_and_preprocess -d {dataset} -c 2d") from None
    file = folder / f"{plans_name}.json"
    if not file.is_file():
        present = [path.stem for path in sorted(folder.glob("*Plans*.json"))]
        raise UserError(
            f"{folder} has no {plans_name}.json"
            + (f" (it has {', '.join(present)}: choose with -p)" if present else "")
            + f"; plan it first: nnUNetv2_plan_and_preprocess -d {dataset} -c 2d"
        )
    plans = read_json(file)
    if not isinstance(plans, dict) or not isinstance(plans.get("configurations"), dict):
        raise UserError(f"{file} is not a plans file of nnU-Net: it has no 'configurations'")
    return DatasetPlans(file, plans, read_json(folder / "dataset.json"))
