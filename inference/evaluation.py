"""How good a trained pair is on held-out data: the bound's terms, and a tighter bound."""

import math
from collections.abc import Iterator

import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor, nn

from priorzoo.inference.objectives.conjugate import bound, predictive
from priorzoo.inference.pairs import (
    Site,
    Transform,
    check_data,
    evaluating,
    is_enumerated,
    is_local,
    latent_sites,
    run_pair,
    sample_sites,
)
from priorzoo.inference.randomness import Stream


def evaluate(
    model: nn.Module,
    guide: nn.Module,
    x: Tensor,
    *,
    transform: Transform | None = None,
    importance_samples: int = 0,
    batch_size: int = 500,
    seed: int = 0,
) -> dict[str, float]:
    """Terms of the bound on held-out rows, in nats per datum, unweighted and unfloored.

    Args:
        x: rows ``(N, P)``; global sites count 1/N in each, but conjugate ones, which belong to the
            training set, not at all: see :meth:`ConjugateELBO.held_out`.
        transform: applied to each batch, such as ``torch.bernoulli`` for dynamic binarisation.
        importance_samples: S of :func:`importance_bound`, added as ``log p(x)``; 0 for none.
        batch_size: rows held at a time.
        seed: of the transform and of the draws; the caller's random state is untouched.

    Raises:
        ValueError: for rows that the model cannot score, or a negative number of samples.
    """
    if importance_samples < 0:
        raise ValueError(
            f"Expected importance_samples of at least 0 but got {importance_samples}; 0 for none."
        )
    check_data(model, x, transform=transform)
    objective, pair = bound(model, guide), predictive(model, guide)
    totals: dict[str, float] = {}
    with evaluating(model, guide), torch.no_grad(), Stream(seed, x.device):
        for batch in _batches(x, batch_size, transform):
            terms = objective.held_out(batch, len(x))
            if importance_samples:
                terms["log p(x)"] = importance_bound(*pair, batch, importance_samples)
            for name, term in terms.items():
                totals[name] = totals.get(name, 0.0) + float(term.mean()) * len(batch) / len(x)
    return totals


def importance_bound(
    model: nn.Module, guide: nn.Module, x: Tensor, samples: int, *, held: int = 4_000_000
) -> Tensor:
    r"""Estimate of :math:`\log p(x)`, a lower bound in expectation that rises with the samples.

    :math:`\log \frac1S \sum_s \sum_y p(x, y, z_s) / q(z_s \mid x, y)`: sites that the guide
    enumerates are summed inside the weight (Burda et al., "Importance Weighted Autoencoders", 2016,
    with the discrete sites Rao-Blackwellised). For local sites only.

    Args:
        x: rows ``(B, P)``.
        samples: S.
        held: number of values of x, counted once for each draw, that are decoded at a time.

    Returns:
        ``(B,)``, in nats.

    Raises:
        ValueError: for less than one sample, or a pair with global sites.
    """
    if samples < 1:
        raise ValueError(f"Expected at least one sample but got samples={samples}.")
    total = torch.full((len(x),), -math.inf, dtype=x.dtype, device=x.device)
    chunk = max(1, held // x.numel())
    for start in range(0, samples, chunk):
        weights = _log_weights(model, guide, x, min(chunk, samples - start))
        total = torch.logaddexp(total, weights.logsumexp(0))
    return total - math.log(samples)


def _log_weights(model: nn.Module, guide: nn.Module, x: Tensor, samples: int) -> Tensor:
    """``(S, B)`` log importance weights with the enumerated sites summed out."""
    drawn, told = run_pair(model, guide, x, particles=samples)
    sites = [*sample_sites(told), *sample_sites(drawn)]
    shared = sorted({name for name, site in sites if not is_local(site)})
    if shared:
        raise ValueError(
            f"Expected a pair whose sites are all local but {shared} belong to the whole "
            "data set, which has no bound for each row; use the terms of evaluate."
        )
    enumerated = [site for site in latent_sites(drawn).values() if is_enumerated(site)]
    weight = torch.zeros(samples, len(x), dtype=x.dtype, device=x.device)
    for _, site in sample_sites(told):
        weight = weight + _score(site)
    for site in latent_sites(drawn).values():
        if not is_enumerated(site):
            weight = weight - _score(site)
    for site in enumerated:
        weight = weight.logsumexp(site["infer"]["_enumerate_dim"], keepdim=True)
    return weight.reshape(samples, len(x))


def _score(site: Site) -> Tensor:
    return scale_and_mask(site["fn"].log_prob(site["value"]), mask=site["mask"])


def _batches(x: Tensor, batch_size: int, transform: Transform | None) -> Iterator[Tensor]:
    for batch in x.split(batch_size):
        yield batch if transform is None else transform(batch)
