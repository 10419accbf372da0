"""The collapsed bound that is reported, against the evidence summed over all labellings."""

import itertools
import math
from functools import cache

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from priorzoo.guides import CollapsedCode
from priorzoo.inference import KL, Training, evaluate
from priorzoo.inference.batch import Batch
from priorzoo.inference.nggp.objective import Collapsed
from priorzoo.models import Gaussian
from priorzoo.models.distributions.gaussian import raw_variance
from priorzoo.models.nggp.mixture import NGGPMixture

pytestmark = pytest.mark.usefixtures("double")
NOISE = 0.02
RECONSTRUCTION = -math.log(2 * math.pi * NOISE**2) - 1  # E log p(x | z), in two dimensions
PROCESSES = [(1.0, 1e-9), (1.0, 0.25), (5.0, 0.1), (1.4, 0.4), (1.0, 0.75), (0.5, 0.95)]


class Sharp(nn.Module):
    """q(z | x) nearly at x, the posterior of a decoder that adds little noise."""

    def forward(self, x):
        return torch.cat([x, raw_variance(torch.full_like(x, NOISE**2))], -1)


def pair(clusters, apart=2.0, concentration=1.0, discount=0.25, **settings):
    """Components ``apart`` standard deviations from each other, in two dimensions."""
    settings |= {"concentration": concentration, "discount": discount}
    model = NGGPMixture(
        nn.Identity(),
        Gaussian(NOISE),
        2,
        clusters=clusters,
        start=clusters,
        breadth=3.0,
        **settings,
    )
    angle = torch.arange(clusters) * 2 * math.pi / clusters
    loc = apart / 2 * torch.stack([angle.cos(), angle.sin()], -1)
    model.set_components(loc, torch.full((clusters, 2), 0.7), torch.ones(clusters).bool())
    return model, CollapsedCode(Sharp(), model)


def rows(model, count):
    """Data of the components, in turn, and one far from all."""
    y = torch.arange(count) % model.clusters
    x = model.loc[y].detach() + 0.7 * torch.randn(count, 2)
    x[-1] = 4.0
    return x


def log_densities(model, x):
    """``(N, K + 1)`` log p(x_n | y_n), z integrated out."""
    loc, scale = (part.detach() for part in model.components())
    variance = (scale.square() + NOISE**2).diag_embed()
    return MultivariateNormal(loc, variance).log_prob(x.unsqueeze(1))


def log_shares(model, count):
    """``(N,)`` log p(z, v integrated out) of partitions in K = 1, 2, ... less their log Gammas."""
    law, k = model.law, torch.arange(1.0, count + 1)
    return law.law_of_v(float(count), k).log_normaliser + k * law.log_birth - math.lgamma(count)


@cache
def labelled(clusters, count, apart):
    """Data, and log sums of p(x | labels) by the sizes n_1 and n_2 of two clusters, others alone.

    The sums are built up datum by datum; with one cluster n_2 is 0.
    """
    model, _ = pair(clusters, apart)
    x = rows(model, count)
    sums = torch.full((count + 1, count + 1 if clusters == 2 else 1), -math.inf)
    sums[0, 0] = 0
    for fit in log_densities(model, x):
        parts = [sums + fit[-1]]
        for k in range(clusters):
            one_more = (sums + fit[k]).roll(1, k)
            one_more.select(k, 0).fill_(-math.inf)
            parts.append(one_more)
        sums = torch.stack(parts).logsumexp(0)
    return x, sums


def evidence(model, sums):
    """log of the sum over all labellings of p(partition) p(x | labels)."""
    n, sigma = len(sums) - 1, model.law.discount
    first, second = torch.arange(n + 1.0).unsqueeze(-1), torch.arange(sums.shape[1] + 0.0)
    alone = n - first - second
    k = ((first > 0).long() + (second > 0).long() + alone.long()).clamp(1, n)
    prior = log_shares(model, n)[k - 1] + alone * torch.lgamma(1 - sigma)
    for size in (first, second):
        prior = prior + torch.where(size > 0, torch.lgamma(size.clamp(min=1) - sigma), 0.0)
    return torch.where(alone >= 0, sums + prior, -math.inf).logsumexp((0, 1)).item()


def evidence_by_enumeration(model, x):
    fits, total = log_densities(model, x), []
    for labels in itertools.product(range(model.clusters + 1), repeat=len(x)):
        held = [labels.count(k) for k in range(model.clusters)]
        sizes = torch.tensor([*held, *[1] * labels.count(model.clusters), 0]).double()
        fit = fits[torch.arange(len(x)), torch.tensor(labels)].sum()
        total.append(model.law.log_probability(sizes) + fit)
    return torch.stack(total).logsumexp(0).item()


def settle(model, guide, x, rounds=6):
    """Sizes are those of the guide's own probabilities."""
    objective = Collapsed(model, guide, rate=1.0)
    with torch.no_grad():
        for _ in range(rounds):
            objective.commit(objective.loss(Batch(x)).carry)


def at_mean_v(model, count):
    """The guide with v at its mean, so that its q(y) are the same at every draw."""
    guide = CollapsedCode(Sharp(), model, "normal")
    with torch.no_grad():
        guide.loc.copy_(model.law_of_v(count).mean)
        guide.log_scale.fill_(-25.0)
    return guide


def in_all(terms, count, name="elbo"):
    """A bound in nats of all data, without the noise of the draws of z."""
    value, drawn = (torch.as_tensor(terms[key]).mean().item() for key in (name, "reconstruction"))
    return (value - drawn + RECONSTRUCTION) * count


def whole(model, guide, x):
    with torch.no_grad():
        return Collapsed(model, guide, {"z": KL(analytic=True)}).terms(x)


def test_two_ways_to_sum_over_labellings_agree():
    for process, clusters in itertools.product(PROCESSES, (1, 2)):
        model, _ = pair(clusters, 1.0, *process)
        x, sums = labelled(clusters, 5, 1.0)
        expected = evidence_by_enumeration(model, x)
        assert evidence(model, sums) == pytest.approx(expected, abs=1e-8)


CASES = [(1, 1), (1, 5), (2, 5), (2, 12), (2, 60), (1, 100), (2, 400)]


@pytest.mark.parametrize(("clusters", "count"), CASES)
@pytest.mark.parametrize("apart", [1.0, 6.0])
def test_what_is_called_elbo_is_below_the_evidence(clusters, count, apart):
    """By the objective and by an evaluation in batches, with sizes of the start and settled ones.

    The pseudo-likelihood is not, by more nats the more data there are.
    """
    x, sums = labelled(clusters, count, apart)
    above = []
    for process in PROCESSES:
        model, guide = pair(clusters, apart, *process)
        exact = evidence(model, sums)
        for rounds in (0, 6):
            settle(model, guide, x, rounds)
            terms = whole(model, guide, x)
            assert in_all(terms, count) < exact + 1e-6
            above.append(in_all(terms, count, "pseudo-likelihood") - exact)
            fixed = at_mean_v(model, count)
            expected = in_all(whole(model, fixed, x), count)
            for size in (max(1, count // 3), count):
                found = evaluate(model, fixed, x, batch_size=size)
                found["elbo"] += found["kl[z]"] - whole(model, fixed, x)["kl[z]"].mean().item()
                assert in_all(found, count) == pytest.approx(expected, abs=1e-6)
            assert expected < exact + 1e-6
    assert count < 12 or max(above) > 0.7


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize(("clusters", "count"), CASES)
def test_the_bound_is_tight_where_clusters_are_apart(process, clusters, count):
    """Within .1 nats of all data, beside .001 for each row of q(z | x), which is not the best.

    With a high discount, most clusters have one datum, and two labels share each of these.
    """
    x, sums = labelled(clusters, count, 6.0)
    model, guide = pair(clusters, 6.0, *process)
    settle(model, guide, x)
    gap = evidence(model, sums) - in_all(whole(model, guide, x), count)
    assert -1e-6 < gap < 0.1 + 0.001 * count + (1.6 if process[1] > 0.5 else 0)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize(("clusters", "count", "size"), [(2, 12, 4), (2, 60, 20), (2, 400, 50)])
def test_batches_estimate_the_bound_from_below(process, clusters, count, size):
    """By the mean over all batches, with sizes of the start and settled ones.

    With settled sizes it is lower by less than a nat for each cluster, in nats of all data.
    """
    x, sums = labelled(clusters, count, 6.0)
    model, _ = pair(clusters, 6.0, *process)
    for rounds in (0, 6):
        guide = at_mean_v(model, count)
        settle(model, guide, x, rounds)
        guide = at_mean_v(model, count)
        objective = Collapsed(model, guide, {"z": KL(analytic=True)})
        with torch.no_grad():
            parts = [objective.terms(part, count) for part in x.split(size)]
        found = sum(
            in_all(part, len(rows)) for part, rows in zip(parts, x.split(size), strict=True)
        )
        full = in_all(whole(model, guide, x), count)
        assert found < evidence(model, sums)
        assert found < full + 1e-6
    assert found > full - clusters


@pytest.mark.parametrize("labels", [False, True])
def test_histories_say_which_is_which(labels):
    """Rows of training, by whole batches or parts, of validation, and of an evaluation."""
    model, guide = pair(2)
    x = rows(model, 30)
    for size in (10, 30):
        training = Training(
            model,
            guide,
            x,
            objective=Collapsed(model, guide, particles=2),
            labels={"y": torch.arange(30) % 3 - 1} if labels else None,
            batch_size=size,
            validation=x[:7],
            every=1,
        )
        for row in [*training.run(steps=3), evaluate(model, guide, x)]:
            divergences = sum(term for name, term in row.items() if name.startswith("kl["))
            assert row["elbo"] == pytest.approx(row["reconstruction"] - divergences)
            assert row["pseudo-likelihood"] != row["elbo"]
            assert {"kl[y]", "kl[z]"} <= set(row)
            assert not {"kl[v]", "sums"} & set(row)


def test_the_objective_is_still_the_pseudo_likelihood():
    model, guide = pair(2)
    x = rows(model, 30)
    for part in (x, x[:7]):
        terms = Collapsed(model, guide).loss(Batch(part, 30)).terms
        torch.testing.assert_close(terms["objective"], terms["pseudo-likelihood"].mean())


def test_many_rows_at_once_are_bounded_by_three_moments(monkeypatch):
    """Without the generating function, whose cost would be too high, and not above it."""
    x, _ = labelled(2, 60, 1.0)
    model, _ = pair(2, 1.0)
    guide = at_mean_v(model, 60)
    exact = in_all(whole(model, guide, x), 60)
    monkeypatch.setattr("priorzoo.inference.nggp.objective.FEW", 0)
    assert exact - 2 < in_all(whole(model, guide, x), 60) < exact
