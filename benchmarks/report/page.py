"""One page of all results beside the published values, and the same as Markdown and CSV."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from jinja2 import StrictUndefined, Template

from priorzoo.benchmarks.charts.axes import look
from priorzoo.benchmarks.papers.paper import BUDGETS, Paper
from priorzoo.benchmarks.report.groups import is_run
from priorzoo.benchmarks.report.sections import Section, count_verdicts, of_measurements, of_papers
from priorzoo.benchmarks.report.table import escaped, to_csv, to_markdown
from priorzoo.benchmarks.rows.files import Row, read_folders


def write_report(folders: Path | Sequence[Path], out: Path, papers: Sequence[Paper] = ()) -> Path:
    """Write ``index.html``, ``tables.md`` and a CSV for each table; returns the page.

    The page is one file that loads nothing else, and depends on nothing but the rows.

    Args:
        folders: one or several of ``.jsonl`` rows, with the histories and pictures that they name,
            such as the shards of one grid.
        out: folder for the report.
        papers: whose tables to make; runs of other recipes come last.

    Raises:
        ValueError: for rows that cannot be read, see :func:`read_folders`; nothing is written.
    """
    rows = read_folders([folders] if isinstance(folders, Path) else folders)
    results = [row for row in rows if is_run(row)]
    with look():
        sections = [*of_papers(papers, results), *of_measurements(rows)]
    files = {"index.html": _page(sections, rows), "tables.md": _markdown(sections)}
    for section in sections:
        for place, table in enumerate(section.tables, 1):
            files[f"{section.key}{f'-{place}' if place > 1 else ''}.csv"] = to_csv(table)
    out.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (out / name).write_text(text, encoding="utf-8", newline="")
    return out / "index.html"


def _page(sections: Sequence[Section], rows: Sequence[Row]) -> str:
    text = Path(__file__).with_name("report.html").read_text("utf-8")
    page = Template(
        text, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    facts = _facts(rows) | {"against the published values": count_verdicts(sections)}
    return page.render(sections=sections, facts=facts, count_verdicts=count_verdicts)


def _facts(rows: Sequence[Row]) -> dict[str, str]:
    counts = Counter(row["budget"] for row in rows if is_run(row))
    versions = {f"{name} {text}" for row in rows for name, text in row.get("versions", {}).items()}
    return {
        "runs": f"{counts.total():,}",
        "budgets": ", ".join(f"{name} ({counts[name]} runs)" for name in BUDGETS if counts[name]),
        "devices": ", ".join(sorted({str(row["device"]) for row in rows if row.get("device")})),
        "versions": ", ".join(sorted(versions)),
    }


def _markdown(sections: Sequence[Section]) -> str:
    parts = ["# Results beside the published values\n"]
    for section in sections:
        parts += [f"\n## {escaped(section.title)}\n"]
        parts += [f"\n{escaped(text)}\n" for text in (section.source, section.note) if text]
        parts += [f"\n{to_markdown(table.condensed())}" for table in section.tables]
    return "".join(parts)
