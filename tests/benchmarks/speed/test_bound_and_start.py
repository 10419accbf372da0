"""What is timed of the importance bound and of first steps."""

import pytest
import torch

from priorzoo.benchmarks.speed import bound, start
from priorzoo.cli.main import main


def test_a_bound_is_timed_after_its_first_evaluation():
    found = bound.timed(2, "eager", 3, 2, 1)
    assert len(found["seconds"]) == 1
    assert len(found["values"]) == 3
    assert torch.tensor(found["values"]).isfinite().all()


def test_a_process_is_timed_with_those_that_it_starts(tmp_path):
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'sum(range(2_000_000))'])"
    alone, both = (start.timed(each, "vae", str(tmp_path)) for each in ("pass", code))
    assert both[1] > alone[1] > 0
    assert alone[2] > 1
    with pytest.raises(RuntimeError, match="but got 3"):
        start.timed("raise SystemExit(3)", "vae", str(tmp_path))


@pytest.mark.slow
def test_bench_commands_write_rows(tmp_path):
    path = str(tmp_path / "rows.jsonl")
    words = ["--clusters", "2", "--images", "3", "--samples", "4", "--rounds", "1", "--rows", path]
    assert main(["bench", "speed-bound", *words]) == 0
    assert main(["bench", "speed-start", "--recipes", "vae", "--rounds", "1", "--rows", path]) == 0
