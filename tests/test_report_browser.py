"""The report in a real browser: Debian's Chromium, headless, without a network."""

from __future__ import annotations

import base64
import json
import re
import shutil

import pytest
from benchmark_folder import HEART, SYSTEMS, Dataset, WorkFolder, empty_prediction
from report_page import read_csv

from nnunetv2_eccam.report import write_report

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
)  # fmt: skip

pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="there is no Chromium with its driver")

EVIL = "<script>window.evil=1</script><img src=x onerror=\"window.evil=1\"> & 'q' | 50%_$x$ \\textbf{#}"
EVIL_CASE = "<img src=x onerror='window.evil=2'>"
DATA = Dataset(HEART.name, ("left_atrium", "<b>scar</b>"), ((EVIL_CASE.replace("/", ""), "la_2"), ("la_10", "la_4")))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    work = WorkFolder(
        tmp_path_factory.mktemp("benchmark"), (DATA,), ((*SYSTEMS[0][:2], EVIL), *SYSTEMS[1:]),
        statistics={"bootstrap": 20}, spec={"name": EVIL}, host=EVIL,
    )  # fmt: skip

    def change(row):
        is_missed = row.pop("system") == 2 and row["case"] == "la_10"
        return empty_prediction(row) if is_missed else row

    work.write(change=change)
    work.write_images(DATA)
    work.scores(DATA, 1, "fold_1").unlink()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):
            patch.setenv(f"nnUNet_{name}", str(work.base / name))
        return write_report(work.work)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}", "--window-size=1300,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(chromium, page):
    """The page, freshly opened on a desktop's screen; what happened before is forgotten."""
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    chromium.get("about:blank")
    for kind in ("browser", "performance"):
        chromium.get_log(kind)
    chromium.get(page.as_uri())
    return chromium


def visible_rows(driver):
    return driver.execute_script(
        "return [...document.querySelectorAll('#cases tbody tr')].filter((row) => row.offsetParent !== null)"
        ".map((row) => [...row.cells].map((cell) => cell.textContent.trim()))"
    )


def column(driver, header):
    script = "return [...document.querySelectorAll('#cases thead th')].map((cell) => cell.textContent.trim())"
    return driver.execute_script(script).index(header)


def button(driver, header):
    from selenium.webdriver.common.by import By

    return driver.find_elements(By.CSS_SELECTOR, "#cases thead th")[column(driver, header)].find_element(
        By.TAG_NAME, "button"
    )


def state(driver, header):
    place = column(driver, header)
    return driver.execute_script(
        "return document.querySelectorAll('#cases thead th')[arguments[0]].getAttribute('aria-sort')", place
    )


def test_it_opens_without_an_error_or_a_request_and_runs_no_name(opened, page):
    assert opened.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = [
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
    assert opened.execute_script("return window.evil === undefined")
    assert opened.title == EVIL
    assert opened.execute_script("return document.querySelector('h1').textContent") == EVIL
    assert "This benchmark is not complete" in opened.execute_script("return document.body.innerText")


def test_a_figures_file_looks_as_the_figure_on_the_page(opened, page):
    drawn = (
        "return [...arguments[0].querySelectorAll('path')].map((path) => { const style = getComputedStyle(path);"
        "return ['fill', 'fillOpacity', 'stroke', 'strokeWidth', 'strokeDasharray', 'strokeOpacity']"
        ".map((name) => style[name]) })"
    )
    files = sorted((page.parent / "figures").iterdir())
    script = drawn.replace("arguments[0]", "document.getElementById(arguments[0]).querySelector('svg')")
    on_page = [opened.execute_script(script, path.stem) for path in files]
    assert any(len(paths) > 20 for paths in on_page)
    for path, expected in zip(files, on_page, strict=True):
        opened.get(path.as_uri())
        found = opened.execute_script(drawn.replace("arguments[0]", "document"))
        assert found[: len(expected)] == expected, path.name  # after them there is the legend


def test_the_policy_stops_a_script_that_got_in(opened):
    opened.execute_script(
        "const script = document.createElement('script'); script.textContent = 'window.evil = 3';"
        "document.body.append(script); document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=evil=4>')"
    )
    assert opened.execute_script("return window.evil === undefined")
    assert any("Content Security Policy" in entry["message"] for entry in opened.get_log("browser"))


def test_cases_are_sorted_by_a_column_with_undefined_values_last(opened, page):
    expected = read_csv(page.parent / "tables" / "cases.csv")
    assert [row[0] for row in visible_rows(opened)] == [row["Case"] for row in expected]
    place = column(opened, "HD95 [mm]")
    defined = sorted(float(row["HD95 [mm]"]) for row in expected if row["HD95 [mm]"])
    button(opened, "HD95 [mm]").click()
    assert state(opened, "HD95 [mm]") == "ascending"
    shown = [row[place] for row in visible_rows(opened)]
    assert [float(text) for text in shown[: len(defined)]] == defined
    assert shown[len(defined) :] == ["\u2013"] * 2
    button(opened, "HD95 [mm]").click()
    assert state(opened, "HD95 [mm]") == "descending"
    shown = [row[place] for row in visible_rows(opened)]
    assert [float(text) for text in shown[: len(defined)]] == defined[::-1]
    assert shown[len(defined) :] == ["\u2013"] * 2


def test_sorting_works_by_keyboard_and_numbers_in_names_count_as_numbers(opened):
    from selenium.webdriver.common.keys import Keys

    button(opened, "Case").send_keys(Keys.ENTER)
    assert state(opened, "Case") == "ascending"
    cases = list(dict.fromkeys(row[0] for row in visible_rows(opened)))
    assert cases[-3:] == ["la_2", "la_4", "la_10"]
    button(opened, "DSC [%]").send_keys(Keys.SPACE)
    assert state(opened, "Case") is None
    assert state(opened, "DSC [%]") == "ascending"


def test_composite_cells_are_sorted_by_their_mean(opened):
    script = (
        "const table = document.querySelector('table[id^=overall]');"
        "table.querySelectorAll('thead th')[3].querySelector('button').click();"
        "return [...table.tBodies[0].rows].map((row) => parseFloat(row.cells[3].textContent))"
    )
    values = opened.execute_script(script)
    assert len(values) == 6
    assert values == sorted(values)


def test_cases_are_filtered_by_words_and_lists(opened):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    everything = visible_rows(opened)
    words = opened.find_element(By.CSS_SELECTOR, ".filters input")
    words.send_keys("la_10 EMPTY")
    rows = visible_rows(opened)
    assert [(row[0], row[1]) for row in rows] == [("la_10", "nnU-Net")] * 2
    assert opened.find_element(By.CSS_SELECTOR, ".filters output").text == f"2 of {len(everything)} rows"
    words.clear()
    labels = {label.text.split("\n")[0]: label for label in opened.find_elements(By.CSS_SELECTOR, ".filters label")}
    Select(labels["System"].find_element(By.TAG_NAME, "select")).select_by_visible_text("U-Net")
    Select(labels["Label"].find_element(By.TAG_NAME, "select")).select_by_visible_text("<b>scar</b>")
    assert [row[1:3] for row in visible_rows(opened)] == [["U-Net", "<b>scar</b>"]] * 2
    Select(labels["System"].find_element(By.TAG_NAME, "select")).select_by_visible_text(" ".join(EVIL.split()))
    assert len(visible_rows(opened)) == 4


def test_a_worst_case_opens_from_the_list_with_its_picture(opened):
    from selenium.webdriver.common.by import By

    link = opened.find_element(By.CSS_SELECTOR, "#cases tbody a")
    target = link.get_attribute("href").split("#")[1]
    script = "const each = document.getElementById(arguments[0]); each.open = false; return each.open"
    assert opened.execute_script(script, target) is False
    link.click()
    picture = opened.find_element(By.CSS_SELECTOR, f"#{target} img")
    assert picture.is_displayed()
    assert opened.execute_script("return arguments[0].naturalWidth", picture) > 500
    assert link.text in picture.get_attribute("alt")
    assert "DSC" in picture.get_attribute("alt")


@pytest.mark.parametrize("width", [390, 800, 1300])
def test_no_width_makes_the_page_scroll_sideways(opened, width):
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width


def test_dark_and_light_have_text_that_can_be_read(opened):
    def contrasts(scheme):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        paper, *inks = opened.execute_script(
            "const style = getComputedStyle(document.documentElement);"
            "return ['paper', 'ink', 'quiet', 'link', 's0', 's1', 's2', 's3', 's4', 's5', 's6']"
            ".map((name) => style.getPropertyValue('--' + name).trim())"
        )
        return paper, [contrast(paper, ink) for ink in inks]

    (light, of_light), (dark, of_dark) = contrasts("light"), contrasts("dark")
    assert light != dark
    for ratios in (of_light, of_dark):
        assert min(ratios[:3]) >= 4.5  # text, WCAG 2.2, 1.4.3
        assert min(ratios[3:]) >= 3  # lines and marks, 1.4.11


def contrast(one, other):
    """WCAG 2.2's contrast ratio of two colours as #rrggbb."""

    def luminance(colour):
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_it_prints_with_everything_unfolded_and_nothing_cut(opened):
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    opened.execute_cdp_cmd(  # the long side of A4 at 96 dots per inch, less its margins
        "Emulation.setDeviceMetricsOverride", {"width": 1032, "height": 700, "deviceScaleFactor": 1, "mobile": False}
    )
    hidden, unfolded, cut = opened.execute_script(
        "const shown = (each) => each.getBoundingClientRect().height > 0;"
        "return [[...document.querySelectorAll('.filters, .files, thead button')].filter(shown).length,"
        " [...document.querySelectorAll('details img')].every(shown),"
        " [...document.querySelectorAll('table')].filter((each) => each.scrollWidth > 1032).map((each) => each.id)]"
    )
    assert hidden == 0
    assert unfolded
    assert cut == []
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    printed = opened.execute_cdp_cmd("Page.printToPDF", {"printBackground": True, "preferCSSPageSize": True})
    pdf = base64.b64decode(printed["data"])
    assert pdf.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) > 3
    assert opened.get_log("browser") == []


def test_it_reads_the_same_without_javascript(chromium, page):
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        chromium.get(page.as_uri())
        tree = chromium.execute_cdp_cmd("DOMSnapshot.captureSnapshot", {"computedStyles": []})
        strings = tree["strings"]
        names = [strings[index] for index in tree["documents"][0]["nodes"]["nodeName"]]
        assert "BUTTON" not in names
        assert "FORM" not in names
        expected = read_csv(page.parent / "tables" / "cases.csv")
        assert {row["Case"] for row in expected} <= set(strings)
    finally:
        chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
