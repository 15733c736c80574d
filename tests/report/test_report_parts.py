"""Parts of the benchmark's report: numbers, nnU-Net's logs, tables as files, figures, the paper's rows."""

from __future__ import annotations

import csv
import io
import json
import math
import re

import numpy as np
import pandas
import pytest
from benchmark_folder import write_log
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunetv2_eccam.report.paper_tables import paper_rows
from nnunetv2_eccam.report.run_tables import climb
from nnunetv2_eccam.report.table import Table, slug, value_text
from nnunetv2_eccam.report.training_logs import Epoch, read_training_logs
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


# ---- nnU-Net's logs -------------------------------------------------------------------------------

LOG = """
Please cite the following paper
2026-11-24 13:58:51.280418: Epoch 0
2026-11-24 13:58:51.280467: Current learning rate: 0.01
2026-11-24 14:10:36.823194: train_loss 0.9091
2026-11-24 14:10:36.823420: val_loss nan
2026-11-24 14:10:36.823459: Pseudo dice [np.float32(0.6612), np.float32(nan), np.float64(0.3)]
2026-11-24 14:10:36.823513: Epoch time: 705.54 s
2026-11-24 14:10:36.835068: Yayy! New best EMA pseudo Dice: 0.6611999869346619
2026-11-24 14:10:37.280926: Epoch 1
2026-11-24 14:10:37.281027: Current learning rate: 0.00536
2026-11-24 14:11:13.421744: train_loss -0.5153
2026-11-24 14:11:13.421945: val_loss -1e-05
2026-11-24 14:11:13.422012: Pseudo dice [0.8116, 0.5]
2026-11-24 14:11:13.422065: Epoch time: 36 s
2026-11-24 14:11:13.500000: Epoch 2
2026-11-24 14:11:14.421744: train_loss -0.6
"""


def test_a_log_gives_its_finished_epochs_and_debug_json_their_steps(tmp_path):
    (tmp_path / "training_log_2026_11_24_13_58_51.txt").write_text(LOG)
    first, second = read_training_logs(tmp_path)
    assert (first.epoch, first.train_loss, first.seconds, first.steps) == (0, 0.9091, 705.54, 0)
    assert math.isnan(first.val_loss)
    assert first.pseudo_dice == pytest.approx((0.6612 + 0.3) / 2)
    assert (second.train_loss, second.val_loss, second.seconds) == (-0.5153, -1e-05, 36.0)
    (tmp_path / "debug.json").write_text(json.dumps({"num_iterations_per_epoch": "250"}))
    assert {epoch.steps for epoch in read_training_logs(tmp_path)} == {250}


def test_a_resumed_training_goes_on_and_a_new_one_begins_anew(tmp_path):
    rng = np.random.default_rng(0)
    write_log(tmp_path / "training_log_2026_9_30_1_00_00.txt", 8, 0.3, rng)
    write_log(tmp_path / "training_log_2026_10_01_1_00_00.txt", 5, 0.3, rng, first=3)
    assert [epoch.epoch for epoch in read_training_logs(tmp_path)] == [0, 1, 2, 3, 4]
    write_log(tmp_path / "training_log_2026_10_02_1_00_00.txt", 2, 0.3, rng)
    assert [epoch.epoch for epoch in read_training_logs(tmp_path)] == [0, 1]
    assert read_training_logs(tmp_path / "nowhere") == []


def test_a_training_that_still_climbs_is_told_by_its_last_fifth():
    log = [Epoch(number, 0.0, 0.0, min(number, 40) / 100, 1.0) for number in range(50)]
    assert climb(log) == pytest.approx(0, abs=1e-9)
    assert climb(log[:40]) == pytest.approx(8)  # one point an epoch, eight epochs
    assert math.isnan(climb(log[:9]))
    assert climb([*log[:35], log[35]._replace(pseudo_dice=NAN), *log[36:40]]) == pytest.approx(8)


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


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_characters="\r\x00", exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_a_csv_is_read_back_as_it_was(text):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        evil_table(text).write(Path(folder))
        header, first, *_ = csv.reader(io.StringIO((Path(folder) / "t.csv").read_bytes().decode(), newline=""))
    assert header == ["System", "mean", "SD", "n", text + " "]
    assert first == [text, "87.1", "4", "5", "1"]


def test_markdown_has_no_names_with_a_meaning():
    lines = evil_table().markdown().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}
    assert "<script" not in "\n".join(lines)
    assert "| **87.10 ± 4.00<br>\\[5 cases\\]** |" in rows[2]


def test_latex_has_no_names_with_a_meaning():
    text = evil_table().latex()
    assert r"50\% \$x\$ \textbackslash{}textbf\{\#\_\textasciicircum{}\textasciitilde{}`*\}" in text  # the caption
    cells = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    assert r"50\% \$x\$ \textbackslash textbf\{\#\_" in cells
    assert r"\makecell[tr]{87.10 ± 4.00\\{}[5 cases]}" in cells
    assert r"\bfseries" in cells
    frame = pandas.DataFrame({"a": range(46)})
    assert r"\begin{longtable}{r}" in Table("t", "t", frame).latex()


def test_names_of_files_are_plain():
    assert slug("Dataset002_Heart", "../<b>", "Größe") == "dataset002_heart_b_gr_e"
    assert slug("§") == "table"


def test_the_papers_rows_are_all_there_in_its_order():
    for name in ("I", "II", "III", "IV", "V"):
        assert paper_rows(name)[: len(PUBLISHED[name])] == list(PUBLISHED[name])
    assert paper_rows("Fig. 5") == [f"alpha = 0.{tenths}" for tenths in range(1, 10)]
