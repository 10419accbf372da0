"""What a pair says of data, against weighted means by hand."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from priorzoo.inference import (
    cluster_probabilities,
    code_variances,
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


def test_variances_of_codes_are_averaged_over_the_clusters(zoo):
    (model, guide), x = zoo["gmvae"].pair(), zoo["gmvae"].rows(B)
    q = guide.classifier(x).softmax(-1)
    clusters = range(q.shape[-1])
    each = [guide.conditional_encoder(x, torch.tensor(y)).chunk(2, -1)[1] for y in clusters]
    expected = sum(q[:, [y]] * deviation(each[y]).square() for y in clusters)
    torch.testing.assert_close(code_variances(model, guide, x, batch_size=3), expected)


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


class Coded(nn.Module):
    """A discrete site of each row, or of all, decoded by its number or by its vector."""

    def __init__(self, family, outside=False):
        super().__init__()
        self.family, self.outside = family, outside
        self.weight = nn.Parameter(torch.randn(3, P))

    def forward(self, x=None, size=None):
        y = pyro.sample("y", self.family()) if self.outside else None
        with data_plate(x, size):
            y = pyro.sample("y", self.family()) if y is None else y
            loc = y @ self.weight if self.family().event_shape else y[..., None] * self.weight[1]
            z = pyro.sample("z", dist.Normal(loc, 1e-9).to_event(1))
            pyro.sample("x", dist.Normal(2 * z, 1.0).to_event(1), obs=x)


def even():
    return torch.ones(3) / 3


DISCRETE = {
    "Categorical": lambda: dist.Categorical(even()),
    "OneHotCategorical": lambda: dist.OneHotCategorical(even()),
    "masked": lambda: dist.OneHotCategorical(even()).mask(True),
    "straight through": lambda: dist.OneHotCategoricalStraightThrough(even()),
    "Bernoulli": lambda: dist.Bernoulli(torch.tensor(0.5)),
    "Binomial": lambda: dist.Binomial(2, torch.tensor(0.5)),
    "BetaBinomial": lambda: dist.BetaBinomial(torch.tensor(1.0), torch.tensor(1.0), 2),
}


def decoded_by_hand(model):
    """Of each value: its row of the weights if it is one-hot, or else a multiple of the second."""
    if model.family().event_shape:
        return 2 * model.weight
    values = 2 if model.family().support is dist.constraints.boolean else 3
    return torch.stack([2 * k * model.weight[1] for k in range(values)])


@pytest.mark.parametrize("outside", [False, True], ids=["of each row", "of all rows"])
@pytest.mark.parametrize("name", DISCRETE)
def test_component_means_of_each_value_of_any_discrete_site(name, outside):
    model = Coded(DISCRETE[name], outside)
    torch.testing.assert_close(component_means(model), decoded_by_hand(model))


@pytest.mark.parametrize("name", DISCRETE)
def test_a_discrete_site_is_fixed_by_the_number_of_its_value(name):
    model = Coded(DISCRETE[name])
    expected = decoded_by_hand(model)
    for k, row in enumerate(expected):
        torch.testing.assert_close(draw(model, 4, given={"y": k}), row.expand(4, P))
    numbers = torch.arange(4) % len(expected)
    torch.testing.assert_close(draw(model, 4, given={"y": numbers}), expected[numbers])
    last = len(expected) - 1
    for wrong in (-1, last + 1):
        with pytest.raises(ValueError, match=f"y from 0 to {last}.* but got {wrong}"):
            draw(model, 2, given={"y": wrong})
    with pytest.raises(ValueError, match=r"Expected y .* but got"):
        draw(model, 2, given={"y": 0.5})


@pytest.mark.parametrize("name", DISCRETE)
def test_a_site_of_all_rows_is_fixed_by_one_number(name):
    model = Coded(DISCRETE[name], outside=True)
    expected = decoded_by_hand(model)
    for k, row in enumerate(expected):
        torch.testing.assert_close(draw(model, 4, given={"y": k}), row.expand(4, P))


def test_a_one_hot_site_is_fixed_by_vectors_too():
    model = Coded(DISCRETE["OneHotCategorical"])
    vectors = torch.eye(3)[[2, 0]]
    for y in (vectors, vectors.long(), torch.tensor([2, 0])):
        torch.testing.assert_close(draw(model, 2, given={"y": y}), 2 * model.weight[[2, 0]])
    row = draw(model, 2, given={"y": torch.eye(3)[1]})
    torch.testing.assert_close(row, 2 * model.weight[1].expand(2, P))
    with pytest.raises(ValueError, match=r"vectors or as their numbers but got \[0, 1, 0\]"):
        draw(model, 3, given={"y": torch.tensor([0, 1, 0])})
    with pytest.raises(ValueError, match="y from 0 to 2, the number of one of its vectors"):
        draw(model, 2, given={"y": torch.tensor([1.0, 1.0, 0.0])})
