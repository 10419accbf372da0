"""The directive ``public``: names of a package, in a table and then documented one by one."""

import inspect
import re
from collections.abc import Iterator
from importlib import import_module

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

PACKAGES = ("models", "guides", "inference", "estimators", "benchmarks")


class Public(SphinxDirective):
    """Names of the package that is the argument, one a line in the content."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        package = self.arguments[0]
        names = [line.strip() for line in self.content if line.strip()]
        text = ["````{eval-rst}", *described(package, names), "````"]  # the page is Markdown
        lines = StringList(text, source=self.get_location())
        place = nodes.section(document=self.state.document)
        self.state.nested_parse(lines, 0, place)
        return place.children


def described(package: str, names: list[str]) -> Iterator[str]:
    """What autosummary and autodoc are told of the names, in reStructuredText."""
    yield from (f".. currentmodule:: {package}", "", ".. autosummary::", "   :nosignatures:", "")
    yield from (f"   {name}" for name in names)
    module = import_module(package)
    for name in names:
        found = getattr(module, name)
        kind = "autoclass" if isinstance(found, type) else "autofunction"
        yield from ("", f".. {kind}:: {name}")
        if members := ", ".join(methods_of(found)):
            yield from (f"   :members: {members}", "   :member-order: bysource")


def methods_of(found: object) -> Iterator[str]:
    """Public methods and properties of a class that priorzoo defines and documents."""
    for name in dir(found) if isinstance(found, type) else ():
        if name.startswith("_") or name == "forward":
            continue
        member = inspect.getattr_static(found, name)
        member = (
            member.fget
            if isinstance(member, property)
            else inspect.unwrap(getattr(member, "__func__", member))
        )
        own = str(getattr(member, "__module__", "")).startswith("priorzoo")
        if own and inspect.isroutine(member) and member.__doc__:
            yield name


def lead_to_public_name(
    _app: Sphinx, env: BuildEnvironment, node: pending_xref, inside: nodes.Element
) -> nodes.Node | None:
    """Lets a docstring name a class of another package of priorzoo, as ``:class:`Name```."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py":
        return None
    domain = env.domains.python_domain
    for package in PACKAGES:
        full = f"priorzoo.{package}.{target}"
        if full in domain.objects:
            entry = domain.objects[full]
            uri = env.app.builder.get_relative_uri(node["refdoc"], entry.docname)
            return nodes.reference("", "", inside, internal=True, refuri=f"{uri}#{entry.node_id}")
    return None


def keep_letters(
    _app: Sphinx, _what: str, _name: str, _found: object, _options: object, lines: list[str]
) -> None:
    """Keeps ``code: D.`` from being read as item D of a list; napoleon has made the lines."""
    text = re.sub(r"(?m)^( *:param [^:]+:)\s+([A-Za-z]\.)(?=\s|$)", r"\1 \\\2", "\n".join(lines))
    lines[:] = text.split("\n")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive, and the search for names of other packages."""
    app.add_directive("public", Public)
    app.connect("autodoc-process-docstring", keep_letters, priority=900)
    app.connect("missing-reference", lead_to_public_name)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
