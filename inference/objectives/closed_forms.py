"""The ELBO with KL divergences in closed form, where that does not change the expectation."""

from priorzoo.inference.batch import Batch
from priorzoo.inference.objectives.contract import Terms
from priorzoo.inference.objectives.draws import Draws
from priorzoo.inference.objectives.elbo import ELBO, KL
from priorzoo.inference.sites import latent_sites


class ClosedForms(ELBO):
    """An :class:`ELBO` whose terms of held-out rows use closed forms: see :func:`closed_terms`."""

    def held_out(self, batch: Batch) -> Terms:
        return closed_terms(self, self.draw(batch))


def closed_terms(objective: ELBO, draws: Draws) -> Terms:
    """The terms of given draws, with exact closed forms of KL divergences where torch has one.

    At a draw near the boundary of a support, log q - log p is a difference of two large numbers,
    and few draws dominate the mean. The closed form does not have this error. It is the expectation
    only if the variables on which its prior depends are independent of the site: those that the
    guide draws before it. A cluster whose probabilities are computed from the code, for example, is
    not independent of the code.
    """
    closed = {name: KL(analytic=True) for name in exact_sites(draws)}
    return ELBO(objective.model, objective.guide, closed, objective.particles).terms_of(draws)


def exact_sites(draws: Draws) -> list[str]:
    """Sites that the guide draws after all those that the model draws before them."""
    of_guide, of_model = (list(latent_sites(t)) for t in (draws.guide_trace, draws.model_trace))
    return [
        name
        for place, name in enumerate(of_model)
        if name in of_guide and set(of_model[:place]) <= set(of_guide[: of_guide.index(name)])
    ]
