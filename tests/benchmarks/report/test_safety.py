"""Rows of others: the page embeds images of the folder alone, and tables hold no formulas."""

import csv
import io
import json
import os

import numpy as np
import pytest

from priorzoo.benchmarks.report.page import write_report
from priorzoo.benchmarks.report.table import Cell, Table, to_csv, to_markdown
from priorzoo.benchmarks.rows import files
from priorzoo.benchmarks.rows.files import FORMAT, append_row, read_folder

SECRET = "root:x:0:0"
PNG = b"\x89PNG\r\n\x1a\n"


def row(**more):
    return {
        "format": FORMAT,
        "command": "priorzoo train gmvae",
        "recipe": "gmvae",
        "seed": 0,
        "steps": 10,
        "terms": {"elbo": -1.0},
        "metrics": {},
        **more,
    }


@pytest.fixture
def folder(tmp_path):
    """A folder of rows beside a file that they shall not read."""
    from matplotlib.image import imsave

    folder = tmp_path / "rows"
    folder.mkdir()
    (tmp_path / "secret").write_text(SECRET)
    imsave(folder / "own.png", np.eye(8))
    imsave(tmp_path / "other.png", np.eye(8))
    return folder


def write(folder, *rows):
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in rows))


def refused(folder, message):
    with pytest.raises(ValueError, match=message) as caught:
        write_report(folder, folder.parent / "out")
    assert SECRET not in str(caught.value)
    assert not (folder.parent / "out").exists()


def test_an_image_of_the_folder_is_embedded(folder):
    (folder / "below").mkdir()
    (folder / "below" / "link.png").symlink_to(folder / "own.png")
    (folder / "own.jpeg").write_bytes(b"\xff\xd8\xff\xe0")
    write(folder, row(figures=["own.png", "below/link.png", "own.jpeg"]))
    page = write_report(folder, folder.parent / "out").read_text()
    assert page.count("data:image/png;base64,iVBORw0K") >= 2
    assert "data:image/jpeg;base64,/9j/4A==" in page


@pytest.mark.parametrize("entry", ["figures", "history"])
@pytest.mark.parametrize(
    "name",
    ["ABSOLUTE", "../secret", "below/../../secret", "..\\secret", "link", "way/other.png", "dev"],
)
def test_no_file_outside_the_folder_is_read(folder, entry, name):
    (folder / "link").symlink_to(folder.parent / "secret")
    (folder / "way").symlink_to(folder.parent)
    (folder / "dev").symlink_to("/dev/zero")
    name = str(folder.parent / "secret") if name == "ABSOLUTE" else name
    write(folder, row(**{entry: [name] if entry == "figures" else name}))
    refused(folder, "Expected a path within")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.txt", SECRET, r"Expected one of \.png"),
        ("page.svg", "<svg onload='alert(1)'/>", r"Expected one of \.png"),
        ("text.png", SECRET, "image/png in .* begins otherwise"),
        ("own.jpg", PNG.decode("latin-1"), "image/jpeg in .* begins otherwise"),
        ("large.png", None, "at most 8 MiB"),
        ("fifo.png", os.mkfifo, "regular file at .* FIFO"),
        ("folder.png", os.mkdir, "regular file at .* folder"),
        ("loop.png", lambda path: os.symlink(path, path), "Expected"),
    ],
)
def test_what_is_no_image_is_not_embedded(folder, name, content, message):
    path = folder / name
    if callable(content):
        content(path)
    elif content is None:
        path.write_bytes(PNG)
        os.truncate(path, 2**34)
    else:
        path.write_text(content, encoding="latin-1")
    write(folder, row(figures=[name]))
    refused(folder, message)


def test_images_are_limited_together(folder, monkeypatch):
    monkeypatch.setattr(files, "SHOWN", 2_000)
    (folder / "own.png").write_bytes(PNG + bytes(1_000))
    write(folder, row(figures=["own.png"]))
    read_folder(folder)
    write(folder, row(figures=["own.png"] * 2))
    refused(folder, "at most 0 MiB of images")


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1+1",
        "-1+1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "  =1",
        "-",
        "\uff1d1",
        "-1 2",
        "+A1",
    ],
)
def test_a_spreadsheet_takes_no_cell_for_a_formula(text):
    """Neither a cell nor a heading, a note or a command; plain numbers stay as they are."""
    cell = Cell(text, note=text, published=text, commands=(text,))
    made = to_csv(Table((text,), ((cell,),)))
    for record in csv.reader(io.StringIO(made)):
        assert all(entry.startswith("'") for entry in record if entry != "command"), record
    assert f"'{text}" in next(csv.reader(io.StringIO(made)))


@pytest.mark.parametrize("text", ["-1", "+1.5", "-1e-05", "-inf", "0", "1 to 2", "nan", "a=1", ""])
def test_numbers_and_words_are_no_formulas(text):
    made = list(csv.reader(io.StringIO(to_csv(Table(("x",), ((Cell(text),),))))))
    assert made[1][0] == text


def test_a_command_ends_no_code_of_markdown():
    text = "a` <img src=x> `b\n# c"
    (line,) = to_markdown(Table(("x",), ((Cell(text, code=True),),))).splitlines()[2:]
    assert "\\<img" in line
    assert "\\`" in line


VALUES = [None, True, -1, 10**400, 1e308, "x" * 300_000, "a", [], {}, [[]], {"a": {"b": 1}}]
KEYS = ["seed", "steps", "terms", "metrics", "recipe", "command", "changes", "cell", "budget"]
KEYS += ["history", "figures", "versions", "device", "settings", "embedding", "seconds", "stages"]


@pytest.mark.parametrize("key", KEYS)
def test_rows_of_other_types_make_a_page_or_an_error_of_one_line(folder, key):
    for value in VALUES:
        write(folder, row(**{key: value}))
        said = ""
        try:
            write_report(folder, folder.parent / "out")
        except ValueError as error:
            said = str(error)
        assert "\n" not in said


@pytest.mark.parametrize(
    "line", ["[" * 100_000, '{"format": 2, "a": ' + "[" * 100_000, "1" * 9_999]
)
def test_deep_and_long_values_are_refused(folder, line):
    (folder / "rows.jsonl").write_text(f"{line}\n")
    refused(folder, "Expected (JSON|an object) in .*line 1")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_rows_are_read_from_and_written_to_regular_files_alone(folder, make):
    make(folder / "rows.jsonl")
    refused(folder, "regular file at .*rows.jsonl")
    with pytest.raises(ValueError, match="regular file"):
        append_row({"seed": 0}, folder / "rows.jsonl")
