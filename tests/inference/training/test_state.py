"""State that programs change in a call: the same after compiled and after eager steps."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from priorzoo.guides import Code
from priorzoo.inference import ELBO, Training, check_data, check_pair, evaluate
from priorzoo.inference.training.replicas import Replicas
from priorzoo.models import MLP, VAE

P, D = 6, 2


class Centred(nn.Module):
    """Counts its calls and subtracts a running mean, both written to in place."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(P), persistent=False)

    def forward(self, x):
        if self.training:
            self.calls += 1
            self.mean.lerp_(x.detach().mean(0), 0.1)
        return x - self.mean


class Replaced(Centred):
    """The same with new tensors in place of the old."""

    def forward(self, x):
        if self.training:
            self.calls = self.calls + 1
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return x - self.mean


class Always(nn.Module):
    """Counts calls in evaluation mode too."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return x + 0.01 * self.calls


class Codebook(nn.Module):
    """Moving averages of rows, in a frozen parameter and in one that is made anew, as some do."""

    def __init__(self):
        super().__init__()
        self.entries = nn.Parameter(torch.randn(4, P), requires_grad=False)
        self.sizes = nn.Parameter(torch.ones(4))

    def forward(self, x):
        weights = torch.cdist(x, self.entries).neg().softmax(-1)
        if self.training:
            counts = weights.detach().sum(0)
            self.sizes = nn.Parameter(0.9 * self.sizes.detach() + 0.1 * counts)
            found = weights.detach().T @ x / counts[:, None]
            self.entries.data.mul_(0.9).add_(0.1 * found)
        return x - (weights * self.sizes) @ self.entries


class Kept(nn.Module):
    """A weight that is computed in every call and kept as an attribute."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(P, P)
        self.latest = torch.zeros(P)

    def forward(self, x):
        self.latest = self.inner(x).mean(0)
        return x + self.latest


LAYERS = {
    "batch norm": lambda: nn.BatchNorm1d(P),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Linear(P, P)),
    "spectral norm by a hook": lambda: nn.utils.spectral_norm(nn.Linear(P, P)),
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(P, P)),
    "in place": Centred,
    "replaced": Replaced,
    "in evaluation too": Always,
    "codebook": Codebook,
    "computed attribute": Kept,
}


class Number(Always):
    def __init__(self):
        super().__init__()
        self.seen = 0

    def forward(self, x):
        self.seen += 1
        return x / self.seen


class Loose(nn.Module):
    """A tensor that is no buffer."""

    def __init__(self):
        super().__init__()
        self.mean = torch.zeros(P)

    def forward(self, x):
        self.mean += x.mean(0)
        return x - self.mean


class LooseReplaced(Loose):
    def forward(self, x):
        self.mean = self.mean + x.mean(0)
        return x - self.mean


class Listed(Loose):
    def forward(self, x):
        self.means = [*getattr(self, "means", [torch.zeros(P)]), x.mean(0)]
        return x - sum(self.means)


class Grown(Centred):
    def forward(self, x):
        self.mean = torch.cat([self.mean, x.mean()[None]])
        return x - self.mean.mean()


class Cumulative(nn.BatchNorm1d):
    """Its rate is a Python number, read from the device."""

    def __init__(self):
        super().__init__(P, momentum=None)


UNTRACEABLE = {
    Cumulative: "_local_scalar_dense",
    Number: "attribute guide.encoder.0.seen changes",
    Loose: "attribute guide.encoder.0.mean changes",
    LooseReplaced: "attribute guide.encoder.0.mean changes",
    Listed: "attribute guide.encoder.0.means",
    Grown: "shape or dtype of guide.encoder.0.mean",
}


def made(layer, seed=0):
    torch.manual_seed(seed)
    encoder = nn.Sequential(layer(), MLP(P, 2 * D, (5,)))
    return VAE(MLP(D, P, (5,)), code=D), Code(encoder)


def trained(pair, x, step, steps=11):
    def sgd(parameters):
        return torch.optim.SGD([p for p in parameters if p.requires_grad], lr=0.01)

    settings = {"batch_size": 16, "every": 1, "seed": 1, "optimiser": sgd, "step": step}
    training = Training(*pair, x, **settings)
    training.run(steps)
    buffers = dict(training.objective.named_buffers())
    return [row["elbo"] for row in training.history], training, buffers


def assert_equal_training(found, expected, rtol):
    torch.testing.assert_close(found[0], expected[0], rtol=rtol, atol=rtol)
    torch.testing.assert_close(found[2], expected[2], rtol=rtol, atol=rtol)
    states = [training.objective.state_dict() for _, training, _ in (found, expected)]
    torch.testing.assert_close(*states, rtol=rtol, atol=rtol)


@pytest.fixture
def _as_recorded(monkeypatch):
    """The recorded graph itself in place of machine code, whose making takes long."""
    monkeypatch.setattr(torch._inductor, "compile", lambda graph, inputs, options: graph)


def rows(count=28):
    return torch.bernoulli(torch.full((count, P), 0.5))


@pytest.mark.usefixtures("_as_recorded")
@pytest.mark.parametrize("name", LAYERS)
def test_recorded_steps_leave_the_state_of_eager_ones(name):
    """Over passes with a smaller last batch, which is run eagerly in between."""
    x = rows()
    expected = trained(made(LAYERS[name]), x, "eager")
    found = trained(made(LAYERS[name]), x, "compiled")
    assert found[1].steps.descend.reason == ""
    assert_equal_training(found, expected, 1e-5)
    for name, calls in found[2].items():
        if name.endswith(("calls", "num_batches_tracked")):
            assert calls == 11, name


@pytest.mark.slow
def test_compiled_steps_leave_the_state_of_eager_ones():
    """All of these layers in one network, as machine code."""
    x = rows()
    results = []
    for step in ("eager", "compiled"):
        pair = made(lambda: nn.Sequential(*(layer() for layer in LAYERS.values())))
        results.append(trained(pair, x, step))
    assert results[1][1].steps.descend.reason == ""
    assert_equal_training(results[1], results[0], 1e-3)
    held = rows()
    bounds = [evaluate(t.model, t.guide, held)["elbo"] for _, t, _ in results]
    assert bounds[1] == pytest.approx(bounds[0], rel=1e-3)


@pytest.mark.usefixtures("_as_recorded")
@pytest.mark.parametrize("layer", UNTRACEABLE)
def test_other_state_that_a_program_changes_is_named_and_it_runs_eagerly(layer):
    x = rows(16)
    expected = trained(made(layer), x, "eager")
    with pytest.warns(UserWarning, match=UNTRACEABLE[layer]):
        found = trained(made(layer), x, "compiled")
    assert_equal_training(found, expected, 0)


class Elsewhere(nn.Module):
    """Reads its weight by a second way that no module has."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(P, P)
        self.way = [self.inner.weight]

    def forward(self, x):
        return x @ self.way[0] + self.inner.bias


@pytest.mark.usefixtures("_as_recorded")
def test_a_parameter_that_is_read_by_another_way_is_no_constant_of_the_graph():
    x = rows(16)
    expected = trained(made(Elsewhere), x, "eager")
    with pytest.warns(UserWarning, match="reads a parameter"):
        found = trained(made(Elsewhere), x, "compiled")
    assert_equal_training(found, expected, 0)


@pytest.mark.parametrize("name", ["batch norm", "in place", "replaced"])
def test_replicas_have_the_state_of_each_training_alone(name):
    x = rows()
    together = [made(LAYERS[name], seed) for seed in range(2)]
    alone = [made(LAYERS[name], seed) for seed in range(2)]

    def sgd(parameters):
        return torch.optim.SGD(parameters, lr=0.01)

    Replicas(
        [ELBO(*p) for p in together], x, batch_size=16, seed=1, common=True, optimiser=sgd
    ).run(5)
    for mine, single in zip(together, alone, strict=True):
        trained(single, x, "eager", steps=5)
        states = [dict(ELBO(*pair).guide.named_buffers()) for pair in (mine, single)]
        torch.testing.assert_close(*states, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_checks_and_validation_leave_the_state_as_it_is(name):
    x, pair = rows(), made(LAYERS[name])
    before = [{n: t.clone() for n, t in m.state_dict().items()} for m in pair]
    check_pair(*pair)
    check_data(pair[0], x)
    training = Training(*pair, x, batch_size=16, validation=x)
    torch.testing.assert_close([m.state_dict() for m in pair], before, rtol=0, atol=0)
    training.run(6)
    for name, calls in training.objective.named_buffers():
        if name.endswith(("calls", "num_batches_tracked")):
            assert calls == 6, name
