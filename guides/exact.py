"""Guides whose cluster is not guessed by a network but follows from the codes by Bayes' rule."""

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
    codes held at their values, the cluster at each of its K values, and is left before it decodes,
    so that any story serves that samples its cluster and its codes before x. As the model opens its
    own data plate, call this outside that of the guide.

    Args:
        model: samples the cluster and the codes, and nothing else before them.
        codes: values ``(..., B, D)`` of every latent code of the model, by site.
        site: of the cluster.
        context: what the model is told beside x, each ``(B, ...)``.

    Raises:
        ValueError: for a model that lacks one of these sites, or has other latent ones.
    """
    held = _Held(codes, site)
    rows = next(iter(codes.values())).shape[-2]
    with poutine.block(), suppress(_Complete), held:  # what happens inside is no part of the guide
        model(None, rows, **accepted(model, context or {}))
    if held.left:
        raise ValueError(
            f"Expected {type(model).__name__} to sample {sorted(held.left)} but it does not; use a "
            "guide of its own sites."
        )
    joint = torch.stack(torch.broadcast_tensors(*held.log_probs.values()))
    return dist.Categorical(logits=joint.sum(0).movedim(0, -1))


class _Complete(Exception):
    """The model has sampled all that comes before x."""


class _Held(Messenger):
    """Holds the codes, enumerates the cluster, and keeps their log probabilities."""

    def __init__(self, codes: Mapping[str, Tensor], cluster: str) -> None:
        super().__init__()
        self.codes, self.cluster = codes, cluster
        self.left = {cluster, *codes}
        self.log_probs = dict.fromkeys([cluster, *codes], torch.zeros(()))

    def _pyro_sample(self, msg: AnyMessage) -> None:
        name, fn = str(msg["name"]), cast(TorchDistribution, msg["fn"])
        if msg["is_observed"] or site_is_subsample(msg):
            return
        if name == "x":
            raise _Complete
        if name == self.cluster:
            beside = [1] * (next(iter(self.codes.values())).dim() - 1)
            msg["value"] = fn.enumerate_support(expand=False).reshape(-1, *beside)
        elif name in self.codes:
            msg["value"] = self.codes[name]
        else:
            raise ValueError(
                f"Expected no latent sites but {sorted(self.log_probs)} but the model samples "
                f"{name!r} too; use a guide of its own sites."
            )
        msg["done"] = True

    def _pyro_post_sample(self, msg: AnyMessage) -> None:
        name = str(msg["name"])
        if name in self.left:
            self.left.remove(name)
            self.log_probs[name] = cast(TorchDistribution, msg["fn"]).log_prob(
                cast(Tensor, msg["value"])
            )
            if not self.left:
                raise _Complete


class ModelReader(nn.Module):
    """A guide that reads its model; to inherit from.

    Args:
        model: what is read. It is no submodule: its parameters stay its own.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._read = (model,)  # in a tuple, so that it does not become a submodule

    @property
    def model(self) -> nn.Module:
        """The model that the guide reads."""
        return self._read[0]


class CodeThenCluster(ModelReader):
    r""":math:`q(z \mid x)\, p(y \mid z)`: the cluster's posterior given the code is the exact one.

    With a :class:`GMVAE` of learnt weights this is VaDE (Jiang et al., "Variational Deep
    Embedding", 2017): its eq. (16) is the posterior here. The model is decoded once, not K times.

    Args:
        encoder: maps rows ``(B, P)`` to locations and raw variances ``(B, 2 D)``.
        model: whose prior is read, see :func:`cluster_posterior`.
    """

    networks = staticmethod(encodes)

    def __init__(self, encoder: nn.Module, model: nn.Module) -> None:
        super().__init__(model)
        self.encoder = encoder

    def forward(self, x: Tensor, size: int | None = None, **context: Tensor) -> None:
        plate = data_plate(x, size)
        with plate:
            z = pyro.sample("z", diagonal_normal(self.encoder(x)))
        q_y = cluster_posterior(self.model, {"z": z}, context=context)
        with plate:
            pyro.sample("y", q_y, infer={"enumerate": "parallel"})


class CodesThenCluster(ModelReader):
    r""":math:`q(z \mid x)\, q(w \mid x)\, p(y \mid z, w)`, for :class:`DilokthanakulGMVAE`.

    The second version of Dilokthanakul et al., 2016. One network serves both codes.

    Args:
        joint_encoder: maps rows ``(B, P)`` to locations and raw variances of z, then those of w.
        model: whose prior is read, see :func:`cluster_posterior`; its ``code`` is the size of z.
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
            parameters, width = self.joint_encoder(x), 2 * cast(int, self.model.code)
            z = pyro.sample("z", diagonal_normal(parameters[..., :width]))
            w = pyro.sample("w", diagonal_normal(parameters[..., width:]))
        q_y = cluster_posterior(self.model, {"z": z, "w": w}, context=context)
        with plate:
            pyro.sample("y", q_y, infer={"enumerate": "parallel"})
