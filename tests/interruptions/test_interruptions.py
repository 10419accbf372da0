"""Trainings and grids that are broken off at random, and must end as if they had not been.

``--count N`` is the number of trainings; the suite makes few, and the summary is printed with -s. A
training runs in a forked process, which ends before or at one of its file operations, between two
steps, by a signal, or by SIGKILL at any time; it goes on in further processes, of which some are
broken off again. Half of the file operations are chosen between the last step and the result.
"""

import json
import os
import random
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from tqdm import tqdm

from priorzoo.benchmarks.data import folders
from priorzoo.benchmarks.data.sets import load
from priorzoo.benchmarks.grid import processes, runner
from priorzoo.benchmarks.grid.cells import Cell
from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.papers.jiang2017 import place_mixture
from priorzoo.benchmarks.recipes.recipe import Stage, part
from priorzoo.benchmarks.runs import run as runs
from priorzoo.benchmarks.runs.interruption import handling
from priorzoo.guides import CodeThenCluster
from priorzoo.inference import Autoencoder, StoredRows, move_clusters
from priorzoo.inference.training.execution import Steps
from priorzoo.models import GMVAE, MLP, NGGPMixture

resource = pytest.importorskip("resource", reason="needs fork and signals")

SMALL = {"encoder": part(MLP, hidden=[8]), "decoder": part(MLP, hidden=[8]), "train": 150}
SMALL |= {"validation": 40, "steps": 9, "every": 3}
MIXTURE = part(GMVAE, code=3, clusters=4, learn_weights=True)
STAGES = (
    Stage("autoencoder", steps=5, objective=part(Autoencoder)),
    Stage("mixture", begin=part(place_mixture)),
    Stage("prior", steps=3, learn=("model.loc", "model.raw", "model.logits")),
)
TRAININGS = {
    "patience": replace(RECIPES["digits-gmvae"], **SMALL, patience=1, n_init=2, init_steps=2),
    "stages": replace(
        RECIPES["digits-gmvae"], **SMALL, model=MIXTURE, guide=part(CodeThenCluster), stages=STAGES
    ),
    "moves": replace(
        RECIPES["digits-nggp"],
        **SMALL,
        model=part(NGGPMixture, code=3, clusters=6, start=2),
        moves={"clusters": part(move_clusters, rows=60, rounds=1)},
    ),
    "conjugate": replace(RECIPES["digits-factorial"], **SMALL, stages=()),
    "memory": replace(RECIPES["digits-nonparametric"], **SMALL, memory=50),
    "curve": replace(RECIPES["digits-sb-vae"], **SMALL, curve=True),
    "average": replace(RECIPES["digits-gmvae"], **SMALL, average=0.9),
}
DIVERGING = {"optimiser": part(torch.optim.SGD, lr=0.3), "rollbacks": 20}
TRAININGS["rollback"] = replace(
    RECIPES["digits-gmvae"], **SMALL, **DIVERGING, on_nonfinite="rollback"
)
KINDS = ("exit", "fault", "full", "signal", "kill", "kill")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TINY = {"encoder.hidden": [8], "decoder.hidden": [8], "train": 150, "validation": 0, "steps": 6}
CELLS = [Cell("digits-vae", seed, changes={**TINY, "every": 2}) for seed in (1, 2)]
CELLS += [Cell("digits-gmvae", 1, changes={**TINY, "every": 3})]


class Break:
    """Where a training is broken off: at a file operation or a step, counted from 1."""

    def __init__(self, kind="none", at=0, number=0, trace=None):
        self.kind, self.at, self.number, self.trace = kind, at, number, trace
        self.count = 0

    def start(self, folder):
        """From here on, in a process of its own: what is installed can never be removed."""
        if self.kind == "signal":
            take = Steps.__call__

            def step(steps):
                take(steps)
                self.count += 1
                if self.count == self.at:
                    os.kill(os.getpid(), self.number)

            Steps.__call__ = step
            return
        write = safetensors.torch.serialize_file

        def saved(tensors, file, *given, **how):
            sys.audit("open", str(file), "w", 0)
            write(tensors, file, *given, **how)
            sys.audit("open", str(file), "written", 0)

        safetensors.torch.serialize_file = saved
        names = {"open", "os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.listdir"}

        def hook(event, given):
            if event in names and str(given[0]).startswith(str(folder)):
                self.operate(f"{event} {Path(str(given[0])).name} {given[1:2]}")

        sys.addaudithook(hook)

    def operate(self, name):
        if self.trace is not None:
            self.trace.append(name)
        self.count += 1
        if self.count != self.at:
            return
        if self.kind == "exit":
            os._exit(77)
        if self.kind == "fault":
            raise OSError(5, "Input/output error")
        if self.kind == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def forked(work, *given):
    """The process of a function that prints nothing and leaves what it says in a pipe."""
    out, into = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        child = os.fork()
    if child:
        os.close(into)
        return child, out
    status = 99
    tqdm.set_lock(threading.RLock())  # its own is shared by forks, and kept by one that is killed
    try:
        os.close(out)
        status, said = 0, work(*given) or ""
    except KeyboardInterrupt as error:
        status, said = 128 + error.args[0], ""
    except (OSError, ValueError) as error:
        status, said = 2, str(error)
    except BaseException:
        said = traceback.format_exc()
    os.write(into, said.encode()[:60_000])
    os._exit(status)


def ended(process):
    """The status of a process, negative for one that was killed, and what it said."""
    child, out = process
    _, status = os.waitpid(child, 0)
    with open(out, "rb") as pipe:
        return os.waitstatus_to_exitcode(status), pipe.read().decode()


def train(folder, recipe, resume, broken):
    torch.set_num_threads(1)
    broken.start(folder)
    with handling():
        runs.train("x", recipe, folder, device="cpu", resume=resume)
    return json.dumps([broken.count, broken.trace])


def left(folder):
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    for row in history:
        row.pop("seconds", None)
    result = json.loads((folder / "result.json").read_text())
    del result["seconds"]
    tensors = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    names = {path.name for path in folder.iterdir()} - {"run.lock"}  # of a fault at its removal
    return tensors, history, result, sorted(names)


def with_a_large_row(file):
    """Digits of which one is so large that the gradient of each of its batches overflows."""
    digits = load("digits", train=200, validation=0)
    x = digits.x_train.numpy().copy()
    x[5] *= 1e18
    arrays = {"y_train": digits.y_train, "x_test": digits.x_test, "y_test": digits.y_test}
    np.savez(file, x_train=x, **{name: array.numpy() for name, array in arrays.items()})
    return file


def _on_files(folder, kind):
    """A training that reads its rows from files in pieces, by two threads."""
    x = np.random.default_rng(0).random((250, 16)).astype(np.float32)
    for name, values in (("train", x[:200]), ("test", x[200:])):
        if kind == "npy":
            np.save(folder / f"x_{name}.npy", values)
        else:
            table = pa.table({f"c{i}": column for i, column in enumerate(values.T)})
            pq.write_table(table, folder / f"{name}.parquet", row_group_size=45)
    more = {"data": str(folder), "train": None, "steps": 17, "batch_size": 30}
    return replace(RECIPES["digits-vae"], **SMALL | more)


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def references(tmp_path_factory, monkeypatch_module):
    """Of each training what it leaves, its operations, where the last step is, and its time."""
    found, warm = {}, tmp_path_factory.mktemp("warm")
    small = partial(StoredRows, buffer=70, workers=2)  # so that a pass has several windows
    monkeypatch_module.setattr(folders, "StoredRows", small)
    for kind in ("npy", "parquet"):
        TRAININGS[kind] = _on_files(tmp_path_factory.mktemp("data"), kind)
    own = {"data": str(with_a_large_row(warm / "rows.npz")), "batch_size": 30}
    TRAININGS["skip"] = replace(RECIPES["digits-gmvae"], **SMALL, **own, on_nonfinite="skip")
    for name, recipe in TRAININGS.items():  # so that no process has to import what these need
        runs.train("x", recipe, warm / name, device="cpu")
    for name, recipe in TRAININGS.items():
        folder = tmp_path_factory.mktemp("reference") / "run"
        begun = time.monotonic()
        status, said = ended(forked(train, folder, recipe, False, Break(trace=[])))
        assert status == 0, said
        operations = json.loads(said)[1]
        rows = [i for i, one in enumerate(operations) if one.startswith("open history.jsonl ('a'")]
        found[name] = left(folder), len(operations), rows[-1], time.monotonic() - begun
    counts = {name: found[name][0][2].get("nonfinite") for name in ("skip", "rollback")}
    assert counts["skip"]["skipped"]
    assert counts["rollback"]["rollbacks"]
    return found


def choose(random_, kind, reference):
    """A place to break off at."""
    _, operations, last, _ = reference
    if kind == "signal":
        return Break(kind, random_.randint(1, 9), random_.choice(SIGNALS))
    after = random_.random() < 0.5
    return Break(kind, random_.randint(last + 2 if after else 1, operations))


def begin_again(folder, recipe, broken, resume, kill, random_, seconds):
    process = forked(train, folder, recipe, resume, broken)
    if kill:
        time.sleep(random_.uniform(0, 1.1 * seconds))
        os.kill(process[0], signal.SIGKILL)
    return ended(process)


def interrupt(seed, folder, references, seen):
    """One training, broken off once or more, and then to its end; False if it ended before."""
    random_ = random.Random(seed)
    name = random_.choice(list(TRAININGS))
    recipe, reference = TRAININGS[name], references[name]
    resume, breaks = False, 1 + (random_.random() < 0.3)
    for _ in range(20):
        kind = random_.choice(KINDS) if breaks else "none"
        broken = choose(random_, kind, reference) if kind not in ("none", "kill") else Break()
        kept = (folder / "checkpoint.safetensors").is_file() or (folder / "result.json").is_file()
        again = folder, recipe, broken, resume, kind == "kill", random_, reference[3]
        status, said = begin_again(*again)
        assert "Traceback" not in said, said
        if status == 2 and "nothing had been kept" in said:
            assert resume
            assert not kept
            seen["nothing kept"] += 1
            resume, breaks = False, 0
            continue
        if status == 0:
            assert left(folder) == reference[0], (seed, name, kind)
            seen["resumed"] += resume
            return resume or not breaks
        assert status in (77, 2, -signal.SIGKILL, *(128 + one for one in SIGNALS)), said
        assert kind != "none", (status, said)
        seen[kind] += 1
        late = broken.kind != "signal" and broken.at > reference[2] + 1
        seen["after the last step"] += late
        breaks -= 1
        resume = True
    pytest.fail(f"seed {seed}: {name} did not end")


def test_a_training_that_is_broken_off_anywhere_ends_as_if_it_had_not_been(
    references, tmp_path, pytestconfig
):
    seen, broken, seed = Counter(), 0, 0
    while broken < pytestconfig.getoption("count"):
        broken += interrupt(seed, tmp_path / f"{seed}" / "run", references, seen)
        seed += 1
    print(dict(seen))


def bench(out, jobs):
    """Runs a grid, its workers forked too, since imports would take most of the time."""
    import multiprocessing

    processes.get_context = lambda _: multiprocessing.get_context("fork")
    warnings.simplefilter("ignore", DeprecationWarning)
    with handling():
        return json.dumps(runner.run_grid(CELLS, out, jobs=jobs, device="cpu", progress=False))


def rows(out):
    found = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    for row in found:
        del row["seconds"], row["peak_mib"]
    return sorted(found, key=lambda row: (row["recipe"], row["seed"]))


def test_two_runners_share_the_cells_of_a_grid(references, tmp_path):
    grids = [forked(bench, tmp_path / "out", 1) for _ in range(2)]
    (one, first), (other, second) = map(ended, grids)
    assert (one, other) == (0, 0), (first, second)
    assert len(rows(tmp_path / "out")) == len(CELLS)
    taken = [json.loads(said) for said in (first, second)]
    assert sum(cells for cells, _ in taken) == len(CELLS)
    assert [failed for _, failed in taken] == [0, 0]
    assert not list((tmp_path / "out").glob("**/*.lock"))


def test_a_grid_that_is_broken_off_anywhere_has_each_cell_once(references, tmp_path, pytestconfig):
    begun = time.monotonic()
    status, said = ended(forked(bench, tmp_path / "reference", 2))
    assert status == 0, said
    seconds, expected = time.monotonic() - begun, rows(tmp_path / "reference")
    assert len(expected) == len(CELLS)
    seen = Counter()
    for seed in range(max(1, pytestconfig.getoption("count") // 10)):
        random_, out = random.Random(seed), tmp_path / f"{seed}"
        for _ in range(random_.choice((1, 1, 2))):
            grids = [forked(bench, out, random_.choice((1, 2))) for _ in range(1 + seed % 2)]
            time.sleep(random_.uniform(0, seconds))
            number = random_.choice((signal.SIGKILL, signal.SIGTERM))
            os.kill(grids[0][0], number)
            for each in grids:
                status, said = ended(each)
                assert status in (0, -number, 128 + number), said
                seen[status] += 1
        assert ended(forked(bench, out, 2))[0] == 0
        assert rows(out) == expected
        assert not (out / "failures.jsonl").exists()
    print(dict(seen))
