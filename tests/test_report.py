"""The report of a benchmark: what it says is what was measured, and what the page says is what the files say."""

from __future__ import annotations

import json
import math
import re
import statistics
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from benchmark_folder import HEART, PANCREAS, SYSTEMS, Dataset, WorkFolder, empty_prediction, volume_row
from report_page import read_csv, read_tables
from scipy import stats

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.evaluation.score_files import (
    SLICE_COLUMNS,
    VOLUME_COLUMNS,
    read_scores,
    score_table,
    write_scores,
)
from nnunetv2_eccam.report import write_report
from nnunetv2_eccam.report.case_values import Measured
from nnunetv2_eccam.report.collect import collect
from nnunetv2_eccam.report.read_spec import read_benchmark
from nnunetv2_eccam.statistics import holm
from nnunetv2_eccam.systems.published import PUBLISHED

ENVIRONMENT = {"nnUNet_raw": "raw", "nnUNet_preprocessed": "preprocessed", "nnUNet_results": "results"}

EVIL = "<script>window.evil=1</script><img src=x onerror=\"window.evil=1\"> & 'q' | 50%_$x$ \\textbf{#}"
EVIL_CASE = "la_<b>&\"'|$x_%#^~\\1"
SMALL = Dataset("Dataset002_Heart", ("left_atrium",), (("la_0", "la_1", "la_2"), ("la_3", "la_4", "la_5")))


@pytest.fixture(scope="module")
def at_home():
    """Set nnU-Net's folders for this module's work folders, and what was set before after it."""
    with pytest.MonkeyPatch.context() as patch:

        def move_to(base: Path) -> None:
            for variable, name in ENVIRONMENT.items():
                patch.setenv(variable, str(base / name))

        yield move_to


@pytest.fixture(scope="module")
def folder(tmp_path_factory, at_home) -> WorkFolder:
    """A benchmark with names from a nightmare, an empty prediction, a fold and a test set that are missing."""
    evil = Dataset(HEART.name, ("left <i>atrium",), ((EVIL_CASE, "la_2", "la_3"), ("la_4", "la_5", "la_6")))
    small = Dataset(PANCREAS.name, PANCREAS.labels, (("p_1", "p_2"), ("p_3", "p_4")), ("p_8", "p_9"))
    systems = ((*SYSTEMS[0][:2], EVIL), *SYSTEMS[1:])
    work = WorkFolder(tmp_path_factory.mktemp("benchmark"), (evil, small), systems, host="<b>host</b>")

    def change(row):
        system = row.pop("system")
        return empty_prediction(row) if (row["case"], system) == (EVIL_CASE, 0) else row

    at_home(work.base)
    work.write(change=change)
    work.write_images(evil)
    for unit in ("volume", "slice"):
        work.scores(evil, 2, "fold_1", unit).unlink()
        work.scores(small, 1, "test", unit).unlink()
    return work


@pytest.fixture(scope="module")
def page(folder) -> Path:
    return write_report(folder.work)


@pytest.fixture
def small(tmp_path, at_home):
    """Make a small benchmark; its report has no pictures, since there are no images."""

    def make(**changes) -> WorkFolder:
        work = WorkFolder(tmp_path, (SMALL,), **changes)
        at_home(tmp_path)
        work.write()
        return work

    return make


def table(work: WorkFolder, name: str) -> list[dict[str, str]]:
    return read_csv(work.work / "report" / "tables" / f"{name}.csv")


# ---- the page and the files -----------------------------------------------------------------------


def test_every_figure_is_a_file_that_needs_nothing_else(page):
    """Well-formed, without what viewers of SVG may not know, and with the names that the page has below it."""
    html = page.read_text()
    files = sorted((page.parent / "figures").iterdir())
    assert [path.stem for path in files] == sorted(re.findall(r'<figure class="drawing" id="([^"]+)"', html))
    assert len(files) > 3
    for path in files:
        root = ElementTree.parse(path).getroot()
        text = path.read_text()
        assert "var(" not in text
        assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
        block = html[html.index(f'id="{path.stem}"') :]
        block = block[: block.index("</figure>")]
        below = re.findall(r"</svg>\s*(?:<span>)?([^<]+?)(?:</span>)?\s*</li>", block)
        shown = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
        assert [unescape(name) for name in below] == (shown[-len(below) :] if below else [])
        colours = {part for rule in re.findall(r"\.s\d\.[^{]+{[^}]*}", text) for part in re.findall(r"#\w{6}", rule)}
        assert len(colours) >= 7  # each series' own
        _, _, width, height = map(float, root.get("viewBox").split())
        for group in root.findall("{http://www.w3.org/2000/svg}g"):  # the legend is within the picture
            x, y = map(float, re.findall(r"[\d.]+", group.get("transform")))
            assert 0 <= x < width
            assert 0 <= y <= height - 12


def test_every_value_of_the_page_is_that_of_the_file(page):
    tables = read_tables(page)
    files = {path.stem for path in (page.parent / "tables").glob("*.csv")}
    assert set(tables) == files
    assert len(files) > 15
    compared = 0
    for name, rows in tables.items():
        expected = read_csv(page.parent / "tables" / f"{name}.csv")
        assert len(rows) == len(expected) > 0, name
        for row, values in zip(rows, expected, strict=True):
            assert {field: row.get(field, "") for field in values} == values, name
            assert set(row) <= set(values)
            compared += len(values)
    assert compared > 1000


def test_every_value_of_a_file_is_in_its_markdown_and_latex(page):
    for path in (page.parent / "tables").glob("overall_*.csv"):
        texts = [path.with_suffix(ending).read_text() for ending in (".md", ".tex")]
        for row in read_csv(path):
            numbers = [value for field, value in row.items() if value and field not in ("System", "Label")]
            assert all(value in text for value in numbers for text in texts), path


def test_the_same_input_gives_the_same_bytes(folder, page):
    paths = [page, *sorted((page.parent / "tables").iterdir())]
    before = {path: path.read_bytes() for path in paths}
    (page.parent / "tables" / "overall_from_before.csv").write_text("a\n")
    write_report(folder.work)
    assert {path: path.read_bytes() for path in [page, *sorted((page.parent / "tables").iterdir())]} == before


def test_names_from_outside_are_text(page):
    html = page.read_text()
    assert "window.evil" in html
    for evil in ("<script>window", "<img src=x", "<b>host", "left <i>", "la_<b>"):
        assert evil not in html
    assert html.count("<script") == 1
    assert "style=" not in html.split("</style>")[1]  # which the content security policy forbids


def test_ids_are_unique_and_links_lead_somewhere(page):
    html = page.read_text()
    ids = re.findall(r'\sid="([^"]*)"', html)
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'href="#([^"]*)"', html)) | set(re.findall(r'labelledby="([^" ]*)"', html)) <= set(ids)
    for link in re.findall(r'href="(tables/[^"]*)"', html):
        assert (page.parent / link).is_file()


def test_the_page_asks_for_nothing(page):
    html = unescape(page.read_text())
    for asking in ("http://", "https://", "@import", "url(", 'src="/'):
        assert asking not in html.replace("http://www.w3.org/2000/svg", "")
    assert "default-src 'none'" in html


def test_cases_with_pictures_are_described_and_linked(page):
    html = page.read_text()
    assert html.count('<img src="data:image/webp;base64,') == 6
    assert html.count('alt="') == 6
    assert "No picture: " in html  # of the other data set, which has no images
    assert '<a href="#worst_dataset002_heart_1">la_&lt;b&gt;' in html


# ---- numbers --------------------------------------------------------------------------------------


def volumes(work, dataset, system, stems):
    frames = [read_scores(work.scores(dataset, system, stem), VOLUME_COLUMNS) for stem in stems]
    rows = [row for frame in frames for row in frame.to_dict("records")]
    return {(row["case"], row["label"]): row for row in rows}


def test_means_are_over_cases_with_sd_and_counts(folder, page):
    evil = folder.datasets[0]
    rows = volumes(folder, evil, 0, ["fold_0", "fold_1"]).values()
    (shown,) = [row for row in table(folder, "overall_dataset002_heart_validation_volume") if row["System"] == EVIL]
    dsc = [100 * row["dsc"] for row in rows]
    assert shown["DSC mean [%]"] == f"{statistics.mean(dsc):.2f}"
    assert shown["DSC SD [%]"] == f"{statistics.stdev(dsc):.2f}"
    assert float(shown["DSC CI low [%]"]) < statistics.mean(dsc) < float(shown["DSC CI high [%]"])
    assert (shown["DSC n"], shown["DSC n of"], shown["Cases"]) == ("6", "6", "6")
    distances = [row["hd95"] for row in rows if math.isfinite(row["hd95"])]
    assert len(distances) == 5  # one prediction is empty
    assert shown["HD95 mean [mm]"] == f"{statistics.mean(distances):.2f}"
    assert (shown["HD95 n"], shown["HD95 n of"]) == ("5", "6")


def test_slices_are_those_of_the_reference(small):
    work = small()
    path = work.scores(SMALL, 0, "fold_0", "slice")
    path.write_text(path.read_text() + "la_0,left_atrium,99,0,50,0,0.0,,0.0,empty reference\n")
    write_report(work.work)
    rows = [row for stem in ("fold_0", "fold_1")
            for row in read_scores(work.scores(SMALL, 0, stem, "slice"), SLICE_COLUMNS).to_dict("records")]  # fmt: skip
    held = [100 * row["dsc"] for row in rows if row["tp"] + row["fn"] > 0]
    assert len(held) == len(rows) - 1
    shown = table(work, "overall_dataset002_heart_validation_slice")[0]
    assert shown["DSC mean [%]"] == f"{statistics.mean(held):.2f}"
    assert shown["DSC n"] == str(len(held))


def test_comparisons_are_paired_adjusted_and_over_common_cases(folder, page):
    evil = folder.datasets[0]
    rows = [row for row in table(folder, "against_dataset002_heart_validation") if row["Metric"] == "DSC [%]"]
    reference = rows[0]["Against"]
    assert reference in (EVIL, "U-Net")  # nnU-Net lacks a fold
    place = {title: number for number, title in enumerate([EVIL, "U-Net", "nnU-Net"])}
    base = volumes(folder, evil, place[reference], ["fold_0", "fold_1"])
    expected = []
    for row in rows:
        stems = ["fold_0"] if row["System"] == "nnU-Net" else ["fold_0", "fold_1"]
        other = volumes(folder, evil, place[row["System"]], stems)
        differences = [other[case]["dsc"] - base[case]["dsc"] for case in other]
        assert row["Pairs"] == str(len(differences)) == ("3" if row["System"] == "nnU-Net" else "6")
        assert float(row["mean difference"]) == pytest.approx(100 * statistics.mean(differences), abs=0.006)
        expected.append(stats.wilcoxon(differences).pvalue)
    for row, p, adjusted in zip(rows, expected, holm(expected), strict=True):
        assert float(row["p"]) == pytest.approx(p, rel=0.06)
        assert float(row["p (Holm)"]) == pytest.approx(adjusted, rel=0.06)


def test_a_pair_is_the_same_from_both_sides(folder, page):
    rows = {row["System"]: row for row in table(folder, "pairwise_dataset007_pancreas_validation_pancreas")}
    assert float(rows["U-Net"]["minus nnU-Net [%]"]) == -float(rows["nnU-Net"]["minus U-Net [%]"])
    assert rows["U-Net"]["minus nnU-Net: p"] == rows["nnU-Net"]["minus U-Net: p"]
    assert rows["U-Net"]["minus U-Net [%]"] == ""


def test_repeats_are_averaged_per_case(small):
    work = small(repeats=2)
    measured = Measured.of(collect(read_benchmark(work.work)))
    both = [read_scores(work.scores(SMALL, 1, "fold_0", repeat=repeat), VOLUME_COLUMNS) for repeat in (0, 1)]
    expected = {row["case"]: (row["dsc"] + other["dsc"]) / 2
                for row, other in zip(*(each.to_dict("records") for each in both), strict=True)}  # fmt: skip
    cases = measured.cases[(measured.cases["system"] == "U-Net") & (measured.cases["fold"] == "0")]
    assert dict(zip(cases["case"], cases["dsc"], strict=True)) == pytest.approx(expected)
    assert len(measured.cases) == 6 * 3
    assert set(measured.cases["trainings"]) == {2}
    write_report(work.work)
    assert {row["Repeat"] for row in table(work, "folds_dataset002_heart")} == {"0", "1"}
    assert {row["DSC n of"] for row in table(work, "overall_dataset002_heart_validation_volume")} == {"6"}


def test_the_best_is_bold_only_among_systems_with_all_cases(small):
    work = small(levels=(0.6, 0.5, 0.9))
    assert bold_systems(overall_markdown(work)) == {"nnU-Net"}
    work.scores(SMALL, 2, "fold_1").unlink()
    assert bold_systems(overall_markdown(work)) <= {"EC-CaM-UNet", "U-Net"}


def overall_markdown(work):
    page = write_report(work.work)
    return (page.parent / "tables" / "overall_dataset002_heart_validation_volume.md").read_text()


def bold_systems(markdown):
    rows = [line.split(" | ") for line in markdown.splitlines() if line.startswith("| ")]
    column = rows[0].index("DSC \\[%\\]")
    return {row[0].removeprefix("| ") for row in rows[2:] if row[column].startswith("**")}


def test_the_named_reference_is_the_reference(small):
    work = small(statistics={"bootstrap": 50, "reference_system": "nnU-Net"})
    write_report(work.work)
    assert {row["Against"] for row in table(work, "against_dataset002_heart_validation")} == {"nnU-Net"}
    p = {row["System"]: row["p (DSC, Holm)"] for row in table(work, "overall_dataset002_heart_validation_volume")}
    assert p["nnU-Net"] == "reference"


def test_distances_are_better_when_small(small):
    work = small(levels=(0.6, 0.5, 0.9), statistics={"bootstrap": 50, "metric": "hd95"})
    for system, distance in enumerate((3.0, 1.0, 2.0)):
        for fold, cases in enumerate(SMALL.folds):
            rng = np.random.default_rng(fold)
            rows = [volume_row(rng, case, "left_atrium", 0.8) | {"hd95": distance} for case in cases]
            write_scores(score_table(rows, VOLUME_COLUMNS), work.scores(SMALL, system, f"fold_{fold}"))
    write_report(work.work)
    ranks = {row["System"]: row["Dataset002_Heart, validation, left_atrium: mean rank"]
             for row in table(work, "ranks")}  # fmt: skip
    assert ranks == {"EC-CaM-UNet": "3.00", "U-Net": "1.00", "nnU-Net": "2.00"}
    assert table(work, "cases")[0]["System"] == "EC-CaM-UNet"  # the worst first
    (row, *_) = table(work, "against_dataset002_heart_validation")
    assert (row["Against"], row["Metric"], row["mean difference"]) == ("U-Net", "HD95 [mm]", "+2.00")


# ---- the paper, costs, provenance -----------------------------------------------------------------


def test_published_numbers_stand_in_columns_of_their_own(folder, page):
    shown = table(folder, "paper_table_i_dataset007_pancreas_test")
    rows = {(row["The paper's row"], row["Label"]): row for row in shown}
    assert rows["DeepLabV3+", ""]["DSC published [%]"] == f"{PUBLISHED['I']['DeepLabV3+']['MSD']['DSC']:.2f}"
    assert rows["DeepLabV3+", ""]["DSC measured per volume mean [%]"] == ""
    ours = rows["Our", "pancreas"]
    assert ours["System here"] == EVIL
    assert ours["Sensitivity published [%]"] == f"{PUBLISHED['I']['Our']['MSD']['sensitivity']:.2f}"
    (overall,) = [row for row in table(folder, "overall_dataset007_pancreas_test_volume")
                  if (row["System"], row["Label"]) == (EVIL, "pancreas")]  # fmt: skip
    assert ours["DSC measured per volume mean [%]"] == overall["DSC mean [%]"]
    assert rows["Our", "cancer"]["DSC published [%]"] == ""  # the paper has one label
    assert rows["(not in the paper)", "pancreas"]["System here"] == "nnU-Net"
    assert "not the same measurement" in page.read_text()
    tables = {path.stem for path in (page.parent / "tables").glob("paper_*.csv")}
    assert not any("table_v_" in name or "fig" in name for name in tables)  # of which no system was measured


def test_figure_5_is_drawn_from_two_points_on(small):
    systems = tuple((f"nnUNetTrainerECCaM_alpha_0{tenths}0", "2d", None) for tenths in (3, 1, 9))
    work = small(systems=systems, spec={"published": {SMALL.name: "TCIA"}})
    html = write_report(work.work).read_text()
    assert "DSC over alpha (Fig. 5)" in html
    assert "published: 73.14" in html
    rows = {row["The paper's row"]: row for row in table(work, "paper_fig_5_dataset002_heart_validation")}
    assert len(rows) == 9
    assert rows["alpha = 0.3"]["DSC published [%]"] == "73.14"
    assert rows["alpha = 0.5"]["System here"] == ""


def test_costs_come_from_records_and_logs(folder, page):
    rows = {(row["System"], row["Data set"]): row for row in table(folder, "cost")}
    row = rows["U-Net", HEART.name]
    assert (row["Trainings"], row["Parameters [M]"], row["Epochs"]) == ("2", "5.80", "10")
    assert (row["Hours per training"], row["Hours in all"]) == ("1.17", "2.33")
    assert (row["Energy [kWh]"], row["Energy known of"]) == ("1.00", "2")
    assert 30 <= float(row["Seconds per epoch"]) <= 35
    assert rows[EVIL, HEART.name]["Energy [kWh]"] == ""
    assert {row["Host"] for row in table(folder, "runs")} == {"<b>host</b>"}
    assert {row["Program"] for row in table(folder, "versions")} == {"nnunetv2", "nnunetv2-eccam", "torch"}


def test_records_with_gaps_are_read(small):
    work = small()
    path = work.record(SMALL, 0, "fold_0")
    path.write_text(json.dumps({"train_seconds": None, "versions": None, "commands": "x", "gpu": None, "cpu": "A CPU"}))
    write_report(work.work)
    assert table(work, "cost")[0]["Trainings"] == "2"
    assert table(work, "runs")[0]["Computed on"] == "A CPU"
    path.write_text("[]")
    with pytest.raises(UserError, match="is not a record"):
        write_report(work.work)


# ---- what is missing ------------------------------------------------------------------------------


def test_what_is_missing_is_said_at_the_top(folder, page):
    html = page.read_text()
    assert html.index("This benchmark is not complete") < html.index("Overview</h2>")
    said = {(row["System"], row["Data set"], row["Missing"]) for row in table(folder, "missing")}
    assert said == {
        ("nnU-Net", HEART.name, "scores of fold 1"),
        ("U-Net", PANCREAS.name, "scores of the test set"),
        ("nnU-Net", HEART.name, "3 of the 6 validation cases: la_4, la_5, la_6"),
    }


def test_a_complete_benchmark_says_nothing_of_it(small):
    work = small()
    html = write_report(work.work).read_text()
    assert "not complete" not in html
    work.scores(SMALL, 0, "fold_0", "slice").unlink()
    write_report(work.work)
    assert [row["Missing"] for row in table(work, "missing")] == ["slices' scores of fold 0"]


def test_a_benchmark_without_any_score_has_a_report(small):
    work = small()
    for path in [*(work.work / "scores").rglob("*.csv"), *(work.work / "records").rglob("*.json")]:
        path.unlink()
    html = write_report(work.work).read_text()
    assert "This benchmark is not complete" in html
    assert "Overview" not in html


def test_without_nnunets_folders_the_report_is_the_same_but_for_pictures_and_curves(small, monkeypatch):
    work = small()
    for variable in ENVIRONMENT:
        monkeypatch.delenv(variable)
    html = write_report(work.work).read_text()
    assert "No picture: the environment variable nnUNet_raw is not set" in html
    assert "per epoch. Lines" not in html
    assert table(work, "overview")


def test_a_single_system_has_no_comparisons(small):
    work = small(systems=SYSTEMS[:1])
    write_report(work.work)
    names = {path.stem for path in (work.work / "report" / "tables").glob("*.csv")}
    assert {"overview", "overall_dataset002_heart_validation_volume", "cases"} <= names
    assert not any(name.startswith(("against", "pairwise", "ranks")) for name in names)


def test_many_systems_have_their_matrix_in_parts(small):
    systems = tuple((f"nnUNetTrainer_{number}epochs", "2d", f"S{number}") for number in range(1, 15))
    work = small(systems=systems, levels=[0.7 + 0.01 * number for number in range(14)],
                 statistics={"bootstrap": 10})  # fmt: skip
    write_report(work.work)
    first, second = (table(work, f"pairwise_dataset002_heart_validation_left_atrium_{start}") for start in (1, 13))
    assert len(first) == len(second) == 14
    assert [len(rows[0]) for rows in (first, second)] == [1 + 3 * 12, 1 + 3 * 2]
    assert "(2 of 2)" in (work.work / "report" / "index.html").read_text()  # curves, seven systems at a time


def test_empty_masks_are_counted_and_listed(folder, page):
    (row,) = table(folder, "undefined")
    assert (row["System"], row["Prediction empty"], row["HD95 undefined"]) == (EVIL, "1", "1")
    worst = table(folder, "cases")[0]
    assert (worst["Case"], worst["DSC [%]"], worst["HD95 [mm]"], worst["Note"]) == (
        EVIL_CASE, "0.00", "", "empty prediction",
    )  # fmt: skip
    assert len(table(folder, "cases")) == 6 * 3 - 3 + (4 * 3 + 2 * 3 - 2) * 2


def test_the_methods_give_this_benchmarks_numbers(small):
    work = small(statistics={"bootstrap": 77, "confidence": 0.9, "seed": 5},
                 spec={"evaluation": {"nsd_tolerance_mm": 1.5, "slices": False, "empty": "diagonal",
                                      "ignore_geometry": True}})  # fmt: skip
    html = write_report(work.work).read_text()
    for said in ("90% confidence intervals", "77 resamples", "seed 5", "at most 1.5 mm apart", "folds 0, 1 of",
                 "HD95 is the image&#39;s diagonal", "Slices were not scored",
                 "whatever their headers say"):  # fmt: skip
        assert said in html
    assert not list((work.work / "report" / "tables").glob("*_slice.csv"))


def test_the_report_is_written_whole_or_not_at_all(small):
    work = small()
    (work.work / "report").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"report.* cannot be written"):
        write_report(work.work)
