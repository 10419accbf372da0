"""Jiang et al., "Variational Deep Embedding", 2017."""

import warnings
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from priorzoo.benchmarks.papers.paper import HUNGARIAN, NEGATIVE, Line, Measure, Paper, lengths
from priorzoo.benchmarks.recipes import REFERENCE, Recipe, Stage, digits, mlps, part
from priorzoo.guides import CodeThenCluster
from priorzoo.inference import Autoencoder, codes
from priorzoo.inference.batch import Context
from priorzoo.inference.construction import locate
from priorzoo.models import GMVAE, Components


def place_mixture(
    model: nn.Module,
    guide: nn.Module,
    x: Tensor,
    *,
    seed: int,
    starts: int = 5,
    rows: int = 20_000,
    context: Context | None = None,
) -> None:
    """Put a :class:`GMVAE`'s components where a Gaussian mixture fits the posterior mean codes.

    As in section 3.2 of the paper, by scikit-learn's ``GaussianMixture``, with covariances of the
    model's kind.

    Args:
        model, guide: a pair whose model is a :class:`GMVAE`, in place.
        x: rows ``(N, P)``.
        seed: of the mixture's starts.
        starts: number of starts by k-means, of which the one with the largest likelihood is taken.
        rows: how many of the rows the mixture is fit to, from the first.
        context: what model and guide are told beside x, each ``(N, ...)``.

    Raises:
        ValueError: for another model.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    if not (isinstance(model, Components) and "logits" in model.state_dict()):
        raise ValueError(
            f"Expected a GMVAE to place the components of but got {type(model).__name__}."
        )
    told = {name: value[:rows] for name, value in (context or {}).items()}
    z = codes(model, guide, x[:rows], context=told).cpu().double().numpy()
    if len(z) < model.clusters:  # scikit-learn wants as many
        z = np.resize(z, (model.clusters, z.shape[1]))
    kind = {"diagonal": "diag"}.get(model.covariance, model.covariance)
    mixture = GaussianMixture(
        model.clusters, covariance_type=kind, n_init=starts, random_state=seed, reg_covar=1e-4
    )
    with warnings.catch_warnings():  # of fewer distinct codes than clusters, some are empty
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(z)
    found = (mixture.means_, mixture.covariances_, mixture.weights_)
    means, variances, weights = (torch.as_tensor(values).to(model.loc) for values in found)
    model.set_components(means, variances)
    if isinstance(model.logits, nn.Parameter):
        with torch.no_grad():
            model.logits.copy_(weights.log())


def as_vade(recipe: Recipe) -> Recipe:
    """A recipe whose model is a :class:`GMVAE` with the guide and the stages of VaDE; others as
    they are.

    The lengths of the stages are those of a single step.
    """
    if not issubclass(locate(recipe.model.class_path), GMVAE):
        return recipe
    first = Stage("autoencoder", steps=1, objective=part(Autoencoder))
    return replace(recipe, guide=part(CodeThenCluster), stages=(first, _MIXTURE))


SOURCE = "Jiang et al., Variational Deep Embedding, 2017"
_MIXTURE = Stage("mixture", begin=part(place_mixture))
RECIPES = {
    "vade": replace(
        REFERENCE,
        summary="VaDE: autoencoder, mixture of its codes, then both together",
        paper=SOURCE,
        model=part(GMVAE, code=10, clusters=10, learn_weights=True),
        guide=part(CodeThenCluster),
        **mlps(500, 500, 2000),
        optimiser=part(torch.optim.Adam, lr=1e-3, fused=True),
        binarise="none",
        train=None,
        validation=0,
        stages=(Stage("autoencoder", epochs=10, objective=part(Autoencoder)), _MIXTURE),
        steps=None,
        epochs=20,
        every=600,
        published={"accuracy_hungarian, best run": 0.945, "of 20 seeds, a re-run": 0.716},
    ),
    "digits-vade": digits(
        "VaDE",
        part(GMVAE, code=8, clusters=10, learn_weights=True),
        part(CodeThenCluster),
        ", in its three stages",
        stages=(Stage("autoencoder", steps=1_000, objective=part(Autoencoder)), _MIXTURE),
        steps=2_000,
    ),
}

_RERUN = "a public re-run, 20 seeds, Hungarian; the paper's best run is .945"
_MEASURES = (
    Measure(
        "autoencoder, then k-means", ("stages", "autoencoder", "k-means", "accuracy_hungarian")
    ).beside(0.792, "k-means on the codes of an autoencoder, Hungarian", spread=0.019),
    Measure("mixture of its codes", ("stages", "mixture", "metrics", "accuracy_hungarian")),
    replace(HUNGARIAN, title="trained together").beside(0.716, _RERUN, spread=0.044),
    NEGATIVE,
)
PAPER = Paper(
    "jiang2017",
    "Autoencoder, mixture of its codes, both together, on MNIST",
    SOURCE,
    (Line("VaDE", "vade", lengths(0.1, 20, 300), {}, _MEASURES),),
    recipes=RECIPES,
)
