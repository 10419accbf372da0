"""Rows are appended whole, and read with their format checked; errors name file and line."""

import json

import pytest

from priorzoo.benchmarks.rows.files import FORMAT, append_row, read_rows


def test_rows_are_appended_and_read_back(tmp_path):
    path = tmp_path / "new" / "some.jsonl"
    rows = [{"recipe": "gmvae", "seed": seed, "changes": {"steps": 9}} for seed in (0, 1)]
    for row in rows:
        append_row(row, path)
    expected = [{"format": FORMAT, **row} for row in rows]
    assert read_rows(path) == read_rows(path.parent) == expected
    assert path.read_bytes().count(b"\n") == 2


def test_a_row_that_does_not_fit_on_the_disk_leaves_nothing_of_it(tmp_path):
    """The limit on the size of files breaks a real write off in the midst of the row."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "some.jsonl"
    append_row({"seed": 0}, path)
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        with pytest.raises(OSError, match=r"No space|too large"):
            append_row({"seed": 1}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before


def test_a_torn_last_line_is_left_out_where_asked_and_else_refused(tmp_path):
    path = tmp_path / "some.jsonl"
    append_row({"seed": 0}, path)
    with path.open("a") as file:
        file.write('{"format": 2, "se')
    assert read_rows(path, torn=True) == [{"format": FORMAT, "seed": 0}]
    with pytest.raises(ValueError, match=r"Expected JSON in .*some.jsonl, line 2 but got .*; drop"):
        read_rows(path)


def test_a_torn_line_before_the_last_is_refused(tmp_path):
    path = tmp_path / "some.jsonl"
    path.write_text('{"format": 2, "se\n{"format": 2}\n')
    with pytest.raises(ValueError, match="line 1"):
        read_rows(path, torn=True)


@pytest.mark.parametrize(("line", "got"), [('{"format": 1}', "1"), ('{"seed": 0}', "None")])
def test_another_format_is_refused_by_its_number(tmp_path, line, got):
    path = tmp_path / "some.jsonl"
    path.write_text(f"{json.dumps({'format': FORMAT})}\n{line}\n")
    words = rf"format 2 in .*some.jsonl, line 2 but got format {got}; make the row again"
    with pytest.raises(ValueError, match=words):
        read_rows(path)


def test_what_is_no_object_is_refused(tmp_path):
    path = tmp_path / "some.jsonl"
    path.write_text("[1]\n")
    with pytest.raises(ValueError, match=r"Expected an object in .*line 1 but got \[1\]"):
        read_rows(path)
