"""Without any extra: every command shows its help, and evaluate and overlay work."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nibabel
import numpy as np

SCRIPT = """
import sys
for module in {modules}:
    sys.modules[module] = None  # importing it fails, as if it were not installed
from nnunetv2_eccam.cli import COMMANDS, main
for command in COMMANDS:
    try:
        assert main([command, "-h"]) is None, command
    except SystemExit as end:
        assert end.code == 0, command
assert main(["evaluate", "-d", "2", "predictions", "-np", "1"]) == 0
assert main(["overlay", "-d", "2", "-o", "figure.png", "--system", "A=predictions"]) == 0
assert main(["benchmark", "-d", "2", "-c", "2d", "-tr", "nnUNetTrainer"]) == 1
"""
MODULES = {"segmentation-models-pytorch": "segmentation_models_pytorch", "PyYAML": "yaml", "nvidia-ml-py": "pynvml"}
"""What is imported, where it is not called as the package."""


def test_every_command_explains_itself_and_results_can_be_scored_and_drawn(tmp_path):
    project = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text())["project"]
    extras = [name for extra in ("compared", "benchmark", "export") for name in
              project["optional-dependencies"][extra]]  # fmt: skip
    packages = [re.match(r"[\w-]+", name)[0] for name in extras]
    modules = [MODULES.get(package, package.replace("-", "_")) for package in packages]

    mask = np.zeros((12, 12, 6), np.uint8)
    mask[3:9, 3:9, 1:5] = 1
    raw = tmp_path / "raw" / "Dataset002_Heart"
    for folder, name, array in (
        (raw / "imagesTs", "la_1_0000", mask * 100.0), (raw / "labelsTs", "la_1", mask),
        (tmp_path / "predictions", "la_1", mask),
    ):  # fmt: skip
        folder.mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder / f"{name}.nii.gz")
    labels = {"background": 0, "atrium": 1}
    description = {"labels": labels, "channel_names": {"0": "MRI"}, "file_ending": ".nii.gz", "numTraining": 0}
    (raw / "dataset.json").write_text(json.dumps(description))

    command = [sys.executable, "-c", SCRIPT.format(modules=modules)]
    environment = {**os.environ, "nnUNet_raw": str(tmp_path / "raw")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "pip install 'nnunetv2-eccam[benchmark]'" in done.stderr
