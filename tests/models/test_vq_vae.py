"""The vector-quantised code against a search by hand and finite differences."""

import math

import pytest
import torch
from torch.autograd.functional import jacobian

from priorzoo.guides import Quantised
from priorzoo.inference import ELBO, Quantisation, importance_bound
from priorzoo.models import MLP, VQVAE

P, D, K, M = 6, 3, 5, 2


def pair():
    model = VQVAE(MLP(M * D, P, (8,)), code=D, clusters=K, positions=M)
    torch.nn.init.normal_(model.codebook)
    return model, Quantised(MLP(P, M * D, (7,)), model)


def nearest(model, h):
    """Indices ``(B, M)``, one by one."""
    codebook = model.codebook.tolist()
    rows = h.reshape(-1, M, D).tolist()
    return torch.tensor(
        [[min(range(K), key=lambda k: math.dist(v, codebook[k])) for v in row] for row in rows]
    )


@pytest.mark.usefixtures("double")
def test_the_bound_is_that_of_a_point_under_uniform_codes():
    """log p(x | e_y) - M log K; a point needs no more than one importance sample."""
    (model, guide), x = pair(), torch.bernoulli(torch.full((4, P), 0.4))
    e = model.codebook[nearest(model, guide.encoder(x))].flatten(1)
    expected = model.likelihood(model.decoder(e)).log_prob(x) - M * math.log(K)
    terms = ELBO(model, guide).terms(x)
    torch.testing.assert_close(terms["elbo"], expected)
    torch.testing.assert_close(importance_bound(model, guide, x, 3), expected)


@pytest.mark.usefixtures("double")
def test_gradients_pass_straight_through_and_the_penalty_trains_the_codebook():
    """The encoder's output gets the gradient of the decoder's input; the codebook only the rest."""
    (model, guide), x = pair(), torch.bernoulli(torch.full((4, P), 0.4))
    h = guide.encoder(x)
    e = model.codebook[nearest(model, h)].flatten(1).detach()

    def reconstruction(z):
        return -model.likelihood(model.decoder(z)).log_prob(x).mean()

    objective = ELBO(model, guide, penalties={"quantisation": Quantisation(2.0, commitment=0.25)})
    loss, _ = objective(x)
    weight, codebook = guide.encoder.layers[0].weight, model.codebook
    found, of_codebook = torch.autograd.grad(loss, (weight, codebook))
    arriving = jacobian(reconstruction, e) + 2.0 * 0.25 * 2 * (h - e).detach() / len(x)
    (expected,) = torch.autograd.grad(h, weight, arriving)
    torch.testing.assert_close(found, expected)
    pulled = torch.zeros_like(codebook)
    for chosen, row in zip(nearest(model, h), h.detach().reshape(-1, M, D), strict=True):
        for k, value in zip(chosen, row, strict=True):
            pulled[k] += 2.0 * 2 * (codebook[k].detach() - value) / len(x)
    torch.testing.assert_close(of_codebook, pulled)
