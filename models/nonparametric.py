"""The nonparametric VAE: a plane in which the codes of similar data are tied together."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from priorzoo.models.couplings import KernelMean
from priorzoo.models.likelihoods import Bernoulli
from priorzoo.models.plates import data_plate


class NonparametricVAE(nn.Module):
    r"""A VAE whose codes must be predictable from places ``u`` in the plane, one for each datum.

    .. math:: z \sim \mathcal N(0, I), \quad x \mid z \sim p(x \mid \mathrm{decoder}(z)), \quad
        \log \mathrm{coupling}_i = -\lambda\, C_i(u, q)

    Bodin et al., "Nonparametric Inference for Auto-Encoding Variational Bayes", 2017, equation (5):
    with :class:`KernelMean` for C, :math:`C_i = \|E[z_i] - \sum_j W_{ij} E[z_j]\|^2`. The paper
    calls the plane X, and the data Y.

    The coupling is a factor over the batch: the value of a row depends on the rows beside it, and
    the bound of a data set on the size of its batches. It is a function of the guide's
    distribution q(z | x) and not of a draw from it, and so the guide hands over the moments of q
    as the deterministic site ``q``; this has no prior, and ``kl[q]`` is 0. Nor has ``u``, unless
    ``unit_plane``; without data both are drawn from the standard normal, and nothing is coupled.
    An importance-weighted bound counts the factor as well.

    Args:
        decoder: maps codes ``(..., D)`` to the likelihood's parameters ``(..., width P)``.
        likelihood: maps these to p(x | z); :class:`Bernoulli` if None.
        code, plane: D, and the dimension of the places.
        coupling: maps places ``(..., B, plane)``, means and deviations ``(..., B, D)`` to C,
            ``(..., B)``, in nats; :class:`KernelMean` if None.
        weight: lambda.
        unit_plane: whether places have the prior N(0, I).
        stop_gradient: whether the coupling moves the places only, so that the code is a VAE's.
    """

    origin: Tensor
    centre: Tensor

    def __init__(
        self,
        decoder: nn.Module,
        likelihood: nn.Module | None = None,
        code: int = 64,
        plane: int = 2,
        coupling: nn.Module | None = None,
        weight: float = 1.0,
        unit_plane: bool = False,
        stop_gradient: bool = False,
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.likelihood = Bernoulli() if likelihood is None else likelihood
        self.code, self.plane = code, plane
        self.coupling = KernelMean() if coupling is None else coupling
        self.weight, self.unit_plane, self.stop_gradient = weight, unit_plane, stop_gradient
        self.register_buffer("origin", torch.zeros(code), persistent=False)
        self.register_buffer("centre", torch.zeros(plane), persistent=False)

    def forward(self, x: Tensor | None = None, size: int | None = None) -> Tensor:
        flat = dist.Normal(self.origin, torch.ones_like(self.origin)).expand([2, self.code])
        with data_plate(x, size):
            z = pyro.sample("z", dist.Normal(self.origin, torch.ones_like(self.origin)).to_event(1))
            q = pyro.sample("q", flat.to_event(2).mask(False))
            place = dist.Normal(self.centre, torch.ones_like(self.centre)).to_event(1)
            u = pyro.sample("u", place.mask(self.unit_plane))
            if x is not None:
                loc, scale = (q.detach() if self.stop_gradient else q).unbind(-2)
                pyro.factor("coupling", -self.weight * self.coupling(u, loc, scale))
            return pyro.sample("x", self.likelihood(self.decoder(z)), obs=x)
