"""Links of the pages to files of the repository outside docs/, which are pages of the site too."""

from sphinx.application import Sphinx

PAGES = {
    "../benchmarks/RESULTS.md": "results.md",
    "../CONTRIBUTING.md": "contributing.md",
    "../CHANGELOG.md": "changes.md",
}


def lead_inside(_app: Sphinx, _page: str, source: list[str]) -> None:
    """Replace each such link by that of its page."""
    for outside, page in PAGES.items():
        source[0] = source[0].replace(f"]({outside}", f"]({page}")


def setup(app: Sphinx) -> dict[str, bool]:
    """Read each page's text as it comes from its file."""
    app.connect("source-read", lead_inside)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
