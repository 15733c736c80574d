"""Fixtures that several test files share."""

import locale
import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

# The tests' tensors are small, and two processes run them: threads would wait for each other at every barrier.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the commands that tests start

# nnU-Net reads these when it is imported; tests that need folders of their own set them per test.
os.environ.setdefault("nnUNet_compile", "f")
os.environ.setdefault("nnUNet_n_proc_DA", "0")

settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
settings.load_profile("tests")

LOCALE = locale.setlocale(locale.LC_CTYPE)


@pytest.fixture(autouse=True)
def same_locale() -> None:
    """Read and write text as at the start: a library that some test loads leaves the process in the locale C."""
    locale.setlocale(locale.LC_CTYPE, LOCALE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that have slow tests, so that two processes end at nearly the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def refused(capsys):
    """Run a command that must be refused, and give the one line that it says."""
    from nnunetv2_eccam.cli import main

    def run(*words: object) -> str:
        capsys.readouterr()
        assert main([str(word) for word in words]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"nnUNetv2_eccam {words[0]}: error: ")
        return line

    return run


@pytest.fixture(scope="session")
def nnunet_base(tmp_path_factory) -> Path:
    """nnU-Net's three folders, set for the whole session."""
    base = tmp_path_factory.mktemp("nnunet")
    for name in ("raw", "preprocessed", "results"):
        (base / name).mkdir()
        os.environ[f"nnUNet_{name}"] = str(base / name)
    os.environ["nnUNet_def_n_proc"] = "1"
    return base


@pytest.fixture(scope="session")
def small_dataset(nnunet_base):
    """Give a small data set by kind (see ``small_dataset.LABELS``), planned and preprocessed once."""
    from small_dataset import LABELS, plan_and_preprocess, write_raw_dataset

    done: dict[str, int] = {}

    def make(kind: str = "labels") -> int:
        if kind not in done:
            number = 900 + list(LABELS).index(kind)
            write_raw_dataset(nnunet_base / "raw", f"Dataset{number}_{kind.title().replace('_', '')}", kind)
            plan_and_preprocess(number)
            done[kind] = number
        return done[kind]

    return make
