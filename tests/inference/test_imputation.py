"""Imputed cells against the conditional Gaussian, and in a table of several kinds."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from priorzoo.inference import completions, impute
from priorzoo.models import MLP, VAE, Gaussian, data_plate

N, P, D, S = 5, 4, 2, 0.7


class ExactPosterior(nn.Module):
    """q(z | observed cells) of a linear decoder with Gaussian noise."""

    def __init__(self, model):
        super().__init__()
        self.layer = model.decoder.layers[0]

    def forward(self, x, size=None, observed=None):
        w, seen = self.layer.weight, observed.to(x.dtype)
        precision = torch.eye(D) + torch.einsum("bp,pi,pj->bij", seen, w, w) / S**2
        centred = (x - self.layer.bias).where(observed, 0.0)
        loc = torch.linalg.solve(precision, centred @ w / S**2)
        with data_plate(x, size):
            pyro.sample("z", dist.MultivariateNormal(loc, precision_matrix=precision))


@pytest.fixture
def holed():
    x = torch.randn(N, P) + 1
    x[torch.rand(N, P) < 0.5] = torch.nan
    x[0], x[1, :] = torch.randn(P), torch.nan
    return x


@pytest.mark.usefixtures("double")
def test_cells_are_those_of_the_conditional_gaussian(holed):
    """Mean and deviation of x_m given x_o; four standard errors of 20,000 draws."""
    model = VAE(MLP(D, P, ()), Gaussian(S), D)
    guide, layer = ExactPosterior(model), model.decoder.layers[0]
    cov = (layer.weight @ layer.weight.T + S**2 * torch.eye(P)).detach()
    loc, context = layer.bias.detach(), {"observed": ~holed.isnan()}
    found = impute(model, guide, holed, context=context, draws=20_000)
    drawn = completions(model, guide, holed, context=context, draws=5_000)
    for row, seen, value, doubt, each in zip(
        holed, context["observed"], found.values, found.doubt, drawn.unbind(1), strict=True
    ):
        gone = ~seen
        assert (value[seen] == row[seen]).all()
        assert (doubt[seen] == 0).all()
        assert (each[:, seen] == row[seen]).all()
        if not gone.any():
            continue
        gain = cov[gone][:, seen] @ torch.linalg.inv(cov[seen][:, seen])
        mean = loc[gone] + gain @ (row - loc)[seen]
        scale = (cov[gone][:, gone] - gain @ cov[seen][:, gone]).diagonal().sqrt()
        torch.testing.assert_close(value[gone], mean, rtol=0, atol=4 * 1.5 / 20_000**0.5)
        torch.testing.assert_close(doubt[gone], scale, rtol=0.03, atol=0)
        error = (each[:, gone].mean(0) - mean) / (scale / 5_000**0.5)
        assert error.abs().max() < 4.5
        torch.testing.assert_close(each[:, gone].std(0), scale, rtol=0.06, atol=0)


def test_a_table_gets_the_most_probable_categories(zoo):
    entry = zoo["gmvae-columns"]
    pair, x = entry.pair(), entry.rows(N)
    observed = torch.rand(x.shape) < 0.5
    observed[0], observed[1] = False, True
    context = {"observed": observed}
    values, doubt = impute(*pair, x.where(observed, torch.nan), context=context)
    again = impute(*pair, x, context=context)
    torch.testing.assert_close((values, doubt), tuple(again), rtol=0, atol=0)
    torch.testing.assert_close(values[observed], x[observed])
    assert set(values[:, [2, 4]].unique().tolist()) <= {0.0, 1.0, 2.0}
    assert ((doubt > 0) != observed).all()
    assert (doubt[:, [2, 4]] < 2 / 3 + 1e-6).all()
    drawn = completions(*pair, x, context=context, draws=50)
    assert drawn.shape == (50, *x.shape)
    assert (drawn[:, :, [0, 2, 3, 4]] % 1 == 0).all()
    assert (drawn[:, :, 5] > 0).all()


def test_every_pair_imputes(entry):
    """Cells in the support, whatever the guide."""
    pair, x = entry.pair(), entry.rows(N)
    context = {"observed": torch.rand(x.shape) < 0.5}
    if pair[0].likelihood.__class__.__name__ == "Multinomial":
        with pytest.raises(ValueError, match="total is unknown"):
            impute(*pair, x, context=context)
        return
    values, doubt = impute(*pair, x, context=context, draws=3)
    assert values.isfinite().all()
    assert doubt.isfinite().all()


def test_without_a_mask_it_is_said_how_to_give_one(zoo):
    entry = zoo["vae"]
    with pytest.raises(ValueError, match="isnan"):
        impute(*entry.pair(), entry.rows(N), context={})
