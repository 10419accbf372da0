"""Programs that are refused in one line that names the site, by the check and by the objective."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions.transforms import AffineTransform
from torch import nn

from priorzoo.inference import ELBO, check_pair
from priorzoo.models import data_plate, estimated

ENUMERATE = {"enumerate": "parallel"}
B, K = 4, 3


class Program(nn.Module):
    def __init__(self, story):
        super().__init__()
        self.story = story

    def forward(self, x=None, size=None):
        self.story(x, size)


def category(name, count=K, **infer):
    return pyro.sample(name, dist.Categorical(logits=torch.zeros(count)), infer=infer)


def with_factor(x, size):
    with data_plate(x, size):
        y = category("y")
        pyro.sample("x", dist.Normal(y.double(), 1.0), obs=x)
    pyro.factor("total", y.double().sum(-1, keepdim=True))


def one_cluster(x, size):
    with data_plate(x, size):
        category("y", **ENUMERATE)


def outside_its_plate(x, size):
    with data_plate(x, size):
        with pyro.plate("words", K, dim=-2):
            y = category("y")
        pyro.sample("x", dist.Normal(y.double().sum(-2, keepdim=True), 1.0), obs=x)


def in_words(x, size):
    with data_plate(x, size), pyro.plate("words", K, dim=-2):
        category("y", **ENUMERATE)


def chosen_outside_its_plate(x, size):
    with pyro.plate("components", K, dim=-1):
        t = category("t")
    with data_plate(x, size):
        pyro.sample("x", dist.Normal(t[..., :1].double(), 1.0), obs=x)


def of_components(x, size):
    with pyro.plate("components", K, dim=-1):
        category("t", **ENUMERATE)


def plain(x, size):
    with data_plate(x, size):
        z = pyro.sample("z", dist.Normal(torch.tensor(0.0), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def code(x, size):
    with data_plate(x, size):
        pyro.sample("z", dist.Normal(x, 1.0))


def without_event(x, size):
    with data_plate(x, size):
        z = pyro.sample("z", dist.Normal(torch.zeros(2, 1), 1.0))
        pyro.sample("x", dist.Normal(z.sum(-2), 1.0), obs=x)


def code_without_event(x, size):
    with data_plate(x, size):
        pyro.sample("z", dist.Normal(x.expand(2, -1), 1.0))


def data_on_the_left(x, size):
    rows = size if x is None else len(x)
    with pyro.plate("words", K, dim=-1), pyro.plate("data", rows, dim=-2):
        z = pyro.sample("z", dist.Normal(torch.tensor(0.0), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def code_on_the_left(x, size):
    with pyro.plate("words", K, dim=-1), pyro.plate("data", len(x), dim=-2):
        pyro.sample("z", dist.Normal(x, 1.0))


def vector_of_clusters(x, size):
    y = pyro.sample("y", dist.Categorical(logits=torch.zeros(2, K)))
    with data_plate(x, size):
        pyro.sample("x", dist.Normal(y[..., :1].double(), 1.0), obs=x)


def vector_guide(x, size):
    pyro.sample("y", dist.Categorical(logits=torch.zeros(2, K)), infer=ENUMERATE)


def chain(x, size):
    with data_plate(x, size):
        for i in range(3):
            y = category(f"y_{i}")
        pyro.sample("x", dist.Normal(y.double(), 1.0), obs=x)


def markov_chain(x, size):
    with data_plate(x, size):
        for i in pyro.markov(range(3)):
            category(f"y_{i}", **ENUMERATE)


def cluster(x, size):
    with data_plate(x, size):
        y = category("y")
        pyro.sample("x", dist.Normal(y.double(), 1.0), obs=x)


def sampled_cluster(x, size):
    with data_plate(x, size):
        category("y", **ENUMERATE, num_samples=2)


def observed_cluster(x, size):
    with data_plate(x, size):
        logits = torch.zeros(K)
        y = pyro.sample(
            "y",
            dist.Categorical(logits=logits),
            obs=torch.zeros(len(x)).long() if x is not None else None,
        )
        pyro.sample("x", dist.Normal(y.double(), 1.0), obs=x)


def observing_guide(x, size):
    with data_plate(x, size):
        pyro.sample("z", dist.Normal(x, 1.0), obs=x)


def enumerating_model(x, size):
    with data_plate(x, size):
        y = category("y", **ENUMERATE)
        pyro.sample("x", dist.Normal(y.double(), 1.0), obs=x)


def empty_guide(x, size):
    pass


def partly_observed(x, size):
    with data_plate(x, size):
        z = pyro.sample("z", dist.Normal(torch.tensor(0.0), 1.0))
        mask = None if x is None else x > 0
        pyro.sample("x", dist.Normal(z, 1.0), obs=x, obs_mask=mask)


def coins(x, size):
    with data_plate(x, size):
        y = pyro.sample("y", dist.Bernoulli(torch.full((K,), 0.5)).to_event(1))
        pyro.sample("x", dist.Normal(y.sum(-1), 1.0), obs=x)


def coins_guide(x, size):
    with data_plate(x, size):
        pyro.sample("y", dist.Bernoulli(torch.full((K,), 0.5)).to_event(1), infer=ENUMERATE)


def positive(x, size):
    with data_plate(x, size):
        z = pyro.sample("z", dist.Gamma(2.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def wrapped(wrap):
    def guide(x, size):
        with data_plate(x, size):
            pyro.sample("z", wrap(estimated(dist.Gamma(x.exp(), torch.tensor(1.0)), "rsvi")))

    return guide


REFUSED = {
    "values-without-a-list": (coins, coins_guide, "'y', a Bernoulli .*, cannot be enumerated"),
    "score-in-a-transform": (
        positive,
        wrapped(lambda fn: dist.TransformedDistribution(fn, [AffineTransform(0.0, 2.0)])),
        "'z' is a TransformedDistribution of draws that need their score",
    ),
    "score-in-independent": (
        positive,
        wrapped(lambda fn: dist.Independent(fn, 0)),
        "'z' is a Independent of draws that need their score",
    ),
    "factor-of-all-rows": (with_factor, one_cluster, "'y' inside its plates .* but 'total'"),
    "outside-its-plate": (
        outside_its_plate,
        in_words,
        r"'y' inside its plates .* but 'x' is in \['data'\]",
    ),
    "global-outside-its-plate": (
        chosen_outside_its_plate,
        of_components,
        r"'t' inside its plates \['components'\] but 'x' is in \['data'\]",
    ),
    "without-event": (without_event, code_without_event, "'z' to vary .* size 2 along dim -2"),
    "data-on-the-left": (data_on_the_left, code_on_the_left, "'data' at dim -1 but it is at -2"),
    "vector": (vector_of_clusters, vector_guide, "'y' to vary .* size 2 along dim -1"),
    "markov": (chain, markov_chain, "'y_0' and 'y_2' share one by pyro.markov; .* range"),
    "num-samples": (cluster, sampled_cluster, "'y' but its infer has num_samples"),
    "observed-by-the-model": (
        observed_cluster,
        one_cluster,
        r"lacks the guide's sites \['y'\] \(it observes \['y'\]\)",
    ),
    "observed-by-the-guide": (plain, observing_guide, r"guide lacks the latent sites \['z'\]"),
    "enumerated-in-the-model": (enumerating_model, empty_guide, r"lacks the latent sites \['y'\]"),
    "obs-mask": (partly_observed, code, r"'x_unobserved'\] \(of an obs_mask: sample"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused(name):
    model, guide, message = (*map(Program, REFUSED[name][:2]), REFUSED[name][2])
    x = torch.randn(B, K) if name == "data-on-the-left" else torch.randn(B)
    for run in (lambda: check_pair(model, guide, x), lambda: ELBO(model, guide)(x)):
        with pytest.raises(ValueError, match=message) as error:
            run()
        assert "\n" not in str(error.value)


def test_a_factor_of_all_rows_keeps_the_dimension_of_particles():
    """Its sum has the shape (S,), which would be taken for one of rows, unless it keeps the dim."""

    def story(keepdim):
        def model(x, size):
            with data_plate(x, size):
                z = pyro.sample("z", dist.Normal(torch.tensor(0.0), 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)
            pyro.factor("total", -z.sum(-1, keepdim=keepdim).square())

        return Program(model)

    x, guide = torch.randn(B), Program(code)
    for one in (ELBO(story(False), guide), ELBO(story(True), guide, particles=3)):
        assert one(x)[0].isfinite()
    with pytest.raises(ValueError, match="'total' to vary along its plates"):
        ELBO(story(False), guide, particles=3)(x)


def test_a_plate_that_opens_later_is_found():
    """A branch that the first call did not take: no dimension is shared, and no draw is lost."""
    deep = False

    def model(x, size):
        with data_plate(x, size):
            y = category("y")
            pyro.sample("x", dist.Normal(y.to(torch.float32), 1.0), obs=x)
            if deep:
                with pyro.plate("parts", K, dim=-2):
                    pyro.sample("w", dist.Normal(y.to(torch.float32), 1.0), obs=x.expand(K, -1))

    own, guide, x = Program(model), Program(one_cluster), torch.randn(B)
    likelihood = dist.Normal(torch.arange(K).float().unsqueeze(-1), 1.0).log_prob(x).mean(0)
    torch.testing.assert_close(ELBO(own, guide).terms(x)["elbo"], likelihood)
    deep = True
    torch.testing.assert_close(ELBO(own, guide).terms(x)["elbo"], (1 + K) * likelihood)
    with poutine.block():
        torch.testing.assert_close(ELBO(own, guide).terms(x)["elbo"], (1 + K) * likelihood)
