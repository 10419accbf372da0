"""The Gaussian mixture prior."""

import math

import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from pyro import poutine
from torch import nn

from priorzoo.guides import ClusterThenCode
from priorzoo.inference import ELBO
from priorzoo.models import GMVAE, M2, MLP, ModifiedM2, data_plate
from priorzoo.models.distributions.gaussian import deviation, diagonal_normal

pytestmark = pytest.mark.usefixtures("double")
P, D, K = 6, 2, 3


class Moved(nn.Module):
    """q(y | x), and the image of q(z | x, y) under z -> loc_y + scale_y z."""

    def __init__(self, guide, model):
        super().__init__()
        self.guide, self.model = guide, model

    def forward(self, x, size=None):
        with data_plate(x, size):
            q_y = dist.Categorical(logits=self.guide.classifier(x))
            y = pyro.sample("y", q_y, infer={"enumerate": "parallel"})
            q = diagonal_normal(self.guide.conditional_encoder(x, y)).base_dist
            loc, scale = self.model.loc[y], deviation(self.model.raw[y])
            pyro.sample("z", dist.Normal(loc + scale * q.loc, scale * q.scale).to_event(1))


def test_is_the_modified_m2_after_a_change_of_variables(zoo):
    """Shu's identity: for each datum the same bound, term by term, on the same noise."""
    gmvae = GMVAE(MLP(D, P, (4,)), code=D, clusters=K)
    m2 = ModifiedM2(gmvae.decoder, code=D, clusters=K, link="identity")
    with torch.no_grad():
        m2.loc.normal_()
        m2.raw.normal_()
    gmvae.loc, gmvae.raw = m2.loc, m2.raw
    guide, x = zoo["gmvae"].guide(None), zoo["gmvae"].rows(5)
    torch.manual_seed(1)
    expected = ELBO(m2, guide).terms(x)
    torch.manual_seed(1)
    torch.testing.assert_close(ELBO(gmvae, Moved(guide, m2)).terms(x), expected)


@pytest.mark.parametrize(
    "model",
    [
        lambda: GMVAE(MLP(D, P), code=D, clusters=7),
        lambda: M2(MLP(D, P, clusters=7), code=D, clusters=7),
        lambda: ModifiedM2(MLP(D, P), code=D, clusters=7),
    ],
)
@pytest.mark.parametrize(("sure", "expected"), [(1e5, math.log(7)), (0.0, 0.0)])
def test_a_cluster_known_for_sure_costs_log_k(model, sure, expected):
    """KL(q(y|x) || Cat(1/7)): log 7 where q has one cluster alone, 0 where it is uniform."""
    guide = ClusterThenCode(nn.Linear(P, 7), MLP(P, 2 * D, clusters=7))
    with torch.no_grad():
        guide.classifier.weight.zero_()
        guide.classifier.bias.copy_(sure * torch.eye(7)[3])
    kl = ELBO(model(), guide).terms(torch.zeros(4, P))["kl[y]"]
    torch.testing.assert_close(kl, torch.full((4,), expected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_deviations_have_a_floor(dtype):
    """Of 0.01, however negative the raw variance; far above it they are its square root."""
    raw = torch.tensor([-1e30, -1e4, -50.0, 0.0, 400.0], dtype=dtype, requires_grad=True)
    found = deviation(raw)
    expected = [0.01, 0.01, 0.01, math.sqrt(math.log(2) + 1e-4), math.sqrt(400 + 1e-4)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=dtype))
    found.sum().backward()
    assert raw.grad.isfinite().all()


def test_components_below_the_floor_stay_finite(zoo):
    """A GMVAE whose components have shrunk to the floor: its codes, and the loss and gradients."""
    (model, guide), x = zoo["gmvae"].pair(), zoo["gmvae"].rows(5)
    nn.init.constant_(model.raw, -1e4)
    torch.manual_seed(1)
    trace = poutine.trace(model).get_trace(size=1000)
    y, z = trace.nodes["y"]["value"], trace.nodes["z"]["value"]
    assert ((z - model.loc[y]) / 0.01).std().item() == pytest.approx(1, abs=0.05)
    loss, _ = ELBO(model, guide)(x)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in guide.parameters())


def test_learnt_weights_are_the_prior_of_the_clusters():
    """p(y) is softmax(logits), which are learnt, or else uniform and not."""
    model = GMVAE(MLP(D, P), code=D, clusters=K, learn_weights=True)
    with torch.no_grad():
        model.logits.copy_(torch.tensor([1.0, 2.0, 4.0]).log())
    p_y = poutine.trace(model).get_trace(size=2).nodes["y"]["fn"]
    torch.testing.assert_close(p_y.probs, torch.tensor([[1.0, 2.0, 4.0]] * 2) / 7)
    fixed = GMVAE(MLP(D, P), code=D, clusters=K)
    p_y = poutine.trace(fixed).get_trace(size=2).nodes["y"]["fn"]
    torch.testing.assert_close(p_y.probs, torch.full((2, K), 1 / 3))
    learnt = [{n for n, p in m.named_parameters() if p.requires_grad} for m in (model, fixed)]
    assert learnt[0] - learnt[1] == {"logits"}


@pytest.mark.parametrize("covariance", ["diagonal", "full", "tied"])
@pytest.mark.parametrize("offset", [False, True])
def test_components_that_are_set_have_the_density_of_scipy(covariance, offset):
    model = GMVAE(MLP(D, P), code=D, clusters=K, covariance=covariance, offset=offset)
    loc, root = torch.randn(K, D), torch.randn(K, D, D)
    matrices = root @ root.mT + torch.eye(D)
    given = {
        "diagonal": matrices.diagonal(dim1=-2, dim2=-1),
        "full": matrices,
        "tied": matrices[0],
    }[covariance]
    model.set_components(loc, given)
    z = torch.randn(5, D)
    found = model.component(torch.arange(K).unsqueeze(-1)).log_prob(z)
    for k in range(K):
        of_k = {
            "diagonal": matrices[k].diagonal().diag(),
            "full": matrices[k],
            "tied": matrices[0],
        }[covariance]
        expected = scipy.stats.multivariate_normal(loc[k].numpy(), of_k.numpy()).logpdf(z.numpy())
        torch.testing.assert_close(found[k], torch.from_numpy(expected), rtol=1e-6, atol=1e-6)


def test_a_full_covariance_is_learnt():
    """Codes that are themselves the data: the bound's optimum has the covariance of the sample."""
    model = GMVAE(nn.Identity(), code=D, clusters=1, covariance="full")
    z = torch.randn(400, D) @ torch.tensor([[1.0, 0.0], [1.5, 0.5]]).mT
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        value = -model.component(torch.zeros(400, dtype=torch.int64)).log_prob(z).mean()
        value.backward()
        return value

    for _ in range(5):
        optimiser.step(loss)
    found = model.component(torch.zeros(1, dtype=torch.int64)).covariance_matrix[0]
    torch.testing.assert_close(found, torch.cov(z.T, correction=0), rtol=1e-3, atol=1e-3)


def test_another_covariance_is_refused():
    with pytest.raises(ValueError, match="covariance among"):
        GMVAE(MLP(D, P), code=D, clusters=K, covariance="round")
