"""The guide of vector-quantised codes."""

from typing import Unpack, cast

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from priorzoo.guides.exact import ModelReader
from priorzoo.models.contract import Beside, Sizes
from priorzoo.models.observation import encode
from priorzoo.models.plates import data_plate
from priorzoo.models.pyro_internals import InferDict
from priorzoo.models.vq_vae import VQVAE


class Quantised(ModelReader):
    r"""A point :math:`y_m = \arg\min_k \|h_m(x) - e_k\|^2`, the nearest vector of the codebook.

    van den Oord et al., "Neural Discrete Representation Learning", 2017, eq. (1). The gradient
    with respect to the decoder's input is passed on to h (straight-through estimator). The site
    ``z`` keeps h, ``(B, M, D)``, as ``infer["encoded"]``, which :class:`Quantisation` reads.

    Args:
        encoder: h, maps rows ``(B, P)`` to ``(B, M D)``.
        model: a :class:`VQVAE`; the guide uses its codebook.
    """

    def __init__(self, encoder: nn.Module, model: nn.Module) -> None:
        super().__init__(model)
        self.encoder = encoder

    @staticmethod
    def networks(rows: int, code: int, positions: int) -> dict[str, Sizes]:
        return {"encoder": Sizes(rows, positions * code)}

    def forward(self, x: Tensor, size: int | None = None, **beside: Unpack[Beside]) -> None:
        codebook = cast(VQVAE, self.model).codebook
        with data_plate(x, size):
            h = encode(self.encoder, x, beside).unflatten(-1, (-1, codebook.shape[1]))
            with torch.no_grad():
                distance = codebook.square().sum(-1) - 2 * h @ codebook.mT  # without |h|^2
                y = distance.argmin(-1)
            pyro.sample("y", dist.Delta(y, event_dim=1))
            straight = codebook[y].detach() + (h - h.detach())
            q_z = dist.Delta(straight.flatten(-2), event_dim=1)
            pyro.sample("z", q_z, infer=cast(InferDict, {"encoded": h}))
