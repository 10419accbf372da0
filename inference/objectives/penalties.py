"""Penalties that are added to the negative ELBO, each a quantity per datum."""

from typing import cast

import torch
from torch import Tensor, nn

from priorzoo.guides import cluster_posterior
from priorzoo.inference.objectives.draws import Draws
from priorzoo.inference.objectives.schedules import Linear
from priorzoo.inference.sites import is_enumerated, latent_sites, site_of
from priorzoo.models.vq_vae import VQVAE


class Penalty(nn.Module):
    """Base class of quantities per datum whose mean is added to the loss.

    ``forward`` maps :class:`Draws` to the quantity, ``(B,)``.

    Args:
        weight: weight of the quantity in the loss, a number or a schedule.
    """

    def __init__(self, weight: float | Linear = 1.0) -> None:
        super().__init__()
        self.weight = weight


class ConsistencyViolation(Penalty):
    r""":math:`E_q\, H[p(y \mid z, w)]`: entropy of the cluster given the codes, in nats.

    Dilokthanakul et al., 2016, first version. It is high for codes that lie between clusters. For a
    guide that samples y from this posterior it is the entropy of the guide's site.
    """

    def forward(self, draws: Draws) -> Tensor:
        codes = {
            name: site["value"]
            for name, site in latent_sites(draws.guide_trace).items()
            if not is_enumerated(site)
        }
        log_p = cluster_posterior(draws.model, codes, context=draws.batch.context).logits
        entropy = -(log_p.exp() * log_p).sum(-1)  # entr has no gradient where p underflows to 0
        return draws.weights.expect(entropy, draws.particles)


class Classification(Penalty):
    r""":math:`-\log q(\mathrm{label} \mid x)` for rows with a known label, otherwise 0, in nats.

    The ELBO of a labelled datum does not contain q(y | x), which this term trains (Kingma et al.,
    "Semi-supervised Learning with Deep Generative Models", 2014, eq. (9)).

    Args:
        weight: alpha.
        site: name of the labelled site.
    """

    def __init__(self, weight: float | Linear = 1.0, site: str = "y") -> None:
        super().__init__(weight)
        self.site = site

    def forward(self, draws: Draws) -> Tensor:
        if self.site not in draws.labels:
            raise ValueError(
                f"Expected labels of {self.site!r} for the classification term but got labels of "
                f"{list(draws.labels)}; give labels, with -1 for unknown."
            )
        label = draws.labels[self.site]
        free = latent_sites(draws.guide_trace)[self.site]["infer"]["free"]
        log_q = free.logits.log_softmax(-1)
        known = label.clamp(min=0).expand(log_q.shape[:-1]).unsqueeze(-1)
        score = torch.where(label < 0, 0.0, -log_q.gather(-1, known).squeeze(-1))
        return draws.weights.expect(score, draws.particles)


class Quantisation(Penalty):
    r"""Squared distances of the encoder's output from the codebook, for :class:`VQVAE`.

    .. math:: \textstyle\sum_m \|\mathrm{sg}(h_m) - e_{y_m}\|^2 +
        \beta \|h_m - \mathrm{sg}(e_{y_m})\|^2

    van den Oord et al., "Neural Discrete Representation Learning", 2017, eq. (3). The first term
    trains the codebook, the second keeps the encoder's output near it; sg stops the gradient.

    Args:
        weight: weight of both terms, a number or a schedule.
        commitment: beta.
    """

    def __init__(self, weight: float | Linear = 1.0, commitment: float = 0.25) -> None:
        super().__init__(weight)
        self.commitment = commitment

    def forward(self, draws: Draws) -> Tensor:
        h = site_of(draws.guide_trace, "z")["infer"]["encoded"]
        e = cast(VQVAE, draws.model).codebook[site_of(draws.guide_trace, "y")["value"]]
        of_codebook = (h.detach() - e).square().sum((-2, -1))
        of_encoder = (h - e.detach()).square().sum((-2, -1))
        return draws.weights.expect(of_codebook + self.commitment * of_encoder, draws.particles)
