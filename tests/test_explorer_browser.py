"""The explorer's page in a real browser, without a window: moved, clicked, its numbers against the CSV.
Where chromium, its driver or selenium are missing the tests are skipped."""

from __future__ import annotations

import csv
import io
import shutil

import pytest
import torch
from problems import f64

import adamode
from adamode.inspect.adjoint import study_adjoints
from adamode.inspect.catalogue import find_problem
from adamode.inspect.dynamics import model_problem
from adamode.inspect.explorer.page import explore
from adamode.inspect.explorer.studies import write_adjoints, write_study
from adamode.inspect.study import Settings, study
from adamode.inspect.tables import trace_csv

CHROME = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    if CHROME is None or DRIVER is None:
        pytest.skip("no chromium with its chromedriver is installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROME
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(service=Service(DRIVER), options=options)
    yield driver
    driver.quit()


class Page:
    """A page that is open, at a width."""

    def __init__(self, browser, path, width=1280, dark=False):
        self.browser = browser
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        # Whatever it asked a network for would be an error in the log.
        browser.execute_cdp_cmd("Network.enable", {})
        browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["http://*", "https://*"]})
        browser.get("about:blank")
        browser.get(path.as_uri())

    def run(self, code):
        return self.browser.execute_script(f"return {code}")

    def text(self, place):
        return self.run(f"document.querySelector({place!r}).textContent")

    def click(self, place):
        self.browser.find_element("css selector", place).click()

    def key(self, *keys):
        from selenium.webdriver.common.action_chains import ActionChains

        self.run("document.activeElement.blur()")
        ActionChains(self.browser).send_keys(*keys).perform()

    def complaints(self):
        return [entry["message"] for entry in self.browser.get_log("browser")]

    @property
    def attempt(self):
        return self.run("explorer.data.columns.number[explorer.state.i]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def solve(folder):
    """Van der Pol's oscillator: its page, and the lines of its trace's CSV."""
    one = study(find_problem("van-der-pol", t_end=8.0), "dopri5", Settings(rtol=1e-5, atol=1e-7))
    lines = list(csv.DictReader(io.StringIO(trace_csv(one))))
    return write_study(folder / "solve.html", one), lines


def test_it_shows_the_numbers_of_the_trace_wherever_one_goes(browser, solve):
    path, lines = solve
    page = Page(browser, path)
    numbers = page.run("explorer.data.columns")
    for name in ("t", "dt", "error_ratio", "factor", "nfe", "y_norm"):
        assert [float(line[name]) for line in lines] == numbers[name]
    rejected = [i for i, line in enumerate(lines) if line["accepted"] == "0"]
    for i in (0, rejected[0], len(lines) - 1):
        page.run(f"explorer.go({i})")
        head, line = page.text("#headline"), lines[i]
        assert f"Attempt {i + 1} of {len(lines)}" in head
        assert ("rejected" in head) == (line["accepted"] == "0")
        shown = float(head.split("t = ")[1].split(",")[0].replace("−", "-"))
        assert shown == pytest.approx(float(line["t"]), rel=1e-6)
        ratio = page.text("#t-error b").split(" = ")[1].replace("−", "-")
        assert float(ratio) == pytest.approx(float(line["error_ratio"]), rel=1e-5)
        assert page.run(f"explorer.ownRatio({i})") == pytest.approx(float(line["error_ratio"]), rel=1e-10)
        control = page.text("#t-control")
        following = float(control.split("next |dt| = ")[1].split("= ")[-1].split("The")[0].replace("−", "-"))
        assert following == pytest.approx(float(line["factor"]) * abs(float(line["dt"])), rel=1e-5)
    assert page.complaints() == []


def test_keys_the_slider_and_a_click_move(browser, solve):
    from selenium.webdriver.common.keys import Keys

    path, lines = solve
    page = Page(browser, path)
    rejected = [i + 1 for i, line in enumerate(lines) if line["accepted"] == "0"]
    page.key(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert page.attempt == 2
    page.key("r")
    assert page.attempt == rejected[0]
    page.key(Keys.END)
    assert page.attempt == len(lines)
    page.key(Keys.HOME)
    slider = browser.find_element("css selector", "#slider")
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert page.attempt == 4
    page.click('[data-go="on"]')
    assert page.attempt == 5
    page.click("#p-dt .hit")  # in the middle of the picture, so in the middle of time
    assert 3.0 < float(lines[page.attempt - 1]["t"]) < 5.0
    page.click('#x-choice [data-key="n"]')
    assert page.run("explorer.state.xaxis") == "n"
    page.key("z")
    assert page.run("explorer.state.zoom") == "whole"
    assert page.complaints() == []


def test_who_does_not_see_it_hears_it(browser, solve):
    from selenium.webdriver.support.wait import WebDriverWait

    page = Page(browser, solve[0])
    page.run("explorer.go(6)")
    said = page.run("explorer.sentence(6)")
    WebDriverWait(browser, 20).until(lambda _: page.text("#live") == said)
    assert page.run("document.querySelector('#live').getAttribute('aria-live')") == "polite"
    assert page.run("document.querySelector('#slider').getAttribute('aria-valuetext')") == said
    named = "[...document.querySelectorAll('button, input, select')].filter((x) => x.offsetParent)"
    name = "(x.getAttribute('aria-label') || x.textContent || (x.closest('label') || {}).textContent || '')"
    assert page.run(f"{named}.filter((x) => !{name}.trim()).length") == 0
    pictures = page.run("[...document.querySelectorAll('svg')].map((x) => x.getAttribute('aria-label'))")
    assert len(pictures) >= 5
    assert all(pictures)


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_in_light_and_dark(browser, solve, dark):
    page = Page(browser, solve[0], width=390, dark=dark)
    assert page.run("document.documentElement.scrollWidth") <= 390
    ground = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    assert (sum(page.run(ground)) < 200) is dark
    page.click("#theme")
    assert (sum(page.run(ground)) < 200) is not dark
    assert page.complaints() == []


def test_samples_are_chosen_and_a_failed_solve_is_told(browser, folder):
    from selenium.webdriver.common.keys import Keys

    y0 = f64([2.0, 0.0], [0.5, 1.0], [1.0, -1.0])

    def f(t, y):
        a, b = y.unbind(-1)
        return torch.stack((b, 5 * (1 - a * a) * b - a), -1)

    sol = adamode.solve(f, y0, f64(0.0, 2.0), stepping="per_sample", trace=True)
    page = Page(browser, sol.explore(folder / "samples.html"))
    page.key(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert page.run("explorer.state.sample") == 2
    page.key(Keys.END)
    last = [row for row in sol.trace if row.sample == 2][-1]
    assert page.run("explorer.data.columns.t[explorer.state.i]") == last.t
    with pytest.raises(adamode.SolverError) as caught:
        adamode.solve(lambda t, y: 1 + y * y, f64(0.0), f64(0.0, 2.0), trace=True)
    page = Page(browser, explore(caught.value, folder / "failed.html"))
    assert page.text("#failure") == str(caught.value)
    assert page.attempt == len(caught.value.trace)
    assert page.run("document.querySelector('#s-plane').hidden")  # one component has no plane
    assert page.complaints() == []


def test_the_way_back_is_walked(browser, folder):
    studies = list(study_adjoints(model_problem("adamnode"), ["backsolve"], "dopri5", Settings(rtol=1e-4)))
    (one,) = studies
    page = Page(browser, write_adjoints(folder / "back.html", studies))
    norms = one.way.norms()["a, v"].tolist()
    page.run("explorer.goBack(2)")
    assert page.run("explorer.data.ways[0].norms.a_v") == norms
    head = page.text("#back-headline")
    assert float(head.split("‖a_v‖ = ")[1]) == pytest.approx(norms[2], rel=1e-4)
    vjps = page.run("explorer.vjpsOf(explorer.data.ways[0], 2)")
    lines = page.run("document.querySelectorAll('#v-table tbody tr').length")
    assert lines == len(vjps) > 0
    total = sum(
        page.run(f"explorer.vjpsOf(explorer.data.ways[0], {row}).length") for row in range(len(norms))
    )
    assert total == one.way.stats.nfe_backward - one.way.backward[0].nfe + len(
        page.run("explorer.vjpsOf(explorer.data.ways[0], 1)")
    )
    page.key(".")
    assert page.run("explorer.state.row") == 3
    assert page.complaints() == []
