"""Formulas as MathML, which browsers draw themselves: no script and no font is fetched."""

import re

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

LOG = logging.getLogger(__name__)
# LaTeX that docutils does not know, and what says the same.
SAME = {
    r"\\dots\b": r"\\ldots",
    r"\\textstyle\s*": "",
    r"\\([bB]ig)(?=[(\[])": r"\\\1l",
    r"\\([bB]ig)(?=[)\]])": r"\\\1r",
}


def formula(node: nodes.math | nodes.math_block, block: bool) -> str:
    """The MathML of a node; LaTeX that cannot be converted is a warning, and stays as it is."""
    text = " ".join(node.astext().split())
    for pattern, same in SAME.items():
        text = re.sub(pattern, same, text)
    if block and "&" in text and r"\begin" not in text:
        text = rf"\begin{{aligned}}{text}\end{{aligned}}"
    try:
        return tex2mathml(text, as_block=block)
    except MathError as error:
        LOG.warning("no MathML for %r: %s", text, error, location=node)
        return f"<code>{text}</code>"


def inline(writer: HTML5Translator, node: nodes.math) -> None:
    """Write one formula within a line."""
    writer.body.append(formula(node, block=False))
    raise nodes.SkipNode


def display(writer: HTML5Translator, node: nodes.math_block) -> None:
    """Write one formula on lines of its own; wide ones scroll within the page."""
    writer.body.append(f'<div class="formula">{formula(node, block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer under the name ``mathml``."""
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
