"""Normalising flows as guides."""

import math
import sys
from functools import partial

import pytest
import torch
from torch import nn

from priorzoo.guides import FlowCode
from priorzoo.guides.flows import Flow
from priorzoo.models import MLP
from priorzoo.models.distributions.gaussian import diagonal_normal

pytestmark = pytest.mark.usefixtures("double")
D = 2


def flow(std=0.5):
    made = Flow(D, transforms=3, hidden=(6,))
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=std)
    return made


def test_the_score_of_a_draw_is_that_of_the_change_of_variables():
    """By the Jacobian that autograd gives, and by way of the inverse of a copy of the draw."""
    parameters = torch.randn(5, 2 * D)
    found = flow()(parameters)
    z = found.rsample()
    torch.testing.assert_close(found.log_prob(z), found.log_prob(z.clone()))

    def forward(start, context):
        for each in found.flow.maps:
            start = each(context)(start)
        return start

    for b in range(5):
        start, own = z[b].clone(), parameters[b]
        for each in reversed(found.flow.maps):
            start = each(own).inv(start)
        jacobian = torch.autograd.functional.jacobian(partial(forward, context=own), start)
        expected = diagonal_normal(own).log_prob(start) - jacobian.det().abs().log()
        torch.testing.assert_close(found.log_prob(z)[b], expected)


def test_the_density_integrates_to_one():
    found = flow(std=0.25)(torch.zeros(2 * D))
    side = torch.linspace(-12, 12, 601)
    grid = torch.cartesian_prod(side, side)
    wide = found.expand((len(grid),))
    total = wide.log_prob(grid).exp().sum() * (side[1] - side[0]) ** 2
    assert total.item() == pytest.approx(1, abs=1e-3)


def test_maps_whose_last_layers_are_zero_are_the_gaussian():
    made = Flow(D, transforms=2, hidden=(6,))
    for each in made.maps:
        nn.init.zeros_(each.hyper[-1].weight)
        nn.init.zeros_(each.hyper[-1].bias)
    parameters, z = torch.randn(5, 2 * D), torch.randn(5, D)
    torch.testing.assert_close(
        made(parameters).log_prob(z), diagonal_normal(parameters).log_prob(z)
    )
    torch.testing.assert_close(made(parameters).mean, parameters[:, :D])


def test_it_expands_over_particles():
    found = flow()(torch.randn(5, 2 * D)).expand((7, 5))
    z = found.rsample()
    assert z.shape == (7, 5, D)
    assert len(z.unique(dim=0)) == 7
    torch.testing.assert_close(found.log_prob(z), found.log_prob(z.clone()))


def test_it_can_be_what_no_gaussian_is():
    """Trained by maximum likelihood on a ring, it leaves the best Gaussian behind."""
    torch.manual_seed(0)
    angle = torch.rand(400) * 2 * math.pi
    ring = 2 * torch.stack([angle.cos(), angle.sin()], -1) + 0.2 * torch.randn(400, D)
    made, context = Flow(D, transforms=3, hidden=(16,)), torch.zeros(2 * D)
    optimiser = torch.optim.Adam(made.parameters(), lr=0.02)
    for _ in range(150):
        optimiser.zero_grad()
        loss = -made(context.expand(400, -1)).log_prob(ring).mean()
        loss.backward()
        optimiser.step()
    gaussian = torch.distributions.MultivariateNormal(ring.mean(0), ring.T.cov())
    assert loss.item() < -gaussian.log_prob(ring).mean().item() - 0.1


def test_without_zuko_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "zuko.flows", None)
    with pytest.raises(ImportError, match=r"pip install 'priorzoo\[flows\]'"):
        FlowCode(MLP(6, 2 * D), code=D)
