"""Supports compared by meaning, and guides whose code is a mixture."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from pyro.distributions import transforms as to
from torch import nn

from priorzoo.inference import ELBO, Training, check_pair, codes, evaluate, load, save
from priorzoo.inference.supports import in_words, same_support
from priorzoo.models import MLP, VAE, Gaussian, data_plate
from priorzoo.models.distributions.estimators import estimated

P, D, K = 6, 2, 3
LOW, HIGH = torch.tensor([0.0, -1.0]), torch.tensor([1.0, 3.0])
ZERO, ONE = torch.zeros(2), torch.ones(2)
normal = dist.Normal(ZERO, ONE).to_event(1)


class Interval(constraints.Constraint):
    """From 0 to 1, by a class of one's own."""

    event_dim = 1

    def check(self, value):
        return ((value >= 0) & (value <= 1)).all(-1)


class Own(dist.Delta):
    support = Interval()


class Silent(dist.Delta):
    """Does not say what its support is."""

    @property
    def support(self):
        raise NotImplementedError


def mixture(parts):
    return dist.MixtureSameFamily(dist.Categorical(torch.ones(K)), parts)


def transformed(base, *transforms):
    return dist.TransformedDistribution(base, list(transforms))


def uniform(low=LOW, high=HIGH):
    return dist.Uniform(low, high).to_event(1)


def onto(low, high):
    return to.biject_to(constraints.interval(low, high))


def stacked(*parts, kind=to.StackTransform):
    return transformed(dist.Normal(ZERO, ONE).to_event(1), kind(list(parts), dim=-1))


SAME = {
    "mixture": (normal, mixture(dist.Normal(torch.zeros(K, 2), 1.0).to_event(1))),
    "mixture within independent": (
        normal,
        dist.MixtureSameFamily(
            dist.Categorical(torch.ones(2, K)), dist.Normal(torch.zeros(2, K), 1.0)
        ).to_event(1),
    ),
    "mixture of mixtures": (
        normal,
        mixture(
            dist.MixtureSameFamily(
                dist.Categorical(torch.ones(K, 4)),
                dist.Normal(torch.zeros(K, 4, 2), 1.0).to_event(1),
            )
        ),
    ),
    "mixture of intervals": (uniform(), mixture(uniform(LOW.expand(K, 2), HIGH.expand(K, 2)))),
    "mixture of intervals that together are one": (
        uniform(ZERO, ONE),
        mixture(uniform(torch.zeros(K, 2), torch.tensor([[1.0], [0.5], [0.2]]).expand(K, 2))),
    ),
    "mixture of counts": (
        dist.Categorical(torch.ones(4)),
        mixture(dist.Categorical(torch.ones(K, 4))),
    ),
    "full covariance": (normal, dist.MultivariateNormal(ZERO, torch.eye(2))),
    "pathwise mixture": (
        normal,
        dist.MixtureOfDiagNormals(torch.zeros(K, 2), torch.ones(K, 2), torch.zeros(K)),
    ),
    "masked": (normal, dist.Normal(ZERO, ONE).mask(torch.tensor([True, False])).to_event(1)),
    "scored": (normal, estimated(normal, "score")),
    "half lines": (dist.Gamma(ONE, ONE).to_event(1), dist.LogNormal(ZERO, ONE).to_event(1)),
    "half line by a transform": (
        dist.HalfNormal(ONE).to_event(1),
        transformed(normal, to.SoftplusTransform()),
    ),
    "unit intervals": (dist.Beta(ONE, ONE).to_event(1), transformed(normal, to.SigmoidTransform())),
    "interval by two transforms": (
        uniform(),
        transformed(normal, to.SigmoidTransform(), to.AffineTransform(LOW, HIGH - LOW)),
    ),
    "interval by a composed transform": (
        uniform(),
        transformed(
            dist.Normal(ZERO, ONE),
            to.ComposeTransform([to.SigmoidTransform(), to.AffineTransform(LOW, HIGH - LOW)]),
        ).to_event(1),
    ),
    "interval turned round": (
        uniform(-HIGH, -LOW),
        transformed(dist.Uniform(LOW, HIGH), to.AffineTransform(0.0, -1.0)).to_event(1),
    ),
    "independent transform": (
        dist.LogNormal(ZERO, ONE).to_event(1),
        transformed(normal, to.IndependentTransform(to.ExpTransform(), 1)),
    ),
    "stack of one kind": (normal, stacked(to.AffineTransform(0, 2), to.AffineTransform(1, 1))),
    "stack of intervals": (uniform(), stacked(to.SigmoidTransform(), onto(-1.0, 3.0))),
    "concatenated intervals": (
        uniform(),
        stacked(onto(0.0, 1.0), onto(-1.0, 3.0), kind=to.CatTransform),
    ),
    "simplex": (
        dist.Dirichlet(torch.ones(3)),
        transformed(normal, to.StickBreakingTransform()),
    ),
    "cholesky factors": (
        transformed(dist.Normal(torch.zeros(2, 2), 1.0).to_event(2), to.LowerCholeskyTransform()),
        transformed(
            dist.Normal(torch.zeros(2, 2), 1.0).to_event(2), to.SoftplusLowerCholeskyTransform()
        ),
    ),
    "two values": (dist.Bernoulli(0.5), dist.Categorical(torch.ones(2))),
    "counts by bounds of each element": (
        dist.Binomial(torch.tensor([3.0, 5.0]), 0.5).to_event(1),
        dist.BetaBinomial(ONE, ONE, torch.tensor([3.0, 5.0])).to_event(1),
    ),
    "all counts": (dist.Poisson(1.0), dist.Geometric(0.5)),
    "a class of one's own": (dist.Beta(ONE, ONE).to_event(1), Own(ONE / 2, event_dim=1)),
    "unsaid": (normal, Silent(ZERO, event_dim=1)),
}

DIFFERENT = {
    "line and half line": (normal, dist.LogNormal(ZERO, ONE).to_event(1)),
    "line and mixture over half lines": (
        normal,
        mixture(dist.LogNormal(torch.zeros(K, 2), 1.0).to_event(1)),
    ),
    "half line that begins elsewhere": (
        dist.Pareto(ONE, ONE).to_event(1),
        dist.LogNormal(ZERO, ONE).to_event(1),
    ),
    "interval and its double, which torch calls real": (
        uniform(ZERO, ONE),
        transformed(uniform(ZERO, ONE), to.AffineTransform(0.0, 2.0)),
    ),
    "line and an interval, which torch calls real": (
        normal,
        transformed(normal, to.SigmoidTransform(), to.AffineTransform(LOW, HIGH - LOW)),
    ),
    "intervals that differ in one element": (
        uniform(),
        uniform(high=HIGH + torch.tensor([0, 0.1])),
    ),
    "stack with one half line": (normal, stacked(to.AffineTransform(0, 2), to.ExpTransform())),
    "stack and the same turned round": (
        stacked(to.ExpTransform(), to.AffineTransform(0, 2)),
        stacked(to.AffineTransform(0, 2), to.ExpTransform()),
    ),
    "line and simplex": (
        dist.Normal(torch.zeros(3), 1.0).to_event(1),
        dist.Dirichlet(torch.ones(3)),
    ),
    "masked, with another number of values": (
        dist.Categorical(torch.ones(3)).mask(False),
        dist.Categorical(torch.ones(4)),
    ),
    "reals and counts": (dist.Exponential(1.0), dist.Poisson(1.0)),
    "counts up to another number": (dist.Binomial(3, 0.5), dist.Binomial(4, 0.5)),
    "a class of one's own": (normal, Own(ONE / 2, event_dim=1)),
}


def verdicts(one, other):
    """In both orders, of draws that tell the sets of a class of one's own apart."""
    draws = [fn.sample() * torch.ones(()) for fn in (one, other)]
    return {same_support(one, other, *draws), same_support(other, one, *reversed(draws))}


@pytest.mark.parametrize("name", SAME)
def test_equal_supports_are_equal_whatever_their_class(name):
    assert verdicts(*SAME[name]) == {True}


@pytest.mark.parametrize("name", DIFFERENT)
def test_other_supports_are_told_apart(name):
    assert verdicts(*DIFFERENT[name]) == {False}


def same_family(loc, scale, logits):
    return dist.MixtureSameFamily(
        dist.Categorical(logits=logits), dist.Normal(loc, scale).to_event(1)
    )


def shared_scale(loc, scale, logits):
    return dist.MixtureOfDiagNormalsSharedCovariance(loc, scale[..., 0, :], logits)


KINDS = {
    "MixtureOfDiagNormals": dist.MixtureOfDiagNormals,
    "shared scale": shared_scale,
    "MixtureSameFamily": same_family,
}


class Mixed(nn.Module):
    """q(z | x) is a mixture of Gaussians; ``kind`` names how it is made."""

    def __init__(self, encoder, kind, pathwise, components=K):
        super().__init__()
        self.encoder, self.kind, self.pathwise = encoder, kind, pathwise
        self.components = components

    def forward(self, x, size=None):
        with data_plate(x, size):
            count, sizes = self.components, (self.components, D)
            loc, raw, logits = self.encoder(x).split([count * D, count * D, count], -1)
            fn = KINDS[self.kind](loc.unflatten(-1, sizes), raw.unflatten(-1, sizes).exp(), logits)
            pyro.sample("z", estimated(fn) if self.pathwise else fn)


def test_a_mixture_without_gradient_is_refused_for_that_reason():
    model, encoder = VAE(MLP(D, P), code=D), MLP(P, K * (2 * D + 1))
    with pytest.raises(ValueError, match=r"'z' is a Mixture.*no gradient.*estimated") as error:
        check_pair(model, Mixed(encoder, "MixtureSameFamily", pathwise=False))
    assert "enumerates" in str(error.value)
    assert "support" not in str(error.value)
    assert "\n" not in str(error.value)
    check_pair(model, Mixed(encoder, "MixtureSameFamily", pathwise=True))


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("kind", ["MixtureOfDiagNormals", "shared scale"])
def test_mixtures_of_pyro_get_the_unbiased_gradients(kind, particles):
    model, encoder = VAE(MLP(D, P), code=D), MLP(P, K * (2 * D + 1))
    found = []
    for pathwise in (False, True):
        guide = Mixed(encoder, kind, pathwise)
        check_pair(model, guide)
        torch.manual_seed(0)
        loss, _ = ELBO(model, guide, particles=particles)(torch.ones(3, P))
        found.append(torch.autograd.grad(loss, list(encoder.parameters())))
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


class ShiftedMixture(Mixed):
    """In a wrapper whose gradients nothing replaces."""

    def forward(self, x, size=None):
        with data_plate(x, size):
            zero = torch.zeros(len(x), K, D)
            fn = KINDS[self.kind](zero, zero + 1, self.encoder(x))
            pyro.sample("z", transformed(fn, to.AffineTransform(1.0, 2.0)))


@pytest.mark.parametrize("kind", ["MixtureOfDiagNormals", "shared scale"])
def test_a_biased_gradient_is_refused(kind):
    """Also in a step of one's own; without gradients its densities are right."""
    model, guide = VAE(MLP(D, P), code=D), ShiftedMixture(MLP(P, K), kind, pathwise=False)
    objective, x = ELBO(model, guide), torch.zeros(3, P)
    with pytest.raises(ValueError, match=r"'z' is a Mixture.*gradients are biased"):
        check_pair(model, guide)
    with pytest.raises(ValueError, match=r"'z' is a Mixture.*gradients are biased"):
        objective(x)
    with torch.no_grad():
        assert objective(x)[0].isfinite()


def a_mixture(kind):
    scale = [[1.0, 1.2], [1.0, 1.2] if kind == "shared scale" else [1.1, 1.6]]
    return [torch.tensor(p) for p in ([[-1.0, 0.5], [1.0, -0.3]], scale, [0.3, -0.2])]


def errors(kind, moment, pathwise, count=100_000):
    """Of the mean gradients of a moment of many draws, in standard errors, by quadrature."""
    parameters = [p.requires_grad_() for p in a_mixture(kind)]
    grid = torch.linspace(-12, 12, 801)
    points = torch.stack(torch.meshgrid(grid, grid, indexing="ij"), -1)
    make = KINDS[kind]
    exact = (make(*parameters).log_prob(points).exp() * moment(*points.unbind(-1))).sum() * 0.03**2
    expected = torch.autograd.grad(exact, parameters)
    copies = [p.detach().expand(count, *p.shape).clone().requires_grad_() for p in parameters]
    fn = estimated(make(*copies)) if pathwise else make(*copies)
    found = torch.autograd.grad(moment(*fn.rsample().unbind(-1)).sum(), copies)
    pairs = [(f.mean(0) - e, f.std(0) / count**0.5) for f, e in zip(found, expected, strict=True)]
    return torch.cat([(error / (spread + 1e-6)).flatten() for error, spread in pairs]).abs()


MOMENTS = {"z squared": lambda z, w: z**2 + w, "w squared": lambda z, w: w**2 + z, "z w": torch.mul}


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_estimated_mixtures_have_unbiased_gradients(kind, moment):
    assert errors(kind, MOMENTS[moment], pathwise=True).max() < 4


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("kind", ["MixtureOfDiagNormals", "shared scale"])
def test_the_gradients_that_are_refused_are_biased(kind):
    """Those of the logits: if Pyro's are mended, they need not be refused."""
    assert errors(kind, MOMENTS["z w"], pathwise=False)[-2:].min() > 6


class Square(nn.Module):
    """Squares the first element of a code."""

    def forward(self, z):
        return torch.stack([z[..., 0].square(), z[..., 1]], -1)


def log_evidence(x, noise):
    """By quadrature over the first element; the second is Gaussian."""
    z = torch.linspace(-8, 8, 4_001)
    joint = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z**2, noise).log_prob(x[:, :1])
    second = dist.Normal(0.0, (1 + noise**2) ** 0.5).log_prob(x[:, 1])
    return joint.logsumexp(-1) + (z[1] - z[0]).log() + second


@pytest.mark.parametrize("step", ["eager", "compiled"])
def test_an_estimated_mixture_trains(step, tmp_path, monkeypatch):
    """x is near z squared, so that p(z | x) has two modes; the exact log p(x) is by quadrature.

    The best single Gaussian is log 2 = 0.69 nats below it. The compiled step runs the graph as it
    is recorded.
    """
    monkeypatch.setattr(torch._inductor, "compile", lambda graph, inputs, options: graph)
    z, noise = torch.stack([torch.rand(400) + 0.5, torch.randn(400)], -1), 0.5
    model = VAE(Square(), Gaussian(noise), code=D)
    x = Square()(z) + noise * torch.randn(400, D)
    network = MLP(D, 2 * (2 * D + 1), (16,))
    guide = Mixed(network, "MixtureSameFamily", pathwise=True, components=2)
    with torch.no_grad():
        list(network.parameters())[-1][:4] = torch.tensor([0.5, 0.0, -0.5, 0.0])
    settings = {"optimiser": lambda parameters: torch.optim.Adam(parameters, lr=0.01)}
    training = Training(model, guide, x, batch_size=100, step=step, **settings)
    training.run(300)
    assert step == "eager" or training.steps.descend.reason == ""
    found = evaluate(model, guide, x, importance_samples=50)
    expected = log_evidence(x, noise).mean().item()
    assert expected - 0.3 < found["elbo"] < expected
    assert found["elbo"] < found["log p(x)"] < expected + 0.02
    save(tmp_path, model, guide)
    assert evaluate(*load(tmp_path, trust=[__name__]), x) == evaluate(model, guide, x)
    loc, _, logits = network(x).split([4, 4, 2], -1)
    means = (logits.softmax(-1).unsqueeze(-1) * loc.unflatten(-1, (2, D))).sum(-2)
    torch.testing.assert_close(codes(model, guide, x), means)


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        (constraints.unit_interval, "numbers from 0 to 1"),
        (constraints.independent(constraints.boolean, 1), "0 or 1"),
        (constraints.greater_than(2.5), "numbers above 2.5"),
        (constraints.less_than(torch.tensor(1.0)), "numbers below 1"),
        (constraints.integer_interval(0, 5), "whole numbers from 0 to 5"),
        (constraints.real_vector, "numbers"),
        (constraints.simplex, "Simplex()"),
    ],
)
def test_supports_are_told_in_words(constraint, words):
    assert in_words(constraint) == words
