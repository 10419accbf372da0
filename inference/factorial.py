"""The factorial mixture: initialisation of its components, and the predictive pair."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from priorzoo.guides.factorial import FactorialCode, FactorialLocal
from priorzoo.inference.batch import Batch, Context, Labels
from priorzoo.inference.data.beside import check_labels
from priorzoo.inference.data.checks import admit
from priorzoo.inference.data.tensors import check_count
from priorzoo.inference.objectives.conjugate import ConjugateELBO, predictive
from priorzoo.inference.pairs import run_pair
from priorzoo.inference.seeding import k_means_plus_plus
from priorzoo.inference.sites import evaluating, latent_sites
from priorzoo.models.factorial import FactorialMixture, FactorialPredictive

BATCH_ROWS = 500  # rows processed at a time


@torch.no_grad()
def seed_components(
    objective: ConjugateELBO,
    x: Tensor,
    labels: Labels | None = None,
    rounds: int = 20,
    *,
    context: Context | None = None,
) -> None:
    """Initialise the conjugate components of each site ``r_i`` by clustering the codes ``z_i``.

    k-means++ chooses the centres; classes with labels have their means as centres instead. One
    natural gradient step of rate 1 follows with each row assigned to its nearest centre, and then
    ``rounds`` steps with responsibilities. This is variational Bayes on the codes with the networks
    fixed.

    Args:
        objective: its guide is changed in place.
        x: rows ``(N, P)``, all of which are used.
        labels: known values ``(N,)`` of sites, -1 for unknown.
        rounds: number of rounds of variational Bayes.
        context: what the programs are told beside the rows, each ``(N, ...)``.

    Random numbers are drawn from the caller's stream.
    """
    check_count(rounds, "rounds", 0)
    given = admit(objective.model, x, labels=labels, context=context, on_device=True)
    x, known, pair = given.x, given.labels, (objective.model, objective.guide)
    free = replace(given, labels={})
    with evaluating(objective.model, objective.guide):
        sites = [
            latent_sites(run_pair(*pair, replace(rows, size=None), means=True)[0])
            for rows in free.split(BATCH_ROWS)
        ]
        clamped = {}
        for name, site in sites[0].items():
            if name.startswith("r_"):
                z = torch.cat([part[f"z_{name[2:]}"]["value"] for part in sites])
                label = known.get(name, torch.full((len(x),), -1, device=x.device))
                clusters = site["fn"].logits.shape[-1]
                check_labels(label, name, clusters, x)
                centres = _centres(z, label, clusters)
                clamped[name] = _assign(z, centres, label)
        for step in range(1 + rounds):
            _vary(objective, replace(given, labels=known if step else clamped))


def _vary(objective: ConjugateELBO, whole: Batch) -> None:
    """One natural gradient step of rate 1 over all rows, in batches."""
    totals: list[Tensor] = []
    for part in whole.split(BATCH_ROWS):
        messages = objective.messages(replace(part, size=None))
        totals = totals or [torch.zeros_like(counted) for *_, counted in messages]
        totals = [old + new for old, (*_, new) in zip(totals, messages, strict=True)]
    for (natural, prior, _), total in zip(messages, totals, strict=True):
        natural.copy_(prior + total)


def _centres(z: Tensor, label: Tensor, clusters: int) -> Tensor:
    """``(K, D)`` means of the classes with labels; the others are chosen by k-means++."""
    known = [k for k in range(clusters) if (label == k).any()]
    means = [z[label == k].mean(0) for k in known]
    free = clusters - len(known)
    drawn = z[k_means_plus_plus(z, free, torch.stack(means) if means else z[:0])]
    order = [*known, *(k for k in range(clusters) if k not in known)]
    return torch.cat([*(mean[None] for mean in means), drawn])[torch.tensor(order).argsort()]


def _assign(z: Tensor, centres: Tensor, label: Tensor) -> Tensor:
    """The label of each row if it is known, otherwise its nearest centre."""
    return torch.where(label < 0, torch.cdist(z, centres).argmin(-1), label)


@predictive.register(FactorialMixture)
def _predictive(
    model: FactorialMixture, guide: nn.Module, prune: bool = False
) -> tuple[nn.Module, nn.Module]:
    if not isinstance(guide, FactorialCode):
        return model, guide
    return FactorialPredictive(model, guide, prune), FactorialLocal(guide)
