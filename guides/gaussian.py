"""Guides with a Gaussian code, with or without a cluster."""

from typing import Unpack

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

from priorzoo.models.contract import Beside, Sizes, encodes
from priorzoo.models.distributions.gaussian import diagonal_normal
from priorzoo.models.observation import encode
from priorzoo.models.plates import data_plate


class Code(nn.Module):
    r""":math:`q(z \mid x) = \mathcal N(m(x), s^2(x))`, for models whose only local site is ``z``.

    Args:
        encoder: maps rows ``(B, P)`` to locations and raw variances ``(B, 2 D)``.
    """

    networks = staticmethod(encodes)

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor, size: int | None = None, **beside: Unpack[Beside]) -> None:
        with data_plate(x, size):
            pyro.sample("z", diagonal_normal(encode(self.encoder, x, beside)))


class ClusterThenCode(nn.Module):
    r""":math:`q(y \mid x)\, q(z \mid x, y)`, for models with a cluster ``y`` and a code ``z``.

    The clusters are enumerated, so that one code is drawn for each of them. The two networks are
    separate, as in Shu, "Gaussian Mixture VAE: Lessons in Variational Inference", 2016.

    Args:
        classifier: maps rows ``(B, P)`` to logits ``(B, K)``.
        conditional_encoder: maps rows ``(B, P)`` and clusters ``(...)`` to locations and raw
            variances ``(..., B, 2 D)``.
    """

    def __init__(self, classifier: nn.Module, conditional_encoder: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier
        self.conditional_encoder = conditional_encoder

    @staticmethod
    def networks(rows: int, code: int, clusters: int) -> dict[str, Sizes]:
        return {
            "classifier": Sizes(rows, clusters),
            "conditional_encoder": Sizes(rows, 2 * code, given=clusters),
        }

    def forward(self, x: Tensor, size: int | None = None, **beside: Unpack[Beside]) -> None:
        with data_plate(x, size):
            q_y = dist.Categorical(logits=encode(self.classifier, x, beside))
            y = pyro.sample("y", q_y, infer={"enumerate": "parallel"})
            pyro.sample("z", diagonal_normal(encode(self.conditional_encoder, x, beside, y)))


class MeanField(nn.Module):
    r""":math:`q(y \mid x)\, q(z \mid x)`: cluster and code are independent given x.

    The cheapest guide of a mixture: one code is drawn and decoded for each row. It cannot
    represent a posterior of the code that depends on the cluster.

    Args:
        classifier: maps rows ``(B, P)`` to logits ``(B, K)``.
        encoder: maps rows ``(B, P)`` to locations and raw variances ``(B, 2 D)``.
    """

    def __init__(self, classifier: nn.Module, encoder: nn.Module) -> None:
        super().__init__()
        self.classifier, self.encoder = classifier, encoder

    @staticmethod
    def networks(rows: int, code: int, clusters: int) -> dict[str, Sizes]:
        return {"classifier": Sizes(rows, clusters), "encoder": Sizes(rows, 2 * code)}

    def forward(self, x: Tensor, size: int | None = None, **beside: Unpack[Beside]) -> None:
        with data_plate(x, size):
            q_y = dist.Categorical(logits=encode(self.classifier, x, beside))
            pyro.sample("y", q_y, infer={"enumerate": "parallel"})
            pyro.sample("z", diagonal_normal(encode(self.encoder, x, beside)))


class MeanFieldCodes(nn.Module):
    r""":math:`q(y \mid x)\, q(z \mid x)\, q(w \mid x)`, for :class:`DilokthanakulGMVAE`.

    The first version of Dilokthanakul et al., 2016, in which a network gives the cluster's
    probabilities.

    Args:
        classifier: maps rows ``(B, P)`` to logits ``(B, K)``.
        joint_encoder: maps rows ``(B, P)`` to locations and raw variances of z, then those of w.
        code: size D of z.
    """

    def __init__(self, classifier: nn.Module, joint_encoder: nn.Module, code: int) -> None:
        super().__init__()
        self.classifier, self.joint_encoder, self.code = classifier, joint_encoder, code

    @staticmethod
    def networks(rows: int, code: int, second_code: int, clusters: int) -> dict[str, Sizes]:
        return {
            "classifier": Sizes(rows, clusters),
            "joint_encoder": Sizes(rows, 2 * (code + second_code)),
        }

    def forward(self, x: Tensor, size: int | None = None, **beside: Unpack[Beside]) -> None:
        with data_plate(x, size):
            q_y = dist.Categorical(logits=encode(self.classifier, x, beside))
            pyro.sample("y", q_y, infer={"enumerate": "parallel"})
            parameters = encode(self.joint_encoder, x, beside)
            pyro.sample("z", diagonal_normal(parameters[..., : 2 * self.code]))
            pyro.sample("w", diagonal_normal(parameters[..., 2 * self.code :]))
