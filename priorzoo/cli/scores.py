"""How the scores of a run are printed: a line each, with unit and meaning."""

import sys
from collections.abc import Mapping

from priorzoo.benchmarks.scores import metrics
from priorzoo.cli.options import print_table
from priorzoo.cli.settings import described

MEANING = described(metrics.score, "Returns") | {
    "elbo": "bound on log p(x)",
    "pseudo-likelihood": "of an NGGP mixture: each row given the others' clusters; no bound",
    "objective": "what is maximised",
    "reconstruction": "expected log p(x given the latent variables)",
    "log p(x)": "importance-weighted bound on log p(x), at least the ELBO",
}


def print_scores(result: Mapping[str, Mapping[str, float]]) -> None:
    """Terms and metrics, one a line, with their units."""
    terms = result["terms"]
    print("held-out terms, nats per datum")
    lines = {name: _line(name, terms[name]) for name in sorted(terms, key="elbo".__ne__)}
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
