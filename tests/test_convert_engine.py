"""What all converters share: names and ids, targets, resuming, reruns, dry runs; shown on the Decathlon."""

from __future__ import annotations

import argparse
import errno
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conversion_phantoms import (
    abdomen,
    every_byte,
    read_list,
    save,
    use_nnunet_folders,
    write_task,
)
from nnunetv2_eccam.dataset_conversion import command, engine, msd, parallel, placing
from nnunetv2_eccam.dataset_conversion.msd import convert_msd

from nnunetv2_eccam.errors import UserError


@pytest.fixture
def raw(tmp_path, monkeypatch):
    return use_nnunet_folders(tmp_path, monkeypatch)


@pytest.fixture
def heart(tmp_path):
    return write_task(tmp_path / "Task02_Heart", labels=("left atrium",), modality=("MRI",), prefix="la")


@pytest.fixture
def pancreas(tmp_path):
    return write_task(tmp_path / "Task07_Pancreas")


def quietly(source, **options):
    return convert_msd(source, processes=1, progress=False, **options)


def run_command(*words) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    arguments = parser.parse_args([str(word) for word in words])
    return command.run(arguments)


def rewrite(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


IMAGE = "imagesTr/la_002.nii.gz"


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden", "a b"])
def test_a_name_that_would_escape_is_refused(heart, raw, name):
    with pytest.raises(UserError, match="is not allowed"):
        quietly(heart, name=name)
    assert not list(raw.iterdir())


@pytest.mark.parametrize("number", [0, -3, 1000])
def test_an_id_that_nnunet_has_not_is_refused(heart, raw, number):
    with pytest.raises(UserError, match="1 to 999"):
        quietly(heart, dataset_id=number)


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"])
def test_refuses_an_id_that_another_data_set_has(heart, raw, variable):
    (raw.parent / variable / "Dataset002_Liver").mkdir()

    with pytest.raises(UserError, match=f"taken by Dataset002_Liver in {variable}"):
        quietly(heart)


def test_refuses_existing_target(heart, raw):
    quietly(heart)
    before = every_byte(raw)

    with pytest.raises(UserError, match="--overwrite"):
        quietly(heart, hold_out=1)

    assert every_byte(raw) == before


def test_overwrite_replaces_only_by_a_complete_data_set(heart, raw):
    quietly(heart)
    before = every_byte(raw / "Dataset002_Heart")
    good = (heart / IMAGE).read_bytes()
    (heart / IMAGE).unlink()  # it is a hard link; writing to it would change the published file
    rewrite(heart / IMAGE, good[:500])

    with pytest.raises(UserError, match="truncated"):
        quietly(heart, hold_out=1, overwrite=True)
    assert every_byte(raw / "Dataset002_Heart") == before

    rewrite(heart / IMAGE, good)
    quietly(heart, hold_out=1, overwrite=True)
    assert read_list(raw / "Dataset002_Heart")["numTraining"] == 3
    assert [path.name for path in raw.iterdir()] == ["Dataset002_Heart"]


def test_a_second_run_does_nothing(heart, raw):
    quietly(heart)
    before = {path: path.stat().st_mtime_ns for path in raw.rglob("*")}

    assert quietly(heart).status == "already converted"
    assert {path: path.stat().st_mtime_ns for path in raw.rglob("*")} == before


def test_a_second_run_notices_a_changed_source(heart, raw):
    quietly(heart)
    path = heart / IMAGE
    path.unlink()
    save(path, abdomen(seed=99)[0])

    with pytest.raises(UserError, match="was not made from this source"):
        quietly(heart)


@pytest.mark.parametrize("threads", [False, True])
def test_output_is_the_same_to_the_byte_whatever_the_number_of_processes(pancreas, raw, threads, monkeypatch):
    if not threads:
        monkeypatch.setattr(parallel, "WORTH_A_PROCESS", 0)
    first = every_byte(quietly(pancreas).folder)
    shutil.rmtree(raw / "Dataset007_Pancreas")

    second = every_byte(convert_msd(pancreas, processes=2, progress=False).folder)

    assert second == first
    assert str(pancreas.parent).encode() not in b"".join(first.values())


def test_an_interrupted_run_goes_on_where_it_stopped(heart, raw, monkeypatch):
    done = []

    def interrupted(source, target):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(source)
        placing.place_unchanged(source, target)

    monkeypatch.setattr(msd, "place_unchanged", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quietly(heart)
    assert [path.name for path in raw.iterdir()] == [".partial_Dataset002_Heart"]

    monkeypatch.setattr(msd, "place_unchanged", placing.place_unchanged)
    outcome = quietly(heart)

    assert outcome.resumed == 2
    resumed = every_byte(outcome.folder)
    shutil.rmtree(outcome.folder)
    assert resumed == every_byte(quietly(heart).folder)


def test_an_interrupted_run_with_other_options_is_not_continued(heart, raw, monkeypatch):
    monkeypatch.setattr(engine, "build_report", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        quietly(heart)
    monkeypatch.undo()
    use = {"nnUNet_raw": raw, "nnUNet_preprocessed": raw, "nnUNet_results": raw}
    for variable, folder in use.items():
        monkeypatch.setenv(variable, str(folder))

    outcome = quietly(heart, hold_out=2)

    assert outcome.resumed == 0
    assert len(list((outcome.folder / "imagesTr").iterdir())) == 2


def test_a_full_disk_is_an_error_that_can_be_mended(pancreas, raw, monkeypatch):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(UserError, match="File too large"):
            quietly(pancreas)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (raw / "Dataset007_Pancreas").exists()

    assert quietly(pancreas).status == "converted"


def test_a_target_that_cannot_be_written_to_is_refused(heart, raw, monkeypatch):
    def read_only(path, *_, **__):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "mkdir", read_only)

    with pytest.raises(UserError, match="Read-only file system"):
        quietly(heart)


def test_a_dry_run_finds_every_problem_and_writes_nothing(heart, raw, capsys):
    rewrite(heart / "imagesTr/la_001.nii.gz", b"nonsense")
    (heart / "labelsTr/la_002.nii.gz").unlink()
    save(heart / "labelsTr/la_003.nii.gz", abdomen()[1] * 0)

    with pytest.raises(UserError, match=r"3 problem\(s\)"):
        quietly(heart, dry_run=True)

    said = capsys.readouterr().err
    assert all(case in said for case in ("la_001", "la_002", "la_003"))
    assert not list(raw.iterdir())


def test_a_dry_run_goes_on_where_the_split_is_impossible(heart, raw, capsys):
    rewrite(heart / "imagesTr/la_001.nii.gz", b"nonsense")

    with pytest.raises(UserError, match=r"2 problem\(s\)"):
        quietly(heart, dry_run=True, split="paper")

    said = capsys.readouterr().err
    assert "cross-validates its 20 cases" in said
    assert "la_001" in said


def test_a_dry_run_of_good_data_says_what_would_be_done(heart, raw, capsys):
    assert run_command("msd-heart", heart, "--dry-run", "-np", 1, "--no-progress") == 0

    assert "4 in imagesTr, 2 in imagesTs, 0 in labelsTs" in capsys.readouterr().out
    assert not list(raw.iterdir())


def test_the_command_converts_and_says_so(heart, raw, capsys):
    assert run_command("msd-heart", heart, "--id", 42, "--name", "Atrium", "-np", 1, "--no-progress") == 0

    assert "converted 6 cases" in capsys.readouterr().out
    assert (raw / "Dataset042_Atrium/conversion_report.json").exists()


def test_a_missing_variable_is_named(heart, monkeypatch):
    monkeypatch.delenv("nnUNet_raw", raising=False)
    with pytest.raises(UserError, match="nnUNet_raw is not set"):
        quietly(heart)


def test_stale_preprocessed_data_is_pointed_out(heart, raw):
    (raw.parent / "nnUNet_preprocessed/Dataset002_Heart").mkdir()

    assert any("delete it, then plan" in line for line in quietly(heart).warnings)


def test_a_mistake_is_one_line_and_exit_code_1(heart, raw, capsys):
    from nnunetv2_eccam.cli import main

    (heart / "labelsTr/la_002.nii.gz").unlink()

    assert main(["convert", "msd-heart", str(heart), "-np", "1", "--no-progress"]) == 1

    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("nnUNetv2_eccam convert: error: ")
    assert "la_002" in line


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from nnunetv2_eccam.cli import main\n"
        "try: main(['convert', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'numpy', 'SimpleITK', 'nibabel', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
