"""The benchmark with nnU-Net's own commands, on the small data set: from the command to the report, and stops of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal

import pytest
import torch
from tiny_benchmark import NAME, TinyBenchmark, wait_until

from nnunetv2_eccam.cli import main
from nnunetv2_eccam.evaluation.score_files import SLICE_COLUMNS, VOLUME_COLUMNS, read_scores

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tiny(nnunet_base, small_dataset, tmp_path_factory):
    small_dataset("labels")
    made = TinyBenchmark(tmp_path_factory.mktemp("benchmark"), nnunet_base)
    yield made
    made.close()


@pytest.fixture(scope="module")
def finished(tiny) -> str:
    """A trainer with two plans, and one that fails; gives the output."""
    spec = tiny.folder / "spec.yaml"
    spec.write_text("trainers: [TinyA, {trainer: TinyA, plans: OtherPlans}, Broken]\n")
    return tiny.run(str(spec), "--jobs", "2", code=1)


@pytest.mark.parametrize(("system", "plans"), [("TinyA", "nnUNetPlans"), ("TinyA__OtherPlans", "OtherPlans")])
def test_each_system_is_trained_scored_predicted_and_recorded(tiny, finished, system, plans):
    summary = json.loads((tiny.fold("TinyA", plans) / "validation" / "summary.json").read_text())
    scores = read_scores(tiny.file("scores", system, "fold_0_volume.csv"), VOLUME_COLUMNS)
    expected = [case["metrics"][label]["FN"] for case in summary["metric_per_case"] for label in ("1", "2")]
    assert scores.fn.tolist() == expected
    assert len(read_scores(tiny.file("scores", system, "fold_0_slice.csv"), SLICE_COLUMNS)) > 2
    assert set(read_scores(tiny.file("scores", system, "test_volume.csv"), VOLUME_COLUMNS).case) == {"test_0"}
    record = json.loads(tiny.file("records", system, "fold_0.json").read_text())
    assert record["epochs"] == 1
    assert record["parameters"] > 1000
    assert 0 < record["train_seconds"] < 3600
    assert record["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert f"nnUNetv2_train {NAME} 2d 0 -tr TinyA -p {plans} " in record["commands"][0]
    record = json.loads(tiny.file("records", system, "test.json").read_text())
    assert record["predict_seconds"] > 0
    assert f"-tr TinyA -p {plans} " in record["commands"][0]


def test_systems_of_one_trainer_are_told_apart_by_their_plans(tiny, finished):
    parameters = [json.loads(tiny.file("records", system, "fold_0.json").read_text())["parameters"]
                  for system in ("TinyA", "TinyA__OtherPlans")]  # fmt: skip
    assert parameters[0] < parameters[1]
    titles = [f"TinyA__{plans}" for plans in ("nnUNetPlans", "OtherPlans")]
    for name in ("cases", "cost"):
        rows = (tiny.work / "report" / "tables" / f"{name}.csv").read_text()
        assert all(title in rows for title in titles)
    (figure,) = (tiny.work / "report" / "figures").glob("curves_*.svg")
    assert all(title in figure.read_text() for title in titles)


def test_a_training_that_fails_stops_no_other_and_shows_its_log(tiny, finished):
    assert "  RuntimeError: CUDA out of memory" in finished
    assert "not all jobs are done" in finished.splitlines()[-1]
    assert "TinyA" in (tiny.work / "report" / "index.html").read_text()
    assert "Broken" in (tiny.work / "report" / "tables" / "missing.csv").read_text()


def test_what_is_there_is_not_made_again(tiny, finished):
    os.utime(tiny.folder / "preprocessed" / NAME / "nnUNetPlans.json")
    log = tiny.fold("TinyA") / "eccam_benchmark" / "log.txt"
    before = log.read_text()
    output = tiny.run("-tr", "TinyA")
    assert "rule report" in output, "which is of one system now"
    assert not any(f"rule {name}" in output for name in ("train", "predict", "score"))
    (tiny.folder / "other.yaml").write_text("trainers: TinyA\nwork_dir: work\nevaluation: {nsd_tolerance_mm: 1}\n")
    output = tiny.run(str(tiny.folder / "other.yaml"))
    scores = read_scores(tiny.file("scores", "TinyA", "fold_0_volume.csv"), VOLUME_COLUMNS)
    assert scores.nsd_tolerance.unique() == [1]
    assert "rule train" not in output
    assert log.read_text() == before
    assert "rule score" in tiny.run("-tr", "TinyA", "--dry-run", "--forcerun", "score"), "Snakemake's options pass"


def test_a_training_that_was_stopped_or_killed_goes_on_from_its_checkpoint(tiny):
    """One that runs on without its benchmark is waited for."""
    tiny.set_epochs(100_000)
    trainer = ("-tr", "TinyC", "--no-test")
    (tiny.folder / "trainers" / "tiny_c.py").write_text("from tiny_trainers import TinyA\nclass TinyC(TinyA): pass\n")
    process = tiny.start(*trainer)
    tiny.wait_for_checkpoint("TinyC")
    process.terminate()
    assert "interrupted" in tiny.finish(process, 130).splitlines()[-1]
    wait_until(lambda: not tiny.processes(), seconds=30)

    process = tiny.start(*trainer)
    log = tiny.fold("TinyC") / "eccam_benchmark" / "log.txt"
    wait_until(lambda: "Epoch time" in log.read_text().partition(" --c")[2], tiny.output)
    for number in (process.pid, *children_of(process.pid)):  # the command and Snakemake, not the training
        os.kill(number, signal.SIGKILL)
    process.wait()
    left = tiny.processes()
    assert left, "the training runs on"
    tiny.set_epochs(1)
    process = tiny.start(*trainer)
    wait_until(lambda: "another process works in" in tiny.output(), tiny.output)
    for number in left:
        with contextlib.suppress(ProcessLookupError):  # a worker of the training's that has ended meanwhile
            os.kill(number, signal.SIGKILL)
    tiny.finish(process)
    commands = [line for line in log.read_text().splitlines() if line.startswith("$ ")]
    assert len(commands) == 3
    assert ["--c" in command for command in commands] == [False, True, True]
    assert json.loads(tiny.file("records", "TinyC", "fold_0.json").read_text())["epochs"] > 1


def children_of(parent: int) -> list[int]:
    with open(f"/proc/{parent}/task/{parent}/children") as stream:
        return [int(word) for word in stream.read().split()]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "name a specification, or give data sets, configurations and trainers: -d, -c and -tr"),
        ("-d 7 -c 2d -tr A", "there is no data set 7"),
        ("-d 900 -c 2d_other -tr A", "has no configuration 2d_other (it has 2d"),
        ("-d 900 -c 3d_fullres -tr A", "is not preprocessed for 3d_fullres; run nnUNetv2_plan_and_preprocess"),
        ("-d 900 -c 2d -tr A -f 0 2 5", "folds: 5 of Dataset900_Labels is beyond the 5 folds that"),
        ("-d 900 -c 2d -tr A -p other", "has no other.json (it has OtherPlans, nnUNetPlans: choose with -p)"),
        ("-d 900 -c 2d -tr nnUNetTrainerNobody", "nnU-Net finds no trainer nnUNetTrainerNobody"),
        ("-d 900 -c 2d -tr TinyA -f 0 --work-dir results", "so it is not the work folder of a benchmark"),
    ],
)
def test_what_does_not_exist_is_named_before_anything_starts(tiny, monkeypatch, capsys, words, message):
    for name, value in tiny.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tiny.folder)
    (tiny.folder / "results" / NAME).mkdir(exist_ok=True)
    assert main(["benchmark", *words.split(), *(["--device", "cpu"] if words else [])]) == 1
    err = capsys.readouterr().err
    assert message in err.splitlines()[-1]
    assert not (tiny.folder / "eccam_benchmark").exists()


def test_a_test_label_without_an_image(tiny, monkeypatch, capsys):
    for name, value in tiny.environment.items():
        monkeypatch.setenv(name, value)
    image = tiny.folder / "raw" / NAME / "imagesTs" / "test_0_0000.nii.gz"
    image.rename(image.with_suffix(".away"))
    assert main(["benchmark", "-d", "900", "-c", "2d", "-tr", "TinyA", "-f", "0", "--device", "cpu"]) == 1
    image.with_suffix(".away").rename(image)
    assert "labels without an image" in capsys.readouterr().err
