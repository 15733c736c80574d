"""The benchmark with nnU-Net's own commands, on the small data set: from the command to the report, and stops of it."""

import contextlib
import json
import os
import signal

import pytest
import torch
from tiny_benchmark import NAME, TinyBenchmark, wait_until

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
    """A trainer with two plans and one that fails, after a run of the first was killed; gives the output.

    The killed run leaves its training, which is waited for until it ends too.
    """
    tiny.set_epochs(100_000)
    process = tiny.start("-tr", "TinyA", "--no-test")
    tiny.wait_for_checkpoint("TinyA")
    for number in (process.pid, *children_of(process.pid)):  # the command and Snakemake, not the training
        os.kill(number, signal.SIGKILL)
    process.wait()
    left = tiny.processes()
    assert left, "the training runs on"
    tiny.set_epochs(1)
    (tiny.folder / "spec.yaml").write_text("trainers: [TinyA, {trainer: TinyA, plans: OtherPlans}, Broken]\n")
    process = tiny.start(str(tiny.folder / "spec.yaml"), "--no-test", "--jobs", "2")
    wait_until(lambda: "another process works in" in tiny.output(), tiny.output)
    for number in left:
        with contextlib.suppress(ProcessLookupError):  # a worker of the training's that has ended meanwhile
            os.kill(number, signal.SIGKILL)
    return tiny.finish(process, 1)


def children_of(parent: int) -> list[int]:
    with open(f"/proc/{parent}/task/{parent}/children") as stream:
        return [int(word) for word in stream.read().split()]


@pytest.mark.parametrize(("system", "plans"), [("TinyA", "nnUNetPlans"), ("TinyA__OtherPlans", "OtherPlans")])
def test_each_system_is_trained_scored_and_recorded(tiny, finished, system, plans):
    summary = json.loads((tiny.fold("TinyA", plans) / "validation" / "summary.json").read_text())
    scores = read_scores(tiny.file("scores", system, "fold_0_volume.csv"), VOLUME_COLUMNS)
    expected = [case["metrics"][label]["FN"] for case in summary["metric_per_case"] for label in ("1", "2")]
    assert scores.fn.tolist() == expected
    assert len(read_scores(tiny.file("scores", system, "fold_0_slice.csv"), SLICE_COLUMNS)) > 2
    record = json.loads(tiny.file("records", system, "fold_0.json").read_text())
    assert record["parameters"] > 1000
    assert 0 < record["train_seconds"] < 3600
    assert record["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert f"nnUNetv2_train {NAME} 2d 0 -tr TinyA -p {plans} " in record["commands"][0]
    is_killed = plans == "nnUNetPlans"
    assert (record["epochs"] > 1) is is_killed, "it went on from its checkpoint"
    assert ["--c" in command for command in record["commands"]] == [False, True][: 1 + is_killed]


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


def test_what_is_there_is_not_made_again_and_what_is_missing_is_made(tiny, finished):
    os.utime(tiny.folder / "preprocessed" / NAME / "nnUNetPlans.json")
    output = tiny.run("-tr", "TinyA")
    assert "rule train" not in output
    assert [output.count(f"rule {name}:") for name in ("predict", "score", "report")] == [1, 1, 1]
    assert set(read_scores(tiny.file("scores", "TinyA", "test_volume.csv"), VOLUME_COLUMNS).case) == {"test_0"}
    record = json.loads(tiny.file("records", "TinyA", "test.json").read_text())
    assert record["predict_seconds"] > 0
    assert "-tr TinyA -p nnUNetPlans -f 0" in record["commands"][0]
    assert tiny.file("predictions", "TinyA", "test/test_0.nii.gz").is_file()


def test_another_tolerance_scores_again_and_test_images_without_labels_are_predicted(tiny, finished):
    (tiny.folder / "other.yaml").write_text(
        "trainers: {trainer: TinyA, plans: OtherPlans}\npredict_unlabelled: true\nevaluation: {nsd_tolerance_mm: 1}\n"
    )
    labels = tiny.folder / "raw" / NAME / "labelsTs"
    labels.rename(labels.with_name("away"))
    output = tiny.run(str(tiny.folder / "other.yaml"), "--dry-run")  # an option of Snakemake's
    labels.with_name("away").rename(labels)
    assert [output.count(f"rule {name}:") for name in ("train", "predict", "score")] == [0, 1, 1]
    assert "imagesTs -o predictions/repeat_0/Dataset900_Labels/2d/TinyA__OtherPlans/test " in output
    assert "test_volume.csv" not in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "name a specification, or give data sets, configurations and trainers: -d, -c and -tr"),
        ("-d 900 -c 2d_other -tr A", "has no configuration 2d_other (it has 2d"),
        ("-d 900 -c 3d_fullres -tr A", "is not preprocessed for 3d_fullres; run nnUNetv2_plan_and_preprocess"),
        ("-d 900 -c 2d -tr A -f 0 2 5", "folds: 5 of Dataset900_Labels is beyond the 5 folds that"),
        ("-d 900 -c 2d -tr A -p other", "has no other.json (it has OtherPlans, nnUNetPlans: choose with -p)"),
        ("-d 900 -c 2d -tr A -f 0 --dry-run --work-dir results", "is not empty and not a work folder of this command"),
    ],
)
def test_what_does_not_exist_is_named_before_anything_starts(tiny, monkeypatch, refused, words, message):
    for name, value in tiny.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tiny.folder)
    (tiny.folder / "results" / NAME).mkdir(exist_ok=True)
    assert message in refused("benchmark", *words.split(), *(["--device", "cpu"] if words else []))
    assert not (tiny.folder / "eccam_benchmark").exists()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("raw/{}/imagesTs/test_0_0000.nii.gz", "labels without an image"),
        ("preprocessed/{}/gt_segmentations", "is not preprocessed for 2d"),  # as after an interrupted preprocessing
    ],
)
def test_what_is_missing_is_named_before_anything_starts(tiny, monkeypatch, refused, what, said):
    for name, value in tiny.environment.items():
        monkeypatch.setenv(name, value)
    path = tiny.folder / what.format(NAME)
    path.rename(path.with_suffix(".away"))
    error = refused("benchmark", "-d", "900", "-c", "2d", "-tr", "TinyA", "-f", "0", "--device", "cpu")
    path.with_suffix(".away").rename(path)
    assert said in error
