"""The zoo in small: what stands here is put to every test in ``test_contract.py``.

A new model or guide is one line of ``CATALOGUE``: what makes the model, what makes the guide, and
what makes rows that the model can score. A guide is made of its model, whose prior it may read.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from priorzoo.guides import (
    ClusterThenCode,
    ClusterThenFlow,
    Code,
    CodeAndPlace,
    CodesThenCluster,
    CodeThenCluster,
    CollapsedCode,
    FacetCode,
    FactorialCode,
    FlowCode,
    MeanField,
    MeanFieldCodes,
    Quantised,
    Sticks,
)
from priorzoo.guides.nggp import QV
from priorzoo.inference import Penalty, Quantisation
from priorzoo.models import (
    GMVAE,
    M2,
    MLP,
    VAE,
    VQVAE,
    Categorical,
    Columns,
    ConvDecoder,
    ConvEncoder,
    DilokthanakulGMVAE,
    FacetMixture,
    FactorialMixture,
    Gaussian,
    KernelMean,
    LeaveOneOutGP,
    LogNormal,
    ModifiedM2,
    Multinomial,
    NegativeBinomial,
    NGGPMixture,
    NonparametricVAE,
    Ordinal,
    Poisson,
    StickBreakingVAE,
    StudentT,
    VampPrior,
    ZeroInflatedNegativeBinomial,
)
from priorzoo.models.distributions.estimators import Gradient
from priorzoo.models.nggp.code_families import FamilyName

P, D, K, W = 6, 2, 3, 4
SHAPE = (3, 2)  # of the P values, as a picture
SIZES = {"code": D, "clusters": K}


class Entry(NamedTuple):
    """``batchwise`` names the factors over a batch as a whole, which no partition adds up.

    ``importance`` samples bound log p(x), none where a site is global. ``penalties`` are minimised
    beside the bound where parameters have no gradient from it alone.
    """

    model: Callable[[], nn.Module]
    guide: Callable[[nn.Module], nn.Module]
    rows: Callable[[int], Tensor]
    batchwise: tuple[str, ...] = ()
    importance: int = 2
    penalties: Callable[[], dict[str, Penalty]] = dict

    def pair(self) -> tuple[nn.Module, nn.Module]:
        model = self.model()
        return model, self.guide(model)


def binary(count: int) -> Tensor:
    return torch.bernoulli(torch.full((count, P), 0.4))


def real(count: int) -> Tensor:
    return torch.randn(count, P) + 1


def counts(count: int) -> Tensor:
    return torch.poisson(torch.full((count, P), 2.0))


def decoder(outputs: int = P, code: int = D) -> MLP:
    return MLP(code, outputs, (8,))


def gmvae(**settings: object) -> GMVAE:
    model = GMVAE(decoder(), **SIZES, **settings)
    if model.covariance != "diagonal":
        torch.nn.init.normal_(model.lower)
    return model


def m2() -> M2:
    return M2(MLP(D, P, (8,), clusters=K), **SIZES)


def dilokthanakul() -> DilokthanakulGMVAE:
    return DilokthanakulGMVAE(decoder(), **SIZES, second_code=W, hidden=(4,))


def code(_: nn.Module) -> Code:
    return Code(MLP(P, 2 * D, (5,)))


def cluster_then_code(_: nn.Module) -> ClusterThenCode:
    return ClusterThenCode(MLP(P, K, (5,)), MLP(P, 2 * D, (5,), clusters=K))


def code_then_cluster(model: nn.Module) -> CodeThenCluster:
    return CodeThenCluster(MLP(P, 2 * D, (5,)), model)


def mean_field(_: nn.Module) -> MeanField:
    return MeanField(MLP(P, K, (5,)), MLP(P, 2 * D, (5,)))


def cluster_then_flow(_: nn.Module) -> ClusterThenFlow:
    return ClusterThenFlow(MLP(P, K, (5,)), MLP(P, 2 * D, (5,), clusters=K), code=D, hidden=(6,))


def sticks(family: str, gradient: str = "pathwise") -> Sticks:
    return Sticks(MLP(P, 2 * (K - 1), (5,)), family, gradient)


def stick_breaking() -> StickBreakingVAE:
    return StickBreakingVAE(MLP(K, P, (8,)), code=K)


def vamp_prior() -> VampPrior:
    return VampPrior(decoder(), MLP(P, 2 * D, (5,)), P, **SIZES)


def shared_encoder(model: VampPrior) -> CodeThenCluster:
    return CodeThenCluster(model.encoder, model)


def convolutions(_: nn.Module) -> ClusterThenCode:
    picture = {"shape": SHAPE, "channels": (2, 3), "hidden": (4,)}
    return ClusterThenCode(
        ConvEncoder(P, K, **picture), ConvEncoder(P, 2 * D, **picture, clusters=K)
    )


def code_and_place(_: nn.Module) -> CodeAndPlace:
    return CodeAndPlace(MLP(P, 2 * D, (5,)), MLP(P, 2, (5,)))


def nggp(family: FamilyName, law: QV, gradient: Gradient = "pathwise") -> Entry:
    """All clusters are there: the parameters of those that are not have no gradient."""

    def guide(model: nn.Module) -> CollapsedCode:
        return CollapsedCode(MLP(P, model.kind.width * D, (5,)), model, law, gradient)

    def model() -> NGGPMixture:
        return NGGPMixture(decoder(), **SIZES, start=K, family=family)

    return Entry(model, guide, binary, importance=0)


def factorial(clusters: int | list[int], code: int) -> Entry:
    return Entry(
        lambda: FactorialMixture(decoder(code=code), code=code, clusters=clusters),
        lambda _: FactorialCode(MLP(P, 2 * code, (5,)), code, clusters),
        binary,
    )


def table() -> Columns:
    parts = [
        StudentT(),
        NegativeBinomial(),
        Categorical(3),
        Ordinal(3),
        LogNormal(0.7, "shared"),
        ZeroInflatedNegativeBinomial(spread="network"),
    ]
    return Columns(parts, [1, 0, 2, 5, 3, 4])


def cells(count: int) -> Tensor:
    x = counts(count)
    x[:, 1] = torch.randn(count)
    x[:, [2, 4]] = torch.randint(3, (count, 2)).to(x.dtype)
    x[:, 5] = torch.randn(count).exp()
    return x


def of_columns() -> Entry:
    likelihood, features = table(), {"features": table().features}

    def guide(_: nn.Module) -> ClusterThenCode:
        networks = MLP(P, K, (5,), **features), MLP(P, 2 * D, (5,), clusters=K, **features)
        return ClusterThenCode(*networks)

    return Entry(lambda: GMVAE(decoder(likelihood.outputs), table(), **SIZES), guide, cells)


CATALOGUE = {
    "vae": Entry(lambda: VAE(decoder(), code=D), code, binary),
    "vae-gaussian": Entry(lambda: VAE(decoder(), Gaussian(0.7), D), code, real),
    "vae-gaussian-shared": Entry(lambda: VAE(decoder(), Gaussian(0.7, "shared"), D), code, real),
    "vae-multinomial": Entry(lambda: VAE(decoder(), Multinomial(9), D), code, counts),
    "m2": Entry(m2, cluster_then_code, binary),
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
    "gmvae": Entry(gmvae, cluster_then_code, binary),
    "gmvae-weights": Entry(lambda: gmvae(learn_weights=True), cluster_then_code, binary),
    "gmvae-offset": Entry(lambda: gmvae(offset=True), cluster_then_code, binary),
    "gmvae-full": Entry(lambda: gmvae(covariance="full"), cluster_then_code, binary),
    "vade-tied": Entry(
        lambda: gmvae(covariance="tied", learn_weights=True), code_then_cluster, binary
    ),
    "gmvae-gaussian-network": Entry(
        lambda: GMVAE(decoder(2 * P), Gaussian(0.7, "network"), **SIZES), cluster_then_code, real
    ),
    "gmvae-multinomial": Entry(
        lambda: GMVAE(decoder(), Multinomial(9), **SIZES), cluster_then_code, counts
    ),
    "gmvae-columns": of_columns(),
    "vade-poisson": Entry(
        lambda: GMVAE(decoder(), Poisson(), **SIZES, learn_weights=True), code_then_cluster, counts
    ),
    "sticks-kumaraswamy": Entry(stick_breaking, lambda _: sticks("kumaraswamy"), binary),
    "sticks-logit-normal": Entry(stick_breaking, lambda _: sticks("logit-normal"), binary),
    "sticks-beta": Entry(stick_breaking, lambda _: sticks("beta"), binary),
    "gmvae-conv": Entry(
        lambda: GMVAE(ConvDecoder(D, P, SHAPE, (2, 3), (4,)), **SIZES), convolutions, binary
    ),
    "nggp": nggp("gaussian", "normal"),
    "nggp-log-concave": nggp("gaussian", "log-concave"),
    "nggp-full": nggp("full", "log-concave"),
    "nggp-dirichlet": nggp("dirichlet", "normal"),
    "nggp-dirichlet-rsvi": nggp("dirichlet", "log-concave", "rsvi"),
    "factorial": factorial(K, D),
    "factorial-two": factorial([K, 2], 2 * D),
    "facets": Entry(
        lambda: FacetMixture(decoder(code=2 * D), code=2 * D, clusters=[K, 2]),
        lambda model: FacetCode(MLP(P, 4 * D, (5,)), model),
        binary,
    ),
    "vae-flow": Entry(
        lambda: VAE(decoder(), code=D),
        lambda _: FlowCode(MLP(P, 2 * D, (5,)), code=D, hidden=(6,)),
        binary,
    ),
    "vade": Entry(lambda: gmvae(learn_weights=True), code_then_cluster, binary),
    "vamp-prior": Entry(vamp_prior, shared_encoder, binary),
    "vq-vae": Entry(
        lambda: VQVAE(decoder(code=2 * D), code=D, clusters=K, positions=2),
        lambda model: Quantised(MLP(P, 2 * D, (5,)), model),
        binary,
        penalties=lambda: {"quantisation": Quantisation()},
    ),
    "gmvae-mean-field": Entry(gmvae, mean_field, binary),
    "gmvae-flow": Entry(gmvae, cluster_then_flow, binary),
    "m2-mean-field": Entry(m2, mean_field, binary),
    "m2-exact": Entry(m2, code_then_cluster, binary),
    "m2-flow": Entry(m2, cluster_then_flow, binary),
    "m2-relu-mean-field": Entry(lambda: ModifiedM2(decoder(), **SIZES), mean_field, binary),
    "m2-relu-exact": Entry(lambda: ModifiedM2(decoder(), **SIZES), code_then_cluster, binary),
    "m2-relu-flow": Entry(lambda: ModifiedM2(decoder(), **SIZES), cluster_then_flow, binary),
    "dilokthanakul": Entry(
        dilokthanakul,
        lambda model: CodesThenCluster(MLP(P, 2 * (D + W), (5,)), model),
        binary,
    ),
    "dilokthanakul-network": Entry(
        dilokthanakul,
        lambda _: MeanFieldCodes(MLP(P, K, (5,)), MLP(P, 2 * (D + W), (5,)), code=D),
        binary,
    ),
    "nonparametric": Entry(
        lambda: NonparametricVAE(decoder(), code=D), code_and_place, binary, ("coupling",)
    ),
    "nonparametric-unit": Entry(
        lambda: NonparametricVAE(
            decoder(), Gaussian(0.7), D, coupling=KernelMean(2.0, True), unit_plane=True
        ),
        code_and_place,
        real,
        ("coupling",),
    ),
    "nonparametric-gp": Entry(
        lambda: NonparametricVAE(decoder(), code=D, coupling=LeaveOneOutGP()),
        code_and_place,
        binary,
        ("coupling",),
    ),
}
