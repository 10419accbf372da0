import subprocess
import sys

import pytest

from priorzoo.benchmarks.rows.files import read_rows
from priorzoo.cli import main as cli


def test_bench_speed_processes_writes_a_row(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    words = ["bench", "speed-processes", "--recipe", "digits-vae", "--steps", "2"]
    assert cli.main([*words, "--device", "cpu", "--rows", str(path)]) == 0
    (row,) = read_rows(path)
    assert (row["kind"], row["processes"], row["steps"]) == ("speed-processes", 1, 2)
    assert row["microseconds"] > 0
    assert row["message_bytes"] == 4 * row["parameters"] > 0
    assert row["message_microseconds"] == 0
    capsys.readouterr()
    assert cli.main([*words[:3], "no-such"]) == 2
    assert "Expected a recipe but got 'no-such'" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_write_one_row_with_their_messages(tmp_path):
    path = tmp_path / "rows.jsonl"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", "2"]
    command += ["-m", "priorzoo", "bench", "speed-processes", "--recipe", "digits-vae"]
    command += ["--steps", "2", "--device", "cpu", "--rows", str(path)]
    subprocess.run(command, check=True, capture_output=True, timeout=240)
    (row,) = read_rows(path)
    assert row["processes"] == 2
    assert row["message_microseconds"] > 0
