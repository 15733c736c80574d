"""A trainer on a small data set: few features, a small batch, two iterations per epoch."""

import json
from pathlib import Path

import torch


def preprocessed(base: Path, dataset: int) -> Path:
    return next((base / "preprocessed").glob(f"Dataset{dataset:03d}_*"))


def make_trainer(
    trainer_class, base: Path, dataset: int, configuration="2d", switches=None, plans_name="nnUNetPlans", **changes
):
    """Make it; ``changes`` are of the plans' 2d configuration."""
    folder = preprocessed(base, dataset)
    plans = json.loads((folder / f"{plans_name}.json").read_text())
    plans["continue_training"] = False
    # Fewer features and a small batch: what is tested does not depend on them.
    planned = plans["configurations"]["2d"]
    arguments = planned["architecture"]["arch_kwargs"]
    arguments["features_per_stage"] = [4, 6, 8, 10, 12, 14][: arguments["n_stages"]]
    planned.update(batch_size=2, **changes)
    dataset_json = json.loads((folder / "dataset.json").read_text())
    switches = {**getattr(trainer_class, "network_switches", {}), **(switches or {})}
    subclass = type(trainer_class.__name__, (trainer_class,), {"network_switches": switches})
    trainer = subclass(plans, configuration, 0, dataset_json, torch.device("cpu"))
    trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 2, 1
    return trainer
