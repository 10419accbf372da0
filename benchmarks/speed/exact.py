"""Expectations and KL divergences by mpmath, from independent formulas and quadrature.

Arguments are ``mpmath.mpf``. The caller sets the working precision; differences lose up to ten
digits of it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from mpmath import mp

Number = Any  # mpmath's mpf, which has no types


def number(x: float) -> Number:
    """x rounded to float32, as an exact number."""
    return mp.mpf(torch.tensor(x, dtype=torch.float32).item())


def log_beta(a: Number, b: Number) -> Number:
    """log B(a, b)."""
    return mp.loggamma(a) + mp.loggamma(b) - mp.loggamma(a + b)


def kl_gamma(a: Number, b: Number, c: Number, d: Number) -> Number:
    """Of Gamma(a, rate b) from Gamma(c, rate d)."""
    rates = c * mp.log(b / d) + a * (d - b) / b
    return (a - c) * mp.psi(0, a) - mp.loggamma(a) + mp.loggamma(c) + rates


def kl_dirichlet(q: Sequence[Number], p: Sequence[Number]) -> Number:
    """Of Dirichlet(q) from Dirichlet(p); two shapes make Betas."""
    total = mp.fsum(q)
    found = mp.loggamma(total) - mp.loggamma(mp.fsum(p))
    for a, b in zip(q, p, strict=True):
        found += mp.loggamma(b) - mp.loggamma(a) + (a - b) * (mp.psi(0, a) - mp.psi(0, total))
    return found


def kumaraswamy_log_complement(a: Number, b: Number) -> Number:
    """E log(1 - x), over the log of the exponential variable w = -b log(1 - x^a)."""

    def integrand(s: Number) -> Number:
        w = mp.exp(s)
        y = w / b
        log_power = mp.log1p(-mp.exp(-y)) if y > 1 else mp.log(-mp.expm1(-y))
        return mp.exp(s - w) * mp.log(-mp.expm1(log_power / a))

    step = mp.log(b * (mp.log(1 / a) if a < 0.3 else 1))  # where the integrand turns, if a is small
    points = {-60, -20, -8, -3, -1, 0, 1, 2, 3, 5, *(step + d for d in (-1, 0, 1))}
    return mp.quad(integrand, sorted(points))


def kl_kumaraswamy(a: Number, b: Number, alpha: Number, beta: Number) -> Number:
    """Of Kumaraswamy(a, b) from Beta(alpha, beta)."""
    left = -(mp.euler + mp.psi(0, b + 1)) / a
    own = mp.log(a) + mp.log(b) + (a - alpha) * left - (b - 1) / b
    return own + log_beta(alpha, beta) - (beta - 1) * kumaraswamy_log_complement(a, b)


def kl_logit_normal(m: Number, s: Number, alpha: Number, beta: Number) -> Number:
    """Of the logistic function of N(m, s^2) from Beta(alpha, beta)."""

    def softplus(z: Number) -> Number:
        x = m + s * z
        return mp.npdf(z) * (x if x > 200 else mp.log1p(mp.exp(x)))

    near = {-m / s + d / s for d in (-40, -10, -3, 0, 3, 10, 40)}  # where softplus bends
    points = {-30, -9, -4, -2, -1, 0, 1, 2, 4, 9, 30, *(z for z in near if abs(z) < 30)}
    right = -mp.quad(softplus, sorted(points))
    entropy = mp.log(s) + (mp.log(2 * mp.pi) + 1) / 2
    return log_beta(alpha, beta) - alpha * (right + m) - beta * right - entropy


def kl_normal_gamma(q: Sequence[Number], p: Sequence[Number]) -> Number:
    """Of one (m, s, a, b) from another."""
    (m, s, a, b), (m0, s0, a0, b0) = q, p
    normal = s0 * a / b * (m - m0) ** 2 + s0 / s - mp.log(s0 / s) - 1
    return normal / 2 + kl_gamma(a, b, a0, b0)


def log_normaliser_of_log_u(n: Number, k: Number, alpha: Number, sigma: Number) -> Number:
    """Of the law of V = log U at tau = 1, by quadrature around its mode."""

    def energy(v: Number) -> Number:
        rate = mp.log1p(mp.exp(v))
        psi = alpha * rate if sigma == 0 else alpha / sigma * mp.expm1(sigma * rate)
        return n * v - (n - sigma * k) * rate - psi

    def slope(v: Number) -> Number:
        u = mp.exp(v)
        return n - (n - sigma * k) * u / (u + 1) - alpha * u * (u + 1) ** (sigma - 1)

    low, high = mp.mpf(-50), mp.mpf(200)
    for _ in range(150):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    mode = low
    top, width = energy(mode), 1 / mp.sqrt(-mp.diff(energy, mode, 2))
    points = [mode + width * d for d in (-60, -20, -8, -4, -2, 0, 2, 4, 8, 20, 60)]
    return top + mp.log(mp.quad(lambda v: mp.exp(energy(v) - top), points))
