"""Directives for the page of a paper: its recipes, and its results from the committed rows.

Tables and charts are those of ``priorzoo report``, drawn when the site is built.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache
from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from priorzoo.benchmarks import PAPERS
from priorzoo.benchmarks.charts.axes import look
from priorzoo.benchmarks.recipes import Part, Recipe
from priorzoo.benchmarks.report.charts import longest
from priorzoo.benchmarks.report.groups import group_rows, is_run
from priorzoo.benchmarks.report.sections import Image, Section, of_papers
from priorzoo.benchmarks.report.table import Cell, Table
from priorzoo.benchmarks.rows.files import RESULTS, read_folder

DRAWN = Path(__file__).parents[1] / "papers" / "drawn"


KINDS = ("clusters", "clusters_1", "words", "samples")  # of the pictures of a run that are shown


@cache
def sections() -> Mapping[str, Section]:
    """The section of each paper, by the paper's name, with pictures of the paper's lines only."""
    rows = [row for row in read_folder(RESULTS) if is_run(row)]
    groups = group_rows(PAPERS, rows)
    with look():
        found = {section.key: section for section in of_papers(PAPERS, rows)}
    for name, section in found.items():
        plain = {g.line.title: g for g in reversed(longest(groups[name]))}
        own = tuple(f"{g.name}, {g.steps:,} steps" for g in plain.values())
        shown = [i for i in section.thumbnails if i.words.startswith(own)]
        shown = [i for i in shown if i.words.rpartition(": ")[2] in KINDS]
        found[name] = replace(section, thumbnails=shown)
    return found


class Recipes(SphinxDirective):
    """The recipes of the paper that is the argument, with the settings that they state."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        paper = next(paper for paper in PAPERS if paper.name == self.arguments[0])
        text = "".join(map(described, paper.recipes, paper.recipes.values()))
        return [nodes.raw("", f'<dl class="recipes">{text}</dl>', format="html")]


class Results(SphinxDirective):
    """Tables, curves and pictures of the paper that is the argument."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        section = sections()[self.arguments[0]]
        self.env.note_reread()  # in each build, since rows and charts may have changed
        found: list[nodes.Node] = []
        for table in map(Table.condensed, section.tables):
            found.append(nodes.raw("", tabulated(table), format="html"))
        found += [nodes.paragraph("", section.note)] if section.note else []
        found += pictured(section.charts)
        found += [nodes.paragraph("", section.remark)] if section.charts else []
        return found + pictured(section.thumbnails) + commands(section.commands)


def described(name: str, recipe: Recipe) -> str:
    """A recipe's name, summary and settings, but for those that are as in every recipe."""
    told = "".join(
        f"<tr><td><code>{field.name}</code></td><td>{shown(value)}</td></tr>"
        for field in fields(recipe)
        if field.name not in {"summary", "paper", "published"}
        and (value := getattr(recipe, field.name)) not in (None, "", (), {}, 0, 0.0)
    )
    return (
        f"<dt><code>priorzoo train {name}</code></dt><dd><p>{escape(recipe.summary)}</p>"
        "<details><summary>Settings</summary><div class='table-wrapper'><table class='docutils'>"
        f"<tbody>{told}</tbody></table></div></details></dd>"
    )


def shown(value: object) -> str:
    """A setting in words: of a class its name and arguments."""
    if isinstance(value, Part):
        arguments = ", ".join(f"{k}={shown(v)}" for k, v in value.init_args.items())
        return f"{escape(value.class_path.rsplit('.', 1)[-1])}({arguments})"
    if isinstance(value, Mapping):
        return ", ".join(f"{escape(str(k))}: {shown(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    if is_dataclass(value):
        told = {f.name: getattr(value, f.name) for f in fields(value)}
        return ", ".join(f"{k}={shown(v)}" for k, v in told.items() if v not in (None, (), ""))
    return escape(str(value))


def tabulated(table: Table) -> str:
    """A table of results as HTML, with the published value and the verdict below ours."""
    head = "".join(f"<th>{escape(name)}</th>" for name in table.head)
    rows = "".join(f"<tr>{''.join(map(celled, row))}</tr>" for row in table.rows)
    notes = "".join(f"<p><small>{escape(note)}</small></p>" for note in table.notes)
    caption = f"<p>{escape(table.caption)}</p>" if table.caption else ""
    return (
        f'<div class="results">{caption}<div class="table-wrapper"><table class="docutils">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{notes}</div>"
    )


def celled(cell: Cell) -> str:
    """Ours, and in small print what stands beside it."""
    published = f"published {cell.published}" if cell.published else ""
    more = "".join(f"<small>{escape(t)}</small>" for t in (published, cell.verdict, cell.note) if t)
    return f"<td>{escape(cell.text)}{more}</td>"


def pictured(images: Iterable[Image]) -> list[nodes.Node]:
    """The images as figures with their words, and the colours of their lines."""
    group = nodes.container(classes=["drawn"])
    for image in images:
        figure = nodes.figure("", nodes.image(uri=f"drawn/{written(image.uri)}", alt=image.words))
        colours = "".join(
            f'<li><i style="background:{hue}"></i>{escape(name)}</li>'
            for name, hue in image.legend.items()
        )
        words = image.words.split(":")[0] if image.legend else image.words
        figure += nodes.caption("", words[:1].upper() + words[1:])
        if colours:
            figure += nodes.legend(
                "", nodes.raw("", f'<ul class="legend">{colours}</ul>', format="html")
            )
        group += figure
    return [group] if len(group) else []


def written(uri: str) -> str:
    """The name of the file into which the bytes of a ``data:`` URI are written."""
    head, data = uri.split(",", 1)
    ending = re.sub(r".*/(\w+);.*", r"\1", head)
    name = f"{hashlib.sha256(data.encode()).hexdigest()[:16]}.{ending}"
    DRAWN.mkdir(parents=True, exist_ok=True)
    (DRAWN / name).write_bytes(base64.b64decode(data))
    return name


def commands(made: Mapping[str, str]) -> list[nodes.Node]:
    """The commands that make the rows again, folded away."""
    if not made:
        return []
    lines = "\n".join(escape(command) for command in made)
    text = f'<div class="highlight"><pre>{lines}</pre></div>'
    text = (
        f"<details><summary>Commands that make these rows, for each seed</summary>{text}</details>"
    )
    return [nodes.raw("", text, format="html")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("paper-recipes", Recipes)
    app.add_directive("paper-results", Results)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
