"""The scripts of docs/examples run."""

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from priorzoo.benchmarks.runs.opening import open_run

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


@pytest.mark.slow
def test_a_search_with_optuna_keeps_the_trial_with_the_best_bound_of_held_out_rows(tmp_path):
    spec = spec_from_file_location("optuna_sweep", EXAMPLES / "optuna_sweep.py")
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    short = {"train": 200, "steps": 20, "every": 10}
    script.search("digits-gmvae", 1, tmp_path, **short)
    study = script.search("digits-gmvae", 2, tmp_path, **short)  # goes on with the same study
    assert [trial.number for trial in study.trials] == [0, 1]
    bounds = {}
    for trial in study.trials:
        run = open_run(Path(trial.user_attrs["folder"]))
        bounds[trial.number] = max(r["elbo"] for r in run.history if r["split"] == "valid")
        assert run.settings["model"]["init_args"]["code"] == trial.params["model.code"]
    assert study.best_trial.number == max(bounds, key=bounds.get)
    assert study.best_value == max(bounds.values())
    command = [sys.executable, EXAMPLES / "optuna_sweep.py", "digits-gmvae", "2", tmp_path]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"best bound of held-out rows {study.best_value:.2f} nats")
