"""The README's own model: no ``prior()``, no ``networks``, and every guide of its sites."""

import re
from pathlib import Path

import pyro.distributions as dist
import pytest
import torch

from priorzoo.cli.main import main
from priorzoo.guides import ClusterThenCode, ClusterThenFlow, CodeThenCluster, MeanField
from priorzoo.inference import ELBO, cluster_probabilities, evaluate, importance_bound
from priorzoo.models import MLP

TEXT = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
DECLARATION = next(
    c for c in re.findall(r"^```python\n(.*?)^```", TEXT, re.S | re.M) if "nn.M" in c
)
P, D, K = 6, 2, 3


def conditional():
    return MLP(P, 2 * D, (8,), clusters=K)


GUIDES = {
    "ClusterThenCode": lambda model: ClusterThenCode(MLP(P, K, (8,)), conditional()),
    "CodeThenCluster": lambda model: CodeThenCluster(MLP(P, 2 * D, (8,)), model),
    "MeanField": lambda model: MeanField(MLP(P, K, (8,)), MLP(P, 2 * D, (8,))),
    "ClusterThenFlow": lambda model: ClusterThenFlow(
        MLP(P, K, (8,)), conditional(), code=D, hidden=(8,)
    ),
}


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.04)


def tied():
    names = {}
    exec(DECLARATION, names)
    return names["TiedGMVAE"](MLP(D, P, (8,)), code=D, clusters=K)


def log_evidence(model, x):
    """log of the integral of p(x | z) sum_y N(z; loc_y, scale) / K over a grid of codes."""
    axis = torch.linspace(-7, 7, 101)
    z = torch.cartesian_prod(axis, axis)
    parts = dist.Normal(model.loc, model.log_scale.exp()).to_event(1)
    mixture = dist.MixtureSameFamily(dist.Categorical(logits=torch.zeros(K)), parts)
    pixels = dist.Bernoulli(logits=model.decoder(z)).to_event(1)
    log_cell = 2 * (axis[1] - axis[0]).log()
    return (pixels.log_prob(x.unsqueeze(1)) + mixture.log_prob(z)).logsumexp(1) + log_cell


@pytest.fixture
def x():
    prototypes = torch.tensor([[1, 1, 0, 0, 0, 1], [0, 0, 1, 1, 0, 0], [1, 0, 1, 0, 1, 1.0]])
    return (prototypes[torch.arange(30) % 3] - (torch.rand(30, P) < 0.1).float()).abs()


@pytest.mark.usefixtures("recorded")
def test_all_guides_train_the_model_to_a_table_of_bounds(x, trained_both_ways):
    """-ELBO of each, above -log p(x) by quadrature, to which the importance bound comes close."""
    table = {}
    for name, guide in GUIDES.items():

        def make(guide=guide):
            model = tied()
            return model, guide(model)

        pair, history = trained_both_ways(
            make, x, steps=30, every=15, batch_size=10, optimiser=adam
        )
        assert history[-1]["elbo"] > history[0]["elbo"] + 0.05, name
        with torch.no_grad():
            exact = log_evidence(pair[0], x)
            found = importance_bound(*pair, x, 1000)
            torch.testing.assert_close(found.mean(), exact.mean(), rtol=0, atol=0.03)
            many = ELBO(*pair, particles=200).terms(x)["elbo"].mean()
        assert many < exact.mean() + 0.01, name
        table[name] = -evaluate(*pair, x)["elbo"]
    assert list(table) == list(GUIDES)
    assert max(table.values()) < P * torch.tensor(2.0).log()  # of fair coins


@pytest.mark.usefixtures("double")
def test_the_exact_posterior_of_the_cluster_is_bayes_rule():
    """N(z; loc_k, scale) over the sum of all K, at the code's mean."""
    model = tied()
    guide = GUIDES["CodeThenCluster"](model)
    x = torch.rand(7, P).bernoulli()
    z = guide.encoder(x)[:, :D]
    gaps = (z.unsqueeze(1) - model.loc) / model.log_scale.exp()
    likelihood = (-0.5 * gaps.square().sum(-1)).exp()
    expected = likelihood / likelihood.sum(-1, keepdim=True)
    torch.testing.assert_close(cluster_probabilities(model, guide, x), expected)


@pytest.mark.usefixtures("double")
def test_no_other_cluster_given_the_same_code_has_a_better_bound():
    """The bound of q(z | x) p(y | z) is E[log p(x | z) + log p(z) - log q(z | x)]."""
    model = tied()
    exact, guessed = GUIDES["CodeThenCluster"](model), GUIDES["MeanField"](model)
    guessed.encoder = exact.encoder
    x = torch.rand(7, P).bernoulli()
    bounds = []
    for guide in (exact, guessed):
        torch.manual_seed(3)  # for the same codes
        bounds.append(ELBO(model, guide).terms(x)["elbo"])
    assert (bounds[0] > bounds[1]).all()


@pytest.mark.parametrize("guide", GUIDES)
def test_the_model_trains_from_the_command_line_under_each_guide(
    guide, tmp_path, monkeypatch, capsys
):
    (tmp_path / "mine.py").write_text(DECLARATION)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("priorzoo.benchmarks.charts.run_charts.draw_run", lambda *_: [])
    words = ["--model", "mine.TiedGMVAE", "--guide", guide, "--model.clusters", "4"]
    more = ["--encoder.hidden", "[8]", "--decoder.hidden", "[8]", "--steps", "3", "--out", "run"]
    assert main(["train", "digits-gmvae", *words, *more]) == 0, capsys.readouterr().err
    assert '"class_path": "mine.TiedGMVAE"' in Path("run/config.json").read_text()
    assert main(["evaluate", "run", "--trust", "mine"]) == 0
    assert "kl[y]" in capsys.readouterr().out
