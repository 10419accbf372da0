"""What centred encoders subtract, against regressions of each column by numpy."""

import numpy as np
import pytest
import torch

from priorzoo.guides import Code
from priorzoo.inference import centre_features, load, save
from priorzoo.models import MLP, VAE, Columns, Gaussian, NegativeBinomial


def rows(seed=0):
    rng = np.random.default_rng(seed)
    batch = rng.integers(0, 2, 80)
    told = np.eye(2)[batch]
    x = np.stack([rng.poisson(5 + 20 * batch), rng.normal(3 * batch), rng.normal(size=80)], 1)
    observed = rng.random(x.shape) < 0.7
    return (torch.from_numpy(each).float() for each in (x, told)), torch.from_numpy(observed)


def network(**more):
    return MLP(3, 4, (8,), features=["log", "number", "number"], centred=True, **more)


def test_features_are_centred_given_the_covariates_over_observed_cells():
    (x, told), observed = rows()
    encoder = network(covariates=2, masked=True)
    context = {"covariates": told, "observed": observed}
    assert encoder.inlet.width == 3 + 3  # no covariates
    centre_features(torch.nn.Identity(), encoder, x, context=context)
    read = x.clone()
    read[:, 0] = read[:, 0].log1p()
    given = encoder.inlet(x.masked_fill(~observed, 0), observed, told)
    for j in range(3):
        seen = observed[:, j].numpy()
        design = told.numpy()[seen]
        cells = read[:, j].numpy()[seen]
        found = np.linalg.lstsq(design, cells, rcond=None)[0]
        expected = np.where(observed[:, j].numpy(), read[:, j].numpy() - told.numpy() @ found, 0)
        np.testing.assert_allclose(given[:, j].numpy(), expected, atol=1e-3)
    torch.testing.assert_close(given[:, 3:], observed.float())


def test_without_covariates_the_means_are_subtracted():
    (x, _), _ = rows()
    encoder = network()
    centre_features(torch.nn.Identity(), encoder, x)
    torch.testing.assert_close(encoder.inlet(x).mean(0), torch.zeros(3), atol=1e-4, rtol=0)


def test_a_missing_cell_is_an_average_one(tmp_path):
    """The code of a row does not depend on what a missing cell holds, nor on the rows beside it."""
    (x, _), observed = rows()
    encoder = network(masked=True)
    likelihood = Columns([NegativeBinomial(0.5), Gaussian()], [0, 1, 1])
    model, guide = VAE(MLP(2, 3, (8,)), likelihood, code=2), Code(encoder)
    centre_features(model, guide, x, context={"observed": observed})
    first = encoder(x.masked_fill(~observed, 0), observed=observed)
    torch.testing.assert_close(first, encoder(x.masked_fill(~observed, 7), observed=observed))
    torch.testing.assert_close(first[:1], encoder(x[:1], observed=observed[:1]))
    save(tmp_path, model, guide)
    again = load(tmp_path)[1].encoder
    torch.testing.assert_close(again(x, observed=observed), first)


def test_covariates_of_another_width_are_refused():
    (x, told), _ = rows()
    with pytest.raises(ValueError, match=r"covariates \(N, 2\) but got \(N, 1\)"):
        network(covariates=2)(x, covariates=told[:, :1])
