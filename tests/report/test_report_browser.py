"""The report in a real browser: Debian's Chromium, headless, without a network."""

import base64
import json
import re
import shutil

import pytest
from benchmark_folder import EVIL

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
)  # fmt: skip

pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="there is no Chromium with its driver")


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
    chromium.get("about:blank")
    for kind in ("browser", "performance"):
        chromium.get_log(kind)
    chromium.get(page.as_uri())
    return chromium


@pytest.fixture
def cases(folder, page):
    return folder.table("cases")


def visible(driver, header=None):
    """Give the shown rows of the list of cases, or one column of them."""
    rows = driver.execute_script(
        "return [...document.querySelectorAll('#cases tbody tr')].filter((row) => row.offsetParent !== null)"
        ".map((row) => [...row.cells].map((cell) => cell.textContent.trim()))"
    )
    return rows if header is None else [row[headers(driver).index(header)] for row in rows]


def headers(driver):
    script = "return [...document.querySelectorAll('#cases thead th')].map((cell) => cell.textContent.trim())"
    return driver.execute_script(script)


def button(driver, header):
    from selenium.webdriver.common.by import By

    return driver.find_elements(By.CSS_SELECTOR, "#cases thead button")[headers(driver).index(header)]


def test_it_opens_without_an_error_or_a_request_and_runs_no_name(opened, page):
    assert opened.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = [
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
    assert opened.execute_script("return window.evil === undefined")
    assert opened.title == EVIL
    assert "This benchmark is not complete" in opened.execute_script("return document.body.innerText")


def test_every_figure_and_picture_is_drawn(opened):
    sizes = opened.execute_script(
        "document.querySelectorAll('details').forEach((each) => (each.open = true));"
        "return [...document.querySelectorAll('main img')].map((each) => [each.naturalWidth, each.alt.length])"
    )
    assert len(sizes) > 8
    assert all(width > 500 and words > 20 for width, words in sizes)


def test_cases_are_sorted_by_a_column_with_undefined_values_last(opened, cases):
    from selenium.webdriver.common.keys import Keys

    assert visible(opened, "Case") == [row["Case"] for row in cases]
    defined = sorted(round(float(row["HD95"]), 2) for row in cases if row["HD95"])
    for order, keys in ((1, None), (-1, Keys.ENTER)):
        found = button(opened, "HD95 [mm]")
        found.click() if keys is None else found.send_keys(keys)
        shown = visible(opened, "HD95 [mm]")
        assert [float(text) for text in shown[: len(defined)]] == pytest.approx(defined[::order])
        assert shown[len(defined) :] == ["\u2013"]
    button(opened, "Case").click()
    names = list(dict.fromkeys(visible(opened, "Case")))
    assert names.index("la_6") < names.index("la_10"), "numbers in names count"


def test_cases_are_filtered_by_words(opened, cases):
    from selenium.webdriver.common.by import By

    opened.find_element(By.CSS_SELECTOR, ".filters input").send_keys("LA_10 nnU")
    assert [row[:2] for row in visible(opened)] == [["la_10", "nnU-Net"]]
    assert opened.find_element(By.CSS_SELECTOR, ".filters output").text == f"1 of {len(cases)} rows"


def test_a_worst_case_opens_from_the_list_with_its_picture(opened):
    from selenium.webdriver.common.by import By

    link = opened.find_element(By.CSS_SELECTOR, "#cases tbody a")
    target = link.get_attribute("href").split("#")[1]
    opened.execute_script("document.getElementById(arguments[0]).open = false", target)
    link.click()
    picture = opened.find_element(By.CSS_SELECTOR, f"#{target} img")
    assert picture.is_displayed()
    assert link.text in picture.get_attribute("alt")


@pytest.mark.parametrize("width", [400, 800, 1300])
def test_no_width_makes_the_page_scroll_sideways(opened, width):
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width


def test_it_prints_with_everything_unfolded(opened):
    printed = opened.execute_cdp_cmd("Page.printToPDF", {"printBackground": True, "preferCSSPageSize": True})
    pdf = base64.b64decode(printed["data"])
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) > 3
    assert opened.execute_script("return [...document.querySelectorAll('details')].every((each) => each.open)")
