"""Gaussian mixture components in latent space."""

import math

import torch
from torch import Tensor, nn

from priorzoo.models.distributions.gaussian import deviation, raw_variance


class Components(nn.Module):
    r"""K diagonal Gaussians :math:`\mathcal N(\mu_k, \sigma_k^2)` in latent space; a base class.

    Args:
        code, clusters: D and K.
        offset: whether an offset that all clusters share is added to their means and raw
            variances, like the bias of the reference code's linear maps of the one-hot cluster.
            The offset is redundant, but with it Adam moves all clusters together twice as fast.
    """

    def __init__(self, code: int, clusters: int, offset: bool = False) -> None:
        super().__init__()
        self.code, self.clusters, self.offset = code, clusters, offset
        bound = math.sqrt(6 / (clusters + code))
        self.loc = nn.Parameter(torch.empty(clusters, code).uniform_(-bound, bound))
        self.raw = nn.Parameter(torch.empty(clusters, code).uniform_(-bound, bound))
        shared = torch.zeros(2, code)
        self.shared: Tensor = nn.Parameter(shared) if offset else nn.Buffer(shared)

    def components(self) -> tuple[Tensor, Tensor]:
        """Means and standard deviations, each ``(K, D)``."""
        return self.loc + self.shared[0], deviation(self.raw + self.shared[1])

    @torch.no_grad()
    def set_components(self, loc: Tensor, variance: Tensor) -> None:
        """Set means and variances of the components, each ``(K, D)``."""
        self.shared.zero_()
        self.loc.copy_(loc)
        self.raw.copy_(raw_variance(variance))
