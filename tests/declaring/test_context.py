"""What stands beside x: an exposure of counts and a covariate, told by keyword."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from priorzoo.guides import CodeThenCluster
from priorzoo.inference import (
    ELBO,
    check_pair,
    cluster_probabilities,
    codes,
    descend,
    draw,
    evaluate,
    fit,
    importance_bound,
    reconstructions,
)
from priorzoo.models import MLP, data_plate

P, D, K, C, N = 5, 2, 3, 2, 30


class Counts(nn.Module):
    """Rates times an exposure; the prior of z and the rates depend on the covariate c."""

    def __init__(self):
        super().__init__()
        self.decoder, self.prior = MLP(D + C, P, (6,)), nn.Linear(C, D)
        self.loc = nn.Parameter(torch.randn(K, D))

    def forward(self, x=None, size=None, *, exposure, c):
        with data_plate(x, size):
            y = pyro.sample("y", dist.Categorical(logits=self.loc.new_zeros(K)))
            z = pyro.sample("z", dist.Normal(self.loc[y] + self.prior(c), 1.0).to_event(1))
            inputs = torch.cat([z, c.expand(*z.shape[:-1], C)], -1)
            rate = exposure.unsqueeze(-1) * nn.functional.softplus(self.decoder(inputs))
            return pyro.sample("x", dist.Poisson(rate).to_event(1), obs=x)


class CountsGuide(nn.Module):
    """q(y | x) q(z | x, c); it never hears of the exposure."""

    def __init__(self):
        super().__init__()
        self.classifier, self.encoder = MLP(P, K, (6,)), MLP(P + C, 2 * D, (6,))

    def forward(self, x, size=None, *, c):
        with data_plate(x, size):
            q_y = dist.Categorical(logits=self.classifier(x))
            pyro.sample("y", q_y, infer={"enumerate": "parallel"})
            loc, log_scale = self.encoder(torch.cat([x.log1p(), c], -1)).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


class Baked(Counts):
    """The same with an exposure of 3 for every row."""

    def forward(self, x=None, size=None, *, c):
        return super().forward(x, size, exposure=torch.full(c.shape[:1], 3.0), c=c)


def pair_of(model=Counts, guide=CountsGuide):
    torch.manual_seed(0)
    return model(), guide()


@pytest.fixture
def told():
    return {"exposure": 0.5 + torch.rand(N), "c": torch.randn(N, C)}


@pytest.fixture
def x():
    return torch.poisson(torch.full((N, P), 2.0))


def terms(rows):
    return [{k: v for k, v in row.items() if k not in ("seconds", "split")} for row in rows]


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("step", ["eager", "compiled"])
def test_a_given_exposure_is_one_baked_in(x, told, step):
    """All numbers, to the last bit, of a model that has the exposure as a constant."""
    told["exposure"] = torch.full((N,), 3.0)
    results = []
    for model, names in ((Counts, ("exposure", "c")), (Baked, ("c",))):
        pair, beside = pair_of(model), {name: told[name] for name in names}
        few = {name: value[:7] for name, value in beside.items()}
        history = fit(
            *pair,
            x,
            steps=8,
            batch_size=10,
            step=step,
            context=beside,
            validation=x[:7],
            validation_context=few,
        )
        check_pair(*pair, context=beside)
        torch.manual_seed(5)
        results.append(
            [
                terms(history),
                evaluate(*pair, x, context=beside, importance_samples=4),
                cluster_probabilities(*pair, x, context=beside),
                codes(*pair, x, batch_size=4, context=beside),
                reconstructions(*pair, x, batch_size=4, context=beside),
                draw(pair[0], 7, context=few),
                draw(pair[0], 7, given={"y": 1}, context=few, means=False),
                importance_bound(*pair, x, 3, context=beside),
            ]
        )
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_it_trains_compiled_by_the_values_of_each_batch(x, told, trained_both_ways):
    _, history = trained_both_ways(pair_of, x, epochs=6, batch_size=10, context=told)
    assert history[-1]["elbo"] > history[0]["elbo"]


@pytest.mark.usefixtures("double")
def test_the_bound_is_that_of_rates_times_exposure(told, x):
    """The reconstruction at the codes' means, by the Poisson's formula."""
    (model, guide), x = pair_of(), x.double()
    told = {name: value.double() for name, value in told.items()}
    z = guide.encoder(torch.cat([x.log1p(), told["c"]], -1))[:, :D]
    torch.testing.assert_close(codes(model, guide, x, context=told), z)
    output = model.decoder(torch.cat([z, told["c"]], -1))
    rate = told["exposure"].unsqueeze(-1) * output.exp().add(1).log()
    torch.testing.assert_close(reconstructions(model, guide, x, context=told), rate)
    guide.encoder.layers[-1].bias.data[D:] = -12  # a code that is as good as its mean
    guide.encoder.layers[-1].weight.data[D:] = 0
    expected = (x * rate.log() - rate - (x + 1).lgamma()).sum(-1).mean()
    found = evaluate(model, guide, x, context=told)["reconstruction"]
    torch.testing.assert_close(found, expected.item(), rtol=0, atol=1e-3)


@pytest.mark.usefixtures("double")
def test_the_exact_cluster_follows_a_prior_that_depends_on_c(told, x):
    """N(z; loc_k + prior(c), 1) over the sum of all K, at the code's mean."""
    model = Counts()
    guide = CodeThenCluster(MLP(P, 2 * D, (6,)), model)
    x, told = x.double(), {name: value.double() for name, value in told.items()}
    z = guide.encoder(x)[:, :D]
    gaps = z.unsqueeze(1) - model.loc - model.prior(told["c"]).unsqueeze(1)
    expected = (-0.5 * gaps.square().sum(-1)).softmax(-1)
    for rows in (500, 4):
        found = cluster_probabilities(model, guide, x, batch_size=rows, context=told)
        torch.testing.assert_close(found, expected)
    settings = {"optimiser": lambda p: torch.optim.Adam(p, lr=0.01), "batch_size": 10}
    history = fit(model, guide, x, steps=100, every=50, context=told, **settings)
    assert history[-1]["elbo"] > history[0]["elbo"]


class Rows(torch.utils.data.Dataset):
    def __init__(self, x, told):
        self.x, self.told = x, told

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return {"x": self.x[i], **{name: value[i] for name, value in self.told.items()}}


@pytest.mark.parametrize("step", ["eager", "compiled"])
@pytest.mark.usefixtures("recorded")
def test_a_loader_brings_it_under_its_name(x, told, step):
    """As in a loop of one's own by :func:`descend` over the same loader."""
    pair, by_hand = pair_of(), pair_of()
    fit(*pair, DataLoader(Rows(x, told), 10), size=N, steps=6, step=step)
    objective = ELBO(*by_hand)
    optimiser = torch.optim.Adam(objective.parameters(), lr=1e-3)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # as fit, whose seed is 0
        for _ in range(2):
            for batch in DataLoader(Rows(x, told), 10):
                descend(objective, optimiser, batch.pop("x"), N, context=batch)
    for found, expected in zip(pair, by_hand, strict=True):
        torch.testing.assert_close(found.state_dict(), expected.state_dict(), rtol=1e-5, atol=1e-6)


def right(x):
    return {"exposure": torch.ones(len(x)), "c": torch.zeros(len(x), C)}


def several(told):
    return {
        "misspelt": ({"exposur": told["exposure"], "c": told["c"]}, "exposur"),
        "lacking": ({"c": told["c"]}, "exposure"),
        "too short": (told | {"c": told["c"][:-1]}, f"'c' with a value for each of {N} rows"),
        "named by nobody": (told | {"depth": told["exposure"]}, "depth"),
    }


@pytest.mark.parametrize("case", ["misspelt", "lacking", "too short", "named by nobody"])
@pytest.mark.parametrize(
    "use",
    [
        lambda pair, x, given: fit(*pair, x, steps=1, context=given),
        lambda pair, x, given: fit(
            *pair, x, steps=1, context=right(x), validation=x, validation_context=given
        ),
        lambda pair, x, given: fit(*pair, [{"x": x, **given}], size=N, steps=1),
        lambda pair, x, given: evaluate(*pair, x, context=given),
        lambda pair, x, given: cluster_probabilities(*pair, x, context=given),
        lambda pair, x, given: reconstructions(*pair, x, context=given),
        lambda pair, x, given: importance_bound(*pair, x, 2, context=given),
        lambda pair, x, given: descend(
            ELBO(*pair), torch.optim.SGD(pair[0].parameters()), x, context=given
        ),
        lambda pair, x, given: draw(pair[0], N, context=given),
        lambda pair, x, given: check_pair(*pair, x, context=given),
    ],
    ids=[
        "fit",
        "validation",
        "loader",
        "evaluate",
        "clusters",
        "reconstructions",
        "importance",
        "descend",
        "draw",
        "check_pair",
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(use, case, x, told):
    context, message = several(told)[case]
    with pytest.raises(ValueError, match=message) as refused:
        use(pair_of(), x, context)
    assert "\n" not in str(refused.value)
