"""Random calls of the library and of the command line.

Results are finite, or the call is refused in one line that says what was expected, what came, and
what to do. The suite makes few calls; ``make fuzz`` makes 10,000 of the library and 2,000 of the
command line.
"""

import json
import math
import os
import re

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from priorzoo import inference
from priorzoo.benchmarks.charts import run_charts
from priorzoo.cli import main as cli

settings.register_profile(
    "suite",
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile(
    "full", settings.get_profile("suite"), max_examples=2_000, derandomize=False
)
settings.load_profile(os.environ.get("FUZZ", "suite"))

P = 6
PAIRS = ["gmvae", "vae", "vae-gaussian", "vae-multinomial", "nonparametric"]
REFUSAL = re.compile(r"Expected .+ but .+[;:] .+|.+ cannot run on .+: .+|.+does not fit.+: .+")

VALUES = st.sampled_from([0.0, 1.0, 1.0, 0.0, 0.5, 2.0, -1.0, 255.0, 1e30, math.nan, math.inf])
COUNTS = st.sampled_from([1, 2, 3, 5, 0, -1, 2.5, "3", None])
SITES = st.sampled_from(["y", "z", "x", "w", "u", ""])
KINDS = {
    "float32": lambda x: x,
    "float64": lambda x: x.double(),
    "float16": lambda x: x.half(),
    "bfloat16": lambda x: x.bfloat16(),
    "bytes": lambda x: x.nan_to_num(0, 0, 0).clamp(0, 255).byte(),
    "int64": lambda x: x.nan_to_num(0, 0, 0).clamp(-9, 999).long(),
    "bool": lambda x: x > 0,
    "complex": lambda x: x.to(torch.complex64),
    "sparse": lambda x: x.to_sparse(),
    "numpy": lambda x: x.numpy(),
    "numpy >f8": lambda x: x.numpy().astype(">f8"),
    "numpy text": lambda x: x.numpy().astype(str),
    "numpy objects": lambda x: x.numpy().astype(object),
    "lists": lambda x: x.tolist(),
    "list of rows": list,
    "pictures": lambda x: x.unflatten(1, (2, -1)) if x.shape[1] % 2 == 0 else x,
    "channels": lambda x: x.reshape(len(x), 1, *x.shape[1:], 1),
    "one row": lambda x: x[0] if len(x) else x,
    "transposed": lambda x: x.T,
    "batches": lambda x: list(x.split(2)) if len(x) else [],
    "generator": lambda x: iter(x.split(2)),
    "loader": lambda x: DataLoader(x, 2) if len(x) else None,
    "data set": TensorDataset,
    "data set of two": lambda x: TensorDataset(x, x),
    "mappings": lambda x: [{"x": x}],
    "mapping": lambda x: {"x": x},
    "tuples": lambda x: [(x, x)],
    "text": lambda x: "rows",
    "number": lambda x: 1.0,
    "none": lambda x: None,
}


@st.composite
def rows(draw):
    """Rows of any kind: mostly of the right width, with none or one wrong value."""
    width = draw(st.sampled_from([P, P, P, P, P - 1, 1]))
    count = draw(st.integers(0, 7))
    x = torch.tensor(
        draw(st.lists(st.integers(0, 1), min_size=count * width, max_size=count * width))
    )
    x = x.float().reshape(count, width)
    if count and draw(st.booleans()):
        x[draw(st.integers(0, count - 1)), draw(st.integers(0, width - 1))] = draw(VALUES)
    return KINDS[draw(st.sampled_from([*["float32"] * 9, *KINDS]))](x)


LABELS = st.one_of(
    st.none(),
    st.dictionaries(
        SITES, st.lists(st.sampled_from([-1, 0, 1, 2, 3, -2, 0.5]), max_size=7), max_size=2
    ),
    st.just([0, 1]),
)
CONTEXT = st.one_of(st.none(), st.none(), st.dictionaries(SITES, rows(), max_size=1))
TRANSFORMS = st.sampled_from(
    [
        None,
        inference.binarised,
        torch.bernoulli,
        inference.Pixels(),
        lambda x: x[:1],
        lambda x: x @ x,
        torch.log,
    ]
)
TRAINING = {
    "steps": st.sampled_from([1, 2, 3, 0, -1, 2.5, None]),
    "epochs": st.sampled_from([None, None, None, 1, 0.5, math.nan]),
    "batch_size": COUNTS,
    "size": COUNTS,
    "every": COUNTS,
    "patience": st.sampled_from([None, None, 1, 0]),
    "clip": st.sampled_from([None, 1.0, 0.0, -1.0, math.nan]),
    "seed": st.sampled_from([0, 1, 2**40]),
    "labels": LABELS,
    "context": CONTEXT,
    "transform": TRANSFORMS,
    "validation": st.one_of(st.none(), rows()),
    "step": st.sampled_from(["eager", "eager", "cudagraph", "fast"]),
}
PREDICTION = {"batch_size": COUNTS, "context": CONTEXT}
CALLS = {
    "fit": TRAINING,
    "evaluate": {
        **PREDICTION,
        "transform": TRANSFORMS,
        "importance_samples": st.sampled_from([0, 1, 2, -1, 1.5]),
        "seed": st.sampled_from([0, 5]),
    },
    "importance_bound": {"samples": st.sampled_from([1, 2, 0, 1.5]), "context": CONTEXT},
    "cluster_probabilities": {**PREDICTION, "site": SITES},
    "codes": {**PREDICTION, "site": SITES},
    "reconstructions": PREDICTION,
    "enumerates": {"site": SITES, "context": CONTEXT},
    "check_data": {"context": CONTEXT, "transform": TRANSFORMS},
    "remember": {"size": COUNTS},
    "descend": {"size": COUNTS, "labels": LABELS, "context": CONTEXT},
    "draw": {
        "size": COUNTS,
        "given": st.one_of(st.none(), st.dictionaries(SITES, rows(), max_size=2)),
        "means": st.booleans(),
        "context": CONTEXT,
    },
}


@st.composite
def calls(draw):
    """A function, its rows, and none to all of its settings."""
    name = draw(st.sampled_from(list(CALLS)))
    chosen = {key: draw(each) for key, each in CALLS[name].items() if draw(st.booleans())}
    needed = {"fit": {"steps": 2}, "importance_bound": {"samples": 2}, "draw": {"size": 3}}
    if not chosen.keys() & needed.get(name, {}).keys():
        chosen |= needed.get(name, {})
    return name, draw(rows()), chosen


def call(pair, name, x, chosen):
    model, guide = pair
    if name == "draw":
        return inference.draw(model, **chosen)
    if name == "check_data":
        return inference.check_data(model, x, **chosen)
    if name == "descend":
        objective = inference.ELBO(model, guide)
        optimiser = torch.optim.Adam(objective.parameters())
        return inference.descend(objective, optimiser, x, **chosen)
    return getattr(inference, name)(model, guide, x, **chosen)


def assert_finite(found, said):
    if isinstance(found, Tensor):
        assert found.isfinite().all(), said
    elif isinstance(found, dict):
        assert_finite(list(found.values()), said)
    elif isinstance(found, list):
        for part in found:
            assert_finite(part, said)
    elif isinstance(found, float):
        assert math.isfinite(found), said


@pytest.mark.parametrize("pair", PAIRS)
@given(made=calls())
def test_a_call_of_the_library_is_finite_or_refused(zoo, pair, made):
    """Terms that overflow are a ``FloatingPointError``, as in any training."""
    torch.manual_seed(0)
    try:
        found, refused = call(zoo[pair].pair(), *made), ""
    except (ValueError, FloatingPointError) as error:
        found, refused = None, str(error)
    assert not refused or REFUSAL.fullmatch(refused), (made, refused)
    assert_finite(found, made)


WORDS = {
    "--steps": ["1", "2", "0", "-1", "x", "2.5"],
    "--every": ["1", "0", "null"],
    "--batch_size": ["1", "2", "0", "-3", "many"],
    "--model.clusters": ["1", "3", "0", "-1", "[]"],
    "--likelihood": ["Bernoulli", "Gaussian", "Multinomial", "Nothing"],
    "--labelled": ["0", "3", "1000", "-1", "x"],
    "--train": ["null", "1", "5", "0", "-2"],
    "--validation": ["0", "1", "-1", "1000"],
    "--binarise": ["none", "static", "dynamic", "other"],
    "--n_init": ["1", "2", "0"],
    "--seed": ["0", "3"],
    "--guide": ["ClusterThenCode", "CodeThenCluster", "Code", "Nobody"],
    "--importance-samples": ["0", "2", "-1", "x"],
    "--cluster": ["0", "2", "99", "-1", "x"],
    "--given": ['{"y": 1}', '{"z": 1}', "{", "[]", '{"y": 99}'],
    "--n": ["1", "3", "0", "-1", "x"],
    "--json": [],
    "--nonsense": ["1"],
}
OF = {
    "train": ["--steps", "--every", "--batch_size", "--model.clusters", "--likelihood", "--train"],
    "evaluate": ["--importance-samples", "--json", "--seed"],
    "sample": ["--cluster", "--given", "--n", "--seed"],
    "list": ["--nonsense"],
}
OF["train"] += ["--labelled", "--validation", "--binarise", "--n_init", "--seed", "--guide"]
TRAIN = ["--steps", "2", "--every", "2", "--encoder.hidden", "[4]", "--decoder.hidden", "[4]"]


@st.composite
def files(draw):
    """The arrays of a file of data: mostly rows and labels that fit, in part or all changed."""
    shape = draw(st.sampled_from([(8, 8), (8, 8), (8, 8), (64,), (1, 8, 8), (8, 8, 1), (8, 8, 3)]))
    made = {}
    for part in ("train", "test"):
        count = draw(st.integers(0, 9))
        x = np.array(draw(st.lists(st.integers(0, 1), min_size=8, max_size=8)), float)
        x = np.resize(x, (count, *shape))
        if count and draw(st.integers(0, 3)) == 0:
            x.flat[0] = draw(VALUES)
        made[f"x_{part}"] = x.astype(draw(st.sampled_from(["f4", "f8", "f4", ">f8", "U3", "c8"])))
        if draw(st.booleans()):
            y = np.resize(draw(st.lists(st.integers(-1, 3), min_size=1, max_size=5)), count)
            made[f"y_{part}"] = y.astype(draw(st.sampled_from([int, int, "u1", float])))
    return {k: v for k, v in made.items() if draw(st.integers(0, 19))}


@st.composite
def commands(draw):
    """The words of a command and the arrays of its data, if they are not those of the run."""
    name = draw(st.sampled_from(["train", "train", "train", "evaluate", "sample", "list"]))
    words = {"train": [name, "digits-gmvae", *TRAIN], "list": [name, "data"]}
    words = words.get(name, [name, "RUN"])
    if name == "train":
        words[1] = draw(st.sampled_from(["digits-gmvae", "digits-vae", "digits-m2", "digits"]))
    for option in draw(st.lists(st.sampled_from(OF[name]), max_size=3, unique=True)):
        words += [option, draw(st.sampled_from(WORDS[option]))] if WORDS[option] else [option]
    reads = name == "train" or (name == "evaluate" and draw(st.booleans()))
    return words, draw(files()) if reads else None


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with a run, and a patch that leaves the charts out."""
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_charts, "draw_run", lambda *_: [])
        assert cli.main(["train", "digits-gmvae", *TRAIN, "--out", str(folder / "RUN")]) == 0
        yield folder


@given(made=commands())
def test_a_command_succeeds_or_is_refused_in_one_line(run, capsys, made):
    words, arrays = made
    words = [str(run / word) if word == "RUN" else word for word in words]
    if arrays is not None:
        np.savez(run / "mine.npz", **arrays)
        words += ["--data", str(run / "mine.npz")]
    if words[0] == "train":
        words += ["--out", str(run / "new"), "--overwrite"]
    if words[0] == "sample":
        words += ["--out", str(run / "drawn.npz")]
    capsys.readouterr()
    status = cli.main(words)
    said = capsys.readouterr()
    if status:
        assert status in (1, 2), words
        *before, line = said.err.splitlines()
        assert all(each.startswith(("warning: ", "compiling ")) for each in before), (
            words,
            said.err,
        )
        assert re.match(rf"priorzoo {words[0]}: (error|failed): ", line), (words, said.err)
    elif words[0] == "evaluate" and "--json" in words:
        assert_finite(json.loads(said.out), words)
    elif words[0] == "sample":
        assert np.isfinite(np.load(run / "drawn.npz")["x"]).all(), words
    elif words[0] == "train":
        assert_finite(json.loads((run / "new" / "result.json").read_text()), words)
