"""Scores of a run's test rows: terms of the bound, metrics of clusters, and what is wrong."""

from typing import Any

from priorzoo.benchmarks.data import sets as data
from priorzoo.benchmarks.data.labels import unlike
from priorzoo.benchmarks.scores import registry
from priorzoo.benchmarks.scores.run import Result, Run
from priorzoo.inference import Stream, check_data, degeneracy, evaluate
from priorzoo.inference.processes import ALONE, Processes

DENSITIES = ("elbo", "log p(x)", "objective", "pseudo-likelihood", "reconstruction")


def score(
    run: Run,
    dataset: data.Dataset,
    importance_samples: int = 0,
    processes: Processes = ALONE,
    progress: bool = False,
) -> Result:
    """Score the test rows, with the progress of the importance samples if wanted.

    Where the binarisation is dynamic, everything sees one and the same draw of each row. Several
    processes share the rows for the terms; the first alone has the rest.

    Returns:
        ``terms`` of the bound in nats per datum; ``metrics``, see :func:`registry.scores`; and
        where there are clusters a ``warning``: what is wrong with them or with the labels, or None.
    """
    model, x = run.model, dataset.x_test.to(run.device)
    told = dataset.beside(x)
    check_data(model, x, "x_test", context=told)
    with Stream(run.seed, x.device):
        x = dataset.drawn(x)
    how: dict[str, Any] = {
        "importance_samples": importance_samples,
        "seed": run.seed,
        "context": told,
        "processes": processes,
        "progress": progress,
    }
    terms = _in_units_of_the_table(evaluate(model, run.guide, x, **how), dataset)
    if not processes.is_first:
        return {"terms": terms, "metrics": {}}
    found: Result = {"terms": terms, "metrics": registry.scores(model, run, dataset, x)}
    q = registry.probabilities(model, run, dataset, x)
    return found if q is None else found | {"warning": unlike(dataset) or degeneracy(q)}


def _in_units_of_the_table(terms: dict[str, float], dataset: data.Dataset) -> dict[str, float]:
    """Terms of scaled rows as those of the rows of the table, whose density is another."""
    if dataset.schema is None or dataset.schema.shape:
        return terms
    rows = len(dataset.x_test)
    shift = dataset.schema.log_scale(dataset.context["test"].get("observed"), rows).mean().item()
    return {name: value - shift * (name in DENSITIES) for name, value in terms.items()}
