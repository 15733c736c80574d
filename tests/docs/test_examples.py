"""The documentation's commands and examples, run as they stand on their pages, on small made images."""

import json
import os
import re
import runpy
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pytest
from in_process import call
from skimage import io

DOCS = Path(__file__).resolve().parents[2] / "docs"

SHORT_TRAINER = '''
from nnunetv2_eccam import trainers


class nnUNetTrainerECCaM(trainers.nnUNetTrainerECCaM):
    """The real one, for one epoch of two steps: nnU-Net searches this folder first."""

    epochs = 1

    def initialize(self):
        super().initialize()
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 2, 1
'''

ON_THIS_MACHINE = {
    "nnUNetv2_plan_and_preprocess": ("-npfp", "1", "-np", "1"),
    "nnUNetv2_train": ("-device", "cpu"),
    "nnUNetv2_predict": ("-device", "cpu", "-npp", "0", "-nps", "0"),
    "evaluate": ("-np", "1"),
}
"""What is added to commands of the tutorial: no GPU, and no processes."""

RECORD = "() { local IFS=$'\\x1f'; printf '%s\\x1e' \"$FUNCNAME\x1f$*\" >> commands; }\n"
"""A shell function that writes down how it is called."""


def blocks(page: str, language: str) -> list[str]:
    """Give a page's code blocks of a language."""
    return re.findall(rf"^```{language}[^\n]*\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.M | re.S)


def draw(folder: Path, shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a bright ellipsoid on noise, and its mask."""
    rng = np.random.default_rng(seed)
    axes = np.indices(shape)
    centre = [size / 2 + rng.uniform(-2, 2) for size in shape]
    mask = sum(((axis - c) / (0.3 * size)) ** 2 for axis, c, size in zip(axes, centre, shape, strict=True)) < 1
    return rng.normal(80, 15, shape) + 90 * mask, mask


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder with the files that the tutorial starts from."""
    folder = tmp_path_factory.mktemp("tutorial")
    for name in ("photos", "masks", "new_photos", "new_masks", "volumes", "segmentations", "my_trainers"):
        (folder / name).mkdir()
    for number in range(12):
        new = "new_" if number >= 10 else ""
        image, mask = draw(folder, (64, 64), number)
        name = f"p{number // 2:02d}_{number % 2}.png"
        colours = np.stack([image, 0.7 * image, 0.5 * image], -1).clip(0, 255).astype(np.uint8)
        io.imsave(folder / f"{new}photos" / name, colours, check_contrast=False)
        io.imsave(folder / f"{new}masks" / name, mask.astype(np.uint8) * 255, check_contrast=False)
    for number in range(5):
        image, mask = draw(folder, (44, 40, 8), number)
        for part, array in (("volumes", image.astype(np.float32)), ("segmentations", mask.astype(np.uint8))):
            nibabel.save(nibabel.Nifti1Image(array, np.diag([1, 1, 3, 1])), folder / part / f"case_{number}.nii.gz")
    (folder / "my_trainers" / "short.py").write_text(SHORT_TRAINER)
    return folder


@pytest.fixture(scope="module")
def tutorial(workplace) -> Path:
    """Run the page's commands in order; on the CPU, in this process, a short trainer of the same name, small plans."""
    page = "get-started/your-data.md"
    (workplace / "make_dataset.py").write_text(blocks(page, "python")[0])
    script = "\n".join(blocks(page, "bash"))
    programs = sorted(set(re.findall(r"^(nnUNetv2_\w+|python)\b", script, re.M)))
    script = "".join(name + RECORD for name in programs) + script
    environment = {"HOME": str(workplace), "PATH": os.environ["PATH"]}
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=workplace, env=environment, check=True)
    commands = [line.split("\x1f") for line in (workplace / "commands").read_text().split("\x1e")[:-1]]
    assert {program for program, *_ in commands} == set(programs)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        patch.setenv("nnUNet_extTrainer", str(workplace / "my_trainers"))
        for name in ("raw", "preprocessed", "results"):
            patch.setenv(f"nnUNet_{name}", str(workplace / "nnunet" / name))
        for program, *words in commands:
            patch.setenv("nnUNet_n_proc_DA", "1" if "plan" in program else "0")  # 0 is not for planning
            if program == "python":
                runpy.run_path(words[0], run_name="__main__")
            else:
                name = words[0] if program == "nnUNetv2_eccam" else program
                call(program, *words, *ON_THIS_MACHINE.get(name, ()))
            if "plan" in program:
                make_small(workplace / "nnunet" / "preprocessed")
    return workplace


def make_small(preprocessed: Path) -> None:
    """Give all plans few features and a small batch: what is tested does not depend on them."""
    for file in preprocessed.glob("*/nnUNetPlans.json"):
        plans = json.loads(file.read_text())
        network = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
        network["features_per_stage"] = [4 + 2 * stage for stage in range(network["n_stages"])]
        plans["configurations"]["2d"]["batch_size"] = 2
        file.write_text(json.dumps(plans))


@pytest.mark.slow
def test_the_tutorial_ends_in_predictions_of_both_kinds(tutorial):
    pngs = sorted((tutorial / "predictions_png").glob("*.png"))
    assert [path.name for path in pngs] == ["p05_0.png", "p05_1.png"]
    assert io.imread(pngs[0]).shape == (64, 64)
    volumes = sorted((tutorial / "predictions_nifti").glob("*.nii.gz"))
    assert [nibabel.load(path).shape for path in volumes] == [(44, 40, 8)] * 5
    assert (tutorial / "polyps.png").stat().st_size > 1000
    assert (tutorial / "predictions_png" / "scores_volume.csv").is_file()


@pytest.mark.slow
def test_the_python_examples_run(tutorial, monkeypatch):
    monkeypatch.setenv("nnUNet_results", str(tutorial / "nnunet" / "results"))
    monkeypatch.setenv("nnUNet_extTrainer", str(tutorial / "my_trainers"))
    examples = blocks("how-to/python.md", "python")
    assert examples
    exec("\n".join(examples), {})


@pytest.mark.slow
def test_the_networks_of_your_own_are_built_and_trained(small_dataset, nnunet_base):
    from small_training import make_trainer

    names: dict = {}
    exec("\n".join(blocks("how-to/add-network.md", "python")), names)
    for name in ("nnUNetTrainerMySeries", "nnUNetTrainerMyModule"):
        trainer = make_trainer(names[name], nnunet_base, small_dataset("labels"))
        trainer.initialize()
        trainer.on_train_start()
        assert np.isfinite(trainer.train_step(next(trainer.dataloader_train))["loss"])
