"""Guides whose cluster is not guessed by a network but follows from the codes by Bayes' rule."""

from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from priorzoo.models.distributions.gaussian import diagonal_normal
from priorzoo.models.plates import data_plate


def cluster_posterior(model: Any, codes: Mapping[str, Tensor]) -> dist.Categorical:
    r""":math:`p(y \mid \mathrm{codes}) \propto p(y)\, p(\mathrm{codes} \mid y)` under the prior.

    Exact, and differentiable in the codes and in the prior's parameters.

    Args:
        model: one whose ``prior()`` samples ``y`` and the codes, K being its ``clusters``.
        codes: values ``(..., D)`` of every code of the prior, by site.

    Raises:
        ValueError: for a model without ``prior`` or ``clusters``.
    """
    if not (hasattr(model, "prior") and hasattr(model, "clusters")):
        raise ValueError(
            f"Expected a model with clusters and prior() but got {type(model).__name__}; sample y "
            "and its codes in a method prior() that forward calls."
        )
    some = next(iter(codes.values()))
    every = torch.arange(model.clusters, device=some.device).reshape(-1, *[1] * (some.dim() - 1))
    with poutine.block():  # what happens inside is no part of the guide
        held = poutine.condition(model.prior, {"y": every, **codes})
        trace = poutine.trace(held).get_trace()
    sites: list[Any] = [trace.nodes[name] for name in ("y", *codes)]
    joint = torch.stack(torch.broadcast_tensors(*(s["fn"].log_prob(s["value"]) for s in sites)))
    return dist.Categorical(logits=joint.sum(0).movedim(0, -1))


class PriorReader(nn.Module):
    """A guide that reads the model's prior; to inherit from.

    Args:
        model: see :func:`cluster_posterior`. It is no submodule: its parameters stay its own.
    """

    model: Any

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.__dict__["model"] = model


class CodeThenCluster(PriorReader):
    r""":math:`q(z \mid x)\, p(y \mid z)`: the cluster's posterior given the code is the exact one.

    With a :class:`GMVAE` of learnt weights this is VaDE (Jiang et al., "Variational Deep
    Embedding", 2017): its eq. (16) is the posterior here. The model is decoded once, not K times.

    Args:
        encoder: maps rows ``(B, P)`` to locations and raw variances ``(B, 2 D)``.
        model: whose prior is read, see :func:`cluster_posterior`.
    """

    def __init__(self, encoder: nn.Module, model: nn.Module) -> None:
        super().__init__(model)
        self.encoder = encoder

    def forward(self, x: Tensor, size: int | None = None) -> None:
        with data_plate(x, size):
            z = pyro.sample("z", diagonal_normal(self.encoder(x)))
            q_y = cluster_posterior(self.model, {"z": z})
            pyro.sample("y", q_y, infer={"enumerate": "parallel"})


class CodesThenCluster(PriorReader):
    r""":math:`q(z \mid x)\, q(w \mid x)\, p(y \mid z, w)`, for :class:`DilokthanakulGMVAE`.

    The second version of Dilokthanakul et al., 2016. One network serves both codes.

    Args:
        joint_encoder: maps rows ``(B, P)`` to locations and raw variances of z, then those of w.
        model: whose prior is read, see :func:`cluster_posterior`.
    """

    def __init__(self, joint_encoder: nn.Module, model: nn.Module) -> None:
        super().__init__(model)
        self.joint_encoder = joint_encoder

    def forward(self, x: Tensor, size: int | None = None) -> None:
        sizes = [2 * self.model.code, 2 * self.model.second_code]
        with data_plate(x, size):
            of_z, of_w = self.joint_encoder(x).split(sizes, -1)
            z = pyro.sample("z", diagonal_normal(of_z))
            w = pyro.sample("w", diagonal_normal(of_w))
            q_y = cluster_posterior(self.model, {"z": z, "w": w})
            pyro.sample("y", q_y, infer={"enumerate": "parallel"})
