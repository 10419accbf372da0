"""M2, whose cluster and code are independent, and the modified M2, which is a mixture."""

from typing import Literal, Unpack, get_args

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from priorzoo.models.components import Components
from priorzoo.models.contract import Beside, Sizes, decodes
from priorzoo.models.distributions.gaussian import standard_normal
from priorzoo.models.likelihoods import Bernoulli
from priorzoo.models.observation import sample_x
from priorzoo.models.plates import data_plate

Link = Literal["identity", "relu", "layer"]


class M2(nn.Module):
    r"""Decodes ``x`` from a cluster ``y`` and a code ``z`` that are independent a priori.

    .. math:: y \sim \mathrm{Cat}(1/K), \quad z \sim \mathcal N(0, I), \quad
        x \mid y, z \sim p(x \mid \mathrm{decoder}(z, y))

    Kingma et al., "Semi-supervised Learning with Deep Generative Models", 2014, without labels.
    The bound is best when ``y`` is not used, so that this model does not cluster (Shu, 2016).

    Args:
        conditional_decoder: maps codes ``(..., D)`` and clusters ``(...)`` to the likelihood's
            parameters ``(..., width P)``.
        likelihood: maps these to p(x | y, z); :class:`Bernoulli` if None.
        code, clusters: D and K.
    """

    def __init__(
        self,
        conditional_decoder: nn.Module,
        likelihood: nn.Module | None = None,
        code: int = 64,
        clusters: int = 10,
    ) -> None:
        super().__init__()
        self.conditional_decoder = conditional_decoder
        self.likelihood = Bernoulli() if likelihood is None else likelihood
        self.code, self.clusters = code, clusters
        self.origin = nn.Buffer(torch.zeros(code), persistent=False)
        self.uniform = nn.Buffer(torch.zeros(clusters), persistent=False)

    @staticmethod
    def networks(outputs: int, code: int, clusters: int) -> dict[str, Sizes]:
        return {"conditional_decoder": Sizes(code, outputs, clusters, "decoder")}

    def forward(
        self, x: Tensor | None = None, size: int | None = None, **beside: Unpack[Beside]
    ) -> Tensor:
        with data_plate(x, size):
            y = pyro.sample("y", dist.Categorical(logits=self.uniform))
            z = pyro.sample("z", standard_normal(self.origin))
            return sample_x(x, beside, self.likelihood, self.conditional_decoder, z, y)


class ModifiedM2(Components):
    r"""M2 in which the cluster shifts and scales the code before it is decoded.

    .. math:: y \sim \mathrm{Cat}(1/K), \quad z \sim \mathcal N(0, I), \quad
        h = \mu_y + \sigma_y z, \quad x \mid h \sim p(x \mid \mathrm{decoder}(f(h)))

    Shu, "Gaussian Mixture VAE: Lessons in Variational Inference", 2016. Unlike there, the variances
    have a floor, without which every run of the reference ends in NaN.

    Args:
        decoder: maps ``(..., D)`` to the likelihood's parameters ``(..., width P)``.
        likelihood: maps these to p(x | h); :class:`Bernoulli` if None.
        code, clusters: D and K.
        link: f. ``identity``, ``relu``, or ``layer``, a learnt linear map followed by ReLU.
        offset: as in :class:`Components`.
    """

    networks = staticmethod(decodes)

    def __init__(
        self,
        decoder: nn.Module,
        likelihood: nn.Module | None = None,
        code: int = 64,
        clusters: int = 10,
        link: Link = "relu",
        offset: bool = False,
    ) -> None:
        super().__init__(code, clusters, offset)
        if link not in get_args(Link):
            raise ValueError(f"Expected link among {get_args(Link)} but got {link!r}.")
        self.decoder = decoder
        self.likelihood = Bernoulli() if likelihood is None else likelihood
        self.link = link
        self.layer = nn.Linear(code, code) if link == "layer" else nn.Identity()
        self.origin = nn.Buffer(torch.zeros(code), persistent=False)
        self.uniform = nn.Buffer(torch.zeros(clusters), persistent=False)

    def forward(
        self, x: Tensor | None = None, size: int | None = None, **beside: Unpack[Beside]
    ) -> Tensor:
        loc, scale = self.components()
        with data_plate(x, size):
            y = pyro.sample("y", dist.Categorical(logits=self.uniform))
            z = pyro.sample("z", standard_normal(self.origin))
            h = self.layer(loc[y] + scale[y] * z).to(z.dtype)
            h = h if self.link == "identity" else h.relu()
            return sample_x(x, beside, self.likelihood, self.decoder, h)
