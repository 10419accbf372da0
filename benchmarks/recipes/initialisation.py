"""What a stage of a recipe may begin with: prior parameters from the codes of the data."""

import torch
from torch import Tensor, nn

from priorzoo.inference import ConjugateELBO, codes, seed_components
from priorzoo.inference.pairs import Labels
from priorzoo.models import GMVAE


def place_mixture(
    model: nn.Module, guide: nn.Module, x: Tensor, *, seed: int, starts: int = 5, rows: int = 20_000
) -> None:
    """Put a :class:`GMVAE`'s components where a Gaussian mixture fits the posterior mean codes.

    As VaDE does (Jiang et al., 2017, section 3.2), by scikit-learn's ``GaussianMixture`` with
    diagonal covariances.

    Args:
        model, guide: a pair whose model is a :class:`GMVAE`, in place.
        x: rows ``(N, P)``.
        seed: of the mixture's starts.
        starts: number of starts by k-means, of which the likeliest is taken.
        rows: how many of the rows the mixture is fit to, from the first.

    Raises:
        ValueError: for another model.
    """
    from sklearn.mixture import GaussianMixture

    if not isinstance(model, GMVAE):
        raise ValueError(
            f"Expected a GMVAE to place the components of but got {type(model).__name__}."
        )
    z = codes(model, guide, x[:rows]).cpu().double().numpy()
    mixture = GaussianMixture(
        model.clusters, covariance_type="diag", n_init=starts, random_state=seed, reg_covar=1e-4
    ).fit(z)
    device = model.loc.device
    means, variances, weights = (
        torch.as_tensor(part, dtype=model.loc.dtype, device=device)
        for part in (mixture.means_, mixture.covariances_, mixture.weights_)
    )
    model.place(means, variances)
    if model.learn_weights:
        with torch.no_grad():
            model.logits.copy_(weights.log())


def place_factors(
    model: nn.Module,
    guide: nn.Module,
    x: Tensor,
    *,
    seed: int,
    labels: Labels,
    rows: int = 10_000,
    rounds: int = 20,
) -> None:
    """Put a factorial mixture's components at clusters of the codes, see :func:`seed_components`.

    Args:
        model, guide: a pair with conjugate globals, in place.
        x: rows ``(N, P)``.
        seed: unused, as the numbers drawn are those of the caller's stream.
        labels: known values ``(N,)`` of sites, -1 for unknown.
        rows: how many of the rows the components begin from, from the first.
        rounds: of variational Bayes of the codes.
    """
    known = {site: label[:rows] for site, label in labels.items()}
    seed_components(ConjugateELBO(model, guide), x[:rows], known, rounds)
