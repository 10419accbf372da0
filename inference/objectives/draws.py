"""A model and its guide run on the same draws, from which objectives are computed."""

from dataclasses import dataclass

import pyro
from pyro import poutine
from torch import Tensor, nn

from priorzoo.inference.auxiliary import marginal_sites
from priorzoo.inference.batch import Batch, Labels
from priorzoo.inference.objectives.importance import log_weights
from priorzoo.inference.objectives.weights import Weights
from priorzoo.inference.pairs import run_pair
from priorzoo.inference.running import PROGRAM_LOCK
from priorzoo.inference.sites import Site, sample_sites


@dataclass(frozen=True)
class Draws:
    """The traces of guide and model on the same draws of the latent sites.

    Args:
        model: the model that was run.
        guide_trace, model_trace: traces of guide and model.
        weights: probabilities of the enumerated sites.
        particles: number S of draws.
        batch: the batch on which both were run.
    """

    model: nn.Module
    guide_trace: poutine.Trace
    model_trace: poutine.Trace
    weights: Weights
    particles: int
    batch: Batch

    @property
    def labels(self) -> Labels:
        """Labels to which discrete sites were set."""
        return self.batch.labels

    def log_weights(self) -> Tensor:
        r"""``(S, B)`` log importance weights with the enumerated sites summed out, in nats.

        :math:`\log \sum_y p(x, y, z_s) / q(z_s \mid x, y)`, differentiable, for local sites only.
        Factors and observed sites of the guide are part of q.

        Raises:
            ValueError: for a pair with global sites, or a plate that holds a subsample.
        """
        of_model = dict(sample_sites(self.model_trace))
        return log_weights(of_model, self.guide_sites(), self.batch, self.particles)

    def guide_sites(self) -> dict[str, Site]:
        """Sites of the guide, with auxiliary sites summed out of their densities."""
        return marginal_sites(self.guide_trace, self.model_trace)


def draw_pair(model: nn.Module, guide: nn.Module, batch: Batch, particles: int = 1) -> Draws:
    """Run the guide and then the model on its draws, with S particles.

    Use it to write your own objective: see :meth:`Draws.log_weights`.
    """
    # Validation would synchronise with the device.
    with PROGRAM_LOCK, pyro.validation_enabled(False):
        guide_trace, model_trace = run_pair(model, guide, batch, particles=particles)
    return Draws(model, guide_trace, model_trace, Weights(guide_trace), particles, batch)
