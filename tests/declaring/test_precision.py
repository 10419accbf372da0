"""Rows in another precision than the networks' are taken as they come."""

import numpy as np
import pytest
import torch

from priorzoo.guides import ClusterThenCode
from priorzoo.inference import (
    ELBO,
    check_pair,
    cluster_probabilities,
    codes,
    descend,
    enumerates,
    evaluate,
    fit,
    importance_bound,
    reconstructions,
)
from priorzoo.models import GMVAE, MLP

P, D, K = 5, 2, 3
USES = {
    "cluster_probabilities": cluster_probabilities,
    "codes": codes,
    "reconstructions": reconstructions,
    "evaluate": lambda *given: evaluate(*given, importance_samples=3),
    "fit": lambda *given: [r["elbo"] for r in fit(*given, steps=4, batch_size=7)],
    "importance_bound": lambda *given: importance_bound(*given, 3),
    "enumerates": enumerates,
    "check_pair": check_pair,
    "terms": lambda model, guide, x: ELBO(model, guide).terms(x),
    "descend": lambda model, guide, x: descend(
        ELBO(model, guide), torch.optim.SGD(model.parameters(), lr=0.0), x
    ),
}


@pytest.mark.parametrize("use", USES)
def test_rows_of_numpy_give_what_float32_rows_give(use):
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (20, P)) * 1.0)
    assert x.dtype is torch.float64
    results = []
    for rows in (x, x.float()):
        torch.manual_seed(0)
        guide = ClusterThenCode(MLP(P, K, (6,)), MLP(P, 2 * D, (6,), clusters=K))
        pair = GMVAE(MLP(D, P, (6,)), code=D, clusters=K), guide
        torch.manual_seed(1)
        results.append(USES[use](*pair, rows))
    torch.testing.assert_close(*results, rtol=0, atol=0)
