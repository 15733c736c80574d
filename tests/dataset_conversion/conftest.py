"""What the converters' tests share."""

from pathlib import Path

import pytest
from nnunetv2.experiment_planning.verify_dataset_integrity import check_cases, verify_labels
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunetv2_eccam.files import read_json


@pytest.fixture
def raw(tmp_path, monkeypatch) -> Path:
    """nnU-Net's folder of raw data sets, for one test."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    return tmp_path / "nnUNet_raw"


@pytest.fixture
def complaints(capsys):
    """Run nnU-Net's own integrity checks on each training case of a folder, and give what they print."""

    def run(folder: Path) -> str:
        content = read_json(folder / "dataset.json")
        expected = LabelManager(content["labels"], content.get("regions_class_order")).all_labels
        labels = sorted((folder / "labelsTr").iterdir())
        assert len(labels) == content["numTraining"] > 0
        capsys.readouterr()
        for label in labels:
            images = sorted(str(path) for path in (folder / "imagesTr").glob(label.name[:-7] + "_0*.nii.gz"))
            assert verify_labels(str(label), SimpleITKIO, expected)
            assert check_cases(images, str(label), len(content["channel_names"]), SimpleITKIO)
        return capsys.readouterr().out

    return run
