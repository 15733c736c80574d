"""A benchmark's specification: what it may say, and how it says what is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from benchmark_stubs import NAME, FakeBase

from nnunetv2_eccam.benchmark.spec import read_spec, read_yaml
from nnunetv2_eccam.cli import main
from nnunetv2_eccam.errors import UserError

SMALL = {"datasets": [2], "configurations": ["2d"], "trainers": ["nnUNetTrainer"], "folds": [0], "device": "cpu"}


def titles(*trainers, configurations=("2d",)) -> list[str]:
    spec = read_spec({**SMALL, "trainers": list(trainers), "configurations": list(configurations)}, "x.yaml")
    return [system.title for system in spec.trainers]


def test_defaults_are_written_out():
    spec = read_spec(SMALL, "x.yaml")
    assert spec.model_dump(mode="json") == {
        "name": "benchmark",
        "datasets": ["2"],
        "trainers": [{"trainer": "nnUNetTrainer", "configuration": "2d", "title": "nnUNetTrainer"}],
        "folds": [0],
        "repeats": 1,
        "plans": "nnUNetPlans",
        "device": "cpu",
        "predict_test": True,
        "evaluation": {"nsd_tolerance_mm": 2.0, "slices": True, "group": None, "empty": "undefined",
                       "ignore_geometry": False},
        "statistics": {"metric": "dsc", "confidence": 0.95, "bootstrap": 10000, "seed": 0, "reference_system": None},
        "published": {},
        "run": {
            "engine": "local", "jobs": 1, "gpus": 0, "cpus": None, "hours": None, "memory_gb": None,
            "partition": None, "cpu_partition": None, "slurm": {},
        },
    }  # fmt: skip


def test_what_is_written_is_read_again():
    spec = read_spec({**SMALL, "trainers": [{"trainer": "T", "configuration": "2d_x", "title": "Tee"}, "U"]}, "x.yaml")
    assert read_spec(spec.model_dump(mode="json"), "spec.json") == spec


def test_slurm_has_other_defaults():
    run = read_spec({**SMALL, "device": "cuda", "run": {"engine": "slurm", "slurm": {"account": "me"}}}, "x.yaml").run
    assert (run.jobs, run.gpus, run.hours, run.slurm) == (64, 1, 24.0, {"account": "me"})


def test_a_data_set_may_be_none_of_the_papers_whatever_its_name():
    spec = read_spec({**SMALL, "published": {"Dataset002_Heart": None}}, "x.yaml")
    assert spec.model_dump(mode="json")["published"] == {"Dataset002_Heart": None}
    assert spec.model_copy(update={"datasets": ("Dataset002_Heart", "Dataset007_Pancreas")}).paper_names == {
        "Dataset007_Pancreas": "MSD"
    }


DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("path", [DOCS / "benchmark_example.yaml", *sorted((DOCS / "results").glob("*.yaml"))], ids=str)
def test_the_specifications_in_the_docs_are_valid(path):
    spec = read_spec({key: value for key, value in read_yaml(path).items() if key != "work_dir"}, path.name)
    assert len(spec.trainers) > 1
    assert spec.run.engine == "local"


def test_titles_are_the_papers_and_never_the_same():
    assert titles("nnUNetTrainerECCaM_5epochs", "nnUNetTrainerECCaM_UNetPlusPlus", "nnUNetTrainer") == [
        "EC-CaM-UNet", "U-Net++", "nnUNetTrainer",
    ]  # fmt: skip
    assert titles("nnUNetTrainerECCaM", configurations=("2d", "2d_x")) == ["EC-CaM-UNet (2d)", "EC-CaM-UNet (2d_x)"]
    assert titles("nnUNetTrainerECCaM", "nnUNetTrainerECCaMPaper") == [
        "EC-CaM-UNet (2d) (nnUNetTrainerECCaM)", "EC-CaM-UNet (2d) (nnUNetTrainerECCaMPaper)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": [1]}, "x.yaml: dataset is not known (did you mean datasets?)"),
        ({"datasets": None}, "x.yaml: datasets is missing"),
        ({"datasets": ["../x"]}, "datasets.0 is '../x'; it should be a name of letters"),
        ({"trainers": []}, "x.yaml: trainers is empty; it should be a list of trainers"),
        ({"trainers": [{"trainer": "A/B"}]}, "trainers.0.trainer is 'A/B'; it should be a name of letters"),
        ({"trainers": [{"trainer": "A", "titel": "x"}]}, "trainers.0.titel is not known (did you mean title?)"),
        ({"configurations": None}, "configurations is missing, and nnUNetTrainer has none of its own"),
        ({"folds": ["all"]}, "folds.0 is 'all'; it should be a valid integer"),
        ({"folds": [True]}, "folds.0 is True"),
        ({"repeats": 0}, "repeats is 0; it should be greater than or equal to 1"),
        ({"device": "gpu"}, "device is 'gpu'; it should be 'cpu', 'cuda' or 'mps'"),
        ({"predict_test": "yes"}, "predict_test is 'yes'; it should be a valid boolean"),
        ({"evaluation": {"nsd_tolerance_mm": 0}}, "evaluation.nsd_tolerance_mm is 0; it should be greater than 0"),
        ({"evaluation": 3}, "x.yaml: evaluation is 3; it should be a valid dictionary"),
        ({"statistics": {"confidence": 95}}, "statistics.confidence is 95; it should be less than 1"),
        ({"statistics": {"metric": "dice"}}, "it should be one of dsc, sensitivity, precision, hd95, nsd"),
        ({"statistics": {"reference_system": "x"}}, "statistics.reference_system is 'x'; it should be one of nnUNetTr"),
        ({"run": {"jobs": 1.5}}, "run.jobs is 1.5; it should be a valid integer"),
        ({"run": {"gpus": 1}}, "run.gpus is 1; it should be 0 with device: cpu"),
        ({"published": {"D": "Heart"}}, "published.D is 'Heart'; it should be one of TCIA, MSD, KiTS, Cardiac"),
        ({"repeats": 0, "device": 1}, "repeats is 0; it should be greater than or equal to 1; x.yaml: device is 1"),
    ],
)
def test_errors_name_the_field_and_what_it_may_be(change, message):
    with pytest.raises(UserError, match=re.escape(message)):
        read_spec({**SMALL, **change}, "x.yaml")


@pytest.mark.parametrize(("text", "message"), [("- a", "holds no mapping"), ("a: [", "is not valid YAML")])
def test_a_file_that_is_no_specification(tmp_path, text, message):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_yaml(tmp_path / "x.yaml")


@pytest.fixture
def base(tmp_path, monkeypatch) -> FakeBase:
    made = FakeBase(tmp_path).make()
    made.use(monkeypatch.setattr)
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return made


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "name a specification, or give data sets, configurations and trainers: -d, -c and -tr"),
        ("-d 7 -c 2d -tr A", "there is no data set 7"),
        ("-d 1 -c 2d_other -tr A", "has no configuration 2d_other (it has 2d, 2d_small, 3d_fullres"),
        ("-d 1 -c 3d_lowres -tr A", "is not preprocessed for 3d_lowres; run nnUNetv2_plan_and_preprocess"),
        ("-d 1 -c 3d_cascade_fullres -tr A", "is a cascade"),
        ("-d 1 -c 3d_fullres -tr nnUNetTrainerECCaM_CENet", "has no network of 3 dimensions"),
        ("-d 1 -c 2d -tr A -f 0 2 5", "folds: 2, 5 of Dataset001_Fake are beyond the 2 folds that"),
        ("-d 1 -c 2d -tr A -p other", "has no other.json (it has nnUNetPlans: choose with -p)"),
        ("-d 1 -c 2d -tr A -f 0 --work-dir preprocessed", "so it is not the work folder of a benchmark"),
    ],
)
def test_what_does_not_exist_is_named_before_anything_starts(base, capsys, words, message):
    assert main(["benchmark", *words.split(), *(["--device", "cpu"] if words else [])]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert base.calls() == []


def test_a_fold_beyond_nnunets_own_five(base, capsys):
    (base.folder / "preprocessed" / NAME / "splits_final.json").unlink()
    assert main(["benchmark", "-d", "1", "-c", "2d", "-tr", "A", "-f", "5", "--device", "cpu"]) == 1
    assert "5 of Dataset001_Fake is beyond the 5 folds that nnU-Net makes (0 to 4); nnU-Net would split at random" in (
        capsys.readouterr().err
    )


def test_a_test_label_without_an_image(base, capsys):
    (base.folder / "raw" / NAME / "imagesTs" / "test_1_0000.nii.gz").unlink()
    assert main(["benchmark", "-d", "1", "-c", "2d", "-tr", "A", "-f", "0", "--device", "cpu"]) == 1
    assert "labels without an image" in capsys.readouterr().err


def test_options_win_over_the_file(base, capsys):
    (base.folder / "one.yaml").write_text("datasets: 1\nconfigurations: 2d\ntrainers: A\ndevice: cuda\n")
    words = ["benchmark", "one.yaml", "-f", "0", "--device", "cpu", "-c", "2d_small", "--no-test", "--dry-run"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "nnUNetv2_train Dataset001_Fake 2d_small 0 -tr A -p nnUNetPlans -device cpu" in out
    assert "nnUNetv2_predict" not in out
    assert str(base.folder / "one_benchmark" / "jobs") in out


def test_nnunet_is_asked_for_trainers_and_splits_in_one_process(nnunet_base, small_dataset):
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    from nnunetv2_eccam.benchmark.preflight import ask

    small_dataset("labels")
    folder = nnunet_base / "preprocessed" / "Dataset900_Labels"
    splits = folder / "splits_preflight.json"
    trainers = ["nnUNetTrainer_1epoch", "nnUNetTrainerECCaM_UNet_CC_3epochs", "nnUNetTrainerNobody"]
    with pytest.raises(UserError) as raised:
        ask(trainers, {splits: folder / "nnUNetPlans_2d"}, "cpu")
    assert str(raised.value) == (
        "trainers: nnU-Net finds no trainer nnUNetTrainerNobody; nnUNetv2_eccam trainers lists this package's, "
        "and nnUNet_extTrainer names folders with your own"
    )
    made = json.loads(splits.read_text())
    splits.unlink()
    assert made == generate_crossval_split([f"case_{i}" for i in range(6)], seed=12345, n_splits=5)
