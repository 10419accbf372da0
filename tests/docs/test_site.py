"""The built site: its links, the names that it documents, and its pages in a browser."""

from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

SITE = Path(__file__).parents[2] / "docs" / "_build" / "html"
WIDTHS, SCHEMES = (1280, 390), ("light", "dark")
PACKAGES = ("models", "guides", "inference", "estimators", "benchmarks")
SOURCES = {"a": "href", "img": "src", "link": "href", "script": "src", "source": "src"}
MEASURE = """() => ({
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    broken: [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src),
    maths: document.querySelectorAll('math').length,
})"""
pytestmark = pytest.mark.docs


class Page(HTMLParser):
    """What a page leads to, what it loads, and the places that can be led to."""

    def __init__(self, path):
        super().__init__()
        self.path, self.leads, self.loads, self.places = path, [], [], {""}
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.places |= {found[name] for name in ("id", "name") if found.get(name)}
        if target := found.get(SOURCES.get(tag, "")):
            (self.leads if tag == "a" else self.loads).append(target)


def pages_of(site):
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


@pytest.fixture(scope="module")
def pages():
    found = pages_of(SITE)
    assert SITE / "index.html" in found, "build the site first: make docs"
    return found


def lost(pages):
    """Links within the site that lead nowhere, and whatever a page loads from elsewhere."""
    for path, page in pages.items():
        for target in (*page.leads, *page.loads):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                if target in page.loads and parts.scheme != "data":
                    yield path.name, target
                continue
            place = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = pages.get(place)
            anchor = unquote(parts.fragment)
            if not place.exists() or (known and anchor not in known.places):
                yield path.name, target


def test_links_and_anchors_are_there_and_nothing_is_loaded_from_elsewhere(pages):
    assert len(pages) > 40
    assert not list(lost(pages))


def test_lost_links_are_seen(tmp_path):
    (tmp_path / "other.html").write_text('<p id="here">', "utf-8")
    good = '<a href="other.html#here"><a href="#"><a href="https://example.org">'
    bad = '<a href="gone.html"><a href="other.html#there"><img src="https://example.org/a.png">'
    (tmp_path / "index.html").write_text(good + bad, "utf-8")
    assert len(list(lost(pages_of(tmp_path)))) == 3


def test_the_inventory_has_every_public_name():
    from sphinx.util.inventory import InventoryFile

    with (SITE / "objects.inv").open("rb") as file:
        found = InventoryFile.load(file, "", lambda *parts: "/".join(parts))
    named = {name for kind, names in found.items() if kind.startswith("py:") for name in names}
    for package in PACKAGES:
        full = f"priorzoo.{package}"
        assert {f"{full}.{name}" for name in import_module(full).__all__} <= named


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_pages_open_without_messages_requests_overflow_or_broken_images(
    width, scheme, browser, pages
):
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 900}, offline=True
    )
    said = []
    for path in pages:
        tab = context.new_page()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: said.append(request.url) if outside(request) else None)
        tab.goto(path.as_uri())
        tab.evaluate("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
        tab.wait_for_load_state("load")
        found = tab.evaluate(MEASURE)
        assert found["wide"] <= 0, (path.name, width, found["wide"])
        assert not found["broken"], (path.name, found["broken"])
        assert not said, (path.name, said)
        tab.close()
    context.close()


def outside(request):
    return urlsplit(request.url).scheme not in {"file", "data", "blob"}


def test_the_scheme_of_the_reader_is_used(browser):
    backgrounds = []
    for scheme in SCHEMES:
        context = browser.new_context(color_scheme=scheme)
        tab = context.new_page()
        tab.goto((SITE / "index.html").as_uri())
        backgrounds.append(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
        context.close()
    assert backgrounds[0] != backgrounds[1]


def test_search_finds_a_class_without_a_server(browser):
    tab = browser.new_page()
    tab.goto((SITE / "search.html").as_uri() + "?q=GMVAE")
    tab.wait_for_selector("#search-results li")
    assert "GMVAE" in tab.inner_text("#search-results")


def test_formulas_are_drawn_by_the_browser(browser):
    tab = browser.new_page()
    tab.goto((SITE / "papers" / "shu2016.html").as_uri())
    assert tab.evaluate(MEASURE)["maths"] > 10
    tall = (
        "[...document.querySelectorAll('.formula math')].map(m => m.getBoundingClientRect().height)"
    )
    assert min(tab.evaluate(tall)) > 10
