"""The main job through the commands that a user types, on real images where they are at hand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from nnunetv2_eccam.demo.phantom import write_phantom


def command(*words: str, folder: Path, **variables: str) -> str:
    """Run a console script of this environment in ``folder``, with nothing of this package exported."""
    script = Path(sys.executable).with_name(words[0])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("nnUNet")}
    base = {f"nnUNet_{name}": str(folder / name) for name in ("raw", "preprocessed", "results")}
    done = subprocess.run(
        [str(script), *words[1:]], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**kept, **base, "nnUNet_def_n_proc": "1", "nnUNet_compile": "f", **variables}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-3000:]}"
    return done.stdout


def download(folder: Path, real: Path) -> Path:
    """Six labelled and one unlabelled case, in MSD's layout: real ones, or the phantom's."""
    target = folder / "Task02_Heart"
    if not real.is_dir():
        write_phantom(target, labelled=6, unlabelled=1, seed=0)
        return target
    description = json.loads((real / "dataset.json").read_text())
    description["training"] = description["training"][:6]
    description["test"] = description["test"][:1]
    description["numTraining"], description["numTest"] = 6, 1
    for part, entries in (("Tr", [e["image"] for e in description["training"]]), ("Ts", description["test"])):
        (target / f"images{part}").mkdir(parents=True)
        for entry in entries:
            shutil.copy(real / entry, target / entry)
    (target / "labelsTr").mkdir()
    for entry in description["training"]:
        shutil.copy(real / entry["label"], target / entry["label"])
    (target / "dataset.json").write_text(json.dumps(description))
    return target


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("commands")
    for name in ("raw", "preprocessed", "results"):
        (folder / name).mkdir()
    return folder


@pytest.mark.slow
def test_from_download_to_prediction(base):
    """Convert, plan, add a configuration, train an epoch, resume it, predict an unlabelled case."""
    from conftest import SHARED_DATA

    source = download(base, SHARED_DATA / "Task02_Heart")
    command("nnUNetv2_eccam", "convert", "msd-heart", str(source), "-np", "1", folder=base)
    command("nnUNetv2_plan_and_preprocess", "-d", "2", "-c", "2d", "-npfp", "1", "-np", "1", folder=base)
    override = base / "tiny.json"
    tiny = {
        "inherits_from": "2d",
        "patch_size": [64, 80],
        "batch_size": 2,
        "arch_kwargs": {"features_per_stage": [4, 8, 12, 16, 20]},
    }
    override.write_text(json.dumps({"configurations": {"2d_tiny": tiny}}))
    assert "added     2d_tiny" in command("nnUNetv2_eccam", "plans", "2", str(override), folder=base)
    train = ("nnUNetv2_train", "2", "2d_tiny", "0", "-tr", "nnUNetTrainerECCaM_1epoch", "-device", "cpu")
    out = command(*train, folder=base, nnUNet_n_proc_DA="0")
    assert "Using trainer 'nnUNetTrainerECCaM_1epoch'" in out
    model = base / "results" / "Dataset002_Heart" / "nnUNetTrainerECCaM_1epoch__nnUNetPlans__2d_tiny"
    dice = json.loads((model / "fold_0" / "validation" / "summary.json").read_text())["foreground_mean"]["Dice"]
    assert 0 <= dice <= 1
    images = base / "raw" / "Dataset002_Heart" / "imagesTs"
    predicted = base / "predicted"
    command(
        "nnUNetv2_predict", "-i", str(images), "-o", str(predicted), "-d", "2", "-c", "2d_tiny",
        "-tr", "nnUNetTrainerECCaM_1epoch", "-f", "0", "-device", "cpu", "--disable_tta", "-npp", "1", "-nps", "1",
        folder=base,
    )  # fmt: skip
    (image,) = images.glob("*.nii.gz")
    mask = nibabel.load(predicted / image.name.replace("_0000", ""))
    assert mask.shape == nibabel.load(image).shape
    np.testing.assert_allclose(mask.affine, nibabel.load(image).affine, atol=1e-5)
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1}
