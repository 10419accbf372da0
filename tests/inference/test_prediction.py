"""What a pair says of data, against weighted means by hand."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from priorzoo.inference import (
    cluster_probabilities,
    codes,
    component_means,
    draw,
    enumerates,
    fit,
    reconstructions,
)
from priorzoo.models import data_plate
from priorzoo.models.distributions.gaussian import deviation

pytestmark = pytest.mark.usefixtures("double")
B, K, D, P = 7, 3, 2, 6


def test_cluster_probabilities_are_the_softmax_of_the_classifier(zoo):
    for name in ("m2", "gmvae", "gmvae-conv"):
        (model, guide), x = zoo[name].pair(), zoo[name].rows(B)
        expected = guide.classifier(x).softmax(-1)
        for size in (500, 3):
            found = cluster_probabilities(model, guide, x, batch_size=size)
            torch.testing.assert_close(found, expected)
            assert not found.requires_grad


class Counting(nn.Module):
    """A discrete site, with logits x in the guide and 0 in the model."""

    def __init__(self, family, infer=None):
        super().__init__()
        self.family, self.infer, self.slope = family, infer, nn.Parameter(torch.ones(()))

    def forward(self, x=None, size=None):
        with data_plate(x, size):
            logits = self.slope * x if self.infer else 0 * self.slope
            y = pyro.sample("y", self.family(logits), infer=self.infer)
            if not self.infer:
                pyro.sample("x", dist.Normal(1.0 * y, 1.0), obs=x)


FAMILIES = {
    "Bernoulli": lambda c: dist.Bernoulli(logits=c),
    "Binomial": lambda c: dist.Binomial(2, logits=c),
    "masked": lambda c: dist.Categorical(torch.stack([-c, c], -1).softmax(-1)).mask(False),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_cluster_probabilities_of_each_value(name):
    family, x = FAMILIES[name], torch.linspace(-1.0, 1.0, B)
    pair = Counting(family), Counting(family, {"enumerate": "parallel"})
    fn = getattr(family(x), "base_dist", family(x))
    values = torch.arange(fn.enumerate_support().shape[0]).reshape(-1, 1).to(x)
    torch.testing.assert_close(cluster_probabilities(*pair, x), fn.log_prob(values).exp().T)
    if name != "masked":
        with pytest.raises(ValueError, match="labels of 'y'; make it a Categorical"):
            fit(*pair, x, steps=1, labels={"y": torch.zeros(B).long()})


def test_codes_are_means_over_clusters(zoo):
    """sum_k q(y = k | x) m(x, k), or m(x) itself where there are none."""
    (model, guide), x = zoo["gmvae"].pair(), zoo["gmvae"].rows(B)
    q_y = guide.classifier(x).softmax(-1)
    expected = sum(
        q_y[:, k, None] * guide.conditional_encoder(x, torch.tensor(k))[:, :D] for k in range(K)
    )
    torch.testing.assert_close(codes(model, guide, x, batch_size=3), expected)
    (model, guide), x = zoo["vae"].pair(), zoo["vae"].rows(B)
    torch.testing.assert_close(codes(model, guide, x), guide.encoder(x)[:, :D])


@pytest.mark.parametrize("name", ["m2", "m2-relu", "gmvae", "gmvae-gaussian-network"])
def test_reconstructions_are_means_over_clusters(zoo, name):
    """sum_k q(y = k | x) E[x | y = k, z = m(x, k)]."""
    (model, guide), x = zoo[name].pair(), zoo[name].rows(B)
    q_y = guide.classifier(x).softmax(-1)
    expected = torch.zeros(B, P)
    for k in range(K):
        y = torch.full((B,), k)
        z = guide.conditional_encoder(x, y)[:, :D]
        if name == "m2":
            output = model.conditional_decoder(z, y)
        elif name == "m2-relu":
            output = model.decoder((model.loc[k] + deviation(model.raw[k]) * z).relu())
        else:
            output = model.decoder(z)
        mean = output[:, :P] if "gaussian" in name else output.sigmoid()
        expected = expected + q_y[:, k, None] * mean
    torch.testing.assert_close(reconstructions(model, guide, x, batch_size=3), expected)


def test_draws_of_a_given_cluster(zoo):
    """Of components far apart, decoded by the identity: around the one asked for."""
    model = zoo["gmvae-gaussian-network"].model()
    model.decoder = nn.Linear(D, 2 * P, bias=False)
    with torch.no_grad():
        model.decoder.weight.zero_()
        model.decoder.weight[:D] = torch.eye(D)
        model.loc.copy_(torch.tensor([[0.0, 0], [50, 0], [0, 50]]))
    for y, centre in enumerate(model.loc):
        found = draw(model, 200, given={"y": y})
        assert found.shape == (200, P)
        assert ((found[:, :D] - centre).abs() < 10).all()
    y = torch.arange(200) % K
    apart = torch.cdist(draw(model, 200, given={"y": y})[:, :D], model.loc).argmin(1)
    assert torch.equal(apart, y)
    assert len(torch.cdist(draw(model, 200)[:, :D], model.loc).argmin(1).unique()) == K


def test_draws_of_a_given_code(zoo):
    """Means decoded from it, or draws that have these means."""
    model = zoo["gmvae"].model()
    z = torch.randn(4000, D)[:1].expand(4000, D)
    means = draw(model, 4000, given={"z": z})
    torch.testing.assert_close(means, model.decoder(z).sigmoid())
    x = draw(model, 4000, given={"z": z}, means=False)
    assert set(x.unique().tolist()) == {0.0, 1.0}
    error = (x.mean(0) - means[0]) / (means[0] * (1 - means[0]) / 4000).sqrt()
    assert error.abs().max() < 4


def test_what_is_not_there_is_refused(zoo):
    (model, guide), x = zoo["gmvae"].pair(), zoo["gmvae"].rows(B)
    with pytest.raises(ValueError, match=r"one of the sites .*'y', 'z'.* but got 'w'"):
        draw(model, 2, given={"w": 0})
    for y in (-1, K):
        with pytest.raises(ValueError, match=f"y from 0 to 2 but got {y}"):
            draw(model, 2, given={"y": y})
    with pytest.raises(ValueError, match=r"enumerate.*'z'"):
        cluster_probabilities(model, guide, x, site="z")
    with pytest.raises(ValueError, match=r"enumerate.*'y'"):
        cluster_probabilities(*zoo["vae"].pair(), x)
    with pytest.raises(ValueError, match="'w'"):
        codes(model, guide, x, site="w")
    for site in ("w", "z"):
        with pytest.raises(ValueError, match=rf"discrete sites \['y'\] but got '{site}'"):
            component_means(model, site)
    with pytest.raises(ValueError, match=r"discrete sites \[\] but got 'y'"):
        component_means(zoo["vae"].model())


def test_a_guide_that_enumerates_is_known_by_its_sites(zoo):
    for name, expected in (("gmvae", True), ("vae", False)):
        pair = zoo[name].pair()
        assert enumerates(*pair, zoo[name].rows(B)) is expected
        assert enumerates(*pair, zoo[name].rows(B), site="z") is False


def test_networks_predict_in_evaluation_mode(zoo):
    """With dropout the same answer twice, and dropout on again afterwards."""
    (model, guide), x = zoo["gmvae"].pair(), zoo["gmvae"].rows(B)
    guide.classifier = nn.Sequential(nn.Dropout(0.5), guide.classifier)
    expected = guide.classifier[1](x).softmax(-1)
    torch.testing.assert_close(cluster_probabilities(model, guide, x), expected)
    assert guide.classifier[0].training


class Bent(nn.Module):
    """A guide whose code has a distribution without a mean in closed form."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, x, size=None):
        loc, _ = self.encoder(x).chunk(2, -1)
        with data_plate(x, size):
            bent = dist.TransformedDistribution(
                dist.Normal(loc, 1.0), dist.transforms.ELUTransform()
            )
            pyro.sample("z", bent.to_event(1))


def test_a_code_without_a_mean_is_refused_by_name(zoo):
    (model, guide), x = zoo["vae"].pair(), zoo["vae"].rows(B)
    with pytest.raises(ValueError, match="mean at site 'z' but got TransformedDistribution"):
        codes(model, Bent(guide.encoder), x)
