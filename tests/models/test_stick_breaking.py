"""The stick-breaking prior."""

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

from priorzoo.guides import Sticks
from priorzoo.inference import ELBO, KL
from priorzoo.models import MLP, StickBreakingVAE
from priorzoo.models.distributions.sticks import Kumaraswamy

pytestmark = pytest.mark.usefixtures("double")


class Weights(torch.nn.Module):
    """A decoder that shows its input: logits of probabilities that are the weights."""

    def forward(self, pi):
        return pi.logit()


def test_prior_weights_have_their_means():
    """E pi_k = (1 / (1 + a)) (a / (1 + a))^(k-1), and what is left over (a / (1 + a))^(K-1)."""
    torch.manual_seed(0)
    model = StickBreakingVAE(Weights(), code=4, concentration=2.0).double()
    found = model(size=200_000).mean(0)
    expected = torch.tensor([1 / 3, 2 / 9, 4 / 27, 8 / 27])
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-3)


@pytest.mark.parametrize("family", ["kumaraswamy", "beta"])
def test_analytic_divergence_is_the_sum_over_sticks(family):
    """And the estimate at the draw has it as its mean."""
    model = StickBreakingVAE(MLP(4, 6, (5,)), code=4, concentration=2.0).double()
    guide, x = Sticks(MLP(6, 6, (5,)), family), torch.rand(3, 6).round()
    found = ELBO(model, guide, {"v": KL(analytic=True)}).terms(x)["kl[v]"]
    first, second = guide.encoder(x).chunk(2, -1)
    a, b = (torch.nn.functional.softplus(raw) + 0.01 for raw in (first, second))
    kind = Kumaraswamy if family == "kumaraswamy" else dist.Beta
    prior = dist.Beta(torch.tensor(1.0), torch.tensor(2.0))
    torch.testing.assert_close(found, kl_divergence(kind(a, b), prior).sum(-1))
    drawn = ELBO(model, guide, particles=20_000).terms(x)["kl[v]"]
    torch.testing.assert_close(drawn, found, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("gradient", ["rsvi", "score"])
def test_estimators_of_a_beta_guide_agree_with_implicit_gradients(gradient):
    """Over 2,000 copies of one row: mean and error of the gradient for the encoder's biases."""
    copies, means, errors = 2_000, [], []
    model = StickBreakingVAE(MLP(3, 4, (5,)), code=3).double()
    x = torch.tensor([1.0, 0.0, 0.0, 1.0])
    for kind in (gradient, "pathwise"):
        raw = torch.tensor([0.3, -1.0, 0.5, 1.0]).repeat(copies, 1).requires_grad_()
        guide = Sticks(torch.nn.Identity(), "beta", kind)
        guide.encoder.forward = lambda rows, raw=raw: raw
        loss, _ = ELBO(model, guide)(x.expand(copies, 4))
        found = torch.autograd.grad(loss * copies, raw)[0]
        means.append(found.mean(0))
        errors.append(found.var(0) / copies)
    assert ((means[0] - means[1]).abs() < 4 * (errors[0] + errors[1]).sqrt()).all()


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="Expected a code of at least 2 weights"):
        StickBreakingVAE(MLP(1, 6), code=1)
    with pytest.raises(ValueError, match=r"Expected family among .* but got 'gamma'"):
        Sticks(MLP(6, 8), "gamma")
    with pytest.raises(ValueError, match="Expected family 'beta' for gradient 'rsvi'"):
        Sticks(MLP(6, 8), "kumaraswamy", "rsvi")
