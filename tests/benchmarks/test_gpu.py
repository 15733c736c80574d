"""The run that waits for a GPU, tiny and on the CPU: every kind of row works, and a failing one stops nothing."""

import csv
import json
import zipfile

import pytest

from benchmarks import gpu, gpu_packages


@pytest.mark.slow
def test_every_kind_of_row_works(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    words = ["--tiny", "--device", "cpu", "-o", str(tmp_path / "run"), "--minutes", "60", "--by", r"case_(\d+)"]
    status = gpu.main(words)
    rows = json.loads((tmp_path / "run" / "rows.json").read_text())["rows"]
    assert [(row["row"], row["note"]) for row in rows if row["what"] == "failed"] == []
    assert status == 0
    kinds = {row["row"] for row in rows}
    assert {"prediction of slices", "training and data loading", "eager residual, tiny 3d"} < kinds
    assert {f"eager {kind}, tiny 2d" for kind in gpu.PAIRS} < kinds
    (trained,) = [row for row in rows if row["row"] == "training of real images"]
    assert min(trained["ours"], trained["nnunet"]) >= 0, trained["note"]
    breaks = [row for row in rows if "graph breaks" in row["what"]]
    assert breaks
    assert all(row["ours"] == 0 for row in breaks)
    assert all(row["ratio"] > 0 for row in rows if row not in breaks and row != trained)
    assert all("0.0e+00 of the voxels differ" in row["note"] for row in rows if row["row"].startswith("prediction"))


def test_rows_are_written_as_they_come_and_fail_alone(tmp_path):
    run = gpu.Run(tmp_path, "cpu", True, minutes=1)

    def failing():
        yield gpu._pair("first", (1.0, 2.0), "ms", 0.5, 1.0)
        raise RuntimeError("no kernel image")

    run.attempt("one", failing)
    run.attempt("two", lambda: iter([gpu._pair("rate", (4.0, 2.0), "cases/s", 2.0, 3.0)]))
    run.until = 0
    run.attempt("three", failing)
    with (tmp_path / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["what"], row["met"]) for row in rows] == [("first", "True"), ("failed", ""), ("rate", "False")]
    assert rows[1]["note"] == "RuntimeError: no kernel image"
    assert "three: left out, the time is over" in (tmp_path / "log.txt").read_text()


def test_packages_are_found_and_unpacked_where_they_are_missing(tmp_path):
    names = {line.split("==")[0].lower() for line in gpu_packages.needed("nnunetv2", set())}
    assert {"nnunetv2", "simpleitk", "scipy", "blosc2", "batchgenerators"} <= names
    assert not names & gpu_packages.WITH_TORCH
    for name in ("nowhere_known-1.0", "numpy-1.0"):
        with zipfile.ZipFile(tmp_path / f"{name}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name.split('-')[0]}/__init__.py", "")
    with zipfile.ZipFile(tmp_path / "part_1.zip", "w") as part:
        for wheel in tmp_path.glob("*.whl"):
            part.write(wheel, wheel.name)
    assert gpu_packages.unpack(tmp_path, tmp_path / "site") == ["nowhere_known"]
    assert (tmp_path / "site" / "nowhere_known" / "__init__.py").is_file()
