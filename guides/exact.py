"""Guides whose cluster posterior is computed from the codes by Bayes' rule, without a network."""

from collections.abc import Mapping
from contextlib import suppress
from typing import cast

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from priorzoo.models.contract import Sizes, accepted, encodes
from priorzoo.models.distributions.gaussian import diagonal_normal
from priorzoo.models.observation import encode
from priorzoo.models.plates import data_plate
from priorzoo.models.pyro_internals import AnyMessage, Messenger, site_is_subsample


def cluster_posterior(
    model: nn.Module,
    codes: Mapping[str, Tensor],
    site: str = "y",
    context: Mapping[str, Tensor] | None = None,
) -> dist.Categorical:
    r""":math:`p(y \mid \mathrm{codes}) \propto p(y)\, p(\mathrm{codes} \mid y)` under the prior.

    Exact, and differentiable in the codes and in the prior's parameters. The model is run with its
    codes fixed at these values and the cluster at each of its K values, and is stopped before it
    decodes. This works for any model that samples its cluster and its codes before x. The model
    opens its own data plate, so call this function outside the guide's data plate.

    Args:
        model: samples the cluster and the codes, and no other latent sites before x.
        codes: values ``(..., B, D)`` of every latent code of the model, by site name.
        site: name of the cluster's site.
        context: further inputs of the model beside x, each ``(B, ...)``.

    Raises:
        ValueError: for a model that lacks one of these sites, or has other latent sites.
    """
    condition = _ConditionOnCodes(codes, site)
    rows = next(iter(codes.values())).shape[-2]
    with poutine.block(), suppress(_AllSampled), condition:  # the guide's trace must not see this
        model(None, rows, **accepted(model, context or {}))
    if condition.remaining:
        raise ValueError(
            f"Expected {type(model).__name__} to sample {sorted(condition.remaining)} but it does "
            "not; use a guide that samples the sites of this model."
        )
    joint = torch.stack(torch.broadcast_tensors(*condition.log_probs.values()))
    return dist.Categorical(logits=joint.sum(0).movedim(0, -1))


class _AllSampled(Exception):
    """Raised to stop the model once it has sampled the cluster and the codes."""


class _ConditionOnCodes(Messenger):
    """Fixes the codes, enumerates the cluster, and records their log probabilities."""

    def __init__(self, codes: Mapping[str, Tensor], cluster: str) -> None:
        super().__init__()
        self.codes, self.cluster = codes, cluster
        self.remaining = {cluster, *codes}
        self.log_probs = dict.fromkeys([cluster, *codes], torch.zeros(()))

    def _pyro_sample(self, msg: AnyMessage) -> None:
        name, fn = str(msg["name"]), cast(TorchDistribution, msg["fn"])
        if msg["is_observed"] or site_is_subsample(msg):
            return
        if name == "x":
            raise _AllSampled
        if name == self.cluster:
            plates = [1] * (next(iter(self.codes.values())).dim() - 1)
            msg["value"] = fn.enumerate_support(expand=False).reshape(-1, *plates, *fn.event_shape)
        elif name in self.codes:
            msg["value"] = self.codes[name]
        else:
            raise ValueError(
                f"Expected a model with the latent sites {sorted(self.log_probs)} only but it also "
                f"samples {name!r}; use a guide that samples the sites of this model."
            )
        msg["done"] = True

    def _pyro_post_sample(self, msg: AnyMessage) -> None:
        name = str(msg["name"])
        if name in self.remaining:
            self.remaining.remove(name)
            self.log_probs[name] = cast(TorchDistribution, msg["fn"]).log_prob(
                cast(Tensor, msg["value"])
            )
            if not self.remaining:
                raise _AllSampled


class ModelReader(nn.Module):
    """Base class of guides that use their model's parameters.

    Args:
        model: the model to read. It does not become a submodule of the guide, so that its
            parameters are not listed twice.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._read = (model,)  # in a tuple, so that it does not become a submodule

    @property
    def model(self) -> nn.Module:
        """The model whose parameters the guide uses."""
        return self._read[0]


class CodeThenCluster(ModelReader):
    r""":math:`q(z \mid x)\, p(y \mid z)`, with the exact posterior of the cluster given the code.

    With a :class:`GMVAE` whose mixture weights are learnt this is VaDE (Jiang et al., "Variational
    Deep Embedding", 2017), whose eq. (16) is this posterior. The decoder runs once for each row,
    not K times.

    Args:
        encoder: maps rows ``(B, P)`` to locations and raw variances ``(B, 2 D)``.
        model: gives the prior of cluster and code, see :func:`cluster_posterior`.
    """

    networks = staticmethod(encodes)

    def __init__(self, encoder: nn.Module, model: nn.Module) -> None:
        super().__init__(model)
        self.encoder = encoder

    def forward(self, x: Tensor, size: int | None = None, **context: Tensor) -> None:
        plate = data_plate(x, size)
        with plate:
            z = pyro.sample("z", diagonal_normal(encode(self.encoder, x, context)))
        q_y = cluster_posterior(self.model, {"z": z}, context=context)
        with plate:
            pyro.sample("y", q_y, infer={"enumerate": "parallel"})


class CodesThenCluster(ModelReader):
    r""":math:`q(z \mid x)\, q(w \mid x)\, p(y \mid z, w)`, for :class:`DilokthanakulGMVAE`.

    The second version of Dilokthanakul et al., 2016. One network encodes both codes.

    Args:
        joint_encoder: maps rows ``(B, P)`` to locations and raw variances of z, then those of w.
        model: gives the prior of the cluster and both codes, see :func:`cluster_posterior`; its
            attribute ``code`` is the size of z.
    """

    def __init__(self, joint_encoder: nn.Module, model: nn.Module) -> None:
        super().__init__(model)
        self.joint_encoder = joint_encoder

    @staticmethod
    def networks(rows: int, code: int, second_code: int) -> dict[str, Sizes]:
        return {"joint_encoder": Sizes(rows, 2 * (code + second_code))}

    def forward(self, x: Tensor, size: int | None = None, **context: Tensor) -> None:
        plate = data_plate(x, size)
        with plate:
            parameters = encode(self.joint_encoder, x, context)
            width = 2 * cast(int, self.model.code)
            z = pyro.sample("z", diagonal_normal(parameters[..., :width]))
            w = pyro.sample("w", diagonal_normal(parameters[..., width:]))
        q_y = cluster_posterior(self.model, {"z": z, "w": w}, context=context)
        with plate:
            pyro.sample("y", q_y, infer={"enumerate": "parallel"})
