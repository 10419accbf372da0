"""Runs that failed for NaN go on with other settings of their steps, and the result says so."""

import json
import shlex
from dataclasses import replace

import pytest
import torch

from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.recipes import one_cycle
from priorzoo.benchmarks.recipes.changes import written
from priorzoo.benchmarks.recipes.recipe import part
from priorzoo.benchmarks.runs import run as runs
from priorzoo.benchmarks.runs.resuming import check_same
from priorzoo.cli import main as cli
from priorzoo.models import MLP

SMALL = replace(
    RECIPES["digits-gmvae"],
    encoder=part(MLP, hidden=[8]),
    decoder=part(MLP, hidden=[8]),
    train=150,
    validation=0,
    steps=12,
    every=2,
)


def adam(lr, **more):
    return part(torch.optim.Adam, lr=lr, eps=1e-10, fused=True, **more)


@pytest.fixture
def spoilt(monkeypatch):
    """Adam that spoils a parameter in its seventh step if its rate is above 0.001."""
    step = torch.optim.Adam.step

    def spoil(self, closure=None):
        step(self, closure)
        group = self.param_groups[0]
        first = group["params"][0]
        if self.state[first]["step"] == 7 and group["lr"] > 0.001:
            with torch.no_grad():
                first.fill_(torch.nan)

    monkeypatch.setattr(torch.optim.Adam, "step", spoil)


def train(folder, recipe, **how):
    return runs.train("x", recipe, folder, device="cpu", **how)[0]


def test_a_run_that_failed_goes_on_with_a_smaller_rate(spoilt, tmp_path):
    """It fails in the step after the seventh; the last row was that of the sixth."""
    high, low = replace(SMALL, optimiser=adam(0.002)), replace(SMALL, optimiser=adam(0.001))
    for resume in (False, True):
        with pytest.raises(FloatingPointError, match=r"kl\[z\] of site 'z'.* at step 8 "):
            train(tmp_path, high, resume=resume)
    run = train(tmp_path, replace(low, clip=5.0), resume=True)
    changes = {"step": 6, "clip": [None, 5.0], "optimiser.lr": [0.002, 0.001]}
    assert run.result["resumed"] == [changes]
    assert run.result["settings"]["optimiser"]["init_args"]["lr"] == 0.001
    assert json.loads((tmp_path / "result.json").read_text())["resumed"] == [changes]
    assert [row["step"] for row in run.history if row["split"] == "train"] == [2, 4, 6, 8, 10, 12]
    with pytest.raises(ValueError, match=r"optimiser\.lr differ, and it is finished"):
        train(tmp_path, high, resume=True)
    again = train(tmp_path, replace(low, clip=5.0), resume=True)
    assert again.result["resumed"] == [changes]


def test_settings_added_since_a_checkpoint_was_written_have_their_defaults(tmp_path):
    """Those of a recipe and of its stages; another value of one is a difference."""
    recipe = RECIPES["digits-vade"]
    kept = {"seed": 0, **written(recipe)}
    for name in ("average", "rollbacks", "curve"):
        del kept[name]
    for stage in kept["stages"]:
        del stage["schedule"]
    state = {"settings": json.dumps(kept), "stage": 0}
    assert check_same(state, {"seed": 0, **written(recipe)}, tmp_path) == {}
    for changed in (replace(recipe, average=0.9), replace(recipe, curve=True)):
        with pytest.raises(ValueError, match=r"but (average|curve) differ"):
            check_same(state, {"seed": 0, **written(changed)}, tmp_path)
    first, *others = recipe.stages
    falling = replace(first, schedule=one_cycle(max_lr=0.1))
    changed = replace(recipe, stages=(falling, *others))
    with pytest.raises(ValueError, match="but stages differ"):
        check_same(state, {"seed": 0, **written(changed)}, tmp_path)


def test_a_run_that_failed_goes_on_with_another_policy(spoilt, tmp_path):
    high = replace(SMALL, optimiser=adam(0.002))
    with pytest.raises(FloatingPointError, match="at step 8 "):
        train(tmp_path / "a", high)
    run = train(tmp_path / "a", replace(high, on_nonfinite="rollback"), resume=True)
    assert run.result["resumed"] == [{"step": 6, "on_nonfinite": ["raise", "rollback"]}]
    assert run.result["nonfinite"] == {"skipped": 0, "rollbacks": 1}
    [row] = [row for row in run.history if row["split"] == "nonfinite"]
    assert (row["step"], row["lost"]) == (6, 2)
    whole = train(tmp_path / "b", replace(high, on_nonfinite="rollback"))
    assert whole.result["terms"] == run.result["terms"]
    assert "resumed" not in whole.result


@pytest.mark.parametrize(
    "other",
    [
        {"batch_size": 7},
        {"seed": 1},
        {"optimiser": adam(0.001, betas=[0.8, 0.9])},
        {"optimiser": part(torch.optim.SGD, lr=0.001)},
        {"schedule": part(torch.optim.lr_scheduler.ExponentialLR, gamma=0.9)},
    ],
)
def test_other_settings_stay_as_they_are(spoilt, other, tmp_path):
    high = replace(SMALL, optimiser=adam(0.002))
    with pytest.raises(FloatingPointError):
        train(tmp_path, high)
    seed = {"seed": other.pop("seed")} if "seed" in other else {}
    with pytest.raises(ValueError, match=r"differ; only clip, on_nonfinite, optimiser\.lr"):
        train(tmp_path, replace(high, **other), resume=True, **seed)


def test_the_line_of_a_failed_run_names_the_command_that_goes_on(spoilt, tmp_path, capsys):
    words = ["train", "digits-gmvae", "--train", "150", "--validation", "0", "--steps", "12"]
    words += ["--every", "2", "--optimiser.lr", "0.002", "--out", str(tmp_path / "run")]
    assert cli.main(words) == 1
    said = capsys.readouterr().err
    assert "kl[z] of site 'z'" in said
    again = shlex.join(["priorzoo", *words, "--resume"])
    assert f"Go on with a lower --optimiser.lr, with --clip or with --on-nonfinite: {again}" in said
