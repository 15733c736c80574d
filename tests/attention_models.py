"""Models as nnU-Net stores them, whose attention is where the image is bright, and images with one bright spot."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
import unet_plans
from nibabel.orientations import axcodes2ornt, ornt_transform
from torch import nn

from benchmarks.model_folder import made_up_plans
from nnunetv2_eccam import trainers
from nnunetv2_eccam.architectures.from_plans import build_network

FEATURES = (4, 4, 6, 8)


@dataclass
class Plan:
    """What of a model's plans the tests vary; axes are the network's."""

    trainer: str = "nnUNetTrainerECCaM_UNet_CoA"
    patch: tuple[int, ...] = (32, 32)
    spacing: tuple[float, ...] = (1.0, 1.0)
    transpose: tuple[int, int, int] = (0, 1, 2)
    reader: str = "SimpleITKIO"
    channels: tuple[str, ...] = ("MRI",)
    labels: dict[str, Any] = field(default_factory=lambda: {"background": 0, "spot": 1})
    switches: dict[str, Any] = field(default_factory=dict)

    def architecture(self) -> dict[str, Any]:
        n, dimension = len(FEATURES), len(self.patch)
        stride = [2] * dimension if dimension == 2 else [1, 2, 2]
        changes = {
            "features_per_stage": list(FEATURES),
            "strides": [[1] * dimension, *[stride] * (n - 1)],
            "n_conv_per_stage": [1] * n,
            "n_conv_per_stage_decoder": [1] * (n - 1),
            "norm_op": None,
            **self.switches,
        }
        stated = unet_plans.plan(n, dimension, **changes)
        if self.switches:  # nnU-Net's own class name makes the trainer's switches apply to its arguments
            stated["network_class_name"] = "nnunetv2_eccam.architectures.eccam_unet.ECCaMUNet"
        return stated

    def plans(self) -> dict[str, Any]:
        name, plans, _ = made_up_plans(self.architecture(), self.patch, self.spacing, channels=len(self.channels))
        configuration = plans["configurations"].pop(name)
        linear = {**configuration["resampling_fn_data_kwargs"], "order": 1}
        plans["configurations"]["model"] = {**configuration, "resampling_fn_data_kwargs": linear}
        return {
            **plans,
            "dataset_name": "Dataset950_Spot",
            "image_reader_writer": self.reader,
            "transpose_forward": list(self.transpose),
            "transpose_backward": [int(axis) for axis in np.argsort(self.transpose)],
        }


def write_model(folder: Path, plan: Plan) -> Path:
    """Write a model whose features are the image's local mean: its convolutions have equal, positive weights."""
    trainer = getattr(trainers, plan.trainer)
    network = build_network(
        plan.architecture(), plan.patch, len(plan.channels), len(plan.labels), False, trainer.network_switches,
        trainer.system.network,
    )  # fmt: skip
    average(network)
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plan.plans()))
    description = {
        "channel_names": {str(number): name for number, name in enumerate(plan.channels)},
        "labels": plan.labels,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    checkpoint = {
        "trainer_name": plan.trainer,
        "init_args": {"configuration": "model"},
        "inference_allowed_mirroring_axes": (0, 1),
        "network_weights": network.state_dict(),
    }
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    return folder


def average(network: nn.Module) -> None:
    """Let every convolution average what it sees, and the first foreground logit rise with it."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d)):
                module.weight.fill_(1 / module.weight[0].numel())
            elif isinstance(module, (nn.ConvTranspose2d, nn.ConvTranspose3d)):
                module.weight.fill_(1 / len(module.weight))
            if isinstance(module, nn.modules.conv._ConvNd) and module.bias is not None:
                module.bias.zero_()
        for head in network.decoder.seg_layers.values() if hasattr(network, "decoder") else ():
            head.weight[0].mul_(-1)


@dataclass(frozen=True)
class Spot:
    """An image with one bright spot in a body that is surrounded by zeros.

    Attributes:
        path: of the image.
        centre_mm: of the spot, RAS.
        mask: path of the spot's mask.
    """

    path: Path
    centre_mm: np.ndarray
    mask: Path


def write_spot(
    folder: Path, orientation: str = "RAS", spacing: tuple[float, ...] = (1.0, 1.0, 3.0), oblique: bool = False,
    name: str = "case_7",
) -> Spot:  # fmt: skip
    """Write an image, its voxels stored in an orientation such as LPS; spacing is along right, front and head."""
    rng = np.random.default_rng(0)
    shape = [round(n / mm) for n, mm in zip((78, 70, 27), spacing, strict=True)]
    image, mask = np.zeros(shape, np.float32), np.zeros(shape, np.uint8)

    def part(*ends: tuple[int, int]) -> list[slice]:  # in mm
        return [slice(round(a / mm), round(b / mm)) for (a, b), mm in zip(ends, spacing, strict=True)]

    body, spot = part((13, 75), (4, 58), (3, 24)), part((44, 60), (16, 32), (12, 18))
    image[tuple(body)] = rng.normal(100, 3, image[tuple(body)].shape)
    image[tuple(spot)] += 200
    mask[tuple(spot)] = 1
    affine = np.diag([*spacing, 1.0])
    if oblique:
        turn = np.deg2rad(12)
        affine[:2, :2] = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ affine[:2, :2]
    affine[:3, 3] = (-31.5, 17.25, -120.0)
    middle = [(each.start + each.stop - 1) / 2 for each in spot]
    stored = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(orientation))
    paths = folder / f"{name}_0000.nii.gz", folder / f"{name}.nii.gz"
    for path, voxels in zip(paths, (image, mask), strict=True):
        made = nibabel.Nifti1Image(voxels, affine).as_reoriented(stored)
        made.header.set_xyzt_units("mm")
        made.set_qform(made.affine, 1)
        made.set_sform(made.affine, 2)
        nibabel.save(made, path)
    return Spot(paths[0], (affine @ [*middle, 1.0])[:3], paths[1])


def slices_first(orientation: str, reader: str) -> tuple[int, int, int]:
    """Give nnU-Net's transpose that makes the axis from foot to head the first."""
    axis = 0 if "Reorient" in reader else 2 - next(n for n, letter in enumerate(orientation) if letter in "SI")
    others = [other for other in range(3) if other != axis]
    return (axis, others[0], others[1])


def centre_mm(path: Path) -> np.ndarray:
    """Give where a volume is bright, in mm: the centre of mass of what is well above its background."""
    image = nibabel.load(path)
    voxels = image.get_fdata()
    background = np.median(voxels[voxels != 0])
    weights = (voxels - background - 0.15 * (voxels.max() - background)).clip(min=0)
    centre = [float((weights * np.indices(voxels.shape)[axis]).sum() / weights.sum()) for axis in range(3)]
    return (image.affine @ [*centre, 1.0])[:3]
