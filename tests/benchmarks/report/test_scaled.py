"""Tables of files, shared steps, bounds and starts, from the rows that the benchmarks write."""

from priorzoo.benchmarks.report.drawn import samples_table
from priorzoo.benchmarks.report.result_tables import update_tables
from priorzoo.benchmarks.rows.files import append_row, read_folder

MACHINE = {"device": "cpu", "threads": 1, "versions": {"torch": "2.6"}}
MARKS = "<!-- files: rows.jsonl -->\n<!-- /files -->\n<!-- processes: shared.jsonl -->\n"
MARKS += "<!-- /processes -->\n"


def test_rows_become_tables_with_medians_and_their_ratio(tmp_path):
    row = {"kind": "speed-files", "stored": "parquet", "rows": 1000, "steps": 20, **MACHINE}
    row["command"] = "priorzoo bench speed-files"
    for where, rates in (("files", [80, 90, 900]), ("reading", [5000]), ("memory", [99, 100, 101])):
        more = {
            "from": where,
            "rows_per_second": [1],
            "rows_per_cpu_second": rates,
            "peak_mib": 12.5,
        }
        append_row(row | more, tmp_path / "rows.jsonl")
    more = {
        "from": "files",
        "rows_per_second": [1],
        "rows_per_cpu_second": [70],
        "peak_mib": 13.0,
        "rows": 10**10,
    }
    append_row(row | more, tmp_path / "rows.jsonl")
    shared = {"kind": "speed-processes", "recipe": "gmvae", "batch": 100, "step": "eager"}
    shared |= {"steps": 2, "processes": 2, "parameters": 10**6, "message_bytes": 4 * 10**6}
    shared |= {"microseconds": 5250.0, "message_microseconds": 1500.0, "command": "x", **MACHINE}
    append_row(shared, tmp_path / "shared.jsonl")
    assert len(read_folder(tmp_path)) == 5
    document = tmp_path / "document.md"
    document.write_text(MARKS)
    update_tables(document, tmp_path)
    text = document.read_text()
    assert "| parquet | 1,000 | 90 | 12.5 | 100 | 12.5 | 0.900 | 5,000 |" in text
    assert "| parquet | 10,000,000,000 | 70 | 13.0 | – | – | – | – |" in text
    assert "| gmvae | eager | 100 | 2 | 5.25 | 1,000,000 | 4.00 | 1.50 | `x` |" in text


def test_bounds_have_their_ratio_and_starts_the_median(tmp_path):
    path, document = tmp_path / "rows.jsonl", tmp_path / "document.md"
    row = {"kind": "speed-bound", "recipe": "gmvae", "clusters": 10, "rows": 4, "samples": 100}
    row |= {"command": "x", **MACHINE, "peak_mib": 40.2}
    for step, rates, difference in (("eager", [100, 200, 900], 0.0), ("compiled", [600], 2e-7)):
        own = {"step": step, "draws_per_cpu_second": rates, "difference": difference}
        append_row(row | own, path)
    document.write_text("<!-- bound: rows.jsonl -->\n<!-- /bound -->\n")
    update_tables(document, tmp_path)
    assert "| gmvae | 10 | 100 | 200 | 600 | 3.00 | 2e-07 | 40 | 40 | `x` |" in document.read_text()
    row = {
        "kind": "speed-start",
        "recipe": "vae",
        "start": "later",
        "clock_seconds": [3.0, 4.0, 9.0],
    }
    row |= {"cpu_seconds": [2.0, 2.5, 3.0], "peak_mib": 700.4, "command": "y", **MACHINE}
    path.unlink()
    append_row(row, path)
    assert len(read_folder(tmp_path)) == 1
    document.write_text("<!-- start: rows.jsonl -->\n<!-- /start -->\n")
    update_tables(document, tmp_path)
    assert "| vae | later | 4.00 | 2.50 | 700 | `y` |" in document.read_text()


def test_samples_of_no_model_make_a_table_without_lines():
    table = samples_table([])
    assert (table.rows, table.notes) == ((), ())
