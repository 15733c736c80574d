"""A trained model is exported, installed elsewhere and predicts there what it predicts here (docs/how-to/share.md)."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.model_sharing.model_export import export_pretrained_model
from nnunetv2.model_sharing.model_import import install_model_from_zip_file
from small_training import make_trainer

import nnunetv2_eccam
from nnunetv2_eccam.architectures.origin import Origin
from nnunetv2_eccam.trainers import nnUNetTrainerECCaM_UNet_CoA_1epoch
from nnunetv2_eccam.trainers.checkpoints import read_checkpoint

TRAINER = nnUNetTrainerECCaM_UNet_CoA_1epoch


def predicted(model: Path, image: Path, out: Path) -> np.ndarray:
    """The segmentation that ``nnUNetv2_predict`` writes with fold 0 of a model."""
    out.mkdir()
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (0,), "checkpoint_final.pth")
    assert predictor.trainer_name == TRAINER.__name__
    predictor.predict_from_files_sequential([[str(image)]], [str(out / "case")], save_probabilities=False)
    return sitk.GetArrayFromImage(sitk.ReadImage(str(out / "case.nii.gz")))


@pytest.fixture(scope="module")
def model(nnunet_base, small_dataset) -> Path:
    trainer = make_trainer(TRAINER, nnunet_base, small_dataset())
    trainer.run_training()
    # What nnU-Net's validation leaves, which the export asks for.
    validation = Path(trainer.output_folder, "validation")
    validation.mkdir()
    (validation / "summary.json").write_text("{}")
    return Path(trainer.output_folder_base)


def test_an_exported_model_predicts_elsewhere_what_it_predicts_here(
    model, nnunet_base, small_dataset, tmp_path, monkeypatch
):
    image = sorted((nnunet_base / "raw" / model.parent.name / "imagesTr").glob("*.nii.gz"))[0]
    here = predicted(model, image, tmp_path / "here")
    file = tmp_path / "model.zip"
    export_pretrained_model(
        small_dataset(), str(file), configurations=("2d",), trainer=TRAINER.__name__, folds=(0,), strict=True
    )
    elsewhere = tmp_path / "results"
    elsewhere.mkdir()
    monkeypatch.setenv("nnUNet_results", str(elsewhere))
    install_model_from_zip_file(str(file))
    installed = elsewhere / model.relative_to(nnunet_base / "results")
    assert (installed / "fold_0" / "checkpoint_final.pth").is_file()
    there = predicted(installed, image, tmp_path / "there")
    assert np.array_equal(here, there)
    with zipfile.ZipFile(file) as archive:
        names = {Path(name).name for name in archive.namelist()}
    assert {"plans.json", "dataset.json", "checkpoint_final.pth"} <= names
    origin = Origin.of(read_checkpoint(str(installed / "fold_0" / "checkpoint_final.pth"))["network_weights"])
    assert (origin.trainer, origin.version) == (TRAINER.__name__, nnunetv2_eccam.__version__)
    assert origin.switches["multi_scale"] is False
