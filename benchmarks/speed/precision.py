"""Estimators and closed forms in float32 beside exact values: ``priorzoo bench precision``."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import mpmath
import pyro.distributions as dist
import torch
from mpmath import mp
from pyro.distributions import TorchDistribution
from torch import Tensor

from priorzoo.benchmarks.rows.files import Row
from priorzoo.benchmarks.speed import exact
from priorzoo.benchmarks.speed.exact import Number, number
from priorzoo.inference import Stream
from priorzoo.inference.saving import versions
from priorzoo.models.distributions.divergences import closed_kl
from priorzoo.models.distributions.estimators import Gradient, estimated
from priorzoo.models.distributions.exponential import NormalGamma
from priorzoo.models.distributions.log_space import log_of
from priorzoo.models.distributions.sticks import Kumaraswamy, LogitNormal
from priorzoo.models.nggp.log_u import LogU

SHAPES = (1e-3, 1e-2, 0.05, 0.3, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5)
METHODS: tuple[Gradient, ...] = ("pathwise", "rsvi", "score")
OTHER = 0.75  # the second shape; like all numbers here, the same in float32 and float64
DIGITS = 50
Closed = tuple[Callable[[Tensor], Tensor], Callable[[Number], Number]]
Drawn = tuple[Callable[[Tensor], TorchDistribution], Callable[[Number], Number]]


def _with(a: Tensor, *values: float) -> Tensor:
    return torch.stack([a, *(torch.full_like(a, value) for value in values)], -1)


def _of_share(a: Number, rest: Number) -> Number:
    return mp.psi(0, a) - mp.psi(0, a + rest)


# distributions of the shape a, and E log of their first variable
DRAWN: Mapping[str, Drawn] = {
    "Gamma(a, 1)": (lambda a: dist.Gamma(a, torch.ones_like(a)), lambda a: mp.psi(0, a)),
    "Beta(a, .75)": (
        lambda a: dist.Beta(a, torch.full_like(a, OTHER)),
        lambda a: _of_share(a, number(OTHER)),
    ),
    "Dirichlet(a, .75, 3)": (
        lambda a: dist.Dirichlet(_with(a, OTHER, 3.0)),
        lambda a: _of_share(a, number(OTHER) + 3),
    ),
    "Kumaraswamy(a, .75)": (
        lambda a: Kumaraswamy(a, torch.full_like(a, OTHER)),
        lambda a: -(mp.euler + mp.psi(0, number(OTHER) + 1)) / a,
    ),
}


def _prior(a: Tensor, first: float = 1.0, second: float = 5.0) -> dist.Beta:
    return dist.Beta(torch.full_like(a, first), torch.full_like(a, second))


def _kl_normal_gamma(a: Tensor) -> Tensor:
    q = NormalGamma.natural(*(torch.full_like(a, value) for value in (0.25, 2.0)), a, 1.5 + 0 * a)
    p = NormalGamma.natural(*(torch.full_like(a, value) for value in (0.0, 1.0, 0.125, 0.125)))
    return NormalGamma.kl(q, p)


_ONE, _FIVE, _TWO = mp.mpf(1), mp.mpf(5), mp.mpf(2)
CLOSED: Mapping[str, Closed] = {
    "KL of Gamma(a, 2) from Gamma(1, 1)": (
        lambda a: closed_kl(dist.Gamma(a, 2.0), dist.Gamma(torch.ones_like(a), 1.0)),
        lambda a: exact.kl_gamma(a, _TWO, _ONE, _ONE),
    ),
    "KL of Beta(a, .75) from Beta(1, 5)": (
        lambda a: closed_kl(dist.Beta(a, OTHER), _prior(a)),
        lambda a: exact.kl_dirichlet((a, number(OTHER)), (_ONE, _FIVE)),
    ),
    "KL of Dirichlet(a, .75, 3) from Dirichlet(1, 1, 5)": (
        lambda a: closed_kl(
            dist.Dirichlet(_with(a, OTHER, 3.0)), dist.Dirichlet(torch.tensor([1.0, 1, 5]).to(a))
        ),
        lambda a: exact.kl_dirichlet((a, number(OTHER), mp.mpf(3)), (_ONE, _ONE, _FIVE)),
    ),
    "KL of Kumaraswamy(a, .75) from Beta(1, 5)": (
        lambda a: closed_kl(Kumaraswamy(a, OTHER), _prior(a)),
        lambda a: exact.kl_kumaraswamy(a, number(OTHER), _ONE, _FIVE),
    ),
    "KL of Kumaraswamy(.75, a) from Beta(1, 5)": (
        lambda a: closed_kl(Kumaraswamy(OTHER, a), _prior(a)),
        lambda a: exact.kl_kumaraswamy(number(OTHER), a, _ONE, _FIVE),
    ),
    "KL of logit-normal(.75, scale a) from Beta(1, 5)": (
        lambda a: closed_kl(LogitNormal(torch.full_like(a, OTHER), a), _prior(a)),
        lambda a: exact.kl_logit_normal(number(OTHER), a, _ONE, _FIVE),
    ),
    "KL of NormalGamma(.25, 2, a, 1.5) from NormalGamma(0, 1, .125, .125)": (
        _kl_normal_gamma,
        lambda a: exact.kl_normal_gamma(
            (number(0.25), _TWO, a, mp.mpf("1.5")), (0, _ONE, number(0.125), number(0.125))
        ),
    ),
    "mean of Kumaraswamy(.75, a)": (
        lambda a: Kumaraswamy(OTHER, a).mean,
        lambda a: a * mp.beta(1 + 1 / number(OTHER), a),
    ),
    "log normaliser of log U, n = 1,000, K = 20, alpha = a": (
        lambda a: LogU(1000.0, 20.0, a, 0.25).log_normaliser,
        lambda a: exact.log_normaliser_of_log_u(mp.mpf(1000), mp.mpf(20), a, mp.mpf("0.25")),
    ),
}


def closed_rows(shapes: Sequence[float] = SHAPES) -> Iterator[Row]:
    """Values and derivatives with respect to a of the closed forms; a is a number of float32."""
    for name, (form, truth) in CLOSED.items():
        for shape in shapes:
            a = number(shape)
            step = a / 10**8
            slope = (truth(a + step) - truth(a - step)) / (2 * step)
            found: dict[str, list[float]] = {}
            for dtype in (torch.float32, torch.float64):
                theta = torch.tensor(float(a), dtype=dtype, requires_grad=True)
                value = form(theta)
                found[str(dtype)[6:]] = [value.item(), torch.autograd.grad(value, theta)[0].item()]
            for place, (kind, true) in enumerate((("value", truth(a)), ("derivative", slope))):
                values = {precision: both[place] for precision, both in found.items()}
                yield {"quantity": name, "method": kind, "shape": shape, "exact": float(true)} | {
                    precision: {"mean": value} for precision, value in values.items()
                }


def drawn_rows(draws: int, shapes: Sequence[float] = SHAPES) -> Iterator[Row]:
    """The mean of log x, and the derivative of E log x with respect to a by each estimator.

    The score is multiplied by log x minus its exact mean; otherwise its variance would hide errors.
    """
    for name, (make, truth) in DRAWN.items():
        for method in METHODS:
            if method == "rsvi" and name.startswith("Kumaraswamy"):
                continue
            for shape in shapes:
                a = number(shape)
                slope = mp.diff(truth, a)
                both = {
                    str(dtype)[6:]: _estimates(make, method, shape, float(truth(a)), draws, dtype)
                    for dtype in (torch.float32, torch.float64)
                }
                for kind, true in (("mean", truth(a)), ("derivative", slope)):
                    row: dict[str, object] = {"quantity": f"E log x of {name}", "shape": shape}
                    row |= {"method": f"{kind}, {method}", "exact": float(true), "draws": draws}
                    yield row | {precision: found[kind] for precision, found in both.items()}


def _estimates(
    make: Callable[[Tensor], TorchDistribution],
    method: Gradient,
    shape: float,
    mean: float,
    draws: int,
    dtype: torch.dtype,
) -> dict[str, dict[str, float]]:
    theta = torch.full((draws,), float(number(shape)), dtype=dtype, requires_grad=True)
    fn = estimated(make(theta), method)
    x = fn()
    event = (..., 0) if fn.event_shape else ...
    cost, logs = x.log()[event], log_of(x)[event].detach()
    level = mean if method == "score" else 0.0
    scored = (cost.detach() - level) * fn.score_parts(x).score_function
    slopes = torch.autograd.grad((cost + scored).sum(), theta)[0]
    return {"mean": _summary(logs), "derivative": _summary(slopes)}


def _summary(values: Tensor) -> dict[str, float]:
    wide = values.double()
    return {"mean": wide.mean().item(), "spread": wide.std().item() / math.sqrt(len(wide))}


def measure(
    draws: int, seed: int = 0, shapes: Sequence[float] = SHAPES, command: str = ""
) -> list[Row]:
    """A row for each quantity, method and shape, in both precisions."""
    with Stream(seed), mpmath.workdps(DIGITS):
        rows = [*closed_rows(shapes), *drawn_rows(draws, shapes)]
    origin = {"command": command, "seed": seed, "versions": versions()}
    return [{**row, **origin} for row in rows]
