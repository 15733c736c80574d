"""Parts of the benchmark's report: its specification, logs, numbers, tables as files, axes."""

from __future__ import annotations

import csv
import io
import json
import math
import re

import numpy as np
import pytest
from benchmark_folder import write_log
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.report.axes import Scale, limits, linear_ticks, logarithmic_limits, logarithmic_ticks
from nnunetv2_eccam.report.formatting import number, p_value
from nnunetv2_eccam.report.paper_tables import paper_rows
from nnunetv2_eccam.report.read_spec import paper_system, read_benchmark
from nnunetv2_eccam.report.svg import Drawing
from nnunetv2_eccam.report.table import Column, Table, cell, lines_of, plain_lines, slug, text_column, with_names_apart
from nnunetv2_eccam.report.table_files import as_csv, as_latex, as_markdown, escape_latex, escape_markdown
from nnunetv2_eccam.report.training_logs import read_training_logs
from nnunetv2_eccam.systems.published import PUBLISHED

# ---- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "options", "text"),
    [
        (87.3149, {}, "87.31"), (None, {}, ""), (math.nan, {}, ""), (math.inf, {}, ""), (-0.001, {}, "0.00"),
        (1.5, {"signed": True}, "+1.50"), (-1.5, {"signed": True}, "-1.50"), (0.001, {"signed": True}, "0.00"),
        (12, {"digits": 0}, "12"), (-3.2, {"digits": 1}, "-3.2"),
    ],
)  # fmt: skip
def test_a_number_has_fixed_decimals_and_no_sign_where_it_rounds_to_zero(value, options, text):
    assert number(value, **options) == text


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "1.0"), (0.7, "0.70"), (0.0123, "0.012"), (1.234e-7, "1.2e-07"), (math.nan, "")]
)
def test_a_p_value_has_two_significant_digits(value, text):
    assert p_value(value) == text


# ---- spec.json ------------------------------------------------------------------------------------


def written_spec(folder, **changes):
    content = {
        "name": "b", "datasets": ["Dataset002_Heart"], "configurations": ["2d"], "folds": [0],
        "trainers": ["nnUNetTrainerECCaM_20epochs"], **changes,
    }  # fmt: skip
    (folder / "spec.json").write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return folder


@pytest.mark.parametrize(
    ("trainer", "title"),
    [
        ("nnUNetTrainerECCaM", "EC-CaM-UNet"), ("nnUNetTrainerECCaM_1epoch", "EC-CaM-UNet"),
        ("nnUNetTrainerECCaMPaper_UNetPlusPlus_300epochs", "U-Net++"), ("nnUNetTrainerECCaM_alpha_030", "alpha = 0.3"),
        ("nnUNetTrainer_10epochs", None), ("nnUNetTrainerECCaM_NoSuchThing", None),
    ],
)  # fmt: skip
def test_a_trainer_is_known_by_its_name_without_its_length(trainer, title):
    system = paper_system(trainer)
    assert (system and system.title) == title


def test_systems_of_one_title_are_told_apart(tmp_path):
    trainers = [
        {"trainer": "nnUNetTrainerECCaM", "configurations": ["2d", "2d_eccam"], "title": None},
        "nnUNetTrainerECCaM_UNet", "nnUNetTrainerECCaMPaper_UNet", {"trainer": "nnUNetTrainer", "title": "nnU-Net"},
    ]  # fmt: skip
    benchmark = read_benchmark(written_spec(tmp_path, trainers=trainers))
    assert benchmark.titles == (
        "EC-CaM-UNet (2d)", "EC-CaM-UNet (2d_eccam)", "U-Net (2d) (nnUNetTrainerECCaM_UNet)",
        "U-Net (2d) (nnUNetTrainerECCaMPaper_UNet)", "nnU-Net",
    )  # fmt: skip


def test_published_names_follow_the_converters_names_and_the_spec(tmp_path):
    names = ["Dataset002_Heart", "Dataset107_Pancreas", "Dataset282_PancreasCT", "Dataset219_KiTS19", "Dataset050_Own"]
    assert dict(read_benchmark(written_spec(tmp_path, datasets=names)).published) == {
        names[0]: "Cardiac", names[1]: "MSD", names[2]: "TCIA", names[3]: "KiTS",
    }  # fmt: skip
    told = {"Dataset050_Own": "TCIA", "Dataset002_Heart": None}
    benchmark = read_benchmark(written_spec(tmp_path, datasets=[names[4], names[0]], published=told))
    assert dict(benchmark.published) == {"Dataset050_Own": "TCIA"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets": None}, "has no 'datasets'"),
        ({"statistics": {"metric": "iou"}}, "statistics.metric is iou; it is one of dsc"),
        ({"statistics": {"reference_system": "U-Net"}}, "U-Net, which is no system of it; they are EC-CaM-UNet"),
        ({"published": {"Dataset002_Heart": "Heart"}}, "published calls Dataset002_Heart Heart; the paper has TCIA"),
        ({"folds": ["first"]}, "is not as nnUNetv2_eccam benchmark writes it"),
    ],
)
def test_a_wrong_spec_is_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=re.escape(message)):
        read_benchmark(written_spec(tmp_path, **changes))


def test_a_folder_without_a_spec_is_refused(tmp_path):
    with pytest.raises(UserError, match="not the work folder of a benchmark"):
        read_benchmark(tmp_path)


def test_the_reference_may_be_named_by_its_trainer(tmp_path):
    folder = written_spec(tmp_path, statistics={"reference_system": "nnUNetTrainerECCaM_20epochs", "metric": "HD95"})
    benchmark = read_benchmark(folder)
    assert benchmark.reference == "EC-CaM-UNet"
    assert benchmark.metric.column == "hd95"


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


def test_a_log_gives_its_finished_epochs(tmp_path):
    (tmp_path / "training_log_2026_11_24_13_58_51.txt").write_text(LOG)
    first, second = read_training_logs(tmp_path)
    assert (first.epoch, first.train_loss, first.seconds) == (0, 0.9091, 705.54)
    assert math.isnan(first.val_loss)
    assert first.pseudo_dice == pytest.approx((0.6612 + 0.3) / 2)
    assert (second.train_loss, second.val_loss, second.seconds) == (-0.5153, -1e-05, 36.0)
    assert second.pseudo_dice == pytest.approx((0.8116 + 0.5) / 2)


def test_a_resumed_training_goes_on_and_a_new_one_begins_anew(tmp_path):
    rng = np.random.default_rng(0)
    write_log(tmp_path / "training_log_2026_9_30_1_00_00.txt", 8, 0.3, rng)
    write_log(tmp_path / "training_log_2026_10_01_1_00_00.txt", 5, 0.3, rng, first=3)
    resumed = read_training_logs(tmp_path)
    assert [epoch.epoch for epoch in resumed] == [0, 1, 2, 3, 4]
    write_log(tmp_path / "training_log_2026_10_02_1_00_00.txt", 2, 0.3, rng)
    assert [epoch.epoch for epoch in read_training_logs(tmp_path)] == [0, 1]
    assert read_training_logs(tmp_path / "nowhere") == []


# ---- tables ---------------------------------------------------------------------------------------

EVIL = "<script>alert(1)</script> & \"q\" 's' | 50% $x$ \\textbf{#_^~`*}"


def evil_table(text=EVIL):
    mean = Column("DSC", ("mean", "SD", "n"), ("{0} ± {1}", "{2} cases"), group=text)
    rows = ((cell(text), cell("87.10", "4.00", "5", best=True)), (cell("b"), cell("", "", "")),
            (cell("c"), cell("-1.00", "", "")))  # fmt: skip
    return Table("t", text, (text_column("System", heading=True), mean), rows, (text,))


def test_a_cell_shows_its_fields_and_leaves_out_lines_without_any():
    mean = evil_table().columns[1]
    assert plain_lines(mean, cell("87.10", "4.00", "5")) == ["87.10 ± 4.00", "5 cases"]
    assert plain_lines(mean, cell("87.10", "", "")) == ["87.10 ± \u2013"]
    assert plain_lines(mean, cell("", "", "")) == ["\u2013"]
    assert [part.field for part in lines_of(mean, cell("1", "2", "3"))[0]] == ["mean", None, "SD"]


def test_a_table_that_does_not_fit_its_columns_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        Table("t", "t", (Column("a", ("x", "y")),), ((cell("1"),),))
    with pytest.raises(ValueError, match="two columns of one name"):
        Table("t", "t", (Column("a"), Column("b", ("a",))), ())


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=30))
def test_a_csv_is_read_back_as_it_was(text):
    table = evil_table(text.replace("\x00", ""))
    header, *rows = list(csv.reader(io.StringIO(as_csv(table), newline="")))
    assert header == ["System", "mean", "SD", "n"]
    assert rows == [[value for each in row for value in each.values] for row in table.rows]


def test_markdown_has_no_names_with_a_meaning():
    lines = as_markdown(evil_table()).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    bars = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
    assert bars == {3}
    assert "<script" not in "\n".join(lines)
    assert rows[2].endswith("| **87.10 ± 4.00**<br>5 cases |")
    assert escape_markdown("a\nb_c") == "a b\\_c"


def test_latex_has_no_names_with_a_meaning():
    text = as_latex(evil_table())
    assert r"\textless{}script\textgreater{}alert(1)" in text
    assert r"\& {''}q{''} 's' \textbar{} 50\% \$x\$ \textbackslash{}textbf\{\#\_" in text
    assert r"\_\textasciicircum{}\textasciitilde{}\textasciigrave{}*\}" in text
    assert r"\textbf{87.10 $\pm$ 4.00}" in text
    assert r"\cmidrule(lr){2-2}" in text
    assert text.count(r" & 5 cases \\[2pt]") == 1
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("-1.25", "$-$1.25"), ("[-1, 2]", "{[}-1, 2]"), ("a--b", "a-{}-b"), ("EC-CaM", "EC-CaM"), ("\u2013", "--"),
     ("a\nb", "a b")],
)  # fmt: skip
def test_latex_reads_as_meant(text, expected):
    assert escape_latex(text) == expected


def test_a_long_latex_table_runs_over_pages():
    rows = tuple((cell(str(number_)),) for number_ in range(46))
    assert r"\begin{longtable}{l}" in as_latex(Table("t", "t", (text_column("a"),), rows))


def test_names_of_files_are_plain_and_apart():
    assert slug("Dataset002_Heart", "../<b>", "Größe") == "dataset002_heart_b_gr_e"
    assert slug("§") == "table"
    tables = with_names_apart([Table("a", "", (), ()), Table("a", "", (), ()), Table("b", "", (), ())])
    assert [table.name for table in tables] == ["a", "a_2", "b"]


def test_the_papers_rows_are_all_there_in_its_order():
    for name in ("I", "II", "III", "IV", "V"):
        assert paper_rows(name)[: len(PUBLISHED[name])] == list(PUBLISHED[name])
    assert paper_rows("Fig. 5") == [f"alpha = 0.{tenths}" for tenths in range(1, 10)]


# ---- drawings -------------------------------------------------------------------------------------

finite = st.floats(-1e5, 1e5, allow_nan=False)


@settings(max_examples=200, deadline=None)
@given(st.lists(finite, min_size=1, max_size=8))
def test_limits_hold_all_values_and_end_on_ticks(values):
    low, high = limits(values)
    assert low <= min(values) + 1e-6 * (high - low)
    assert max(values) <= high + 1e-6 * (high - low)
    ticks = linear_ticks(low, high)
    assert 2 <= len(ticks) <= 9
    assert all(low - 1e-6 * abs(high - low) <= tick <= high + 1e-6 * abs(high - low) for tick in ticks)


def test_limits_of_percent_stay_within_it():
    assert limits([3.0, 99.2], 0, 100) == (0, 100)
    low, high = limits([100.0, 100.0], 0, 100)
    assert low < high


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(1e-3, 1e6), min_size=2, max_size=6))
def test_logarithmic_ticks_are_within_their_limits(values):
    low, high = logarithmic_limits(values)
    assert low < min(values) <= max(values) < high
    assert all(low <= tick <= high * (1 + 1e-6) for tick in logarithmic_ticks(low, high))
    scale = Scale(low, high, 0, 100, logarithmic=True)
    assert 0 <= scale(min(values)) <= scale(max(values)) <= 100


def test_a_drawing_escapes_names():
    drawing = Drawing(10, 10, EVIL, EVIL, "n")
    drawing.text((0, 0), EVIL)
    drawing.marker((0, 0), 0, "", EVIL)
    assert "<script" not in drawing.markup()
    assert drawing.markup().count("&lt;script&gt;") == 4
