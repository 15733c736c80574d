"""nnU-Net finds the trainers after each kind of install, in a process with nothing exported."""

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
import json, os, pickle
own = os.cpu_count
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find
import nnunetv2_eccam.trainers as trainers
mine, ours = find("nnUNetTrainerMine"), find("nnUNetTrainerECCaM")
same = ours is trainers.nnUNetTrainerECCaM and pickle.loads(pickle.dumps(ours)) is ours
print(json.dumps([mine.__module__, ours.__module__, same, trainers.__file__, os.cpu_count is own]))
"""

SHOWN = """
import os, nnunetv2.utilities.find_objects
from nnunetv2.paths import nnUNet_extTrainer as variable
print(variable.get() if variable.is_set() else None, "nnUNet_extTrainer" in os.environ)
os.environ["nnUNet_extTrainer"] = "/mine"
print(variable.get())
"""
"""The folders that nnU-Net searches, before and after a program sets its own."""


class Environment:
    """A virtual environment that has this environment's packages, but not this environment's extension."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=os.name != "nt")
        self.python = folder / ("Scripts" if os.name == "nt" else "bin") / Path(sys.executable).name
        if not self.python.exists():
            self.python = self.python.with_name("python")
        paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)}, scheme="venv")
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

    def output(self, code: str, folder: Path, **variables: str) -> list[str]:
        done = self.run(code, folder, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.splitlines()


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


def test_an_installed_wheel_is_found_beside_a_users_own_folder_and_changes_nothing_else(installed, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "mine.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class nnUNetTrainerMine(nnUNetTrainer):\n    pass\n"
    )
    variables = {"nnUNet_extTrainer": str(own), "PYTHON_CPU_COUNT": "1"}
    mine, ours, same_class, package, same_cpu_count = json.loads(installed.output(FIND, tmp_path, **variables)[-1])
    assert (mine, ours, same_class, same_cpu_count) == ("mine", "nnunetv2_eccam.trainers.eccam", True, True)
    assert Path(package).is_relative_to(installed.site_packages)


def test_what_a_program_sets_after_the_import_stays_in_force_and_children_inherit_nothing(installed, tmp_path):
    ours = str(installed.site_packages / "nnunetv2_eccam" / "ext")
    assert installed.output(SHOWN, tmp_path) == [f"{ours} False", f"/mine{os.pathsep}{ours}"]


def test_the_switch_turns_it_off(installed, tmp_path):
    assert installed.output(SHOWN, tmp_path, nnUNet_eccam_lookup="0") == ["None False", "/mine"]


def test_an_editable_install_is_found_and_is_the_checkout(sources, tmp_path):
    environment = Environment(tmp_path / "environment")
    environment.install("--editable", str(sources))
    assert environment.output(SHOWN, tmp_path)[0] == f"{sources / 'nnunetv2_eccam' / 'ext'} False"
    code = "import nnunetv2_eccam.dataset_conversion as d, nnunetv2_eccam.plans_overrides as p; print(d.__file__)"
    assert environment.output(code, tmp_path) == [str(sources / "dataset_conversion" / "__init__.py")]


def test_an_install_with_target_is_found_by_hand(sources, tmp_path):
    environment = Environment(tmp_path / "environment")
    target = tmp_path / "target"
    environment.install("--target", str(target), str(sources))
    code = "from nnunetv2_eccam.cli import main; main(['trainer-path'])"
    assert environment.output(code, tmp_path, PYTHONPATH=str(target)) == [str(target / "nnunetv2_eccam" / "ext")]


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


def test_a_program_that_does_not_use_nnunet_loads_nothing_but_the_hook(installed, tmp_path):
    without_us = Environment(tmp_path / "environment")
    code = "import sys; print(*sys.modules, sep='\\n')"
    added = {*installed.output(code, tmp_path)} - {*without_us.output(code, tmp_path)}
    assert added == {"nnunetv2_eccam", "nnunetv2_eccam.lookup", "nnunetv2_eccam.lookup.hook", "__future__"}


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


def test_without_nnunets_path_object_the_documented_variable_is_set(monkeypatch):
    from nnunetv2 import paths

    monkeypatch.delattr(paths, "nnUNet_extTrainer")
    monkeypatch.setenv(hook.VARIABLE, "/mine")
    hook.show_trainer_folder()
    assert os.environ[hook.VARIABLE] == f"/mine{os.pathsep}{hook.TRAINER_FOLDER}"
