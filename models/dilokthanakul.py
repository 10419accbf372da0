"""The Gaussian-mixture VAE whose mixture components depend on a second latent code."""

from collections.abc import Sequence
from typing import Unpack

import pyro
import pyro.distributions as dist
import torch
from pyro.ops.indexing import Vindex
from torch import Tensor, nn

from priorzoo.models.components import even_weight
from priorzoo.models.contract import Beside, decodes
from priorzoo.models.distributions.gaussian import diagonal_normal, raw_variance, standard_normal
from priorzoo.models.likelihoods import Bernoulli
from priorzoo.models.networks import MLP
from priorzoo.models.observation import sample_x
from priorzoo.models.plates import data_plate


class DilokthanakulGMVAE(nn.Module):
    r"""A Gaussian mixture whose means and variances are functions of a second code ``w``.

    .. math:: w \sim \mathcal N(0, I), \quad y \sim \mathrm{Cat}(\pi), \quad
        z \mid y, w \sim \mathcal N(\mu_y(w), \sigma_y^2(w)), \quad
        x \mid z \sim p(x \mid \mathrm{decoder}(z))

    Dilokthanakul et al., "Deep Unsupervised Clustering with Gaussian Mixture Variational
    Autoencoders", 2016, which writes z for our y, x for our z, and y for our x. One tanh network
    of w has K heads, one for each component. The paper's remedies against degenerate clusters are
    settings of the objective:

    - conditional prior term as in the paper: ``kl={"z": KL(analytic=True)}``. It is lower than the
      exact term, the default, by the covariance of p(y | z, w) and log p(z | y, w);
    - minimum information constraint lambda: ``kl={"y": KL(floor=0.5)}``; eta is its ``weight``;
    - consistency violation of its first version: ``ConsistencyViolation`` as a penalty;
    - M samples of (z, w): ``particles``.

    Args:
        decoder: maps codes ``(..., D)`` to the likelihood's parameters ``(..., width P)``.
        likelihood: maps these to p(x | z); :class:`Bernoulli` if None.
        code, second_code, clusters: D, size of w, and K.
        hidden: sizes of the hidden layers from w to the heads.
        learn_weights: whether the mixture weights pi are learnt; uniform, as in the paper, if not.
    """

    networks = staticmethod(decodes)

    def __init__(
        self,
        decoder: nn.Module,
        likelihood: nn.Module | None = None,
        code: int = 200,
        second_code: int = 150,
        clusters: int = 10,
        hidden: Sequence[int] = (500,),
        learn_weights: bool = False,
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.likelihood = Bernoulli() if likelihood is None else likelihood
        self.code, self.second_code, self.clusters = code, second_code, clusters
        self.hidden = hidden
        self.heads = MLP(second_code, clusters * 2 * code, hidden, activation="tanh")
        self.origin = nn.Buffer(torch.zeros(second_code), persistent=False)
        self.learn_weights = learn_weights
        uniform = nn.Buffer(torch.zeros(clusters), persistent=False)
        self.logits: Tensor = nn.Parameter(torch.zeros(clusters)) if learn_weights else uniform

    def forward(
        self, x: Tensor | None = None, size: int | None = None, **beside: Unpack[Beside]
    ) -> Tensor:
        with data_plate(x, size):
            y = pyro.sample("y", dist.Categorical(logits=self.logits))
            w = pyro.sample("w", standard_normal(self.origin))
            heads = self.heads(w).unflatten(-1, (self.clusters, 2 * self.code))
            z = pyro.sample("z", diagonal_normal(Vindex(heads)[..., y, :]))
            return sample_x(x, beside, self.likelihood, self.decoder, z)

    @torch.no_grad()
    def place_cluster(self, k: int, loc: Tensor, variance: Tensor) -> None:
        """See :class:`PlacesClusters`; mean and variances do not depend on ``w`` at first."""
        last = self.heads.layers[-1]
        assert isinstance(last, nn.Linear)
        own = slice(2 * self.code * k, 2 * self.code * (k + 1))
        last.weight[own] = 0.0
        last.bias[own] = torch.cat([loc, raw_variance(variance)])
        if self.learn_weights:
            even_weight(self.logits, k)
