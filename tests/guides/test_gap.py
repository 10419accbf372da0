"""How tight the bounds of the guides are where the evidence is known in closed form."""

import pytest
import torch
from torch import Tensor, nn

from priorzoo.guides import ClusterThenCode, ClusterThenFlow, CodeThenCluster, MeanField
from priorzoo.inference import ELBO
from priorzoo.models import GMVAE, Gaussian

pytestmark = pytest.mark.usefixtures("double")
X = torch.tensor([[-1.5], [0.1], [1.0]], dtype=torch.float64)
B, K, SCALE = 3, 2, 0.7


class Free(nn.Module):
    """Parameters of each of the rows of X, and of each cluster, instead of a network."""

    def __init__(self, outputs: int, clusters: int | None = None) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(clusters or 1, B, outputs))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        if y is None:
            return self.table[0]
        return self.table[y.squeeze(-1)] if y.dim() == 2 else self.table[y, torch.arange(B)]


@pytest.fixture
def model():
    """x = z + noise, z of two overlapping Gaussians: the evidence is a mixture of two more."""
    made = GMVAE(nn.Identity(), Gaussian(SCALE), code=1, clusters=K)
    made.set_components(torch.tensor([[-1.0], [1.0]]), torch.tensor([[0.3], [0.3]]))
    return made.requires_grad_(False)


def evidence(model):
    loc, scale = model.components()
    noise = model.likelihood(torch.zeros(1, 1)).base_dist.scale.item()
    parts = torch.distributions.Normal(loc[:, 0], (scale[:, 0] ** 2 + noise**2).sqrt())
    return torch.logsumexp(parts.log_prob(X), -1) - torch.tensor(float(K)).log()


def gap(model, guide):
    """Mean over the rows of evidence less bound, of the best parameters found."""
    optimiser = torch.optim.Adam(guide.parameters(), lr=0.05)
    halving = torch.optim.lr_scheduler.StepLR(optimiser, 100, 0.4)
    objective = ELBO(model, guide, particles=30)
    for _ in range(500):
        optimiser.zero_grad()
        objective(X)[0].backward()
        optimiser.step()
        halving.step()
    with torch.no_grad():
        bound = ELBO(model, guide, particles=20_000).terms(X)["elbo"]
    return (evidence(model) - bound).mean().item()


def test_the_gaps_of_the_guides_are_ordered(model):
    """A Gaussian for each cluster is exact here, and so is a flow that begins as one. One Gaussian
    with the exact cluster misses the mixture; with a cluster that may not follow the code, more.
    """
    gaps = {
        "cluster then code": gap(model, ClusterThenCode(Free(K), Free(2, K))),
        "cluster then flow": gap(
            model, ClusterThenFlow(Free(K), Free(2, K), code=1, transforms=1, hidden=(4,))
        ),
        "code then cluster": gap(model, CodeThenCluster(Free(2), model)),
        "mean field": gap(model, MeanField(Free(K), Free(2))),
    }
    assert gaps["cluster then code"] == pytest.approx(0, abs=0.003)
    assert gaps["cluster then flow"] == pytest.approx(0, abs=0.01)
    assert gaps["code then cluster"] > 0.003
    assert gaps["mean field"] > gaps["code then cluster"] + 0.05
