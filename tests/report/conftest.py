"""The benchmark whose report several test files look at."""

from pathlib import Path

import pytest
from benchmark_folder import EVIL, EVIL_CASE, HEART, PANCREAS, SMALL, SYSTEMS, WorkFolder, empty_prediction

from nnunetv2_eccam.report import write_report


def set_folders(patch: pytest.MonkeyPatch, base: Path) -> None:
    """Set nnU-Net's folders to those of a work folder."""
    for name in ("raw", "preprocessed", "results"):
        patch.setenv(f"nnUNet_{name}", str(base / name))


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> WorkFolder:
    """A benchmark with names from a nightmare, an empty prediction, a fold and a test set that are missing."""
    systems = ((*SYSTEMS[0][:2], EVIL), *SYSTEMS[1:])
    base = tmp_path_factory.mktemp("benchmark")
    work = WorkFolder(base, systems=systems, host="<b>host</b>", spec={"name": EVIL})

    def change(row):
        system = row.pop("system")
        return empty_prediction(row) if (row["case"], system) == (EVIL_CASE, 0) else row

    work.write(change=change)
    work.write_images(HEART)
    for unit in ("volume", "slice"):
        work.scores(HEART, 2, "fold_1", unit).unlink()
        work.scores(PANCREAS, 1, "test", unit).unlink()
    return work


@pytest.fixture(scope="session")
def page(folder) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        set_folders(patch, folder.base)
        return write_report(folder.work)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Make a small benchmark; its report has no pictures, since there are no images."""

    def make(change=None, **changes) -> WorkFolder:
        work = WorkFolder(tmp_path, (SMALL,), **{"statistics": {"bootstrap": 50}, **changes})
        set_folders(monkeypatch, tmp_path)
        work.write(change=change)
        return work

    return make
