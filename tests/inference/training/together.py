"""Trains pairs of the catalogue in one of several processes, for ``test_processes.py``.

usage: RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=... together.py OUT STEP NAME ...
"""

import sys
from dataclasses import replace
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import torch
from torch import nn

from priorzoo.inference import ELBO, Training, evaluate, move_clusters, reseed_clusters
from priorzoo.inference.objectives.conjugate import bound
from priorzoo.inference.processes import ALONE, joined
from priorzoo.models import MLP, NGGPMixture

STEPS, FEW = 50, 10
ROWS, BATCH = 93, 21  # so that shares and the last batch are uneven
ADAM = partial(torch.optim.Adam, lr=1e-3)
LABELS = {"y": torch.arange(ROWS) % 7 % 4 - 1}  # of the classes 0 to 2, and -1 for unknown


def catalogue():
    path = Path(__file__).parents[2] / "catalogue.py"
    spec = spec_from_file_location("catalogue", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.CATALOGUE


def train(name, processes=ALONE, step="eager", steps=STEPS, **settings):
    """The training of a pair; ``m2+labels`` has labels of some rows."""
    torch.manual_seed(0)
    entry = catalogue()[name.partition("+")[0]]
    model, guide = entry.pair()
    x = entry.rows(ROWS)
    objective = bound(model, guide)
    if type(objective).__module__.endswith("closed_forms"):
        objective = ELBO(model, guide, penalties=entry.penalties())
    how = {"batch_size": BATCH, "step": step, "seed": 3, "clip": 5.0, "validation": x[:13]}
    how["labels"] = LABELS if name.endswith("+labels") else None
    how["optimiser"] = partial(torch.optim.SGD, lr=0.02)  # unlike Adam it sees a gradient's scale
    how |= {"objective": objective, "processes": processes, "every": 20}
    training = Training(model, guide, x, **how | settings)
    training.run(steps)
    return training


def result(training):
    """What one process and several must agree in."""
    held = training.batches.data[:17]
    terms = evaluate(training.model, training.guide, held, processes=training.processes, seed=1)
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in training.history]
    state = training.objective.state_dict()
    return {"state": state, "history": rows, "random": training.stream.state, "held": terms}


def recipes():
    """Small recipes with all that comes between steps; imported here, since it takes seconds."""
    from priorzoo.benchmarks.papers import RECIPES as known
    from priorzoo.benchmarks.recipes.recipe import part

    small = {"encoder": part(MLP, hidden=[8]), "decoder": part(MLP, hidden=[8]), "validation": 31}
    small |= {"train": 203, "batch_size": 50, "steps": 50, "epochs": None, "every": 25}
    moves = {"clusters": part(move_clusters, rows=60, rounds=1)}
    reseeded = {"starved": part(reseed_clusters, rows=60, starved=3.0, until=1.0)}
    mixture = part(NGGPMixture, code=3, clusters=6, start=2)
    return {
        "moves": replace(known["digits-nggp"], **small, model=mixture, moves=moves),
        "stages": replace(known["digits-factorial"], **small),
        "starts": replace(known["digits-gmvae"], **small, n_init=2, init_steps=5, patience=1),
        "memory": replace(known["digits-nonparametric"], **small, memory=50),
        "average": replace(known["digits-vade"], **small, average=0.9, moves=reseeded),
        "labels": replace(known["m2-semi"], **small, data="digits", labelled=40),
    }


def train_recipe(name, folder, processes=ALONE):
    """What one process and several must agree in after a recipe's whole course."""
    from priorzoo.benchmarks.runs import run as runs

    run, _ = runs.train(name, recipes()[name], folder / name, device="cpu", processes=processes)
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in run.history]
    states = nn.ModuleList((run.model, run.guide)).state_dict()
    return {"state": states, "history": rows, "result": run.result}


if __name__ == "__main__":
    out, kind, *names = sys.argv[1:]
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    with joined() as processes:
        if kind == "recipes":
            found = {name: train_recipe(name, Path(out), processes) for name in names}
        else:
            how = {"few": {"steps": FEW}, "adam": {"optimiser": ADAM}}.get(kind, {"step": kind})
            found = {name: result(train(name, processes, **how)) for name in names}
        torch.save(found, f"{out}-{processes.rank}.pt")
