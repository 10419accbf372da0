"""Likelihoods of counts, categories and skewed numbers against scipy, alone and as columns."""

import numpy as np
import pytest
import torch
from scipy import stats

from priorzoo.models import (
    MLP,
    Categorical,
    Columns,
    Gaussian,
    LogNormal,
    NegativeBinomial,
    Ordinal,
    Poisson,
    StudentT,
    ZeroInflatedNegativeBinomial,
)
from priorzoo.models.likelihoods import outputs_of
from priorzoo.models.likelihoods.counts import tempered

pytestmark = pytest.mark.usefixtures("double")
B, P, K = 4, 5, 4
DRAWS = 4000


def negative_binomial(mean, dispersion):
    r = 1 / dispersion
    return stats.nbinom(r, r / (r + mean))


def by_scipy(name, output, exposure):
    """Log probabilities and means of ``(B, P)`` cells, as functions of the decoder's output."""
    e = exposure.numpy()[:, None]
    loc = output.detach().numpy()[:, :P]
    if name == "student-t":
        return stats.t(3.0, loc, 0.8)
    if name == "log-normal":
        return stats.lognorm(0.8, scale=np.exp(loc))
    if name == "poisson":
        return stats.poisson(e * np.exp(loc))
    return negative_binomial(e * np.exp(loc), 0.7 + 1e-4)


MAKERS = {
    "student-t": lambda: StudentT(3.0, 0.8),
    "log-normal": lambda: LogNormal(0.8),
    "poisson": Poisson,
    "negative-binomial": lambda: NegativeBinomial(0.7),
}


@pytest.fixture
def exposure():
    return torch.rand(B) + 0.5


@pytest.mark.parametrize("name", MAKERS)
def test_log_density_mean_and_draws_are_scipys(name, exposure):
    """Means of draws within 4.5 standard errors."""
    likelihood, output = MAKERS[name](), torch.randn(B, P)
    beside = {} if name in ("student-t", "log-normal") else {"exposure": exposure}
    twin = by_scipy(name, output, exposure)
    x = torch.tensor(np.asarray(twin.rvs(size=(B, P), random_state=1), dtype=float))
    fn = likelihood(output, **beside)
    density = twin.logpmf if beside else twin.logpdf
    torch.testing.assert_close(fn.log_prob(x), torch.tensor(density(x.numpy())).sum(-1))
    for found, expected in ((fn.mean, twin.mean()), (fn.variance, twin.var())):
        torch.testing.assert_close(found, torch.tensor(np.broadcast_to(expected, (B, P)).copy()))
    draws = fn.sample((DRAWS,))
    assert fn.support.check(draws).all()
    assert draws.dtype == output.dtype
    error = (draws.mean(0) - fn.mean) / (draws.std(0) / DRAWS**0.5)
    assert error.abs().max() < 4.5


@pytest.mark.parametrize("name", ["poisson", "negative-binomial"])
def test_counts_are_drawn_from_their_distribution(name):
    """Chi-squared of the frequencies of 0 to 8 and more."""
    output = torch.full((1, 1), 1.0)
    draws = MAKERS[name]()(output).sample((DRAWS,)).flatten().numpy()
    twin = by_scipy(name, output, torch.ones(1))
    p = np.append(twin.pmf(np.arange(9)).ravel(), twin.sf(8).ravel())
    seen = np.bincount(np.minimum(draws, 9).astype(int), minlength=10)
    assert stats.chisquare(seen, DRAWS * p / p.sum()).pvalue > 1e-3


@pytest.mark.parametrize("spread", ["column", "network"])
def test_zero_inflation_is_a_mixture_with_zero(spread, exposure):
    likelihood = ZeroInflatedNegativeBinomial(0.7, spread, rows=P)
    own = spread == "network"
    output = torch.randn(B, P * likelihood.width)
    loc, *between, gate = output.chunk(likelihood.width, -1)
    dispersion = 0.7 * between[0].exp() if own else torch.full((P,), 0.7)
    mean = exposure[:, None] * loc.exp()
    twin = negative_binomial(mean.numpy(), (dispersion + 1e-4).numpy())
    x = torch.tensor(twin.rvs(random_state=1).astype(float))
    x[:, 0] = 0.0
    pi = torch.sigmoid(gate)
    mass = (x == 0) * pi + (1 - pi) * torch.tensor(twin.pmf(x.numpy()))
    fn = likelihood(output, exposure=exposure)
    torch.testing.assert_close(fn.log_prob(x), mass.log().sum(-1))
    torch.testing.assert_close(fn.mean, (1 - pi) * mean)
    square = torch.tensor(twin.var()) + mean.square()
    torch.testing.assert_close(fn.variance, (1 - pi) * square - fn.mean.square())
    zeros = (fn.sample((DRAWS,)) == 0).double().mean(0)
    expected = pi + (1 - pi) * torch.tensor(twin.pmf(np.zeros((B, P))))
    assert ((zeros - expected) / (expected * (1 - expected) / DRAWS).sqrt()).abs().max() < 4.5


def test_categories_are_scored_by_their_softmax():
    output, x = torch.randn(B, P * K), torch.randint(K, (B, P)).double()
    logits = output.reshape(B, P, K)
    fn = Categorical(K)(output)
    expected = logits.log_softmax(-1).gather(-1, x.long().unsqueeze(-1)).squeeze(-1).sum(-1)
    torch.testing.assert_close(fn.log_prob(x), expected)
    torch.testing.assert_close(fn.mean, logits.argmax(-1).double())
    draws = fn.sample((DRAWS,))
    assert draws.dtype == torch.float64
    shares = torch.stack([(draws == k).double().mean(0) for k in range(K)], -1)
    p = logits.softmax(-1)
    assert ((shares - p) / (p * (1 - p) / DRAWS).sqrt()).abs().max() < 4.5
    assert not fn.support.check(torch.full((B, P), float(K))).any()
    assert not fn.support.check(torch.full((B, P), 0.5)).any()


@pytest.mark.parametrize("categories", [2, 3, 6])
@pytest.mark.parametrize("rows", [None, P])
def test_ordered_categories_lie_between_cut_points(categories, rows):
    likelihood = Ordinal(categories, rows)
    equal = likelihood(torch.zeros(B, P)).base_dist.probs
    torch.testing.assert_close(equal, torch.full_like(equal, 1 / categories))
    for parameter in likelihood.parameters():
        parameter.data.add_(torch.randn_like(parameter))
    gaps = [] if categories == 2 else [torch.nn.functional.softplus(likelihood.raw_gaps) + 1e-3]
    cuts = torch.cat([likelihood.first, *gaps], -1).cumsum(-1).detach().expand(P, -1).numpy()
    eta = torch.randn(B, P)
    below = stats.logistic.cdf(cuts - eta.numpy()[..., None])
    ends = np.zeros((B, P, 1)), np.ones((B, P, 1))
    p = np.diff(np.concatenate([ends[0], below, ends[1]], -1), axis=-1)
    torch.testing.assert_close(likelihood(eta).base_dist.probs.detach(), torch.tensor(p))


EXTREME = {
    "student-t": (StudentT(), 1e6),
    "log-normal": (LogNormal(), 1e6),
    "poisson": (Poisson(), 1e6),
    "negative-binomial": (NegativeBinomial(1.0, "network"), 1e6),
    "zinb": (ZeroInflatedNegativeBinomial(1.0, "network"), 1e6),
    "categorical": (Categorical(3), 2.0),
    "ordinal": (Ordinal(3), 2.0),
}


@pytest.mark.parametrize("name", EXTREME)
@pytest.mark.parametrize("size", [1e4, 50.0])
def test_gradients_are_finite_in_float32_at_any_output(name, size):
    likelihood, large = EXTREME[name]
    likelihood = likelihood.float()
    for sign in (-1.0, 1.0):
        for value in (large, 1.0, 0.0):
            if name == "log-normal" and value == 0:
                continue
            output = torch.full((1, likelihood.width), sign * size, dtype=torch.float32)
            output.requires_grad_()
            density = likelihood(output).log_prob(torch.full((1, 1), value, dtype=torch.float32))
            assert density.isfinite().all(), (sign, value)
            leaves = [output, *likelihood.parameters()]
            found = torch.autograd.grad(density.sum(), leaves, allow_unused=True)
            assert all(g.isfinite().all() for g in found if g is not None), (sign, value)


def test_float32_is_as_good_as_float64_at_large_counts():
    output, x = torch.tensor([[9.0, 9.2, 9.4]]), torch.tensor([[8000.0, 10_001.0, 12_345.0]])
    for likelihood in (Poisson(), NegativeBinomial(1.0), NegativeBinomial(2e-4)):
        rounded = likelihood.float(), output.float()
        found = rounded[0](rounded[1]).log_prob(x.float())
        exact = likelihood.double()(rounded[1].double()).log_prob(x)
        torch.testing.assert_close(found.double(), exact, rtol=2e-6, atol=1e-5)


def test_rates_grow_linearly_from_where_they_are_steep():
    output = torch.tensor([-3.0, 14.9, 15.0, 16.0, 100.0])
    rate = torch.where(output < 15, output.exp(), np.exp(15) * (output - 14))
    torch.testing.assert_close(tempered(output).exp(), rate)


def table():
    parts = [StudentT(), NegativeBinomial(), Categorical(3), Gaussian(0.5, "column", 2)]
    return Columns(parts, [1, 0, 2, 3, 1, 3]), parts


def test_columns_are_scored_each_by_its_own_likelihood(exposure):
    """Sums of the parts, where column 0 and 4 are counts, 3 and 5 Gaussian."""
    likelihood, (t, counts, kinds, normal) = table()
    assert likelihood.outputs == outputs_of(likelihood, 6) == 1 + 2 + 3 + 2
    output = torch.randn(B, 8)
    fn = likelihood(output, exposure=exposure)
    x = fn.sample()
    assert fn.support.check(x).all()
    expected = (
        t(output[:, :1]).log_prob(x[:, [1]])
        + counts(output[:, 1:3], exposure=exposure).log_prob(x[:, [0, 4]])
        + kinds(output[:, 3:6]).log_prob(x[:, [2]])
        + normal(output[:, 6:]).log_prob(x[:, [3, 5]])
    )
    torch.testing.assert_close(fn.log_prob(x), expected)
    torch.testing.assert_close(fn.mean[:, [3, 5]], output[:, 6:])
    observed = torch.rand(B, 6) < 0.5
    each = fn.marginal(observed).log_prob(x)
    known = torch.zeros(B)
    for column in range(6):
        one = torch.zeros(B, 6, dtype=torch.bool)
        one[:, column] = True
        known += torch.where(observed[:, column], fn.marginal(one).log_prob(x), 0.0)
    torch.testing.assert_close(each, known)


def test_an_encoder_reads_categories_as_ones_and_counts_as_logs():
    likelihood, _ = table()
    assert likelihood.features == ["log", "number", 3, "number", "log", "number"]
    network = MLP(6, 2, (), features=likelihood.features, masked=True)
    x = torch.tensor([[4.0, -1.0, 2.0, 0.5, 0.0, 3.0]])
    observed = torch.tensor([[True, True, True, True, False, True]])
    read = [np.log(5.0), -1.0, 0.5, 0.0, 3.0, 0.0, 0.0, 1.0, 1, 1, 1, 1, 0, 1]
    torch.testing.assert_close(network.inlet(x, observed), torch.tensor([read]))
    hidden = torch.tensor([[True, True, False, True, True, True]])
    assert (network.inlet(x, hidden)[0, 5:8] == 0).all()
    assert network.layers[0].in_features == network.inlet.width == 14


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Columns([Poisson()], [0, 1]), "each of 1 likelihoods"),
        (lambda: Columns([Poisson(), Gaussian()], [0, 0]), "each of 2 likelihoods"),
        (lambda: Columns([]), "each of 0 likelihoods"),
        (lambda: Columns([Gaussian(1.0, "column", 2)]), "built with rows=2; build it with rows=1"),
        (lambda: outputs_of(Columns([Poisson()]), 2), "each of 2 columns but got 1"),
        (lambda: Gaussian(1.0, "column"), "rows=P"),
        (lambda: NegativeBinomial(1.0, "column"), "rows=P"),
        (lambda: NegativeBinomial(0.0), "choose Poisson"),
        (lambda: NegativeBinomial(1.0, "fixed"), "'fixed'"),
        (lambda: StudentT(1.0), "df above 1"),
        (lambda: Categorical(1), "at least 2"),
        (lambda: Ordinal(1), "at least 2"),
        (lambda: MLP(2, 2, features=["number"]), "each of 2 cells"),
        (lambda: MLP(1, 2, features=["logs"]), "'logs'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as refused:
        make()
    assert "\n" not in str(refused.value)
