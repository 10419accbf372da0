import numpy as np
import pandas as pd
import pytest

from priorzoo.inference.data.tables.reading import read_table

N = 30
AGES = np.random.default_rng(0).normal(50, 10, N)
NAMES = [f"p{i}" for i in range(N)]
COUNTS = np.random.default_rng(1).poisson(2, N)


def put(values, row, value):
    changed = list(values)
    changed[row] = value
    return changed


REFUSED = {
    "text among numbers": (
        {"age": put(AGES, 7, "old")},
        "",
        r"numbers in column 'age' of the table, as in 29 rows, but got 'old' in row 7; correct",
    ),
    "infinity": ({"age": put(AGES, 5, np.inf)}, "", r"finite numbers in column 'age'.* row 5"),
    "constant as told": ({"a": [1] * N}, "a=gaussian", r"differ in column 'a'.*it is constant: 1"),
    "nothing there": ({"a": [None] * N}, "a=count", r"column 'a'.*all cells are missing"),
    "only constants": ({"a": [1] * N}, "", r"at least one column of data.*left out: a \(it is"),
    "negative count": ({"a": put(range(N), 3, -1)}, "a=count", r"column 'a'.* got -1 in row 3"),
    "part of a count": ({"a": put(range(N), 3, 0.5)}, "a=poisson", r"column 'a'.*0\.5 in row 3"),
    "not positive": ({"a": range(N)}, "a=log-normal", r"positive number in column 'a'.*0 in row 0"),
    "categories": ({"a": AGES}, "a=binary", r"2 to 2 different values in column 'a'.*got 30"),
    "text as numbers": ({"a": list("abc") * 10}, "a=gaussian", r"column 'a'.*got 'a' in row 0"),
    "unknown kind": ({"age": AGES}, "age=student", r"column 'age' but got 'student'; did you mean"),
    "unknown column": ({"age": AGES}, "aeg=real", r"column named 'aeg'.*did you mean 'age'\?"),
    "no pair": ({"age": AGES}, "age", r"Expected --columns NAME=KIND"),
    "two labels": (
        {"age": AGES, "a": list("xy") * 15, "b": list("xy") * 15},
        "a=label,b=label",
        r"at most one column of kind label but got a, b",
    ),
    "order": ({"a": list("xyz") * 10}, "a=ordinal:x<y", r"the order x<y but the table has z"),
    "exposure": ({"n": COUNTS, "t": put(AGES, 2, 0)}, "t=exposure", r"'t'.* got 0 in row 2"),
    "missing exposure": ({"n": COUNTS, "t": put(AGES, 2, None)}, "t=exposure", r"missing cell in"),
    "exposure without counts": ({"n": AGES, "t": AGES}, "t=exposure", r"counts.*beside.*'t' but"),
    "no weights": ({"n": AGES, "w": [0] * N}, "w=weight", r"'w'.*the largest is 0; leave"),
    "one batch": ({"n": AGES, "b": ["A"] * N}, "b=covariate", r"'b'.*constant: A; leave.*b=ignore"),
    "an identifier as batch": ({"n": AGES, "b": NAMES}, "b=covariate", r"rows share in column 'b'"),
    "an identifier as category": ({"b": NAMES}, "b=categorical", r"30 different ones in 30 rows"),
    "numbers as labels": ({"n": AGES, "a": AGES}, "a=label", r"rows share in column 'a'.*label"),
    "order twice": ({"a": list("xy") * 15}, "a=ordinal:x<x<y", r"ordinal:x<x<y; name each level"),
    "order of numbers": ({"a": AGES}, "a=gaussian:x<y", r"different levels for column 'a'"),
    "thousands": ({"a": [f"{i},500" for i in range(N)]}, "", r"no other signs.*'0,500' in row 0"),
    "a currency": ({"a": [f"$ {i}" for i in range(N)]}, "", r"no other signs.*'\$ 0' in row 0"),
    "per cent": ({"a": put([f"{i % 7}%" for i in range(N)], 1, None)}, "", r"'0%' in row 0"),
    "a number far off": ({"a": put(AGES, 4, 1e39)}, "", r"1e\+09 standard.*got 1e\+39 in row 4"),
    "lists": (
        {"a": [[1, 2]] * N, "b": AGES},
        "",
        r"in each cell of column 'a'.*\[1, 2\]\)? in row 0",
    ),
    "objects": ({"a": [{"x": 1}] * N}, "", r"in each cell of column 'a'.*\{'x': 1\} in row 0"),
    "a line break in a name": ({"a\nb": put(AGES, 7, "x")}, "", r"a\\nb=ignore"),
    "a comma in a name": ({"a,b": put(AGES, 7, "x")}, "", r'"a,b=ignore"'),
    "a long cell": ({"a": put(AGES, 7, "x" * 900)}, "", r"got 'x{50,60}\.\.\.' in row 7"),
    "weight": ({"n": AGES, "w": put(AGES, 2, -1)}, "w=weight", r"weight of at least 0.*row 2"),
    "covariate": ({"n": AGES, "c": put(AGES, 2, None)}, "c=covariate", r"'c' in each row.*row 2"),
    "lengths": ({"a": AGES, "b": AGES[:3]}, "", r"30 cells in column 'b'.*got 3"),
    "no rows": ({"a": []}, "", r"at least one row.*got 0 rows"),
    "empty row": ({"a": put(AGES, 4, None)}, "", r"all data cells of row 4 are missing"),
    "complex": ({"a": [1j] * N}, "", r"numbers or text in column 'a'.*complex128"),
    "other object": (object(), "", r"an array, a data frame,.*but got object"),
    "ragged": ([[1, 2], [3]], "", r"rows of one length|rows and columns"),
    "one number": (np.zeros(3), "", r"rows and columns \(N, P\).*got shape \(3,\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_tables_are_refused_in_one_line(name):
    data, columns, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as refused:
        read_table(data, columns=columns)
    assert "\n" not in str(refused.value)


PREDICTED = {
    "unseen category": ({"city": put(["Oslo", "Rome"] * 15, 9, "Bern")}, r"got 'Bern' in row 9"),
    "unknown class": ({"kind": put(["a", "b"] * 15, 9, "c")}, r"class.*'kind'.*'c' in row 9"),
    "missing column": ({"age": None}, r"there is no age; add it"),
    "negative count": ({"visits": put(range(N), 0, -3)}, r"'visits'.*got -3 in row 0"),
    "text": ({"age": put(AGES, 1, "x")}, r"numbers in column 'age'.*'x' in row 1"),
}


@pytest.mark.parametrize("name", PREDICTED)
def test_rows_unlike_those_of_the_training_are_refused_in_one_line(name):
    columns = {
        "age": AGES,
        "visits": np.arange(N),
        "city": ["Oslo", "Rome"] * 15,
        "kind": ["a", "b"] * 15,
    }
    schema = read_table(columns, columns="kind=label,visits=count").schema
    changes, message = PREDICTED[name]
    other = {k: v for k, v in {**columns, **changes}.items() if v is not None}
    with pytest.raises(ValueError, match=message) as refused:
        read_table(other, schema=schema)
    assert "\n" not in str(refused.value)


FILES = {
    "empty": ("a.csv", "", r"the file is empty"),
    "names alone": ("a.csv", "a,b\n", r"at least one row"),
    "ragged": ("a.csv", "a,b\n1,2\n1\n", r"Expected 2 columns, got 1"),
    "no names": ("a.csv", "1,2\n3,4\n", r"names of the columns in the first line.*got numbers, 1"),
    "twice": ("a.csv", "a,b,a\n1,2,3\n", r"different names.*got 'a' at positions 0, 2"),
    "late text": (
        "a.csv",
        "a\n" + "1.5\n" * 400_000 + "x\n",
        r"numbers in column 'a'.*got 'x' in row 400000",
    ),
    "no parquet": ("a.parquet", "hello", r"Expected a table in .*a\.parquet"),
    "no npz": ("a.npz", "hello", r"Expected arrays of numbers"),
    "no h5ad": ("a.h5ad", "hello", r"Expected an AnnData in"),
    "gzip": ("a.csv", "\x1f\x8b", r"lines of text in .*a\.csv but got gzip"),
    "parquet": ("a.csv", "PAR1", r"lines of text in .*a\.csv but got Parquet"),
    "other file": ("a.xlsx", "hello", r"Expected a file \.csv,.*a\.xlsx"),
}


@pytest.mark.parametrize("name", FILES)
def test_bad_files_are_refused_in_one_line(name, tmp_path):
    file, text, message = FILES[name]
    (tmp_path / file).write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=message) as refused:
        read_table(tmp_path / file)
    assert "\n" not in str(refused.value)


def test_files_of_another_encoding_are_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes("name,größe\nä,1\nö,2\n".encode("latin-1"))
    with pytest.raises(ValueError, match="save it as UTF-8"):
        read_table(tmp_path / "a.csv")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"b\.csv but there is none"):
        read_table(tmp_path / "b.csv")


def test_duplicate_names_of_a_data_frame():
    with pytest.raises(ValueError, match="different names in the table but got 'a' 2 times"):
        read_table(pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_names_and_decimal_commas_of_a_file_are_read(tmp_path):
    (tmp_path / "a.csv").write_text(" age ;;pay\n51,5;1,5;a\n40,25;2,5;b\n39,5;9,5;a\n")
    schema = read_table(tmp_path / "a.csv").schema
    assert [column.name for column in schema.columns] == ["age", "unnamed", "pay"]
    assert schema.columns[0].high == 51.5


def test_dates_and_times_are_left_out_whatever_their_form():
    columns = {"iso": ["2020-01-02"], "us": ["1/2/2020"], "de": ["2.1.2020"], "time": ["12:30:05"]}
    table = read_table({name: cells * N for name, cells in columns.items()} | {"age": AGES})
    assert [column.kind for column in table.schema.columns] == ["ignore"] * 4 + ["real"]


@pytest.mark.parametrize(
    ("y", "message"),
    [(AGES, r"labels y.*got 5\d\.\d+ in row 0"), (put([1] * N, 3, -2), r"got -2 in row 3")],
)
def test_labels_of_an_array_that_are_no_classes(y, message, tmp_path):
    np.savez(tmp_path / "a.npz", x=AGES[:, None], y=np.asarray(y))
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / "a.npz")


def test_an_array_of_five_dimensions(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 2, 2, 2, 2)))
    with pytest.raises(ValueError, match=r"images \(N, H, W\).*got shape \(4, 2, 2, 2, 2\)"):
        read_table(tmp_path / "a.npy")
