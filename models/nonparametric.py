"""The nonparametric VAE: data near each other in a learnt plane get similar codes."""

import math
from typing import Unpack

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from priorzoo.models.contract import Beside, decodes
from priorzoo.models.distributions.gaussian import standard_normal
from priorzoo.models.likelihoods import Bernoulli
from priorzoo.models.observation import sample_x
from priorzoo.models.plates import data_plate, over_batch


class SquaredExponential(nn.Module):
    r"""The kernel :math:`\exp(-\|u - u'\|^2 / 2 l^2)`, base class of the couplings.

    Args:
        length: l, or its initial value if it is learnt.
        learn_length: whether l is learnt. Unless the places have a prior, places and length are
            then determined only up to a common factor.
    """

    capacity: int | None = None  # maximal number of codes to predict from; None for no limit

    def __init__(self, length: float = 1.0, learn_length: bool = False) -> None:
        super().__init__()
        if not length > 0:
            raise ValueError(f"Expected a positive length but got {length}.")
        self.length, self.learn_length = length, learn_length
        start = torch.tensor(math.log(length))
        self.log_length: Tensor = nn.Parameter(start) if learn_length else nn.Buffer(start)

    def targets(self, u: Tensor, loc: Tensor) -> Tensor:
        """What :meth:`predict` weights by the kernel, from places ``(M, 2)``, codes ``(M, D)``."""
        raise NotImplementedError

    def predict(self, at: Tensor, u: Tensor, targets: Tensor) -> Tensor:
        """Predict ``(Q, D)`` codes at places ``(Q, 2)``, from places ``(M, 2)`` and targets."""
        raise NotImplementedError

    def exponents(self, u: Tensor, v: Tensor) -> Tensor:
        """``(..., B, M)`` logarithms of the kernel between places ``(..., B, 2)`` and ``(M, 2)``.

        Computed from differences: inner products would be faster but lose digits far from the
        origin, and the gradient of a distance is undefined where places coincide.
        """
        pairs = zip(u.unbind(-1), v.unbind(-1), strict=True)
        squares = [(a.unsqueeze(-1) - b.unsqueeze(-2)).square() for a, b in pairs]
        return torch.stack(squares).sum(0) * (-0.5 * (-2 * self.log_length).exp())


class KernelMean(SquaredExponential):
    r"""Squared distance of a code from the kernel mean of the others in its batch.

    .. math:: \| m_i - \textstyle\sum_j W_{ij} m_j \|^2, \quad
        W_{ij} = \mathrm{softmax}_{j \ne i} \bigl( -\|u_i - u_j\|^2 / 2 l^2 \bigr)

    Equations (4) to (6) of Bodin et al., "Nonparametric Inference for Auto-Encoding Variational
    Bayes", 2017; their :math:`\sigma^2` cancels in the normalisation. For a batch of one row, which
    has no others, the value is 0.
    """

    def weights(self, u: Tensor) -> Tensor:
        """W, ``(..., B, B)``, whose rows sum to one; B must be at least 2."""
        itself = torch.eye(u.shape[-2], dtype=torch.bool, device=u.device)
        return self.exponents(u, u).masked_fill(itself, -math.inf).softmax(-1)

    def forward(self, u: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
        if u.shape[-2] == 1:
            return torch.zeros_like(loc[..., 0])
        with torch.autocast(u.device.type, enabled=False):
            return (loc - self.weights(u) @ loc).square().sum(-1)

    def targets(self, u: Tensor, loc: Tensor) -> Tensor:
        return loc

    def predict(self, at: Tensor, u: Tensor, targets: Tensor) -> Tensor:
        return self.exponents(at, u).softmax(-1) @ targets


class LeaveOneOutGP(SquaredExponential):
    r"""KL divergence of q(z_i) from a Gaussian process's prediction given the batch's other codes.

    .. math:: \mathrm{KL}\bigl(\mathcal N(m_i, s_i^2) \,\|\, \mathcal N(\mu_i, v_i I)\bigr), \quad
        v_i = 1 / [K^{-1}]_{ii}, \quad \mu_i = m_i - v_i [K^{-1} m]_i

    Equation (2) of Bodin et al., 2017, conditioned on the mean codes, with
    :math:`K_{ij} = \exp(-\|u_i - u_j\|^2 / 2 l^2) + \epsilon\, \delta_{ij}`. The variance has the
    matrix inverse that is missing in their equation (3). One factorisation gives all B predictions.

    Args:
        length, learn_length: as in :class:`SquaredExponential`.
        jitter: epsilon, the noise variance; if it is too small, K is singular in float32.
    """

    capacity = 10_000  # the kernel matrix then takes 400 MB

    def __init__(
        self, length: float = 1.0, learn_length: bool = False, jitter: float = 0.01
    ) -> None:
        super().__init__(length, learn_length)
        if not jitter > 0:
            raise ValueError(f"Expected a positive jitter but got {jitter}.")
        self.jitter = jitter

    def predictions(self, u: Tensor, loc: Tensor) -> tuple[Tensor, Tensor]:
        """Leave-one-out means ``(..., B, D)`` and variances ``(..., B, 1)``."""
        precision = torch.cholesky_inverse(self._factor(u))
        variance = 1 / precision.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
        return loc - variance * (precision @ loc), variance

    def forward(self, u: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
        # A shift of all places changes nothing. Without their centre the gradient of a shift, 0,
        # has a hundred times the rounding error, which Adam divides by its epsilon.
        places = u - u.mean(-2, keepdim=True)
        with torch.autocast(u.device.type, enabled=False):
            mean, variance = self.predictions(places, loc)
        spread, error = scale.square(), (loc - mean).square()
        kl = (spread + error) / variance - 1 - (spread / variance).log()
        return 0.5 * kl.sum(-1)

    def targets(self, u: Tensor, loc: Tensor) -> Tensor:
        return torch.cholesky_solve(loc, self._factor(u))

    def predict(self, at: Tensor, u: Tensor, targets: Tensor) -> Tensor:
        return self.exponents(at, u).exp() @ targets

    def _factor(self, u: Tensor) -> Tensor:
        noise = self.jitter * torch.eye(u.shape[-2], dtype=u.dtype, device=u.device)
        # torch.linalg.cholesky would synchronise with the device at every step to check for errors.
        return torch.linalg.cholesky_ex(self.exponents(u, u).exp() + noise).L


class NonparametricVAE(nn.Module):
    r"""A VAE that gives each datum a place ``u`` in the plane from which its code is predicted.

    .. math:: z \sim \mathcal N(0, I), \quad x \mid z \sim p(x \mid \mathrm{decoder}(z)), \quad
        \log \mathrm{coupling}_i = -\lambda\, C_i(u, q)

    Bodin et al., "Nonparametric Inference for Auto-Encoding Variational Bayes", 2017, equation (5):
    with :class:`KernelMean` for C, :math:`C_i = \|E[z_i] - \sum_j W_{ij} E[z_j]\|^2`. The paper
    calls the plane X, and the data Y.

    The coupling is a factor over the batch: its value for a row depends on the other rows, so that
    the bound of a data set depends on the batch size. It is a function of the distribution q(z | x)
    and not of a draw; the guide therefore passes the moments of q(z | x) as the deterministic site
    ``q``, which has no prior, so that ``kl[q]`` is 0. ``u`` has a prior only if ``unit_plane`` is
    set. Without data, ``q`` and ``u`` are drawn from the standard normal and there is no coupling.
    The importance-weighted bound includes the factor.

    Args:
        decoder: maps codes ``(..., D)`` to the likelihood's parameters ``(..., width P)``.
        likelihood: maps these to p(x | z); :class:`Bernoulli` if None.
        code, plane: D, and the dimension of the plane.
        coupling: maps places ``(..., B, plane)``, means and deviations ``(..., B, D)`` to C,
            ``(..., B)``, in nats; :class:`KernelMean` if None.
        weight: lambda.
        unit_plane: whether places have the prior N(0, I).
        stop_gradient: whether gradients of the coupling reach only the places and not the codes,
            so that the codes are those of a plain VAE.
    """

    networks = staticmethod(decodes)

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
        self.origin = nn.Buffer(torch.zeros(code), persistent=False)
        self.centre = nn.Buffer(torch.zeros(plane), persistent=False)

    def forward(
        self, x: Tensor | None = None, size: int | None = None, **beside: Unpack[Beside]
    ) -> Tensor:
        flat = dist.Normal(self.origin, torch.ones_like(self.origin)).expand([2, self.code])
        with data_plate(x, size):
            z = pyro.sample("z", standard_normal(self.origin))
            q = pyro.sample("q", flat.to_event(2).mask(False))
            place = standard_normal(self.centre)
            u = pyro.sample("u", place.mask(self.unit_plane))
            if x is not None:
                loc, scale = (q.detach() if self.stop_gradient else q).unbind(-2)
                pyro.factor("coupling", -self.weight * over_batch(self.coupling, u, loc, scale))
            return sample_x(x, beside, self.likelihood, self.decoder, z)
