"""Where mixture components begin: k-means++ on codes, in place of random means."""

import torch
from torch import Tensor

from priorzoo.inference.objectives.conjugate import ConjugateELBO
from priorzoo.inference.pairs import Labels, evaluating, latent_sites, run_pair

HELD = 500  # rows at a time


@torch.no_grad()
def seed_components(
    objective: ConjugateELBO, x: Tensor, labels: Labels | None = None, rounds: int = 20
) -> None:
    """Put the conjugate components of each discrete site ``r_s`` at clusters of the code ``z_s``.

    The clusters are those of k-means++; where a site has labels, the means of its classes take the
    place of the draws. One natural step of rate 1 with the rows clamped to their clusters follows,
    and then as many with responsibilities: variational Bayes of the codes, the networks held.

    Args:
        objective: whose guide is moved, in place.
        x: rows ``(N, P)``, all that the components are to begin from.
        labels: known values ``(N,)`` of sites, -1 for unknown.
        rounds: of variational Bayes.

    Random numbers are those of the caller's stream.
    """
    known = labels or {}
    with evaluating(objective.model, objective.guide):
        sites = [
            latent_sites(run_pair(objective.model, objective.guide, rows, means=True)[0])
            for rows in x.split(HELD)
        ]
        clamped = {}
        for name, site in sites[0].items():
            if name.startswith("r_"):
                z = torch.cat([part[f"z_{name[2:]}"]["value"] for part in sites])
                label = known.get(name, torch.full((len(x),), -1, device=x.device))
                centres = _centres(z, label, site["fn"].logits.shape[-1])
                clamped[name] = _assign(z, centres, label)
        for step in range(1 + rounds):
            _vary(objective, x, known if step else clamped)


def _vary(objective: ConjugateELBO, x: Tensor, labels: Labels) -> None:
    """One natural step of rate 1 over all rows, some at a time."""
    totals: list[Tensor] = []
    for index in torch.arange(len(x), device=x.device).split(HELD):
        own = {name: label[index] for name, label in labels.items()}
        messages = objective.messages(x[index], None, own)
        totals = totals or [torch.zeros_like(counted) for *_, counted in messages]
        totals = [old + new for old, (*_, new) in zip(totals, messages, strict=True)]
    for (natural, prior, _), total in zip(messages, totals, strict=True):
        natural.copy_(prior + total)


def _centres(z: Tensor, label: Tensor, clusters: int) -> Tensor:
    """``(K, D)`` means of the classes that are known, and rows far from these for the others.

    A row is drawn with a probability in proportion to its squared distance to the nearest centre:
    Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding", 2007.
    """
    centres: list[Tensor] = []
    free = []
    for k in range(clusters):
        rows = label == k
        if rows.any():
            centres.append(z[rows].mean(0))
        else:
            free.append(k)
    order = [k for k in range(clusters) if k not in free] + free
    for _ in free:
        gaps = torch.ones(len(z), device=z.device)
        if centres:
            gaps = torch.cdist(z, torch.stack(centres)).amin(-1).square().clamp(min=1e-12)
        centres.append(z[torch.multinomial(gaps, 1)[0]])
    return torch.stack([centres[order.index(k)] for k in range(clusters)])


def _assign(z: Tensor, centres: Tensor, label: Tensor) -> Tensor:
    """The label where it is known, and the nearest centre elsewhere."""
    return torch.where(label < 0, torch.cdist(z, centres).argmin(-1), label)
