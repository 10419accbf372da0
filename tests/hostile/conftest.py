"""Good folders of each kind, which the tests mutate."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.recipes.recipe import part
from priorzoo.benchmarks.rows.files import FORMAT
from priorzoo.benchmarks.runs import run as runs
from priorzoo.benchmarks.runs.interruption import handling
from priorzoo.guides import CodeAndPlace
from priorzoo.inference import save
from priorzoo.inference.memory import Memory
from priorzoo.inference.training.execution import Steps
from priorzoo.models import MLP, NonparametricVAE

KINDS = ("finished", "broken off", "memory", "rows", "settings")
SMALL = replace(
    RECIPES["digits-gmvae"],
    encoder=part(MLP, hidden=[4]),
    decoder=part(MLP, hidden=[4]),
    data="own.npz",
    binarise="none",
    train=None,
    validation=10,
    patience=5,
    steps=6,
    every=2,
)


@pytest.fixture(scope="session")
def small():
    """A recipe that trains in a second, on the file ``own.npz`` of the working folder."""
    return SMALL


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A good folder of each kind, each in a working folder with a canary."""
    home = tmp_path_factory.mktemp("good")
    before = Path.cwd()
    for kind in KINDS:
        work = home / kind
        (work / "run").mkdir(parents=True)
        os.chdir(work)
        generator = np.random.default_rng(0)
        arrays = {"x_train": generator.random((40, 6)), "x_test": generator.random((9, 6))}
        np.savez("own.npz", **{k: x.round().astype("float32") for k, x in arrays.items()})
        os.mkfifo("fifo.npz")
        os.symlink("/dev/zero", "zero.npz")
        Path("canary.py").write_text("from pathlib import Path\nPath('executed').touch()\n")
        fill(kind, work / "run")
    os.chdir(before)
    return home


def fill(kind, run):
    if kind == "finished":
        runs.train("x", SMALL, run, device="cpu")
    elif kind == "broken off":
        with pytest.MonkeyPatch.context() as patched:
            call = Steps.__call__

            def kill(self):
                call(self)
                if self.count == 1 and (run / "checkpoint-1.safetensors").exists():
                    os.kill(os.getpid(), signal.SIGTERM)

            patched.setattr(Steps, "__call__", kill)
            with handling(), pytest.raises(KeyboardInterrupt):
                runs.train("x", SMALL, run, device="cpu")
    elif kind == "memory":
        torch.manual_seed(0)
        model = NonparametricVAE(MLP(3, 6, (4,)), code=3)
        guide = CodeAndPlace(MLP(6, 6, (4,)), MLP(6, 4, (4,)))
        save(run, model, guide)
        Memory(model, torch.randn(5, 2), torch.randn(5, 3)).save(run)
    elif kind == "rows":
        fill_rows(run)
    else:
        found = {"model": {"class_path": "GMVAE", "init_args": {"code": 3}}, "seed": 1, "steps": 5}
        (run / "settings.json").write_text(json.dumps(found | {"kl": {"y": {"weight": 0.5}}}))


def fill_rows(run):
    from matplotlib.image import imsave

    step = {"step": 1, "split": "test", "elbo": -3.0, "terms": {"elbo": -1.0}, "metrics": {}}
    result = {"format": FORMAT, "command": "priorzoo train m2", "recipe": "m2", "steps": 2}
    result |= {"seed": 0, "terms": {"elbo": -1.0}, "metrics": {"nmi": 0.5, "clusters": 3.0}}
    result |= {"changes": {"model.code": 3}, "settings": {"data": "mnist"}, "budget": "quick"}
    result |= {"history": "history/a.jsonl", "figures": ["own.png"], "versions": {"torch": "2.6"}}
    result |= {"cell": "c0ffee", "seconds": 1.0, "device": "cpu"}
    speed = {"format": FORMAT, "kind": "speed", "recipe": "vae", "hidden": [64], "batch": 20}
    speed |= {"clusters": 10, "code": 8, "arm": "eager", "microseconds": 100.0, "ratio": 1.0}
    speed |= {"ratio_quartiles": [0.9, 1.1], "operations": 5, "peak_mib": 2.0, "device": "cpu"}
    speed |= {"threads": 1, "command": "priorzoo bench speed", "base": "eager"}
    failure = {"format": FORMAT, "recipe": "vade", "changes": {}, "seed": 3, "error": "NaN"}
    rows = {"rows.jsonl": [result, result | {"seed": 1}], "speed.jsonl": [speed]}
    rows |= {"failures.jsonl": [failure | {"cell": "x"}]}
    rows |= {"history/a.jsonl": [step, step | {"step": 2}]}
    (run / "history").mkdir()
    imsave(run / "own.png", np.eye(4))
    for name, lines in rows.items():
        (run / name).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
