"""What is said and drawn of a mixture whose number of clusters is open."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from torch import Tensor

from priorzoo.benchmarks.charts import nggp as nggp_figures
from priorzoo.guides import CollapsedCode
from priorzoo.inference import component_means
from priorzoo.models import NGGPMixture
from priorzoo.models.nggp.law import NGGP
from priorzoo.models.nggp.log_u import LogU

DRAWS = 2_000  # of v
PARTITIONS = 20  # from the prior
ROWS = 1_000  # that each of them cuts
TRUNCATED = 1e-4  # probability of more clusters than are counted


def there(model: NGGPMixture) -> Tensor:
    """The values of y that are: the clusters there are, and that of a cluster of one's own."""
    present = torch.cat([model.active, torch.ones_like(model.active[:1])])
    return present.nonzero().flatten().cpu()


def score(model: NGGPMixture) -> dict[str, float]:
    """What the model says of its own clusters, beside what the labels say.

    - ``active_clusters``: how many there are;
    - ``concentration`` and ``discount``: alpha and sigma.
    """
    law = model.law
    return {
        "active_clusters": float(model.active.sum()),
        "concentration": float(law.concentration),
        "discount": float(law.discount),
    }


def top_words(
    model: NGGPMixture, vocabulary: Sequence[str], counts: Tensor, most: int = 8
) -> dict[str, list[str]]:
    """The words of each cluster that tell it best from all rows, by p_k log(p_k / p).

    Args:
        model: of word counts.
        vocabulary: names of the P words.
        counts: rows ``(N, P)`` whose words make p, each with one more.
        most: words for a cluster.
    """
    common = counts.sum(0) + 1
    common = common / common.sum()
    found = {}
    for k in model.active.nonzero().flatten().tolist():
        own = component_means(model)[k].to(common)
        own = own / own.sum()
        telling = torch.xlogy(own, own / common).argsort(descending=True)
        found[str(k)] = [vocabulary[i] for i in telling[:most].tolist()]
    return found


def log_prior_of_v(law: NGGP, data: int, v: Tensor) -> Tensor:
    """``(G,)`` log density of v before any datum is clustered: p(v | K) mixed by P(K), in float64.

    The numbers of clusters go up to where more have probability 0.0001.
    """
    law = NGGP(law.concentration.double().cpu(), law.discount.double().cpu(), law.tilt)
    most = min(64, data)
    log_k = law.cluster_law(data, most)
    while most < data and float(1 - log_k.exp().sum()) > TRUNCATED:
        most = min(2 * most, data)
        log_k = law.cluster_law(data, most)
    k = torch.arange(1, most + 1, dtype=log_k.dtype)
    found = law.law_of_v(float(data), k).log_prob(v.double().unsqueeze(-1)) + log_k
    return found.logsumexp(-1)


def log_posterior_of_v(model: NGGPMixture, data: int, v: Tensor) -> Tensor:
    """``(G,)`` log of p(v | z) at the model's sizes, normalised by trapezia over the grid."""
    narrow = model.law_of_v(data)
    numbers = narrow.data, narrow.occupied, narrow.concentration, narrow.discount
    n, k, alpha, sigma = (number.double().cpu() for number in numbers)
    law = LogU(n, k, alpha, sigma, narrow.tilt)
    energy = law.energy(v.double())
    energy = energy - energy.max()
    return energy - torch.trapezoid(energy.exp(), v.double()).log()


def prior_shares(law: NGGP, seed: int = 0) -> Tensor:
    """``(S, R)`` shares of clusters in partitions drawn from the prior, the largest first."""
    law = NGGP(law.concentration.double().cpu(), law.discount.double().cpu(), law.tilt)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        labels = law.simulate(ROWS, PARTITIONS)
    sizes = torch.stack([row.bincount(minlength=ROWS) for row in labels])
    return sizes.sort(descending=True).values / ROWS


def figures(
    model: NGGPMixture,
    guide: Any,
    history: Sequence[Mapping[str, Any]],
    q: Tensor,
    words: Mapping[str, Sequence[str]],
) -> Iterator[tuple[str, Callable[[], Axes]]]:
    """K over training, v, sizes of clusters, and their words where there are any.

    Args:
        model, guide, history: of a run.
        q: ``(N, K + 1)`` cluster probabilities of held-out rows.
        words: see :func:`top_words`.
    """
    shares = q.argmax(-1).bincount(minlength=q.shape[1]) / len(q)
    if any("clusters" in row for row in history):
        yield "growth", lambda: nggp_figures.draw_growth(history)
    data = int(model.counted)
    if data and isinstance(guide, CollapsedCode):
        yield "log_u", lambda: _draw_v(model, guide, data)
    prior = prior_shares(model.law)
    discount = float(model.law.discount)
    yield "sizes", lambda: nggp_figures.draw_sizes(shares, prior, discount)
    if words:
        yield "words", lambda: nggp_figures.draw_words(words, shares)


def _draw_v(model: NGGPMixture, guide: CollapsedCode, data: int) -> Axes:
    with torch.no_grad(), torch.random.fork_rng([]):
        torch.manual_seed(0)
        draws = guide.guess_v(data).sample((DRAWS,)).cpu()
        law = model.law_of_v(data)
        low, high = float(draws.min()) - 3, float(draws.max()) + 4
        v = torch.linspace(low, high, 2_001)
        curves = {
            f"p(v | z), E[K] = {float(law.occupied):.1f}": log_posterior_of_v(model, data, v).exp(),
            "prior": log_prior_of_v(model.law, data, v).exp(),
        }
    return nggp_figures.draw_densities(draws, v, curves)
