"""``nnUNetv2_eccam splits``: folds in which no group of cases is on both sides."""

import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2_eccam.dataset_conversion.split_command import grouped_folds, groups_of

from nnunetv2_eccam.cli import main

CASES = [f"pancreas_{patient:04d}_{number:03d}" for patient in range(12) for number in range(1 + patient % 4)]
BY_PATIENT = r"pancreas_(\d+)_\d+"


@pytest.fixture
def raw(tmp_path, monkeypatch):
    for name in ("raw", "preprocessed"):
        (tmp_path / name / "Dataset082_Pancreas").mkdir(parents=True)
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    folder = tmp_path / "raw" / "Dataset082_Pancreas"
    (folder / "labelsTr").mkdir()
    for case in [*CASES, "._" + CASES[0]]:
        (folder / "labelsTr" / f"{case}.png").touch()
    (folder / "dataset.json").write_text(json.dumps({"file_ending": ".png"}))
    return folder


def test_folds_are_written_where_nnunet_reads_them(raw, capsys):
    assert main(["splits", "-d", "82", "--by", BY_PATIENT]) == 0
    folds = json.loads((raw / "splits_final.json").read_text())
    assert folds == json.loads((raw.parents[1] / "preprocessed" / raw.name / "splits_final.json").read_text())
    assert len(folds) == 5
    assert sorted(case for fold in folds for case in fold["val"]) == sorted(CASES)
    for fold in folds:
        assert sorted(fold["train"] + fold["val"]) == sorted(CASES)
        assert not {case[:13] for case in fold["train"]} & {case[:13] for case in fold["val"]}
    assert "30 cases of 12 groups" in capsys.readouterr().out
    assert main(["splits", "-d", raw.name, "--by", BY_PATIENT]) == 0
    assert capsys.readouterr().out.count("unchanged: ") == 2


def test_a_preprocessed_data_set_is_enough(raw):
    preprocessed = raw.parents[1] / "preprocessed" / raw.name
    (raw / "labelsTr").rename(preprocessed / "gt_segmentations")
    (raw / "dataset.json").rename(preprocessed / "dataset.json")
    shutil.rmtree(raw)
    assert main(["splits", "-d", "82", "--by", BY_PATIENT, "--n_splits", "3", "--seed", "1"]) == 0
    assert len(json.loads((preprocessed / "splits_final.json").read_text())) == 3


@given(
    cases=st.lists(st.from_regex(r"[a-z]{1,3}_[0-9]{3}", fullmatch=True), min_size=5, unique=True),
    seed=st.integers(0, 99),
)
def test_groups_of_one_case_are_nnunets_own_folds(cases, seed):
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    expected = generate_crossval_split(sorted(cases), seed=seed, n_splits=5)
    found = grouped_folds(groups_of(cases, "(.*)"), seed=seed)
    assert found == [{part: sorted(map(str, names)) for part, names in fold.items()} for fold in expected]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--by", r"pancreas_\d+_\d+"), "has no group in parentheses"),
        (("--by", r"pancreas_(\d+"), "is no regular expression"),
        (("--by", r"pancreas_(\d+)"), "does not match the whole name of the case pancreas_0000_000"),
        (("--by", BY_PATIENT, "--n_splits", "13"), "13 is not possible with 12 groups"),
        (("--by", BY_PATIENT, "--n_splits", "1"), "give 2 to 12"),
    ],
)
def test_what_makes_no_folds_is_one_line(raw, refused, words, expected):
    assert expected in refused("splits", "-d", "82", *words)
    assert not (raw / "splits_final.json").exists()


def test_other_folds_are_replaced_only_on_demand(raw, refused):
    (raw / "splits_final.json").write_text("[]")
    words = ["splits", "-d", "82", "--by", BY_PATIENT]
    assert "--overwrite" in refused(*words)
    assert (raw / "splits_final.json").read_text() == "[]"
    assert main([*words, "--overwrite"]) == 0
    assert len(json.loads((raw / "splits_final.json").read_text())) == 5
