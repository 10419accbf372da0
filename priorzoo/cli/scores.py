"""How the scores of a run are printed: a line each, with unit and meaning."""

import sys
from collections.abc import Mapping

from priorzoo.cli.options import print_table

MEANING = {
    "elbo": "bound on log p(x)",
    "objective": "what is maximised",
    "reconstruction": "expected log p(x given the latent variables)",
    "log p(x)": "importance-weighted bound on log p(x), at least the ELBO",
    "clusters": "number of clusters",
    "used_clusters": "clusters that hold at least one row",
    "effective_clusters": "1 if q(y given x) says nothing of x, K if it separates K equal clusters",
    "active_clusters": "components of the mixture that exist",
    "entropy": "mean entropy of q(y given x), nats; 0 if each row has one certain cluster",
    "tail_occupancy": "share of the rows in the less used half of the clusters",
    "accuracy": "share of the rows whose cluster is their label",
    "accuracy_majority": "each cluster takes its most frequent label",
    "accuracy_best_example": "each cluster takes the label of its most certain row",
    "accuracy_hungarian": "clusters and classes matched one to one",
    "nmi": "normalised mutual information of clusters and labels",
    "ari": "adjusted Rand index of clusters and labels; 0 is chance",
}


def print_scores(result: Mapping[str, Mapping[str, float]]) -> None:
    """Terms and metrics, one a line, with their units."""
    terms = result["terms"]
    print("held-out terms, nats per datum")
    names = sorted(terms, key="elbo".__ne__)
    lines = {name: _line(name, terms[name]) for name in names}
    if terms["elbo"] > 0:
        lines["elbo"] += "; above 0, as p(x) is a density and no probability"
    print_table(lines, indent=2)
    if result["metrics"]:
        print("clusters of the held-out rows")
        print_table({name: _line(name, value) for name, value in result["metrics"].items()}, 2)


def print_warning(result: Mapping[str, object]) -> None:
    """What is wrong with the clusters, if anything, where errors go."""
    if result.get("warning"):
        print(f"warning: {result['warning']}", file=sys.stderr)


def _line(name: str, value: float) -> str:
    divergence = "KL divergence of the site from its prior" if name.startswith("kl[") else ""
    return f"{value:10.3f}  {MEANING.get(name.rpartition('.')[2], divergence)}"
