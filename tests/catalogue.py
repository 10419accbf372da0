"""The zoo in small: what stands here is put to every test in ``test_contract.py``.

A new model or guide is one line of ``CATALOGUE``: what makes the model, what makes the guide, and
what makes rows that the model can score.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from priorzoo.guides import ClusterThenCode, Code, Sticks
from priorzoo.models import (
    GMVAE,
    M2,
    MLP,
    VAE,
    ConvDecoder,
    ConvEncoder,
    Gaussian,
    ModifiedM2,
    Multinomial,
    StickBreakingVAE,
)

P, D, K = 6, 2, 3
SHAPE = (3, 2)  # of the P values, as a picture
SIZES = {"code": D, "clusters": K}


class Entry(NamedTuple):
    model: Callable[[], nn.Module]
    guide: Callable[[], nn.Module]
    rows: Callable[[int], Tensor]

    def pair(self) -> tuple[nn.Module, nn.Module]:
        return self.model(), self.guide()


def binary(count: int) -> Tensor:
    return torch.bernoulli(torch.full((count, P), 0.4))


def real(count: int) -> Tensor:
    return torch.randn(count, P) + 1


def counts(count: int) -> Tensor:
    return torch.poisson(torch.full((count, P), 2.0))


def decoder(outputs: int = P) -> MLP:
    return MLP(D, outputs, (8,))


def code() -> Code:
    return Code(MLP(P, 2 * D, (5,)))


def cluster_then_code() -> ClusterThenCode:
    return ClusterThenCode(MLP(P, K, (5,)), MLP(P, 2 * D, (5,), clusters=K))


def sticks(family: str, gradient: str = "pathwise") -> Sticks:
    return Sticks(MLP(P, 2 * K, (5,)), family, gradient)


def stick_breaking() -> StickBreakingVAE:
    return StickBreakingVAE(MLP(K, P, (8,)), code=K)


def convolutions() -> ClusterThenCode:
    picture = {"shape": SHAPE, "channels": (2, 3), "hidden": (4,)}
    return ClusterThenCode(
        ConvEncoder(P, K, **picture), ConvEncoder(P, 2 * D, **picture, clusters=K)
    )


CATALOGUE = {
    "vae": Entry(lambda: VAE(decoder(), code=D), code, binary),
    "vae-gaussian": Entry(lambda: VAE(decoder(), Gaussian(0.7), D), code, real),
    "vae-gaussian-shared": Entry(lambda: VAE(decoder(), Gaussian(0.7, "shared"), D), code, real),
    "vae-multinomial": Entry(lambda: VAE(decoder(), Multinomial(9), D), code, counts),
    "m2": Entry(lambda: M2(MLP(D, P, (8,), clusters=K), **SIZES), cluster_then_code, binary),
    "m2-identity": Entry(
        lambda: ModifiedM2(decoder(), **SIZES, link="identity"), cluster_then_code, binary
    ),
    "m2-relu": Entry(lambda: ModifiedM2(decoder(), **SIZES), cluster_then_code, binary),
    "m2-layer": Entry(
        lambda: ModifiedM2(decoder(), **SIZES, link="layer"), cluster_then_code, binary
    ),
    "m2-offset": Entry(
        lambda: ModifiedM2(decoder(), **SIZES, offset=True), cluster_then_code, binary
    ),
    "gmvae": Entry(lambda: GMVAE(decoder(), **SIZES), cluster_then_code, binary),
    "gmvae-weights": Entry(
        lambda: GMVAE(decoder(), **SIZES, learn_weights=True), cluster_then_code, binary
    ),
    "gmvae-gaussian-network": Entry(
        lambda: GMVAE(decoder(2 * P), Gaussian(0.7, "network"), **SIZES), cluster_then_code, real
    ),
    "gmvae-multinomial": Entry(
        lambda: GMVAE(decoder(), Multinomial(9), **SIZES), cluster_then_code, counts
    ),
    "sticks-kumaraswamy": Entry(stick_breaking, lambda: sticks("kumaraswamy"), binary),
    "sticks-logit-normal": Entry(stick_breaking, lambda: sticks("logit-normal"), binary),
    "sticks-beta": Entry(stick_breaking, lambda: sticks("beta"), binary),
    "gmvae-conv": Entry(
        lambda: GMVAE(ConvDecoder(D, P, SHAPE, (2, 3), (4,)), **SIZES), convolutions, binary
    ),
}
