"""Tables of trainings from files and of shared steps, from the rows that the benchmarks write."""

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
