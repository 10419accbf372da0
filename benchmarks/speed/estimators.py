"""How much the gradients of several estimators vary: ``priorzoo bench estimators``."""

from collections.abc import Iterator

import pyro.distributions as dist
import torch
from torch import Tensor

from priorzoo.benchmarks.rows.files import Row
from priorzoo.inference import Stream
from priorzoo.inference.saving import versions
from priorzoo.models.distributions.estimators import Gradient, estimated
from priorzoo.models.nggp.log_u import LogU

SHAPES = (0.1, 0.4, 1.0, 1.7, 20.0)
CHOICES: list[tuple[Gradient, int]] = [("rsvi", b) for b in (0, 1, 5, 10)]  # B of RSVI
CHOICES += [("pathwise", 0), ("score", 0)]
PARTICLES = 10


def gamma_rows(draws: int) -> Iterator[Row]:
    """Of the derivative of E[z log z], z ~ Gamma(a, 1), for a: exactly psi(a + 1) + a psi'(a + 1).

    RSVI at B = 0 serves only shapes of at least 1.
    """
    for shape in SHAPES:
        a = torch.tensor(shape, dtype=torch.float64)
        exact = (torch.digamma(a + 1) + a * torch.polygamma(1, a + 1)).item()
        for gradient, augmentation in CHOICES:
            if gradient == "rsvi" and shape + augmentation < 1:
                continue
            theta = a.expand(draws).clone().requires_grad_()
            fn = estimated(dist.Gamma(theta, torch.ones_like(a)), gradient, augmentation)
            z = fn()
            cost, score = torch.xlogy(z, z), fn.score_parts(z).score_function
            found = torch.autograd.grad((cost + cost.detach() * score).sum(), theta)[0]
            name = f"{gradient}, B = {augmentation}" if gradient == "rsvi" else gradient
            yield _row(f"z log z under Gamma({shape:g}, 1), for a", name, exact, found)


def law_rows(draws: int) -> Iterator[Row]:
    """Of the derivative of E[log(1 + e^v)] for sigma, v the log U of 1,000 data in 20 clusters.

    The score function without and with baselines: the mean of the cost, which a running mean finds,
    and the other nine of ten particles (variance for each draw, so that the rows compare).
    """
    sigma = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    q = LogU(1000.0, 20.0, 1.0, sigma)
    exact = torch.autograd.grad(q.expect(torch.nn.functional.softplus), sigma)[0].item()
    v = q.sample((draws // PARTICLES, PARTICLES))
    theta = sigma.detach().expand(v.shape).clone().requires_grad_()
    slope = torch.autograd.grad(LogU(1000.0, 20.0, 1.0, theta).log_prob(v).sum(), theta)[0]
    cost = torch.nn.functional.softplus(v)
    others = (cost.sum(-1, keepdim=True) - cost) / (PARTICLES - 1)
    mean = q.expect(torch.nn.functional.softplus).detach()
    less = {"score": torch.zeros_like(cost), "score less the cost's mean": mean}
    less[f"score less the others of {PARTICLES}"] = others
    for name, taken in less.items():
        found = ((cost - taken) * slope).mean(-1)
        yield _row("log(1 + u) under q(v), for sigma", name, exact, found, PARTICLES)


def _row(expectation: str, name: str, exact: float, found: Tensor, particles: int = 1) -> Row:
    return {
        "expectation": expectation,
        "estimator": name,
        "gradient": exact,
        "estimate": found.mean().item(),
        "variance": found.var().item() * particles,
        "draws": found.numel() * particles,
    }


def measure(draws: int, seed: int = 0) -> list[Row]:
    """A row for each expectation and estimator, under ``draws`` draws."""
    with Stream(seed):
        rows = [*gamma_rows(draws), *law_rows(draws)]
    command = f"priorzoo bench estimators --draws {draws}"
    origin = {"command": command, "seed": seed, "versions": versions()}
    return [{**row, **origin} for row in rows]
