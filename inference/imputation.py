"""Missing cells from the posterior predictive distribution of the observed ones."""

from collections.abc import Iterator
from typing import NamedTuple, cast

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from priorzoo.inference.batch import Batch, Context
from priorzoo.inference.data.checks import admit
from priorzoo.inference.data.missing import OBSERVED
from priorzoo.inference.data.tensors import check_count
from priorzoo.inference.pairs import without_observed
from priorzoo.inference.prediction import trained_on
from priorzoo.inference.randomness import Stream
from priorzoo.inference.running import PROGRAM_LOCK
from priorzoo.inference.sites import evaluating, site_of
from priorzoo.models.contract import accepted, check_context, needed
from priorzoo.models.observation import average, doubt

HELD = 4_000_000  # decoded values that are in memory at a time


class Imputed(NamedTuple):
    """Rows without missing cells.

    Args:
        values: ``(N, P)``; in missing cells the posterior predictive mean, or the most probable
            category.
        doubt: ``(N, P)``; in missing cells the standard deviation, or the probability of all other
            categories together; 0 in observed cells.
    """

    values: Tensor
    doubt: Tensor


def impute(
    model: nn.Module,
    guide: nn.Module,
    x: Tensor,
    *,
    context: Context,
    draws: int = 100,
    seed: int = 0,
) -> Imputed:
    r"""Missing cells by :math:`\int p(x_m \mid z)\, q(z \mid x_o)\, dz`.

    Means and variances given the code are exact, and averaged over draws of the code.

    Args:
        model, guide: a trained pair.
        x: rows ``(N, P)``.
        context: ``observed``, ``(N, P)`` booleans, False for missing cells, and what else the
            programs are told. Cells are imputed at the covariates and the exposure given here.
        draws: draws of the code of each row.
        seed: seed of the draws; the global random state is not changed.

    Raises:
        ValueError: for rows that the likelihood does not accept, without ``observed``, and for a
            :class:`Multinomial`, whose total is unknown if cells are missing.
    """
    batch = _admitted(model, guide, x, context, draws)
    found: list[Imputed] = []
    with evaluating(model, guide), torch.no_grad(), Stream(seed, batch.x.device):
        for part in _split(batch, draws):
            fn, _ = _predicted(model, guide, part, draws)

            def expect(value: Tensor, _: int, rows: int = len(part.x)) -> Tensor:
                return value.unflatten(0, (rows, draws)).double().mean(1)

            observed = part.context[OBSERVED]
            values = torch.where(observed, part.x, average(fn, expect).to(part.x.dtype))
            found.append(Imputed(values, doubt(fn, expect).masked_fill(observed, 0).to(part.x)))
    return Imputed(*(torch.cat(each) for each in zip(*found, strict=True)))


def completions(
    model: nn.Module,
    guide: nn.Module,
    x: Tensor,
    *,
    context: Context,
    draws: int = 10,
    seed: int = 0,
) -> Tensor:
    """``(draws, N, P)`` rows whose missing cells are drawn from the posterior predictive.

    For quantiles, and for multiple imputation (Rubin, 1987).

    Args:
        model, guide, x, context, seed: as in :func:`impute`.
        draws: number of draws of each row.

    Raises:
        ValueError: as in :func:`impute`.
    """
    batch = _admitted(model, guide, x, context, draws)
    found: list[Tensor] = []
    with evaluating(model, guide), torch.no_grad(), Stream(seed, batch.x.device):
        for part in _split(batch, draws):
            _, drawn = _predicted(model, guide, part, draws)
            each = drawn.unflatten(0, (len(part.x), draws)).movedim(1, 0)
            found.append(torch.where(part.context[OBSERVED], part.x, each))
    return torch.cat(found, 1)


def _admitted(model: nn.Module, guide: nn.Module, x: Tensor, context: Context, draws: int) -> Batch:
    check_count(draws, "draws")
    if OBSERVED not in context:
        raise ValueError(
            f"Expected context 'observed', which says what is missing, but got {list(context)}; "
            "give context={'observed': ~x.isnan()}."
        )
    batch = admit(model, x, context=context, on_device=True)
    check_context(batch.context, len(batch.x), model, guide)
    return batch


def _split(batch: Batch, draws: int) -> Iterator[Batch]:
    return batch.split(max(1, HELD // (draws * batch.x[0].numel())))


def _predicted(
    model: nn.Module, guide: nn.Module, part: Batch, draws: int
) -> tuple[TorchDistribution, Tensor]:
    """p(x | z) at draws of q, and rows drawn from it, each row of the batch ``draws`` times."""
    x, *beside = (tensor.repeat_interleave(draws, 0) for tensor in part.tensors)
    context = dict(zip(part.context, beside, strict=True))
    of_guide, of_model = accepted(guide, context), accepted(model, context)
    if OBSERVED not in needed(model):
        of_model.pop(OBSERVED, None)  # all cells are drawn
    with PROGRAM_LOCK:
        drawn = poutine.trace(guide).get_trace(x, trained_on(model), **of_guide)
        replayed = poutine.replay(model, trace=without_observed(drawn))
        site = site_of(poutine.trace(replayed).get_trace(size=len(x), **of_model), "x")
    if isinstance(site["fn"], dist.Multinomial):
        raise ValueError(
            "Expected a likelihood of single cells but got a multinomial, whose total is unknown "
            "if cells are missing; choose Poisson or NegativeBinomial, with an exposure."
        )
    return cast(TorchDistribution, site["fn"]), cast(Tensor, site["value"])
