"""The built pages, as files: complete, linked, every figure captioned and described."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from contents import PAGES, ROOT, TOC

NOTEBOOKS = [page for page in PAGES if page.startswith("notebooks/")]


class Elements(HTMLParser):
    """All start tags of a page: (tag, attributes)."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def every(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def html(smoke) -> Path:
    return smoke / "html"


def article(html: Path, page: str) -> str:
    text = (html / f"{page}.html").read_text()
    return text.partition('<article class="bd-article"')[2].partition("</article>")[0]


each = pytest.mark.parametrize("page", PAGES)


def test_index_leads_to_the_first_page(html):
    assert f"{TOC['root']}.html" in (html / "index.html").read_text()


def test_every_notebook_and_every_page_of_prose_is_in_the_contents():
    files = [*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "book").glob("*.md")]
    assert {str(file.relative_to(ROOT).with_suffix("")) for file in files} <= set(PAGES)


@each
def test_has_text_and_no_markup_that_was_not_understood(html, page):
    text = article(html, page)
    assert len(text) > 500
    for leftover in ("system-message", "{glue", "{numref", "{cite", "{doc}", "problematic"):
        assert leftover not in text


@each
def test_every_picture_is_there_and_described_in_a_sentence(html, page):
    for image in Elements(article(html, page)).every("img"):
        source = image["src"]
        if urlparse(source).scheme:
            assert "colab" in source  # the badge
            continue
        assert (html / page).parent.joinpath(unquote(source)).resolve().is_file()
        assert image.get("alt", "").endswith("."), f"{source} has no alt text in a sentence"


@each
def test_every_figure_and_its_number_stand_together(html, page):
    figures = article(html, page).split("<figure")[1:]
    for figure in figures:
        assert re.search(r'<span class="caption-number">Fig\. \d+', figure)
        assert '<span class="caption-text">' in figure


@each
def test_links_within_the_book_lead_somewhere(html, page):
    for link in Elements(article(html, page)).every("a"):
        target = urlparse(link.get("href", ""))
        if target.scheme or not target.path:
            continue
        assert (html / page).parent.joinpath(unquote(target.path)).resolve().exists(), target.path


@each
def test_names_no_folder_of_the_machine_that_built_it(html, page):
    assert str(ROOT) not in (html / f"{page}.html").read_text()


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_a_notebook_page_opens_on_colab_and_github(html, page):
    links = [a.get("href", "") for a in Elements((html / f"{page}.html").read_text()).every("a")]
    assert any("colab.research.google.com/github/" in link and page in link for link in links)
    assert any(link.startswith("https://github.com/") and page in link for link in links)


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_a_notebook_page_says_what_the_run_showed(html, page):
    text = re.sub(r"<[^>]+>", "", article(html, page))
    assert re.search(r"In this run\s*\(2 seeds, profile smoke\)", text)
    assert "majority baseline" in text


def test_the_status_page_names_profile_versions_and_hardware(html):
    text = re.sub(r"<[^>]+>", " ", article(html, "book/status"))
    for part in ("smoke", "torch", "transformers", "python", "hardware", "library", "sha256:"):
        assert part in text
