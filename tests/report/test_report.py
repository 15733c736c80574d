"""The report of a benchmark: what it says is what was measured, and what the page says is what the files say."""

import json
import math
import re
import statistics
from html import unescape
from xml.etree import ElementTree

import numpy as np
import pytest
from benchmark_folder import EVIL, EVIL_CASE, HEART, PANCREAS, SMALL, empty_prediction, volume_row
from scipy import stats

from nnunetv2_eccam.errors import UserError
from nnunetv2_eccam.evaluation.score_files import VOLUME_COLUMNS, read_scores, score_table, write_scores
from nnunetv2_eccam.report import write_report
from nnunetv2_eccam.report.measured import METRICS, Measured, Where
from nnunetv2_eccam.report.result_tables import best_of
from nnunetv2_eccam.statistics import compare, holm, summarise
from nnunetv2_eccam.systems.published import PUBLISHED

DSC = METRICS["dsc"]


def page_tables(html: str) -> dict[str, tuple[list[str], list[list[str]]]]:
    """Give the page's tables by name: headers and cells, the lines of a cell joined by |."""

    def text(markup: str) -> str:
        return unescape(re.sub(r"<[^>]*>", "", markup.replace('<span class="more">', "|"))).strip()

    found = {}
    for name, content in re.findall(r'<table id="([^"]*)".*?>(.*?)</table>', html, re.DOTALL):
        rows = [re.findall(r"<t[hd][ >].*?</t[hd]>", row, re.DOTALL) for row in content.split("<tr>")[1:]]
        found[name] = ([text(cell) for cell in rows[0]], [[text(cell) for cell in row] for row in rows[1:]])
    return found


# ---- the page and the files -----------------------------------------------------------------------


def test_every_table_of_the_page_is_in_its_files(folder, page):
    tables = page_tables(page.read_text())
    assert {path.stem for path in (page.parent / "tables").iterdir()} == set(tables)
    for name, (headers, rows) in tables.items():
        written = folder.table(name)
        assert len(written) == len(rows), name
        for row, values in zip(rows, written, strict=True):
            for header, cell in zip(headers, row, strict=True):
                value = values.get(header)
                if value is None or "|" in cell:  # a cell of several values: each number in it is one of the file's
                    numbers = {round(abs(float(each)), 1) for each in values.values() if is_number(each)}
                    digits = (float(each) for each in re.findall(r"\d+\.\d\d", cell))
                    assert all(any(abs(each - other) < 0.11 for other in numbers) for each in digits), (name, cell)
                elif is_number(value) and not header.startswith("p"):
                    assert float(cell) == pytest.approx(float(value), abs=0.0051)
                elif not is_number(value):
                    assert " ".join(cell.split()) == " ".join((value or "\u2013").split())


def is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d*)?(e-?\d+)?", text or "") is not None


def test_a_system_that_predicts_nothing_at_all_is_drawn_without_its_undefined_distances(small):
    work = small(lambda row: empty_prediction(row) if row.pop("system") == 0 else row)
    figures = {path.name for path in (write_report(work.work).parent / "figures").iterdir()}
    assert "values_dataset002_heart_val_1_left_atrium_hd95.svg" in figures


def test_every_figure_is_a_file_that_needs_nothing_else(page):
    html = page.read_text()
    files = sorted((page.parent / "figures").iterdir())
    assert [path.stem for path in files] == sorted(re.findall(r'<figure class="drawing" id="([^"]+)"', html))
    assert len(files) > 6
    for path in files:
        root = ElementTree.parse(path).getroot()
        assert root.tag.endswith("svg")
        assert not [each for each in root.iter() if each.tag.endswith(("script", "image", "foreignObject"))]
        references = [value for each in root.iter() for name, value in each.attrib.items() if name.endswith("href")]
        assert all(value.startswith("#") for value in references)
    assert any("U-Net" in path.read_text() for path in files)  # text stays text


def test_names_become_no_code_and_the_page_asks_for_nothing(page):
    html = page.read_text()
    assert html.count("<script>") == 1
    for name in ("<script>window", "<b>host", "<i>atrium", "<img src=x"):
        assert name not in html
    assert unescape(html).count(EVIL) > 3
    for asking in ("http://", "https://", "@import", "url(", 'src="/'):
        assert asking not in re.sub(r'base64,[^"]*"', "", unescape(html))
    assert "default-src 'none'" in html
    assert html.count('<img src="data:image/webp;base64,') == 6
    assert "No picture: " in html  # of the other data set, which has no images
    assert '<a href="#worst_dataset002_heart_1">la_&lt;b&gt;' in html


def test_ids_are_unique_and_links_lead_somewhere(page):
    html = page.read_text()
    ids = re.findall(r'\sid="([^"]*)"', html)
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'href="#([^"]*)"', html)) | set(re.findall(r'labelledby="([^" ]*)"', html)) <= set(ids)
    for link in re.findall(r'href="((?:tables|figures)/[^"]*)"', html):
        assert (page.parent / link).is_file()


def test_the_same_scores_give_the_same_bytes_and_old_files_go(small):
    work = small()
    path = work.record(SMALL, 0, "fold_0")
    path.write_text(json.dumps({"train_seconds": None, "versions": None, "commands": "x", "gpu": None, "cpu": "A CPU"}))
    page = write_report(work.work)
    before = {path: path.read_bytes() for path in page.parent.rglob("*") if path.is_file()}
    assert "not complete" not in page.read_text()
    assert work.table("cost")[0]["Trainings"] == "2", "records may have gaps"
    assert work.table("runs")[0]["Computed on"] == "A CPU"
    (page.parent / "tables" / "old.csv").write_text("x")
    write_report(work.work)
    assert {path: path.read_bytes() for path in page.parent.rglob("*") if path.is_file()} == before


def test_what_cannot_be_read_or_written_is_said(small, refused):
    work = small()
    (work.work / "report").write_text("a file where the folder should be")
    said = refused("benchmark", "--report-only", "-o", work.work)
    assert said == f"nnUNetv2_eccam benchmark: error: {work.work}/report/tables: Not a directory"
    work.record(SMALL, 0, "fold_0").write_text("[]")
    with pytest.raises(UserError, match="is not a record"):
        write_report(work.work)
    work.spec["evaluation"] = {"group": "liver", "slices": False}
    work.record(SMALL, 0, "fold_0").unlink()
    work.write_spec()
    with pytest.raises(UserError, match="does not match the case la_0"):
        Measured(work.work)


# ---- numbers --------------------------------------------------------------------------------------


def volumes(work, dataset, system, stems, repeat=0):
    frames = [read_scores(work.scores(dataset, system, stem, repeat=repeat), VOLUME_COLUMNS) for stem in stems]
    return {(row["case"], row["label"]): row for frame in frames for row in frame.to_dict("records")}


def test_means_are_over_cases_with_sd_and_counts(folder, page):
    rows = [row for _, row in sorted(volumes(folder, HEART, 0, ["fold_0", "fold_1"]).items())]
    (shown,) = [row for row in folder.table("overall_dataset002_heart_validation_volume") if row["System"] == EVIL]
    dsc = [100 * row["dsc"] for row in rows]
    expected = summarise(dsc, n_bootstrap=200)
    for name, value in (("mean", statistics.mean(dsc)), ("SD", statistics.stdev(dsc)), ("low", expected.low)):
        assert float(shown[f"DSC {name}"]) == pytest.approx(value, rel=1e-5)
    distances = [row["hd95"] for row in rows if math.isfinite(row["hd95"])]
    assert float(shown["HD95 mean"]) == pytest.approx(statistics.mean(distances), rel=1e-5)
    assert (shown["HD95 n"], shown["HD95 n of"]) == ("5", "6")  # one prediction is empty


def test_comparisons_are_paired_adjusted_and_over_common_cases(folder, page):
    rows = [row for row in folder.table("against_dataset002_heart_validation") if row["Metric"] == "DSC [%]"]
    reference = rows[0]["Other"]
    assert reference in (EVIL, "U-Net")  # nnU-Net lacks a fold
    place = {title: number for number, title in enumerate([EVIL, "U-Net", "nnU-Net"])}
    base = volumes(folder, HEART, place[reference], ["fold_0", "fold_1"])
    expected = []
    for row in rows:
        stems = ["fold_0"] if row["System"] == "nnU-Net" else ["fold_0", "fold_1"]
        other = volumes(folder, HEART, place[row["System"]], stems)
        differences = [100 * (other[case]["dsc"] - base[case]["dsc"]) for case in other]
        assert row["pairs"] == str(len(differences)) == ("3" if row["System"] == "nnU-Net" else "6")
        assert float(row["difference"]) == pytest.approx(statistics.mean(differences), rel=1e-5)
        expected.append(stats.wilcoxon(differences).pvalue)
    for row, p, adjusted in zip(rows, expected, holm(expected), strict=True):
        assert (float(row["p"]), float(row["p adjusted"])) == pytest.approx((p, adjusted), rel=1e-4)
    html = unescape(page.read_text())
    assert "Dataset002_Heart, validation, left <i>atrium: 3 pairs cannot show a difference to be significant" in html


def test_intervals_resample_trainings_where_there_are_several(small):
    work = small(repeats=2)
    where = Where(SMALL.name, "val", "left_atrium")
    measured = Measured(work.work)
    cases = [case for fold in SMALL.folds for case in fold]
    dsc = [np.array([[100 * volumes(work, SMALL, system, ["fold_0", "fold_1"], repeat)[case, "left_atrium"]["dsc"]
                      for repeat in (0, 1)] for case in cases]) for system in (0, 1)]  # fmt: skip
    folds = ["0"] * 3 + ["1"] * 3
    assert measured.compare(where, "EC-CaM-UNet", "U-Net", DSC) == compare(*dsc, folds, n_bootstrap=50)
    assert measured.summary("volume", where, "U-Net", DSC) == summarise(dsc[1], cases, folds, n_bootstrap=50)
    html = write_report(work.work).read_text()
    assert "and, within each fold, of its trainings" in html
    assert {row["Repeat"] for row in work.table("folds_dataset002_heart")} == {"0", "1"}
    assert {row["Trainings"] for row in work.table("cases")} == {"2"}


def test_patients_are_pooled_and_what_is_independent(small):
    """Three slices of each of two patients a fold."""
    work = small(spec={"evaluation": {"group": r"(la_\d)", "slices": False}}, statistics={"bootstrap": 50})
    for system in range(3):
        for fold, patients in enumerate(SMALL.folds):
            rng = np.random.default_rng([system, fold])
            rows = [volume_row(rng, f"{patient}_{part}", "left_atrium", 0.8) for patient in patients for part in "abc"]
            write_scores(score_table(rows, VOLUME_COLUMNS), work.scores(SMALL, system, f"fold_{fold}"))
    html = write_report(work.work).read_text()
    rows = list(volumes(work, SMALL, 1, ["fold_0", "fold_1"]).values())
    sums = {patient: [sum(row[name] for row in rows if row["case"].startswith(patient)) for name in ("tp", "fp", "fn")]
            for patient in dict.fromkeys(row["case"][:4] for row in rows)}  # fmt: skip
    pooled = [200 * tp / (2 * tp + fp + fn) for tp, fp, fn in sums.values()]
    (shown,) = [row for row in work.table("overview") if row["System"] == "U-Net"]
    assert float(shown["DSC mean"]) == pytest.approx(statistics.mean(pooled), rel=1e-5)
    assert shown["DSC n"] == "6"
    against = {row["Metric"]: row["pairs"] for row in work.table("against_dataset002_heart_validation")}
    assert against == dict.fromkeys(against, "6")  # surfaces too, by each patient's mean
    assert len(work.table("cases")) == 3 * 18
    assert "resamples of whole patients" in html


def test_the_reference_is_the_named_one_and_the_methods_give_this_benchmarks_numbers(small):
    asked = {"bootstrap": 77, "confidence": 0.9, "seed": 5, "reference_system": "nnU-Net"}
    evaluation = {"nsd_tolerance_mm": 1.5, "slices": False, "empty": "diagonal", "ignore_geometry": True}
    work = small(levels=(0.6, 0.5, 0.9), statistics=asked, spec={"evaluation": evaluation})
    html = write_report(work.work).read_text()
    assert {row["Other"] for row in work.table("against_dataset002_heart_validation")} == {"nnU-Net"}
    assert [row["System"] for row in work.table("overview") if row["role"] == "reference"] == ["nnU-Net"]
    assert {row["Cost"] for row in work.table("overview")} == {"0.75", "0.875", "1"}
    for said in ("90% confidence intervals", "77 resamples", "seed 5", "at most 1.5 mm apart", "folds 0, 1 of",
                 "the image's diagonal", "Slices were not scored", "whatever their headers say"):  # fmt: skip
        assert said in html
    assert not list((work.work / "report" / "tables").glob("*_slice.csv"))
    where = Where(SMALL.name, "val", "left_atrium")
    means = {"EC-CaM-UNet": 60.0, "U-Net": 50.0, "nnU-Net": 90.0}
    assert best_of(Measured(work.work), where, DSC, means) == {"nnU-Net"}
    work.scores(SMALL, 2, "fold_1").unlink()
    assert best_of(Measured(work.work), where, DSC, means) == {"EC-CaM-UNet"}, "nnU-Net lacks cases"


def test_distances_are_better_when_small_and_in_the_images_unit(small):
    work = small(statistics={"bootstrap": 50, "metric": "hd95"})
    for system, distance in enumerate((3.0, 1.0, 2.0)):
        for fold, cases in enumerate(SMALL.folds):
            rng = np.random.default_rng(fold)
            rows = [volume_row(rng, case, "left_atrium", 0.8) | {"hd95": distance, "unit": "px"} for case in cases]
            write_scores(score_table(rows, VOLUME_COLUMNS), work.scores(SMALL, system, f"fold_{fold}"))
    html = write_report(work.work).read_text()
    assert work.table("cases")[0]["System"] == "EC-CaM-UNet"  # the worst first
    (row, *_) = work.table("against_dataset002_heart_validation")
    assert (row["Other"], row["Metric"], row["difference"]) == ("U-Net", "HD95 [px]", "2")
    assert "HD95 [mm]" not in html


# ---- the paper, costs, provenance -----------------------------------------------------------------


def test_published_numbers_stand_in_columns_of_their_own(folder, page):
    shown = folder.table("paper_table_i_dataset007_pancreas_test")
    rows = {(row["The paper's row"], row["Label"]): row for row in shown}
    assert float(rows["DeepLabV3+", ""]["DSC published"]) == PUBLISHED["I"]["DeepLabV3+"]["MSD"]["DSC"]
    assert rows["DeepLabV3+", ""]["DSC per volume mean"] == ""
    ours = rows["Our", "pancreas"]
    assert " ".join(ours["System here"].split()) == " ".join(EVIL.split())
    (overall,) = [row for row in folder.table("overall_dataset007_pancreas_test_volume")
                  if (row["System"], row["Label"]) == (EVIL, "pancreas")]  # fmt: skip
    assert ours["DSC per volume mean"] == overall["DSC mean"]
    assert rows["Our", "cancer"]["DSC published"] == ""  # the paper has one label
    assert rows["(not in the paper)", "pancreas"]["System here"] == "nnU-Net"
    assert "not the same measurement" in page.read_text()
    tables = {path.stem for path in (page.parent / "tables").glob("paper_*.csv")}
    assert not any("table_v_" in name or "fig" in name for name in tables)  # of which no system was measured


def test_figure_5_is_a_table_of_its_points(small):
    systems = tuple((f"nnUNetTrainerECCaM_alpha_0{tenths}0", "2d", None) for tenths in (3, 1, 9))
    work = small(systems=systems, spec={"published": {SMALL.name: "TCIA"}})
    write_report(work.work)
    rows = {row["The paper's row"]: row for row in work.table("paper_fig_5_dataset002_heart_validation")}
    assert len(rows) == 9
    assert rows["alpha = 0.3"]["DSC published"] == "73.14"
    assert rows["alpha = 0.5"]["System here"] == ""


def test_costs_come_from_records_and_logs(folder, page):
    rows = {(row["System"], row["Data set"]): row for row in folder.table("cost")}
    row = rows["U-Net", HEART.name]
    assert (row["Trainings"], row["Parameters [M]"], row["Epochs"]) == ("2", "5.8", "10")
    assert (float(row["Hours per training"]), float(row["Hours in all"])) == pytest.approx((7 / 6, 7 / 3), rel=1e-4)
    assert (row["energy"], row["known"]) == ("1", "of 2 trainings")
    assert 30 <= float(row["Seconds per epoch"]) <= 35
    assert rows[EVIL, HEART.name]["energy"] == ""
    assert {row["Hostname"] for row in folder.table("runs")} == {"<b>host</b>"}
    versions = {row["Versions"] for row in folder.table("runs")}
    assert versions == {"nnunetv2 2.8.1, torch 2.14.0, nnunetv2-eccam 0.1.0"}


# ---- what is missing ------------------------------------------------------------------------------


def test_what_is_missing_is_said_at_the_top(folder, page):
    html = page.read_text()
    assert html.index("This benchmark is not complete") < html.index("Overview</h2>")
    assert {(row["System"], row["Data set"], row["Without scores"]) for row in folder.table("missing")} == {
        ("nnU-Net", HEART.name, "fold 1, 3 of 6 validation cases (la_4, la_5, la_6)"),
        ("U-Net", PANCREAS.name, "test set"),
    }
    worst = folder.table("cases")[0]
    assert (worst["Case"], worst["DSC"], worst["HD95"], worst["Note"]) == (EVIL_CASE, "0", "", "empty prediction")


def test_a_benchmark_without_any_score_or_folder_has_a_report(small, monkeypatch):
    work = small()
    for path in [*(work.work / "scores").rglob("*.csv"), *(work.work / "records").rglob("*.json")]:
        path.unlink()
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.delenv(f"nnUNet_{name}")
    html = write_report(work.work).read_text()
    assert "This benchmark is not complete" in html
    assert "Overview</h2>" not in html
