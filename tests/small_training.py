"""A trainer on a small data set: few features, a small batch, two iterations per epoch."""

from __future__ import annotations

import json
from pathlib import Path

import torch


def preprocessed(base: Path, dataset: int) -> Path:
    return next((base / "preprocessed").glob(f"Dataset{dataset:03d}_*"))


def make_trainer(
    trainer_class, base: Path, dataset: int, configuration: str = "2d", switches=None, plans_name: str = "nnUNetPlans"
):
    folder = preprocessed(base, dataset)
    plans = json.loads((folder / f"{plans_name}.json").read_text())
    plans["continue_training"] = False
    # Fewer features and a small batch: what is tested does not depend on them.
    plans["configurations"]["2d"]["architecture"]["arch_kwargs"].update(
        features_per_stage=[4, 6, 8, 10, 12, 14][
            : plans["configurations"]["2d"]["architecture"]["arch_kwargs"]["n_stages"]
        ]
    )
    plans["configurations"]["2d"]["batch_size"] = 2
    dataset_json = json.loads((folder / "dataset.json").read_text())
    subclass = type(
        trainer_class.__name__,
        (trainer_class,),
        {"network_switches": {**getattr(trainer_class, "network_switches", {}), **(switches or {})}},
    )
    trainer = subclass(plans, configuration, 0, dataset_json, torch.device("cpu"))
    trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 2, 1
    return trainer
