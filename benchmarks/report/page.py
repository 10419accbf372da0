"""One page of all results beside the published figures, and the same as Markdown and CSV."""

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from priorzoo.benchmarks.papers.paper import BUDGETS, Paper
from priorzoo.benchmarks.report.paper_tables import Cell
from priorzoo.benchmarks.report.sections import Section, count_verdicts, of_measurements, of_papers
from priorzoo.benchmarks.rows.files import Found, read_folder


def write_report(folder: Path, out: Path, papers: Sequence[Paper] = ()) -> Path:
    """Write ``index.html``, ``tables.md`` and a CSV for each paper; returns the page.

    The page is one file that asks for nothing else, and depends on nothing but the rows.

    Args:
        folder: of ``.jsonl`` rows, with the histories and figures that they name.
        out: folder for the report.
        papers: whose tables to make; runs of other recipes come last.

    Raises:
        ValueError: for rows that cannot be read, see :func:`read_folder`; nothing is written.
    """
    found = read_folder(folder)
    sections = [*of_papers(papers, found.results), *of_measurements(found)]
    files = {"index.html": _page(sections, found), "tables.md": _markdown(sections)}
    files |= {f"{section.key}.csv": _csv(section) for section in sections if section.records}
    out.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (out / name).write_text(text, encoding="utf-8", newline="")
    return out / "index.html"


def _page(sections: Sequence[Section], found: Found) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    verdicts = count_verdicts(cell for section in sections for cell in section.cells)
    facts = _facts(found) | {"against the published figures": verdicts}
    known = {name: text for name, text in facts.items() if text}
    return environment.get_template("report.html").render(sections=sections, facts=known)


def _facts(found: Found) -> dict[str, str]:
    rows = [*found.results, *found.speed, *found.gradients]
    counts = Counter(row["budget"] for row in found.results)
    versions = {f"{name} {text}" for row in rows for name, text in row.get("versions", {}).items()}
    return {
        "runs": f"{len(found.results):,}",
        "budgets": ", ".join(f"{name} ({counts[name]} runs)" for name in BUDGETS if counts[name]),
        "devices": ", ".join(sorted({str(row["device"]) for row in rows if row.get("device")})),
        "versions": ", ".join(sorted(versions)),
    }


def _markdown(sections: Sequence[Section]) -> str:
    lines = ["# Results beside the published figures\n"]
    for section in sections:
        lines += [f"\n## {_escaped(section.title)}\n"]
        lines += [f"\n{_escaped(text)}\n" for text in (section.source, section.note) if text]
        for caption, table in section.tables.items():
            lines += [f"\n{_escaped(caption)}\n" if caption else "", "\n"]
            lines += [_line(table.head), "|---" * len(table.head) + "|\n"]
            lines += [_line([_words(cell) for cell in row]) for row in table.rows]
    return "".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_escaped, cells))} |\n"


def _words(cell: Cell) -> str:
    note = f" ({cell.note})" if cell.note else ""
    return f"{cell.text}{note}{f'; {cell.verdict}' if cell.verdict else ''}"


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*\[\]|<])", r"\\\1", " ".join(text.split()))


def _csv(section: Section) -> str:
    names = list(dict.fromkeys(name for record in section.records for name in record))
    file = io.StringIO()
    writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(section.records)
    return file.getvalue()
