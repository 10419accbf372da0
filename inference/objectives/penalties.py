"""What may be minimised beside the bound, each a quantity per datum."""

from typing import cast

import torch
from torch import Tensor

from priorzoo.guides import cluster_posterior
from priorzoo.inference.objectives.elbo import Draws, Penalty
from priorzoo.inference.objectives.schedules import Linear
from priorzoo.inference.sites import is_enumerated, latent_sites, site_of
from priorzoo.models.vq_vae import VQVAE


class ConsistencyViolation(Penalty):
    r""":math:`E_q\, H[p(y \mid z, w)]`: how uncertain the prior's cluster is, in nats.

    Dilokthanakul et al., 2016, first version: codes that lie between clusters raise it. With a
    guide whose y is that posterior it is the entropy of its site.
    """

    def forward(self, draws: Draws) -> Tensor:
        codes = {
            name: site["value"]
            for name, site in latent_sites(draws.drawn).items()
            if not is_enumerated(site)
        }
        log_p = cluster_posterior(draws.model, codes, context=draws.batch.context).logits
        entropy = -(log_p.exp() * log_p).sum(-1)  # entr has no gradient where p underflows to 0
        return draws.weights.expect(entropy, draws.particles)


class Classification(Penalty):
    r""":math:`-\log q(\mathrm{label} \mid x)` where the label is known, and 0 elsewhere, in nats.

    The bound of a labelled datum does not contain q(y | x); this term does (Kingma et al.,
    "Semi-supervised Learning with Deep Generative Models", 2014, eq. (9)).

    Args:
        weight: alpha.
        site: whose labels.
    """

    def __init__(self, weight: float | Linear = 1.0, site: str = "y") -> None:
        super().__init__(weight)
        self.site = site

    def forward(self, draws: Draws) -> Tensor:
        if self.site not in draws.labels:
            raise ValueError(
                f"Expected labels of {self.site!r} for the classification term but got those of "
                f"{list(draws.labels)}; give labels, with -1 for unknown."
            )
        label = draws.labels[self.site]
        free = latent_sites(draws.drawn)[self.site]["infer"]["free"]
        log_q = free.logits.log_softmax(-1)
        known = label.clamp(min=0).expand(log_q.shape[:-1]).unsqueeze(-1)
        score = torch.where(label < 0, 0.0, -log_q.gather(-1, known).squeeze(-1))
        return draws.weights.expect(score, draws.particles)


class Quantisation(Penalty):
    r"""Squared distances of the encoder's output from the codebook, for :class:`VQVAE`.

    .. math:: \textstyle\sum_m \|\mathrm{sg}(h_m) - e_{y_m}\|^2 +
        \beta \|h_m - \mathrm{sg}(e_{y_m})\|^2

    van den Oord et al., "Neural Discrete Representation Learning", 2017, eq. (3): the first term
    trains the codebook, the second holds the encoder near it; sg stops the gradient.

    Args:
        weight: of both terms, a number or a schedule.
        commitment: beta.
    """

    def __init__(self, weight: float | Linear = 1.0, commitment: float = 0.25) -> None:
        super().__init__(weight)
        self.commitment = commitment

    def forward(self, draws: Draws) -> Tensor:
        h = site_of(draws.drawn, "z")["infer"]["encoded"]
        e = cast(VQVAE, draws.model).codebook[site_of(draws.drawn, "y")["value"]]
        of_codebook = (h.detach() - e).square().sum((-2, -1))
        of_encoder = (h - e.detach()).square().sum((-2, -1))
        return draws.weights.expect(of_codebook + self.commitment * of_encoder, draws.particles)
