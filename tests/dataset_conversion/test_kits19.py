"""KiTS19: slices-first arrays become axial volumes, image and label together."""

import re
import shutil

import nibabel
import numpy as np
import pytest
from conversion_phantoms import REAL_DATA, abdomen, convert, kits_affine, load, save, slices_first, write_kits

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.files import read_json


@pytest.mark.parametrize("flipped", [False, True])
def test_a_label_that_lies_elsewhere_is_refused(tmp_path, raw, flipped):
    kits = write_kits(tmp_path / "kits19")
    path = kits / "data/case_00002/segmentation.nii.gz"
    affine = kits_affine()
    affine[2, 0] *= -1 if flipped else 1
    save(path, load(path) if flipped else np.roll(load(path), 17, 1), affine)
    with pytest.raises(UserError, match="on different grids" if flipped else r"\d+% of the labelled voxels are air"):
        convert("kits19", kits)


def test_slices_closer_than_pixels_are_pointed_out(tmp_path, raw):
    image, label = abdomen()
    for index, spacing in enumerate((0.5, 0.5, 3.0)):
        case = tmp_path / f"data/case_{index:05d}"
        save(case / "imaging.nii.gz", slices_first(image), kits_affine(spacing))
        save(case / "segmentation.nii.gz", slices_first(label), kits_affine(spacing))

    outcome = convert("kits19", tmp_path)

    assert any(re.search(r"2 of 3 cases have slices closer .*: case_00000, case_00001$", w) for w in outcome.warnings)


@pytest.mark.real_data
@pytest.mark.skipif(not (REAL_DATA / "kits19").is_dir(), reason="the real label is not here")
def test_a_real_label_file_is_read_right(tmp_path, raw):
    file = REAL_DATA / "kits19/data/case_00004/segmentation.nii.gz"
    real = nibabel.load(file)
    label = np.asanyarray(real.dataobj)
    case = tmp_path / "data/case_00004"
    save(case / "imaging.nii.gz", np.where(label, 130, -80).astype(np.int16), real.affine)
    shutil.copyfile(file, case / "segmentation.nii.gz")

    folder = convert("kits19", tmp_path, labels="apart").folder

    # Array (slice to the feet, row to the back, column to the left) to (right, front, head).
    assert np.array_equal(load(folder / "labelsTr/case_00004.nii.gz"), label[::-1, ::-1, ::-1].transpose(2, 1, 0))
    entry = read_json(folder / "conversion_report.json")["cases"][0]
    assert entry["source_orientation"] == "IPL"
    assert np.allclose(entry["spacing"], [0.9765625, 0.9765625, 4.0])
