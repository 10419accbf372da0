"""Guides whose code is drawn from a normalising flow; they need zuko, the extra ``flows``."""

from collections.abc import Sequence
from typing import Any, Unpack

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

from priorzoo.guides.gaussian import ClusterThenCode
from priorzoo.models.contract import Beside, encodes
from priorzoo.models.distributions.gaussian import diagonal_normal
from priorzoo.models.observation import encode
from priorzoo.models.plates import data_plate


class Flow(nn.Module):
    r"""Inverse autoregressive flow: a diagonal Gaussian, then affine maps that depend on a context.

    :math:`z_0 \sim \mathcal N(m, s^2)`, then :math:`z_{t,i} = e^{a(z_{t-1,<i}, c)} z_{t-1,i} +
    b(z_{t-1,<i}, c)`, where each map reverses the order of the dimensions. A draw and its log
    density take one pass through each map's network; the log density of any other value takes D
    passes. Kingma et al., "Improved Variational Inference with Inverse Autoregressive Flow", 2016.
    The maps are initialised near the identity, so that q starts near the Gaussian.

    Args:
        code: D.
        transforms: number of maps.
        hidden: sizes of the hidden layers of each map's network.

    Raises:
        ImportError: if zuko is not installed.
    """

    def __init__(self, code: int, transforms: int = 2, hidden: Sequence[int] = (128,)) -> None:
        super().__init__()
        try:
            from zuko.flows import MaskedAutoregressiveTransform
        except ImportError as error:
            raise ImportError(
                "Expected zuko for a guide with a flow but it is not installed; pip install "
                "'priorzoo[flows]'."
            ) from error
        self.code, self.transforms, self.hidden = code, transforms, hidden
        order = torch.arange(code)
        self.maps = nn.ModuleList(
            MaskedAutoregressiveTransform(
                code, 2 * code, order=order if t % 2 else order.flip(0), hidden_features=hidden
            )
            for t in range(transforms)
        )
        with torch.no_grad():
            for each in self.maps:
                assert isinstance(each.hyper, nn.Sequential)
                last = dict(each.hyper[-1].named_parameters())
                last["weight"].mul_(0.01)
                last["bias"].zero_()

    def forward(self, parameters: Tensor) -> "Flowing":
        """The distribution of codes, from locations and raw variances ``(..., 2 D)``."""
        return Flowing(diagonal_normal(parameters), self, parameters)


class Flowing(dist.TorchDistribution):
    """A diagonal Gaussian transformed by the maps of a :class:`Flow`, given their context.

    ``mean`` is the transformed mean of the Gaussian, since the mean of a flow has no closed form.
    """

    arg_constraints: dict[str, Any] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, base: dist.Independent, flow: Flow, context: Tensor) -> None:
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)
        self.base, self.flow, self.context = base, flow, context
        self._drawn: tuple[Tensor | None, Tensor | None] = (None, None)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "Flowing":
        context = self.context.expand(*batch_shape, -1)
        return Flowing(self.base.expand(torch.Size(batch_shape)), self.flow, context)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        z = self.base.rsample(torch.Size(sample_shape))
        score = self.base.log_prob(z)
        with torch.autocast(z.device.type, enabled=False):
            for each in self.flow.maps:
                z, volume = each(self.context).call_and_ladj(z)
                score = score - volume
        self._drawn = (z, score)
        return z

    def log_prob(self, value: Tensor) -> Tensor:
        drawn, score = self._drawn
        if score is not None and value is drawn:
            return score
        score = torch.zeros(value.shape[:-1], dtype=value.dtype, device=value.device)
        with torch.autocast(value.device.type, enabled=False):
            for each in reversed(self.flow.maps):
                value, volume = each(self.context).inv.call_and_ladj(value)
                score = score + volume
        return self.base.log_prob(value) + score

    @property
    def mean(self) -> Tensor:
        z = self.base.mean
        with torch.autocast(z.device.type, enabled=False):
            for each in self.flow.maps:
                z = each(self.context)(z)
        return z


class FlowCode(nn.Module):
    r""":math:`q(z \mid x)` by a flow, for models whose only local site is ``z``.

    Args:
        encoder: maps rows ``(B, P)`` to locations and raw variances ``(B, 2 D)`` of the base
            Gaussian, which are also the context of the flow's maps.
        code, transforms, hidden: see :class:`Flow`.
    """

    networks = staticmethod(encodes)

    def __init__(
        self, encoder: nn.Module, code: int, transforms: int = 2, hidden: Sequence[int] = (128,)
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.code, self.transforms, self.hidden = code, transforms, hidden
        self.flow = Flow(code, transforms, hidden)

    def forward(self, x: Tensor, size: int | None = None, **beside: Unpack[Beside]) -> None:
        with data_plate(x, size):
            pyro.sample("z", self.flow(encode(self.encoder, x, beside)))


class ClusterThenFlow(nn.Module):
    r""":math:`q(y \mid x)\, q(z \mid x, y)`, where a flow gives q(z | x, y).

    Args:
        classifier: maps rows ``(B, P)`` to logits ``(B, K)``.
        conditional_encoder: maps rows ``(B, P)`` and clusters ``(...)`` to locations and raw
            variances ``(..., B, 2 D)`` of the base Gaussian, which are also the context of the
            flow's maps.
        code, transforms, hidden: see :class:`Flow`.
    """

    networks = staticmethod(ClusterThenCode.networks)

    def __init__(
        self,
        classifier: nn.Module,
        conditional_encoder: nn.Module,
        code: int,
        transforms: int = 2,
        hidden: Sequence[int] = (128,),
    ) -> None:
        super().__init__()
        self.classifier, self.conditional_encoder = classifier, conditional_encoder
        self.code, self.transforms, self.hidden = code, transforms, hidden
        self.flow = Flow(code, transforms, hidden)

    def forward(self, x: Tensor, size: int | None = None, **beside: Unpack[Beside]) -> None:
        with data_plate(x, size):
            q_y = dist.Categorical(logits=encode(self.classifier, x, beside))
            y = pyro.sample("y", q_y, infer={"enumerate": "parallel"})
            pyro.sample("z", self.flow(encode(self.conditional_encoder, x, beside, y)))
