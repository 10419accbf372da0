"""What a trained pair predicts for rows: cluster probabilities, codes and reconstructions."""

from collections.abc import Callable

import torch
from pyro import poutine
from torch import Tensor, nn

from priorzoo.inference.batch import Batch
from priorzoo.inference.pairs import run_pair
from priorzoo.inference.prediction import code_of, mean_of, probabilities_of, trained_on
from priorzoo.inference.sites import evaluating, is_enumerated, latent_sites, plates_of

Outputs = dict[str, Tensor]


def predict(model: nn.Module, guide: nn.Module) -> Callable[[Batch], Outputs]:
    """A function from rows to all that the pair predicts for them, by name.

    The names are ``probabilities``, ``codes`` and ``reconstruction``. They belong to the sites
    ``y`` and ``z``, or to the only site of their kind; the names of other sites follow theirs, as
    in ``probabilities_r_2``.
    """
    data = trained_on(model)

    def run(batch: Batch) -> Outputs:
        whole = Batch(batch.x, data, {}, batch.context)
        with torch.no_grad(), evaluating(model, guide):
            guide_trace, model_trace = run_pair(model, guide, whole, means=True)
            found = _of_sites(guide_trace)
            return found | {"reconstruction": mean_of(guide_trace, model_trace)}

    return run


def predicted_sites(guide_trace: poutine.Trace) -> tuple[list[str], list[str]]:
    """Names of the sites of a guide's trace that are clusters, and of those that are codes."""
    clusters, codes = list[str](), list[str]()
    for name, site in latent_sites(guide_trace).items():
        if set(plates_of(site)) != {"data"}:
            continue
        if is_enumerated(site):
            clusters.append(name)
        elif site["value"].is_floating_point() and site["fn"].event_dim == 1:
            codes.append(name)
    return clusters, codes


def _of_sites(guide_trace: poutine.Trace) -> Outputs:
    clusters, codes = predicted_sites(guide_trace)
    q = {name: probabilities_of(guide_trace, name) for name in clusters}
    z = {name: code_of(guide_trace, name) for name in codes}
    return _named("probabilities", q, "y") | _named("codes", z, "z")


def _named(kind: str, found: Outputs, first: str) -> Outputs:
    """The outputs of sites by the name of their kind, and of the site where that does not do."""
    alone = len(found) == 1
    return {kind if alone or site == first else f"{kind}_{site}": v for site, v in found.items()}
