"""A report in a browser. Skipped without Playwright or Chromium; JAXGMM_CHROMIUM may name one."""

import csv
import io
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from report_contents import ODD, filled, tried

import jaxgmm
from jaxgmm.report import write
from jaxgmm.report.columns import adjusted
from jaxgmm.report.flags import MISFIT

# A browser is slow by nature.
pytestmark = pytest.mark.slow

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("JAXGMM_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
N = 150
WELLS = [f"{row}{column:02}" for row in "ABCDEFGH" for column in range(1, 13)]


def screen():
    """Two plates of wells, with a choice between K = 1 and 2; a misfit, and a group without an answer."""
    content = filled(N, 2, n_samples=20)
    mixture = content.result.mixture.map(np.copy)
    for leaf in mixture.arrays:
        leaf[7] = np.nan
    mixture.means[9] += 30
    status = np.where(np.arange(N) == 7, 3, 0).astype(np.int32)
    bic = np.stack([np.full(N, 30.0), np.arange(N) / 10.0], axis=1)
    chosen = np.tile([False, True], N)
    chosen[14:16] = False
    table = tried(
        data_set=np.repeat(np.arange(N), 2),
        n_components=[1, 2] * N,
        bic=bic.ravel(),
        chosen=chosen,
        at_largest_k=chosen,
    )
    keys = pa.table({"plate": [f"P{b // 96}" for b in range(N)], "well": [WELLS[b % 96] for b in range(N)]})
    result = replace(content.result, mixture=mixture, status=status)
    return content._replace(keys=keys, result=result, models=table, criterion="bic")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium is here")
    with playwright.sync_playwright() as started:
        # As root, Chromium has no sandbox.
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """Opens a file, and at the end of the test finds no error, warning or request."""
    contexts, wrong = [], []

    def note(request):
        if not request.url.startswith(("file:", "data:", "blob:")):
            wrong.append(request.url)

    def open_(path, address="", **options):
        context = browser.new_context(**({"viewport": {"width": 1200, "height": 800}} | options))
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: said.type in ("error", "warning") and wrong.append(said.text))
        page.on("request", note)
        page.goto(path.as_uri() + address)
        until(page, "performance.getEntriesByName('usable').length")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write(screen(), path, title="A screen")
    return path


@pytest.fixture
def page(opened, report):
    return opened(report)


def until(page, expression):
    """As `wait_for_function`, which the page's policy forbids."""
    for _ in range(300):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(20)
    raise AssertionError(expression)


def shown(page):
    """The keys in the list, from the top."""
    return page.evaluate("order.map((b) => titled(b))")


def test_a_report_tells_what_it_is_of(page):
    assert page.title() == "A screen"
    assert page.inner_text("h1") == "A screen"
    assert "3,000 samples grouped by plate, well; features f0, f1. K from 1 to 2, full, chosen by BIC." in (
        page.inner_text("#about")
    )
    n_misfits = np.count_nonzero(adjusted(screen().diagnosed().p_values) < MISFIT)
    assert page.inner_text("#status-line").startswith(f"150 groups. In {n_misfits} of them p < 0.01: ")
    assert shown(page)[:2] == ["P0, A01", "P0, A02"]


def test_filters_count_and_narrow_the_list(page):
    page.click("[data-facet=status3]")
    assert shown(page) == ["P0, A08"]
    assert page.inner_text("[data-facet=k0] b") == "1"
    assert page.inner_text("[data-facet=k2] b") == "0"
    page.click("text=Clear filters")
    assert len(shown(page)) == N
    page.fill("#size-min", "21")
    assert shown(page) == []
    assert page.inner_text(".empty") == "No group passes these filters."


def test_columns_sort_up_down_and_not_at_all_with_missing_values_last(page):
    head = page.locator("#head button", has_text="BIC")
    head.click()
    assert shown(page)[0] == "P0, A01"
    assert shown(page)[-1] == "P0, A08"
    head.click()
    assert shown(page)[0] == "P1, E06"
    assert shown(page)[-1] == "P0, A08"
    head.click()
    assert shown(page)[7] == "P0, A08"


def test_searches_are_for_keys_and_conditions(page):
    page.keyboard.press("/")
    page.keyboard.type("p1 a1")
    until(page, "order.length === 3")
    page.fill("#search", "bic>14.75")
    until(page, "order.length === 2")
    page.fill("#search", "p<1e-6 k=2")
    until(page, "order.length === 1")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    page.wait_for_selector("#detail h2")
    assert page.inner_text("#detail h2") == "P0, A10"
    assert "do not look like such a mixture" in page.inner_text(".said")


def test_a_group_opened_by_its_address_is_opened_again(page, opened, report):
    page.evaluate("openGroup(100)")
    page.wait_for_selector("#detail h2")
    assert page.url.endswith("#g=P1/A05")
    again = opened(report, "#g=P1/A05&view=pictures&sort=-value")
    again.wait_for_selector("#detail h2")
    assert again.inner_text("#detail h2") == "P1, A05"
    assert again.evaluate("[state.view, state.sort, state.down]") == ["pictures", "value", True]
    again.evaluate("location.hash = '#g=nothing/like%that'")
    again.wait_for_selector("#detail", state="hidden")


def test_keys_move_mark_and_close(page):
    page.locator(".row").first.click()
    page.wait_for_selector("#detail h2")
    page.keyboard.press("ArrowDown")
    until(page, "document.querySelector('#detail h2')?.textContent === 'P0, A02'")
    page.keyboard.press("m")
    until(page, "document.querySelector('#detail h2')?.textContent === 'P0, A02 \u2605'")
    page.keyboard.press("End")
    until(page, "document.querySelector('#detail h2')?.textContent === 'P1, E06'")
    page.keyboard.press("Escape")
    page.wait_for_selector("#detail", state="hidden")
    page.keyboard.press("?")
    page.click("dialog button")
    page.wait_for_selector("dialog", state="hidden")


def test_bad_groups_say_why(page):
    page.evaluate("openGroup(7)")
    page.wait_for_selector(".said")
    assert jaxgmm.Status.NONFINITE.sentence in page.inner_text(".said")
    assert page.locator("#detail table").count() == 0


def test_components_and_criterion_are_told(page):
    page.evaluate("openGroup(3)")
    page.wait_for_selector(".said")
    assert "BIC is lower by 29.7 than with K = 1" in page.inner_text(".said")
    cells = page.locator("#detail table").first.locator("td").all_inner_texts()
    assert cells[:2] == ["0", "50%"]
    assert cells[3] in ("300.0", "300.00")  # the mean, of which a deviation of 1 lets one see tenths or hundredths
    assert page.locator("#detail svg .ring").count() == 1


def test_residuals_and_components_of_samples_are_those_of_the_package(page):
    found = page.evaluate("groupLater(3).then((g) => [residuals(g).map((u) => [...u]), [...assigned(g)]])")
    content = screen()
    samples = content.samples[60:80]
    samples = samples[np.argsort(samples[:, 0])]
    mixture = content.result.mixture.of(3)
    checks = jaxgmm.diagnose(mixture, samples)
    expected = np.concatenate([checks.pit, checks.marginal], axis=1).T
    # Samples are drawn to a few thousandths of a standard deviation.
    np.testing.assert_allclose(found[0], expected, atol=2e-3)
    assert found[1] == jaxgmm.predict(mixture, samples).tolist()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_are_drawn(opened, report, scheme):
    page = opened(report, "#view=pictures", color_scheme=scheme)
    until(page, "pool.length && !waiting.size")
    page.wait_for_timeout(100)
    inked = """pool.filter((item) => item.b >= 0).map(({ picture }) => {
        const { data } = picture.getContext("2d").getImageData(0, 0, picture.width, picture.height);
        return data.some((v) => v);
    })"""
    found = page.evaluate(inked)
    assert len(found) > 10
    assert all(found)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(246, 247, 249)", "dark": "rgb(16, 19, 23)"}[scheme]


def test_wells_are_shown_as_plates(page):
    page.keyboard.press("p")
    assert page.locator("figcaption").all_inner_texts() == ["P0", "P1"]
    size = page.evaluate("Math.max(6, Math.min(16, Math.floor(300 / plates.across)))")
    page.locator("figure canvas").nth(1).click(position={"x": 18 + 2.5 * size, "y": 14 + 1.5 * size})
    page.wait_for_selector("#detail h2")
    assert page.inner_text("#detail h2") == "P1, B03"
    page.select_option("#colour", "k")
    assert "view=plates:k" in page.url.replace("%3A", ":")


@pytest.mark.parametrize("width", [400, 800, 1900])
def test_nothing_is_wider_than_the_window(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    for deed in ("setView('table')", "setView('pictures')", "openGroup(1)", "setView('plates')"):
        page.evaluate(deed)
        page.wait_for_timeout(60)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), deed


def test_a_narrow_window_shows_a_group_alone(opened, report):
    page = opened(report, viewport={"width": 400, "height": 800})
    page.locator(".row").nth(2).click()
    page.wait_for_selector("#detail h2")
    assert page.locator("#detail").bounding_box()["width"] == 400
    page.click("#detail button[aria-label=Close]")
    assert page.inner_text(".row:nth-child(1) .brief b").strip() == "P0, A01"


def test_a_list_higher_than_an_element_can_be_is_seen_to_its_end(page):
    page.evaluate("order = Array.from({ length: 400000 }, (_, i) => i % core.n.length)")
    page.evaluate("layOut()")
    assert page.locator("#whole").bounding_box()["height"] <= 8_000_000
    for place in (399_999, 200_000, 123_456, 0):
        page.evaluate(f"cursor = {place}; scrollToPlace({place})")
        box, row = page.locator("#scroller").bounding_box(), page.locator(".row.chosen").bounding_box()
        assert box["y"] - 1 <= row["y"]
        assert row["y"] + row["height"] <= box["y"] + box["height"] + 1


def test_paper_gets_pictures_or_the_opened_group_in_light_colours(opened, report):
    page = opened(report, color_scheme="dark")
    until(page, "prefetched.size === 40")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#print-pictures canvas:visible").count() == 40
    assert not page.locator("#list").is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.evaluate("openGroup(2)")
    page.wait_for_selector("#detail h2")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#print-pictures canvas").count() == 0
    assert page.locator("#detail td svg circle").first.get_attribute("fill") == "#0072B2"
    assert page.locator("#big").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_list_can_be_kept_as_csv(page):
    page.click("[data-facet=k2]")
    with page.expect_download() as started:
        page.click("#export")
    assert started.value.suggested_filename == "groups.csv"
    rows = list(csv.DictReader(io.StringIO(page.evaluate("listAsCsv()"))))
    assert len(rows) == N - 1
    assert (rows[0]["plate"], rows[0]["well"], rows[0]["n_components"], rows[0]["bic"]) == ("P0", "A01", "2", "0")
    assert rows[8]["flags"] == "at_largest_k; misfit"


def test_odd_keys_are_read_as_texts(opened, tmp_path):
    content = filled(len(ODD), 1, n_samples=9)
    write(content._replace(keys=pa.table({"</style>": list(ODD)}), features=["<i>"]), tmp_path / "odd.html")
    page = opened(tmp_path / "odd.html")
    for b, name in enumerate(ODD):
        page.evaluate(f"openGroup({b})")
        until(page, f"document.querySelector('#detail').dataset.group === '{b}'")
        assert page.text_content("#detail h2") == ("(null)" if name is None else name)
        own = opened(tmp_path / "odd.html", page.url.partition("odd.html")[2])
        until(own, f"state.open === {b}")
        assert own.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("#detail h2 b, main i:not(.chip i)").count() == 0


@pytest.mark.parametrize("n_features", [1, 5])
def test_any_number_of_features_can_be_opened(opened, tmp_path, n_features):
    weight = np.tile([0.0, 1.0, 2.0], 20)
    content = filled(3, n_features, n_samples=20, weights="w", sample_weight=weight)
    write(content, tmp_path / "report.html")
    page = opened(tmp_path / "report.html", "#g=1/A001&as=density")
    page.wait_for_selector("#detail h2")
    assert "weighted by w" in page.inner_text("#about")
    assert "have weight 0" in page.inner_text(".said")
    assert page.locator(".matrix canvas").count() == (0 if n_features == 1 else 10)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
