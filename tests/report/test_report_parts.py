"""Parts of the benchmark's report: numbers, nnU-Net's logs, tables as files, figures, the paper's rows."""

import csv
import json
import math
import re

import numpy as np
import pandas
import pytest
from benchmark_folder import write_checkpoint
from hypothesis import given
from hypothesis import strategies as st

from nnunetv2_eccam.benchmark.records import read_epochs
from nnunetv2_eccam.report.paper_tables import paper_rows
from nnunetv2_eccam.report.run_tables import climb
from nnunetv2_eccam.report.table import Table, value_text
from nnunetv2_eccam.systems.published import PUBLISHED

NAN = math.nan


@pytest.mark.parametrize(
    ("value", "column", "sign", "text"),
    [
        (87.3149, "", "", "87.31"), (None, "", "", ""), (NAN, "", "", ""), (math.inf, "", "", ""),
        (-0.001, "", "", "0.00"),
        (1.5, "", "+", "+1.50"), (-1.5, "", "+", "-1.50"), (0.001, "", "+", "0.00"), (12, "", "", "12"),
        (1.0, "p", "", "1.0"), (0.7, "p adjusted", "", "0.70"), (0.0123, "p", "", "0.012"), ("x", "p", "", "x"),
    ],
)  # fmt: skip
def test_numbers_have_fixed_decimals_and_p_values_two_digits(value, column, sign, text):
    assert value_text(value, column, sign) == text


# ---- nnU-Net's epochs -----------------------------------------------------------------------------


def test_the_furthest_checkpoint_gives_the_epochs_and_debug_json_their_steps(tmp_path):
    write_checkpoint(tmp_path, 3, 0.3, np.random.default_rng(0))
    epochs = read_epochs(tmp_path)
    assert epochs[["epoch", "steps"]].values.tolist() == [[0, 0], [1, 0], [2, 0]]
    assert epochs["train_loss"][0] == pytest.approx(0.5 - 1.3 * (1 - math.exp(-0.3)))
    assert epochs["seconds"].between(30, 35).all()
    (tmp_path / "debug.json").write_text(json.dumps({"num_iterations_per_epoch": "250"}))
    (tmp_path / "checkpoint_final.pth").rename(tmp_path / "checkpoint_best.pth")
    (tmp_path / "checkpoint_latest.pth").write_text("cut off")
    assert read_epochs(tmp_path)["steps"].tolist() == [250] * 3
    assert read_epochs(tmp_path / "nowhere").empty


def test_a_training_that_still_climbs_is_told_by_its_last_fifth():
    log = pandas.DataFrame({"epoch": range(50), "pseudo_dice": [min(number, 40) / 100 for number in range(50)]})
    assert climb(log) == pytest.approx(0, abs=1e-9)
    assert climb(log[:40]) == pytest.approx(8)  # one point an epoch, eight epochs
    assert math.isnan(climb(log[:9]))
    log.loc[35, "pseudo_dice"] = NAN
    assert climb(log[:40]) == pytest.approx(8)


# ---- tables ---------------------------------------------------------------------------------------

EVIL = "<script>alert(1)</script> & \"q\" 's' | 50% $x$ \\textbf{#_^~`*}"


def evil_table(text=EVIL):
    frame = pandas.DataFrame({
        "System": [text, "b", "c"], "mean": [87.1, NAN, -1.0], "SD": [4.0, NAN, NAN], "n": ["5", "", ""],
        text + " ": [1, 2, 3],
    })  # fmt: skip
    layout = {"DSC": "{mean} ± {SD}\n[{n} cases]"}
    return Table("t", text, frame, layout, (text,), frozenset({(0, "DSC")}))


def test_a_cell_shows_its_values_and_leaves_out_lines_without_any():
    table = evil_table("a")
    assert list(table.headers) == ["System", "DSC", "a "]
    assert list(table.numeric.values()) == [False, True, True]
    assert [row[1] for row in table.cells] == ["87.10 ± 4.00\n[5 cases]", "\u2013", "-1.00 ± \u2013"]


@given(st.text(st.characters(exclude_characters="\r\x00", exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_a_csv_is_read_back_as_it_was(tmp_path, text):
    evil_table(text).write(tmp_path)
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        header, first, *_ = csv.reader(file)
    assert header == ["System", "mean", "SD", "n", text + " "]
    assert first == [text, "87.1", "4", "5", "1"]


def test_markdown_has_no_names_with_a_meaning(tmp_path):
    evil_table().write(tmp_path)
    lines = (tmp_path / "t.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 5
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}
    assert "<script" not in "\n".join(lines)
    assert "| **87.10 ± 4.00<br>\\[5 cases\\]** |" in rows[2]


def test_latex_has_no_names_with_a_meaning(tmp_path):
    evil_table().write(tmp_path)
    text = (tmp_path / "t.tex").read_text()
    braces = text.replace(r"\\", "")  # line breaks
    assert braces.count("{") - braces.count(r"\{") == braces.count("}") - braces.count(r"\}")
    assert r"50\% \$x\$ \textbackslash{}textbf\{\#\_\textasciicircum{}\textasciitilde{}`*\}" in text  # the caption
    cells = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    assert r"50\% \$x\$ \textbackslash textbf\{\#\_" in cells
    assert r"\makecell[tr]{87.10 ± 4.00\\{}[5 cases]}" in cells
    assert r"\bfseries" in cells
    frame = pandas.DataFrame({"a": range(46)})
    assert r"\begin{longtable}{r}" in Table("t", "t", frame).latex()


def test_the_papers_rows_are_all_there_in_its_order():
    for name in ("I", "II", "III", "IV", "V"):
        assert paper_rows(name)[: len(PUBLISHED[name])] == list(PUBLISHED[name])
    assert paper_rows("Fig. 5") == [f"alpha = 0.{tenths}" for tenths in range(1, 10)]
