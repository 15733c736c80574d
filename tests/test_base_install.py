"""Without any extra: every command shows its help, and evaluate and overlay work."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from stored_volumes import write_scored_case

SCRIPT = """
import sys
for module in {modules}:
    sys.modules[module] = None  # importing it fails, as if it were not installed
from nnunetv2_eccam.cli import COMMANDS, main
for number, command in enumerate(["convert", "overlay", "attention", *COMMANDS]):
    try:
        assert main([command, "-h"]) is None, command
    except SystemExit as end:
        assert end.code == 0, command
    assert number > 2 or not {{"numpy", "SimpleITK", "nibabel", "torch", "matplotlib"}} & set(sys.modules), command
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

    write_scored_case(tmp_path)
    command = [sys.executable, "-c", SCRIPT.format(modules=modules)]
    environment = {**os.environ, "nnUNet_raw": str(tmp_path / "raw")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "pip install 'nnunetv2-eccam[benchmark]'" in done.stderr
