"""Predictions by a recorded graph: those of the programs, for any rows, threads and files."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from priorzoo.guides import ClusterThenCode
from priorzoo.inference import (
    cluster_probabilities,
    codes,
    enumerates,
    export,
    reconstructions,
    serve,
)
from priorzoo.inference.running import PROGRAM_LOCK
from priorzoo.models import GMVAE, MLP, Gaussian, data_plate

KINDS = ["gmvae", "vade", "nggp-log-concave", "factorial-two", "vq-vae", "sticks-kumaraswamy"]
KINDS += ["dilokthanakul", "nonparametric", "gmvae-conv", "vae-multinomial", "m2-flow"]


def trained(entry):
    model, guide = entry.pair()
    if hasattr(model, "counted"):
        model.observe(torch.rand(200, model.clusters + 1).softmax(-1), 1.0, 200)
    return model, guide


def compare(entry, tolerance=1e-5):
    model, guide = trained(entry)
    predictor = serve(model, guide, batch_size=50)
    assert "reconstruction" in predictor.names
    for rows in (1, 3, 120):
        x = entry.rows(rows)
        found = predictor(x)
        expected = {"reconstruction": reconstructions(model, guide, x)}
        if "probabilities" in found and enumerates(model, guide, x):
            expected["probabilities"] = cluster_probabilities(model, guide, x)
        if "codes" in found and {"codes_w", "codes_u"} & found.keys():
            expected["codes"] = codes(model, guide, x)
        for site in ("r_1", "r_2"):
            if f"probabilities_{site}" in found:
                p = cluster_probabilities(model, guide, x, site)
                expected[f"probabilities_{site}"] = p
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", KINDS)
def test_the_graph_gives_what_the_programs_give(zoo, name):
    compare(zoo[name])


@pytest.mark.slow
def test_the_graph_of_every_pair_gives_what_the_programs_give(zoo):
    for entry in zoo.values():
        compare(entry)


def test_probabilities_are_those_of_the_classifier(zoo):
    model, guide = zoo["gmvae"].pair()
    x = zoo["gmvae"].rows(5)
    expected = guide.classifier(x).softmax(-1)
    predictor = serve(model, guide)
    torch.testing.assert_close(predictor.probabilities(x), expected)
    torch.testing.assert_close(predictor.probabilities(x.numpy()), expected)
    with torch.no_grad():
        guide.classifier.layers[-1].weight.zero_()
    torch.testing.assert_close(predictor.probabilities(x), expected)  # of when it was made


@pytest.mark.parametrize("name", ["nggp", "nggp-dirichlet"])
def test_a_row_is_predicted_alike_alone_and_among_others(zoo, name):
    """The sizes of an NGGP's clusters are those of its training, not of the rows predicted."""
    model, guide = trained(zoo[name])
    x = zoo[name].rows(40)
    together = cluster_probabilities(model, guide, x)
    for batch in (1, 7):
        apart = cluster_probabilities(model, guide, x, batch_size=batch)
        torch.testing.assert_close(apart, together)


def test_threads_predict_while_another_runs_a_program(zoo):
    model, guide = zoo["vade"].pair()
    predictor, x = serve(model, guide), zoo["vade"].rows(64)
    expected = cluster_probabilities(model, guide, x)
    held, done = Event(), Event()

    def hold():
        with PROGRAM_LOCK:
            held.set()
            assert done.wait(60)

    def ask(start):
        return [predictor.probabilities(x[start : start + 1]) for _ in range(20)][-1]

    with ThreadPoolExecutor(5) as threads:
        holder = threads.submit(hold)
        held.wait(60)
        found = list(threads.map(ask, range(64)))
        done.set()
        holder.result()
    torch.testing.assert_close(torch.cat(found), expected)


def test_one_row_is_faster_by_far_than_its_trace(zoo):
    model, guide = zoo["gmvae"].pair()
    predictor, x = serve(model, guide), zoo["gmvae"].rows(1)

    def least(call):
        times = []
        for _ in range(20):
            begun = time.perf_counter()
            call()
            times.append(time.perf_counter() - begun)
        return min(times)

    slow = least(lambda: cluster_probabilities(model, guide, x))
    assert least(lambda: predictor.probabilities(x)) < slow / 4


class Scaled(nn.Module):
    """Means times a size factor that is told beside x."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder, self.likelihood = decoder, Gaussian()
        self.clusters = 3
        self.loc = nn.Parameter(torch.randn(3, 2))

    def forward(self, x=None, size=None, *, factor):
        with data_plate(x, size):
            y = pyro.sample("y", dist.Categorical(logits=self.loc.new_zeros(3)))
            z = pyro.sample("z", dist.Normal(self.loc[y], 1.0).to_event(1))
            return pyro.sample("x", self.likelihood(self.decoder(z) * factor), obs=x)


def test_context_goes_beside_the_rows(tmp_path):
    model = Scaled(MLP(2, 4, (5,)))
    guide = ClusterThenCode(MLP(4, 3, (5,)), MLP(4, 4, (5,), clusters=3))
    x, factor = torch.randn(9, 4), torch.rand(9, 1)
    predictor = serve(model, guide, context={"factor": factor})
    expected = reconstructions(model, guide, x, context={"factor": factor})
    found = predictor.reconstructions(x, {"factor": factor})
    torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match=r"Expected context .*'factor'"):
        predictor.reconstructions(x)
    export(model, guide, tmp_path / "scaled.pt2", context={"factor": factor})
    program = torch.export.load(tmp_path / "scaled.pt2").module()
    torch.testing.assert_close(program(x, factor)[-1], expected)


class Doubting(ClusterThenCode):
    """Looks at the value of a row, which no graph holds."""

    def forward(self, x, size=None):
        if float(x.sum()) > 1e6:
            raise ValueError("too large")
        super().forward(x, size)


def test_bad_rows_and_pairs_are_refused_in_a_line(zoo, tmp_path):
    entry = zoo["gmvae"]
    model, guide = entry.pair()
    predictor = serve(model, guide)
    for x, said in (
        (torch.ones(2, 5), r"shape \(N, 6\)"),
        (torch.full((1, 6), 2.0), "values from 2"),
        (torch.full((1, 6), torch.nan), "NaN"),
        (torch.ones(0, 6), "at least one row"),
    ):
        with pytest.raises(ValueError, match=said):
            predictor.probabilities(x)
    with pytest.raises(ValueError, match="one of the outputs"):
        predictor.output("codes_w", entry.rows(2))
    doubting = Doubting(guide.classifier, guide.conditional_encoder)
    with pytest.raises(ValueError, match="those of GMVAE and Doubting cannot") as caught:
        serve(model, doubting)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"ends with .onnx or .pt2"):
        export(model, guide, tmp_path / "model.pkl")
    with pytest.raises(ValueError, match="Sticks cannot be exported: the format has no"):
        export(*zoo["sticks-kumaraswamy"].pair(), tmp_path / "sticks.onnx")
    assert not list(tmp_path.iterdir())


WITHOUT_TORCH = """
import json, sys
sys.modules["torch"] = sys.modules["pyro"] = sys.modules["priorzoo"] = None
import numpy as np, onnxruntime
file, *sizes = sys.argv[1:]
session = onnxruntime.InferenceSession(file)
rows = np.load(file + ".npy")
names = [each.name for each in session.get_outputs()]
runs = [session.run(None, {"x": rows[: int(size)]}) for size in sizes]
print(json.dumps([dict(zip(names, (each.tolist() for each in run))) for run in runs]))
"""


def test_onnx_runs_in_a_process_without_torch(zoo, tmp_path):
    entry = zoo["vade"]
    model, guide = entry.pair()
    file, x = tmp_path / "model.onnx", entry.rows(9)
    names = export(model, guide, file)
    np.save(f"{file}.npy", x.numpy())
    command = [sys.executable, "-c", WITHOUT_TORCH, str(file), "1", "2", "9"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    predictor = serve(model, guide)
    for size, found in zip((1, 2, 9), json.loads(run.stdout), strict=True):
        expected = predictor(x[:size])
        assert list(found) == list(names) == list(expected)
        for name, value in found.items():
            torch.testing.assert_close(torch.tensor(value), expected[name], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_every_pair_can_be_exported_or_says_why_not(zoo, tmp_path):
    import onnxruntime

    for name, entry in zoo.items():
        model, guide = trained(entry)
        x, predictor = entry.rows(5), serve(model, guide)
        export(model, guide, tmp_path / "model.pt2")
        found = torch.export.load(tmp_path / "model.pt2").module()(x)
        expected = list(predictor(x).values())
        torch.testing.assert_close(list(found), expected, rtol=0, atol=1e-5)
        if name in ("sticks-kumaraswamy", "nggp-dirichlet", "nggp-dirichlet-rsvi"):
            with pytest.raises(ValueError, match=r"the format has no (lgamma|digamma)"):
                export(model, guide, tmp_path / "model.onnx")
            continue
        export(model, guide, tmp_path / "model.onnx")
        session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
        found = [torch.from_numpy(each) for each in session.run(None, {"x": x.numpy()})]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_images_come_as_flat_rows_or_whole():
    model = GMVAE(MLP(2, 6, (8,)), code=2, clusters=3)
    guide = ClusterThenCode(MLP(6, 3, (5,)), MLP(6, 4, (5,), clusters=3))
    predictor, x = serve(model, guide), torch.rand(4, 2, 3).round()
    torch.testing.assert_close(predictor.codes(x), predictor.codes(x.flatten(1)))
