"""Shards of a grid: every cell is in one of them, and one report of all is that of the whole."""

import json
import shutil

import pytest

from priorzoo.benchmarks.grid.planning import plan, read_shard, share
from priorzoo.benchmarks.report.page import write_report
from priorzoo.benchmarks.rows.files import read_folders
from priorzoo.cli import main as cli

TINY = ["encoder.hidden=[8]", "decoder.hidden=[8]", "train=200", "validation=0", "steps=4"]


@pytest.mark.parametrize("of", [1, 2, 3, 16])
def test_every_cell_is_in_one_shard(of):
    cells = plan(["digits-gmvae"], [0, 1, 2], {"model.clusters": [4, 6]}, "quick")
    shards = [share(cells, *read_shard(f"{shard}/{of}")) for shard in range(1, of + 1)]
    assert sorted(cell.name for shard in shards for cell in shard) == sorted(c.name for c in cells)
    assert shards[0] == cells[::of]
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def without_time(folder):
    """The rows without what differs between two runs of the same cells."""
    path = folder / "rows.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [row | {"seconds": 1.0, "peak_mib": 100.0} for row in rows]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    for history in folder.glob("history/*.jsonl"):
        lines = [json.loads(line) for line in history.read_text().splitlines()]
        lines = [{k: v for k, v in line.items() if k != "seconds"} for line in lines]
        history.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return {(row["cell"], row["seed"]): row for row in rows}


@pytest.mark.slow
def test_two_shards_and_one_report_equal_one_grid(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["bench", "digits-vae", "--seeds", "0:3", "--set", *TINY]
    assert cli.main([*words, "--out", "whole"]) == 0
    for shard in (1, 2):
        assert cli.main([*words, "--out", f"shard{shard}", "--shard", f"{shard}/2"]) == 0
    assert "1 of 1 cells have a row" in capsys.readouterr().out
    whole, *parts = (without_time(tmp_path / name) for name in ("whole", "shard1", "shard2"))
    assert [len(part) for part in parts] == [2, 1]
    assert parts[0] | parts[1] == whole
    assert cli.main(["report", "whole", "--out", "site"]) == 0
    assert cli.main(["report", "shard1", "shard2", "--out", "sites"]) == 0
    files = sorted(path.name for path in (tmp_path / "site").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "sites").iterdir())
    for name in files:
        assert (tmp_path / "site" / name).read_bytes() == (tmp_path / "sites" / name).read_bytes()


def test_a_shard_without_cells_is_no_failure(tmp_path, capsys):
    words = ["bench", "k-means", "--shard", "16/16", "--out", str(tmp_path)]
    assert cli.main(words) == 0
    assert cli.main(words) == 0  # nor where there is a folder of rows already
    assert "0 of 0 cells have a row" in capsys.readouterr().out
    assert read_folders([tmp_path]) == []


@pytest.fixture
def shards(tmp_path):
    """A row in each of two folders."""
    made = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        row = {"format": 2, "seed": seed, "error": "broke", "recipe": "vae", "changes": {}}
        (folder / "failures.jsonl").write_text(json.dumps(row) + "\n")
        made.append(folder)
    return made


def test_rows_of_several_folders_are_those_of_one(shards, tmp_path):
    together = tmp_path / "together"
    shutil.copytree(shards[0], together / "0")
    shutil.copytree(shards[1], together / "1")
    assert read_folders(shards) == read_folders([together])
    pages = [write_report(which, tmp_path / name) for name, which in
             (("a", shards), ("b", together))]  # fmt: skip
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_no_row_is_read_twice(shards, tmp_path, capsys):
    for folders in ([shards[0], shards[0]], [tmp_path, shards[1]], [shards[1], tmp_path]):
        with pytest.raises(ValueError, match="Expected folders that hold different rows"):
            read_folders(folders)
    document = tmp_path / "document.md"
    document.touch()
    assert cli.main(["report", *map(str, shards), "--update", str(document)]) == 2
    assert "Expected one folder for --update" in capsys.readouterr().err
    assert cli.main(["report"]) == 2
    assert "Expected at least one folder" in capsys.readouterr().err
