"""A benchmark's specification: what it may say, and how it says what is wrong."""

import re
from pathlib import Path

import pytest

from nnunetv2_eccam.benchmark.spec import read_spec, read_yaml
from nnunetv2_eccam.errors import UserError

SMALL = {"datasets": [2], "configurations": ["2d"], "trainers": ["nnUNetTrainer"], "folds": [0], "device": "cpu"}


def titles(*trainers, configurations=("2d",)) -> list[str]:
    spec = read_spec({**SMALL, "trainers": list(trainers), "configurations": list(configurations)}, "x.yaml")
    return [system.title for system in spec.trainers]


def test_what_is_written_is_read_again():
    spec = read_spec({**SMALL, "trainers": [{"trainer": "T", "configuration": "2d_x", "title": "Tee"}, "U"]}, "x.yaml")
    written = spec.model_dump(mode="json")
    assert read_spec(written, "spec.json") == spec
    assert written["trainers"][1] == {"trainer": "U", "plans": "nnUNetPlans", "configuration": "2d", "title": "U"}
    assert (written["datasets"], written["run"]["gpus"], written["statistics"]["bootstrap"]) == (["2"], 0, 10000)


def test_each_trainer_may_have_plans_of_its_own():
    trainers = ["nnUNetTrainerECCaM_UNet", "T", {"trainer": "T", "plans": "B"}, {"trainer": "S", "plans": "B"},
                {"trainer": "U", "plans": "B", "title": "You"}]  # fmt: skip
    spec = read_spec({**SMALL, "trainers": trainers}, "x.yaml")
    assert spec.titles == ("U-Net", "T__nnUNetPlans", "T__B", "S__B", "You")
    assert [each.folder for each in spec.trainers[1:3]] == ["2d/T", "2d/T__B"]
    assert spec.trainers[2].model == "T__B__2d"
    statistics = {"reference_system": "S__B"}
    assert read_spec({**SMALL, "trainers": trainers, "statistics": statistics}, "x.yaml").reference == "S__B"
    assert read_spec({**SMALL, "plans": "B", "trainers": trainers[2:4]}, "x.yaml").titles == ("T", "S")


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


@pytest.mark.parametrize(
    "path", [DOCS / "how-to" / "benchmark_example.yaml", *sorted((DOCS / "results").glob("*.yaml"))], ids=str
)
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
        ({"trainers": [{"trainer": "A", "plans": "../x"}]}, "trainers.0.plans is '../x'; it should be a name of"),
        ({"trainers": [{"trainer": "A", "titel": "x"}]}, "trainers.0.titel is not known (did you mean title?)"),
        ({"configurations": None}, "configurations is missing, and nnUNetTrainer has none of its own"),
        ({"folds": ["all"]}, "folds.0 is 'all'; it should be a valid integer"),
        ({"evaluation": 3}, "x.yaml: evaluation is 3; it should be a valid dictionary"),
        ({"statistics": {"metric": "dice"}}, "it should be 'dsc', 'sensitivity', 'precision', 'hd95' or 'nsd'"),
        ({"statistics": {"reference_system": "x"}}, "statistics.reference_system is 'x'; it should be one of nnUNetTr"),
        ({"run": {"jobs": 1.5}}, "run.jobs is 1.5; it should be a valid integer"),
        ({"run": {"gpus": 1}}, "run.gpus is 1; it should be 0 with device: cpu"),
        ({"published": {"D": "Heart"}}, "published.D is 'Heart'; it should be 'TCIA', 'MSD', 'KiTS' or 'Cardiac'"),
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
