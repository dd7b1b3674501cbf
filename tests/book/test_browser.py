"""The built pages in a real browser, at the width of a desk and of a phone."""

import shutil

import pytest
from contents import PAGES
from playwright.sync_api import sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Jupyter Book's theme writes this unused constant into every page twice, and browsers object.
KNOWN = "Identifier 'THEBE_JS_URL' has already been declared"
# Nothing is fetched from outside, and the browser itself looks nothing up.
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def opened(browser, smoke):
    """opened(page, width): the loaded page, and the list of script errors that loading gave."""
    contexts = []

    def load(page: str, width: int):
        context = browser.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
        tab, errors = context.new_page(), []
        tab.route("http*://**", lambda route: route.abort())
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto((smoke / "html" / f"{page}.html").resolve().as_uri(), wait_until="load")
        return tab, errors

    yield load
    for context in contexts:
        context.close()


def test_the_index_opens_the_first_page(opened):
    tab, _ = opened("index", 1280)
    tab.wait_for_url("**/book/intro.html")
    assert tab.locator("h1").first.inner_text().startswith("Pruning adapters")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("page", PAGES)
def test_fits_the_screen_and_shows_its_pictures(opened, page, width):
    tab, errors = opened(page, width)
    assert [error for error in errors if error != KNOWN] == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    pictures = tab.locator("article img:not([src^='http'])")
    for number in range(pictures.count()):
        picture = pictures.nth(number)
        picture.scroll_into_view_if_needed()
        assert picture.evaluate("image => image.complete && image.naturalWidth > 0")
        box = picture.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width


def test_the_search_finds_a_page(opened):
    tab, _ = opened("search", 1280)
    tab.goto(f"{tab.url}?q=rewinding")
    tab.wait_for_selector("#search-results li")
    assert "lottery" in tab.locator("#search-results").inner_text().lower()
