"""A model's folder as nnU-Net's training leaves it, with random weights: to predict with, without a training."""

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

RESAMPLING = {
    "data": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
    "seg": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
    "probabilities": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
}


def unet_architecture(
    widths: Sequence[int], strides: Sequence[Sequence[int]], residual: bool = False, norm: str = "instance"
) -> dict[str, Any]:
    """Give a U-Net as nnU-Net's plans state it.

    Args:
        widths: features of each stage.
        strides: of each stage, per axis; their number of axes decides the convolution's.
        residual: a residual encoder's plan, as nnU-Net's ``ResEnc`` presets have it.
        norm: ``instance``, as nnU-Net plans, or ``batch``.
    """
    axes, n = len(strides[0]), len(widths)
    shared = {
        "n_stages": n,
        "features_per_stage": list(widths),
        "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
        "kernel_sizes": [[3] * axes] * n,
        "strides": [list(stride) for stride in strides],
        "n_conv_per_stage_decoder": [1 if residual else 2] * (n - 1),
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.{norm}norm.{norm.title()}Norm{axes}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    depth = {"n_blocks_per_stage": [1, 3, 4, 6, 6, 6, 6, 6][:n]} if residual else {"n_conv_per_stage": [2] * n}
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet."
        + ("ResidualEncoderUNet" if residual else "PlainConvUNet"),
        "arch_kwargs": {**shared, **depth},
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


PAIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "practical": ("nnUNetTrainerECCaM", {}),
    "paper": ("nnUNetTrainerECCaMPaper", {"norm": "batch"}),
    "residual": ("nnUNetTrainerECCaM", {"residual": True}),
}
"""This package's trainer of each kind of network, and what its plan has beside nnU-Net's own."""


def pair(
    kind: str, widths: Sequence[int], strides: Sequence[Sequence[int]], patch_size: Sequence[int], classes: int = 3
) -> tuple[nn.Module, nn.Module]:
    """Build this package's network of a kind and nnU-Net's of the same plan, with deep supervision."""
    trainer, more = PAIRS[kind]
    architecture = unet_architecture(widths, strides, **more)
    described = made_up_plans(architecture, patch_size, [1.0] * len(patch_size))
    ours, nnunets = (build(name, *described, True, classes) for name in (trainer, "nnUNetTrainer"))
    return ours, nnunets


def halving(stages: int, axes: int) -> list[list[int]]:
    """Give the strides of a network that halves every axis between its stages."""
    return [[1] * axes] + [[2] * axes] * (stages - 1)


def made_up_plans(
    architecture: dict[str, Any],
    patch_size: Sequence[int],
    spacing: Sequence[float],
    file_ending: str = ".nii.gz",
    channels: int = 1,
    previous_stage: str | None = None,
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Give a configuration's name (``2d`` or ``3d_fullres``), its plans, its dataset.json; see :func:`write_model`."""
    resampling = {f"resampling_fn_{name}": "resample_data_or_seg_to_shape" for name in RESAMPLING}
    resampling_kwargs = {f"resampling_fn_{name}_kwargs": kwargs for name, kwargs in RESAMPLING.items()}
    name = "2d" if len(patch_size) == 2 else "3d_fullres"
    configuration = {
        "data_identifier": f"nnUNetPlans_{name}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch_size),
        "median_image_size_in_voxels": list(patch_size),
        "spacing": list(spacing),
        "normalization_schemes": ["ZScoreNormalization"] * channels,
        "use_mask_for_norm": [False] * channels,
        **resampling,
        **resampling_kwargs,
        "architecture": architecture,
        "batch_dice": True,
        **({"previous_stage": previous_stage} if previous_stage else {}),
    }
    intensities = {"max": 1, "mean": 0, "median": 0, "min": -1, "percentile_00_5": -1, "percentile_99_5": 1, "std": 1}
    plans = {
        "dataset_name": "Dataset999_MadeUp",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [1, *patch_size][-3:],
        "image_reader_writer": "NaturalImage2DIO" if file_ending == ".png" else "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {name: configuration, **({previous_stage: configuration} if previous_stage else {})},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(n): intensities for n in range(channels)},
    }
    dataset = {
        "channel_names": {str(n): f"channel {n}" for n in range(channels)},
        "labels": {"background": 0, "organ": 1, "lesion": 2},
        "numTraining": 1,
        "file_ending": file_ending,
    }
    return name, plans, dataset


def build(
    trainer: str, name: str, plans: dict[str, Any], dataset: dict[str, Any], supervised: bool, classes: int = 3
) -> nn.Module:
    """Build a trainer's network for a configuration, with or without deep supervision."""
    manager = PlansManager(plans)
    configuration = manager.get_configuration(name)
    channels = determine_num_input_channels(manager, configuration, dataset)
    with contextlib.redirect_stdout(io.StringIO()):  # nnU-Net prints where it searches
        kind = recursive_find_trainer_class_by_name(trainer)
    network: nn.Module = kind.build_network_architecture(manager, configuration, channels, classes, supervised)
    return network


def write_model(
    folder: Path,
    architecture: dict[str, Any],
    patch_size: Sequence[int],
    spacing: Sequence[float],
    trainer: str = "nnUNetTrainer",
    file_ending: str = ".nii.gz",
    folds: Sequence[int] = (0,),
    channels: int = 1,
    previous_stage: str | None = None,
) -> Path:
    """Write plans, dataset.json and a checkpoint for each fold; background and two labels.

    Args:
        folder: the model's, as ``-m`` takes it; its configuration is ``2d`` or ``3d_fullres``.
        architecture: of the plans, as :func:`unet_architecture` gives it.
        patch_size: voxels per axis.
        spacing: mm per axis of the patch, which images of this spacing need no resampling for.
        trainer: which class builds the network.
        file_ending: of the images; ``.png`` is read by nnU-Net's reader of photographs.
        folds: their weights differ.
        channels: of an image.
        previous_stage: makes the model a cascade's second, after a configuration of this name.
    """
    name, plans, dataset = made_up_plans(architecture, patch_size, spacing, file_ending, channels, previous_stage)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    (folder / "dataset.json").write_text(json.dumps(dataset), encoding="utf-8")
    for fold in folds:
        torch.manual_seed(fold)
        network = build(trainer, name, plans, dataset, False)
        checkpoint = {
            "network_weights": network.state_dict(),
            "trainer_name": trainer,
            "init_args": {"configuration": name, "fold": fold},
            "inference_allowed_mirroring_axes": tuple(range(len(patch_size))),
        }
        (folder / f"fold_{fold}").mkdir(exist_ok=True)
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder
