"""nnU-Net finds the trainers after each kind of install, in a process with nothing exported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from nnunetv2_eccam.lookup import hook

REPOSITORY = Path(__file__).resolve().parents[2]
NOT_SOURCES = (".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "build", "dist", "*.egg-info", "demo_run")

FIND = """
import json, pickle
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find
for name in {names!r}:
    found = find(name)
    import nnunetv2_eccam.trainers as trainers
    plain = getattr(trainers, name, None)
    same = plain is not None and found is plain and pickle.loads(pickle.dumps(found)) is plain
    print(json.dumps({{"module": found.__module__, "same": same, "package": trainers.__file__}}))
"""


class Environment:
    """A virtual environment that has this environment's packages, but not this environment's extension."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=os.name != "nt")
        self.python = folder / ("Scripts" if os.name == "nt" else "bin") / Path(sys.executable).name
        if not self.python.exists():
            self.python = self.python.with_name("python")
        paths = (
            sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)}, scheme="venv")
            if ("venv" in sysconfig.get_scheme_names())
            else sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
        )
        self.site_packages = Path(paths["purelib"])
        # A path line gives the packages; .pth files in that folder, ours among them, are not run.
        (self.site_packages / "parent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")

    def install(self, *arguments: str) -> None:
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "install"]
        options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
        done = subprocess.run([*pip, *options, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def run(self, code: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("nnUNet", "PYTHON"))}
        return subprocess.run(
            [str(self.python), "-c", code], cwd=folder, env={**kept, **variables}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    def find(self, *names: str, folder: Path, **variables: str) -> list[dict]:
        """What nnU-Net's search gives for each name, in one process."""
        done = self.run(FIND.format(names=names), folder, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """A copy of the checkout: building leaves folders behind."""
    copy = tmp_path_factory.mktemp("sources") / "checkout"
    shutil.copytree(REPOSITORY, copy, ignore=shutil.ignore_patterns(*NOT_SOURCES))
    return copy


@pytest.fixture(scope="module")
def installed(tmp_path_factory, sources) -> Environment:
    """An environment with the built and installed wheel."""
    environment = Environment(tmp_path_factory.mktemp("installed") / "environment")
    environment.install(str(sources))
    return environment


def test_an_installed_wheel_is_found_and_gives_the_class_of_a_plain_import(installed, tmp_path):
    (found,) = installed.find("nnUNetTrainerECCaM", folder=tmp_path)
    assert found["module"] == "nnunetv2_eccam.trainers.eccam"
    assert found["same"] is True
    assert Path(found["package"]).is_relative_to(installed.site_packages)


def test_an_editable_install_is_found_and_is_the_checkout(sources, tmp_path):
    environment = Environment(tmp_path / "environment")
    environment.install("--editable", str(sources))
    (found,) = environment.find("nnUNetTrainerECCaMPaper", folder=tmp_path)
    assert found["same"] is True
    assert Path(found["package"]).is_relative_to(sources)
    code = "import nnunetv2_eccam.dataset_conversion as d, nnunetv2_eccam.plans_overrides as p; print(d.__file__)"
    assert environment.run(code, tmp_path).stdout.strip() == str(sources / "dataset_conversion" / "__init__.py")


def test_an_install_with_target_is_found_by_hand(sources, tmp_path):
    environment = Environment(tmp_path / "environment")
    target = tmp_path / "target"
    environment.install("--target", str(target), str(sources))
    by_hand = environment.run(
        "import runpy, sys; sys.argv = ['x', 'trainer-path']; runpy.run_module('nnunetv2_eccam', run_name='__main__')",
        tmp_path,
        PYTHONPATH=str(target),
    )
    folder = by_hand.stdout.strip()
    assert Path(folder) == target / "nnunetv2_eccam" / "ext"
    by_hand_too = {"PYTHONPATH": str(target), "nnUNet_extTrainer": folder}
    (found,) = environment.find("nnUNetTrainerECCaM_5epochs", folder=tmp_path, **by_hand_too)
    assert found["same"] is True


def test_nothing_else_lands_at_the_top_of_site_packages(installed):
    names = {path.name for path in installed.site_packages.iterdir()} - {"parent.pth", "__pycache__"}
    names = {name for name in names if not name.startswith(("pip", "setuptools", "_distutils", "distutils-"))}
    dist_info = {name for name in names if name.endswith(".dist-info")}
    assert names - dist_info == {"nnunetv2_eccam", "nnunetv2_eccam.pth"}
    assert len(dist_info) == 1
    package = installed.site_packages / "nnunetv2_eccam"
    assert (package / "py.typed").is_file()
    assert (package / "dataset_conversion" / "command.py").is_file()
    assert (package / "plans_overrides" / "practical.json").is_file()
    assert not (package / "tests").exists()


def test_a_users_own_trainer_folder_works_beside(installed, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "mine.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class nnUNetTrainerMine(nnUNetTrainer):\n    pass\n"
    )
    both = "nnUNetTrainerMine", "nnUNetTrainerECCaM"
    mine, ours = installed.find(*both, folder=tmp_path, nnUNet_extTrainer=str(own))
    assert mine["module"] == "mine"
    assert ours["same"] is True


def test_what_a_program_sets_after_the_import_stays_in_force_and_children_inherit_nothing(installed, tmp_path):
    code = (
        "import os, nnunetv2.utilities.find_objects\n"
        "from nnunetv2.paths import nnUNet_extTrainer as variable\n"
        "print(variable.get(), 'nnUNet_extTrainer' in os.environ)\n"
        "os.environ['nnUNet_extTrainer'] = '/mine'\n"
        "print(variable.get())\n"
    )
    ours = str(installed.site_packages / "nnunetv2_eccam" / "ext")
    lines = installed.run(code, tmp_path).stdout.split("\n")
    assert lines[:2] == [f"{ours} False", f"/mine{os.pathsep}{ours}"]


def test_nothing_else_of_a_program_is_changed(installed, tmp_path):
    code = "import os; own = os.cpu_count; import nnunetv2.run.run_training; print(os.cpu_count is own)"
    assert installed.run(code, tmp_path, PYTHON_CPU_COUNT="1").stdout.splitlines()[-1] == "True"


def test_the_switch_turns_it_off(installed, tmp_path):
    done = installed.run(FIND.format(names=("nnUNetTrainerECCaM",)), tmp_path, nnUNet_eccam_lookup="0")
    assert done.returncode != 0
    assert "Could not find requested nnunet trainer nnUNetTrainerECCaM" in done.stderr


def test_a_program_that_does_not_use_nnunet_loads_nothing_but_the_hook(installed, tmp_path):
    without_us = Environment(tmp_path / "environment")
    modules = {
        name: set(environment.run("import sys; print(*sys.modules)", tmp_path).stdout.split())
        for name, environment in (("installed", installed), ("without", without_us))
    }
    ours = {"nnunetv2_eccam", "nnunetv2_eccam.lookup", "nnunetv2_eccam.lookup.hook", "__future__"}
    assert modules["installed"] - modules["without"] == ours


@pytest.mark.parametrize("damage", ["raise SystemError('broken')", "this is not Python", None])
def test_a_damaged_install_breaks_no_program(installed, tmp_path, damage):
    file = installed.site_packages / "nnunetv2_eccam" / "lookup" / "hook.py"
    whole = file.read_text()
    try:
        if damage is None:
            file.unlink()
        else:
            file.write_text(damage)
        done = installed.run("print('alive')", tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")
    finally:
        file.write_text(whole)


def test_an_exported_folder_does_no_harm_in_an_environment_without_the_package(tmp_path):
    """nnU-Net imports what lies in the folder; without the package it offers nothing and raises nothing."""
    environment = Environment(tmp_path / "environment")
    folder = REPOSITORY / "nnunetv2_eccam" / "ext"
    code = (
        f"import sys; sys.path.insert(0, {str(folder)!r})\n"
        "import eccam_trainers; print([n for n in dir(eccam_trainers) if n.startswith('nnUNet')])"
    )
    done = environment.run(code, tmp_path)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, [hook.TRAINER_FOLDER]),
        ("", [hook.TRAINER_FOLDER]),
        ("/a", ["/a", hook.TRAINER_FOLDER]),
        (os.pathsep.join(["/a", hook.TRAINER_FOLDER, "/b"]), ["/a", hook.TRAINER_FOLDER, "/b"]),
    ],
)
def test_the_folder_is_appended_once_behind_the_users(value, expected):
    assert hook.with_trainer_folder(value) == os.pathsep.join(expected)
    assert hook.with_trainer_folder(hook.with_trainer_folder(value)) == os.pathsep.join(expected)


def test_without_nnunets_path_object_the_documented_variable_is_set(monkeypatch):
    from nnunetv2 import paths

    monkeypatch.delattr(paths, "nnUNet_extTrainer")
    monkeypatch.setenv(hook.VARIABLE, "/mine")
    hook.show_trainer_folder()
    assert os.environ[hook.VARIABLE] == f"/mine{os.pathsep}{hook.TRAINER_FOLDER}"
