"""Guides of one's own whose networks are built from what they declare, alone or shared."""

import json
from importlib import import_module
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.distributions import MultivariateNormal

from priorzoo.cli.main import main
from priorzoo.inference import ELBO, evaluate, fit, load, save
from priorzoo.models import MLP

MINE = '''
import pyro
import pyro.distributions as dist
import torch
from torch import nn
from priorzoo.models import Bernoulli, Sizes, data_plate


class FullCovariance(nn.Module):
    """q(z | x) = N(m(x), L(x) L(x)^T)."""

    def __init__(self, encoder, code):
        super().__init__()
        self.encoder, self.code = encoder, code

    @staticmethod
    def networks(rows, code):
        return {"encoder": Sizes(rows, code + code * (code + 1) // 2)}

    def posterior(self, x):
        loc, raw = self.encoder(x).split([self.code, self.code * (self.code + 1) // 2], -1)
        row, column = torch.tril_indices(self.code, self.code)
        entries = torch.where(row == column, nn.functional.softplus(raw) + 1e-3, raw)
        place = nn.functional.one_hot(row * self.code + column, self.code**2).to(x.dtype)
        lower = (entries @ place).unflatten(-1, (self.code, self.code))
        return dist.MultivariateNormal(loc, scale_tril=lower)

    def forward(self, x, size=None):
        with data_plate(x, size):
            pyro.sample("z", self.posterior(x))


class Pseudo(nn.Module):
    """p(z) is q(z | u) at one learnt pseudo-input u, by the guide's own encoder."""

    def __init__(self, encoder, decoder, rows, code=2):
        super().__init__()
        self.encoder, self.decoder, self.rows, self.code = encoder, decoder, rows, code
        self.pseudo = nn.Parameter(torch.rand(rows))

    @staticmethod
    def networks(rows, outputs, code):
        decoder = Sizes(code, outputs, role="decoder")
        return {"encoder": Sizes(rows, 2 * code), "decoder": decoder}

    def forward(self, x=None, size=None):
        loc, log_scale = self.encoder(self.pseudo).chunk(2, -1)
        with data_plate(x, size):
            z = pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))
            return pyro.sample("x", Bernoulli()(self.decoder(z)), obs=x)


class Shares(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    @staticmethod
    def networks(rows, code):
        return {"encoder": Sizes(rows, 2 * code)}

    def forward(self, x, size=None):
        with data_plate(x, size):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))
'''
P = 6


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The file ``own_networks.py`` in the folder where the user stands."""
    (tmp_path / "own_networks.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("priorzoo.benchmarks.charts.run_charts.draw_run", lambda *_: [])
    return import_module("own_networks")


def train(*words):
    small = ["--encoder.hidden", "[8]", "--decoder.hidden", "[8]", "--steps", "3"]
    return main(["train", "digits-gmvae", *small, *words])


def test_a_full_covariance_encoder_is_built_as_the_guide_declares(mine, capsys):
    """D + D (D + 1) / 2 outputs, for the D that the recipe says."""
    words = ["--model", "priorzoo.models.VAE", "--model.code", "3", "--out", "run"]
    assert train(*words, "--guide", "own_networks.FullCovariance") == 0, capsys.readouterr().err
    _, guide = load("run", trust=["own_networks"])
    assert type(guide).__name__ == "FullCovariance"
    assert (guide.encoder.inputs, guide.encoder.outputs) == (64, 3 + 6)
    assert main(["evaluate", "run", "--trust", "own_networks"]) == 0
    assert "elbo" in capsys.readouterr().out


def test_a_second_run_of_a_recipe_gets_a_folder_of_its_own(mine, capsys):
    words = ["--model", "priorzoo.models.VAE", "--guide", "own_networks.FullCovariance"]
    for _ in range(2):
        assert train(*words) == 0, capsys.readouterr().err
    names = sorted(path.name for path in Path("runs").iterdir())
    assert len(names) == 2
    assert names[1] == f"{names[0]}-2"
    assert "FullCovariance" in names[0]
    results = [(Path("runs") / name / "model.safetensors").read_bytes() for name in names]
    assert results[0] == results[1]  # of the same seed


@pytest.mark.usefixtures("recorded")
def test_full_covariance_comes_to_the_exact_posterior(mine, trained_both_ways):
    """Of a linear Gaussian model, whose precision is I + W^T W: the bound is short of the evidence
    by a quarter of what every diagonal Gaussian is short by, or less.
    """
    from priorzoo.models import VAE, Gaussian

    weight = torch.tensor([[1.0, 1.0], [1.0, 0.5], [0.0, 1.0]])

    def make():
        decoder = nn.Linear(2, 3, bias=False)
        decoder.weight = nn.Parameter(weight, requires_grad=False)
        return VAE(decoder, Gaussian(1.0), code=2), mine.FullCovariance(MLP(3, 5, ()), code=2)

    x = torch.randn(40, 2) @ weight.T + torch.randn(40, 3)
    pair, _ = trained_both_ways(
        make, x, steps=150, batch_size=40, optimiser=lambda p: torch.optim.Adam(p, lr=0.03)
    )
    precision = torch.eye(2) + weight.T @ weight
    diagonal = 0.5 * (precision.diag().log().sum() - precision.logdet())
    evidence = MultivariateNormal(torch.zeros(3), weight @ weight.T + torch.eye(3)).log_prob(x)
    with torch.no_grad():
        gap = (evidence - ELBO(*pair, particles=500).terms(x)["elbo"]).mean()
    assert -0.01 < gap < 0.25 * diagonal


def test_an_argument_that_both_name_is_one_network(mine, capsys):
    """Built once, saved once, shared again once loaded, by the command line too."""
    assert (
        train("--model", "own_networks.Pseudo", "--guide", "own_networks.Shares", "--out", "run")
        == 0
    ), capsys.readouterr().err
    model, guide = load("run", trust=["own_networks"])
    assert model.encoder is guide.encoder
    config = json.loads(Path("run/config.json").read_text())
    assert config["guide"]["init_args"]["encoder"] == {"same_as": "model.encoder"}
    stored = [name for name in load_file("run/model.safetensors") if "encoder" in name]
    assert len(stored) == len(model.encoder.state_dict())


@pytest.mark.usefixtures("double")
def test_a_shared_network_learns_from_model_and_guide(mine, tmp_path):
    """Its gradient is the sum of those of two equal networks, one in each program."""

    def pair(shared):
        torch.manual_seed(0)
        encoder = MLP(P, 4, (5,))
        other = MLP(P, 4, (5,))
        other.load_state_dict(encoder.state_dict())
        decoder = MLP(2, P, (5,))
        return mine.Pseudo(encoder, decoder, P), mine.Shares(encoder if shared else other)

    x = torch.rand(8, P).round()
    gradients = []
    for shared in (True, False):
        model, guide = pair(shared)
        objective = ELBO(model, guide)
        torch.manual_seed(1)
        objective(x)[0].backward()
        gradients.append([[p.grad for p in m.encoder.parameters()] for m in (model, guide)])
    (together, same), (of_model, of_guide) = gradients
    assert all(a is b for a, b in zip(together, same, strict=True))
    for found, *parts in zip(together, of_model, of_guide, strict=True):
        assert all(part.abs().sum() > 0 for part in parts)
        torch.testing.assert_close(found, sum(parts))


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("step", ["eager", "compiled"])
def test_a_shared_network_trains_and_comes_back_shared(mine, tmp_path, step):
    encoder = MLP(P, 4, (5,))
    pair = mine.Pseudo(encoder, MLP(2, P, (5,)), P), mine.Shares(encoder)
    x = torch.rand(20, P).round()
    before = encoder.layers[0].weight.clone()
    history = fit(*pair, x, steps=40, every=20, batch_size=10, step=step)
    assert history[-1]["elbo"] > history[0]["elbo"]
    assert not torch.equal(before, encoder.layers[0].weight)
    save(tmp_path / "saved", *pair)
    loaded = load(tmp_path / "saved", trust=["own_networks"])
    assert loaded[0].encoder is loaded[1].encoder
    assert evaluate(*loaded, x) == evaluate(*pair, x)
