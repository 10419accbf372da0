"""The guide of the NGGP mixture, whose mixture weights are integrated out."""

from typing import Literal, Unpack, cast, get_args

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from priorzoo.guides.exact import ModelReader
from priorzoo.models.contract import Beside, Sizes
from priorzoo.models.distributions.estimators import Gradient, estimated
from priorzoo.models.nggp.code_families import FAMILIES, FamilyName
from priorzoo.models.nggp.mixture import NGGPMixture
from priorzoo.models.observation import encode
from priorzoo.models.plates import data_plate

QV = Literal["log-concave", "normal"]


class CollapsedCode(ModelReader):
    r""":math:`q(v)\, q(z \mid x)\, q(y_n)` for :class:`NGGPMixture`, with q(y_n) in closed form.

    .. math:: q(y_n = k) \propto \exp\left(E_{q(z_n)} \log p(z_n \mid k)
        + E \log p(y_n = k \mid \text{others}, u)\right)

    which is the coordinate ascent update of the collapsed bound, over the existing clusters and a
    new one. Mehta & Lu, 2018, eqs. (7) and (8), corrected: see :func:`log_prior` and
    :class:`LogU`.

    Args:
        encoder: maps rows ``(B, P)`` to locations and raw variances ``(B, 2 D)`` of Gaussian codes,
            or to raw concentrations ``(B, D)`` of codes on the simplex.
        model: an :class:`NGGPMixture`; the guide uses its components and cluster sizes.
        law: family of q(v). ``log-concave`` is p(v | z) at the expected number of clusters, the
            optimal q(v), with score-function gradients; ``normal`` is learnt and reparameterised.
        gradient: gradient estimator of z, see :func:`estimated`; the paper's for Dirichlet codes
            is ``rsvi``.
    """

    def __init__(
        self,
        encoder: nn.Module,
        model: nn.Module,
        law: QV = "log-concave",
        gradient: Gradient = "pathwise",
    ) -> None:
        super().__init__(model)
        if law not in get_args(QV):
            raise ValueError(f"Expected law among {get_args(QV)} but got {law!r}; choose one.")
        if gradient not in get_args(Gradient):
            raise ValueError(f"Expected gradient among {get_args(Gradient)} but got {gradient!r}.")
        self.encoder, self.law, self.gradient = encoder, law, gradient
        if law == "normal":
            self.loc = nn.Parameter(torch.zeros(()))
            self.log_scale = nn.Parameter(torch.zeros(()))

    @property
    def model(self) -> NGGPMixture:
        """The mixture whose components and cluster sizes the guide uses."""
        return cast(NGGPMixture, super().model)

    @staticmethod
    def networks(rows: int, code: int, family: FamilyName) -> dict[str, Sizes]:
        return {"encoder": Sizes(rows, FAMILIES[family].width * code)}

    def forward(self, x: Tensor, size: int | None = None, **beside: Unpack[Beside]) -> None:
        data = len(x) if size is None else size
        v = pyro.sample("v", self.q_v(data))
        with data_plate(x, size):
            kind = self.model.kind
            posterior = kind.posterior(encode(self.encoder, x, beside))
            fits = kind.expected_log(*posterior, *self.model.components())
            q_y = dist.Categorical(logits=fits + self.model.log_prior(v, data))
            pyro.sample("y", q_y, infer={"enumerate": "parallel"})
            pyro.sample("z", estimated(kind.distribution(*posterior), self.gradient))

    def q_v(self, data: int) -> TorchDistribution:
        """q(v) for a data set of ``data`` rows."""
        if self.law == "normal":
            return dist.Normal(self.loc, self.log_scale.exp(), validate_args=False)
        return estimated(self.model.law_of_v(data), "score")
