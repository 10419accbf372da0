"""Evaluation on held-out data: the terms of the ELBO, and the importance-weighted bound."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from priorzoo.inference.batch import Batch, Context, Transform, in_precision
from priorzoo.inference.bounds import ImportanceBound
from priorzoo.inference.data.accepts import Accepts, device_of
from priorzoo.inference.data.portions import portions
from priorzoo.inference.data.stored.rows import StoredRows
from priorzoo.inference.data.tensors import check_count
from priorzoo.inference.data.transformed import transformed
from priorzoo.inference.objectives.conjugate import bound, predictive
from priorzoo.inference.objectives.contract import Terms
from priorzoo.inference.processes import ALONE, Processes
from priorzoo.inference.randomness import Stream, derive
from priorzoo.inference.sites import evaluating


def evaluate(
    model: nn.Module,
    guide: nn.Module,
    x: Tensor | StoredRows,
    *,
    transform: Transform | None = None,
    importance_samples: int = 0,
    batch_size: int = 500,
    seed: int = 0,
    context: Context | None = None,
    processes: Processes = ALONE,
    progress: bool = False,
) -> dict[str, float]:
    """Terms of the ELBO on held-out rows, in nats per datum, without KL weights and floors.

    KL divergences use an exact closed form if there is one: see :class:`ClosedForms`.

    Args:
        x: rows ``(N, P)``, see :func:`admit`, or :class:`StoredRows`. The KL of a global site
            counts 1/N for each row; that of a conjugate site is left out: see
            :meth:`ConjugateELBO.held_out`.
        transform: applied to rows, such as :func:`binarised` for dynamic binarisation. Its result
            for a row depends only on the seed and the row's number, so that all models and batch
            sizes are evaluated on the same rows: see :func:`transformed`.
        importance_samples: S of :func:`importance_bound`, reported as ``log p(x)``; 0 to skip it.
        batch_size: rows processed at a time.
        seed: seed of the transform, the draws and the importance samples, each of which has its
            own random stream; the global random state is not changed.
        context: keyword arguments of the programs beside x, each ``(N, ...)``, and ``weights`` of
            the rows, ``(N,)``; those of files must have mean 1.
        processes: those that share the rows; all of them must make the same call.
        progress: whether to show a bar of the rows whose importance bound is computed.

    Raises:
        ValueError: for rows that the likelihood does not accept, or a negative number of samples.
        FloatingPointError: if a term is NaN or infinite.
    """
    check_count(importance_samples, "importance_samples", 0)
    check_count(batch_size, "batch_size")
    count, parts = portions(model, x, batch_size, context=context, transform=transform)
    objective, pair = bound(model, guide), predictive(model, guide)
    importance = ImportanceBound(*pair, importance_samples, count, progress=progress)
    totals: Terms = {}
    where = device_of(model, torch.device("cpu"))
    draws, samples = Stream(seed, where), Stream(derive(seed, 2), where)
    with evaluating(model, guide), torch.no_grad():
        for whole in _drawn(model, parts, batch_size, transform, seed):
            share = processes.share(len(whole.x))
            batch = whole.part(share)
            with draws:
                terms = objective.held_out(batch)
            if importance_samples:
                with samples:
                    found = importance(batch)
                terms["log p(x)"] = batch.weighted(found)
            rows = len(batch.x) if share is None else share.count
            _add_means(totals, terms, rows / count)
            data = batch.data
        return _finite(objective.concluded(processes.total(totals), data))


def _drawn(
    model: nn.Module, parts: Iterator[Batch], rows: int, transform: Transform | None, seed: int
) -> Iterator[Batch]:
    """Batches in the model's precision, transformed and checked."""
    first = 0
    for part in parts:
        accepts = Accepts.of(model, in_precision(model, part).context)
        for each in transformed(part, rows, transform, seed, first):
            batch = in_precision(model, each, transform)
            if transform is not None:
                accepts.check(accepts.filled(batch.x, batch.context))
            yield batch
        first += len(part.x)


def _add_means(totals: Terms, terms: Terms, weight: float) -> None:
    """Add the weighted means of the terms over rows to the totals, in float64."""
    for name, term in terms.items():
        part = term.mean(0).double() * weight
        totals[name] = totals[name] + part if name in totals else part


def _finite(terms: Terms) -> dict[str, float]:
    found = {name: float(term) for name, term in terms.items()}
    if not all(map(math.isfinite, found.values())):
        raise FloatingPointError(
            f"Expected finite terms but got {found}; rescale the rows, or check whether parameters "
            "are NaN or a variance needs a floor."
        )
    return found
