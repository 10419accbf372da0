"""Where the zoo stands: which of the rows count, and which side is ahead."""

from statistics import mean

import pytest

from priorzoo.benchmarks.papers import tasks
from priorzoo.benchmarks.papers.paper import HUNGARIAN, NMI, metric
from priorzoo.benchmarks.papers.tasks import TASKS, Task
from priorzoo.benchmarks.report import standings
from priorzoo.benchmarks.report.standings import standings_table

FEW = (1, 10)


def row(recipe, seed, used, score, **more):
    settings = {"data": "mnist", "binarise": "dynamic", "labelled": 0} | more.pop("settings", {})
    metrics = {"accuracy_hungarian": score, "used_clusters": used, "nmi": score} | more
    row = {"recipe": recipe, "seed": seed, "settings": settings, "metrics": metrics, "changes": {}}
    return row | {
        "terms": {"elbo": -90.0},
        "budget": "standard",
        "steps": 10,
        "cell": recipe,
        "command": f"priorzoo train {recipe}",
    }


def rows(recipe, scores, used=10, **more):
    return [row(recipe, seed, used, score, **more) for seed, score in enumerate(scores)]


@pytest.fixture
def stand(monkeypatch):
    """The cells of the only task, by the heads of their columns."""

    def made(task, found):
        monkeypatch.setattr(standings, "TASKS", (task,))
        table = standings_table([], found)
        return {name: cell.text for name, cell in zip(table.head, table.rows[0], strict=True)}

    return made


def task(value, **more):
    return Task("ten", "mnist", HUNGARIAN.beside(value, "best run"), "someone", FEW, **more)


def test_the_best_mean_of_three_seeds_counts(stand):
    found = [*rows("one", [0.9, 0.8, 0.7]), *rows("two", [0.7, 0.7, 0.7]), *rows("lucky", [0.99])]
    cells = stand(task(0.75), found)
    assert cells["by line"] == "one"
    assert cells["ours"] == "0.800 ± 0.100"
    assert cells["where we stand"] == "level, within the spread"
    assert stand(task(0.65), found)["where we stand"] == "ahead by 0.150"
    assert stand(task(0.95), found)["where we stand"] == "behind by 0.150"
    assert stand(task(0.95), rows("lucky", [0.99]))["where we stand"] == "ahead by 0.040"


def test_other_rows_do_not_count(stand):
    """Those with labels, of baselines, of other data, that were quick, or use too many clusters."""
    strange = [
        rows("labels", [0.9] * 3, settings={"labelled": 100}),
        [each | {"terms": {}} for each in rows("baseline", [0.9] * 3)],
        rows("other", [0.9] * 3, settings={"data": "fashion_mnist"}),
        [each | {"budget": "quick"} for each in rows("quick", [0.9] * 3)],
        rows("many", [0.9] * 3, used=11),
        [*rows("sometimes", [0.9] * 2), row("sometimes", 2, 11, 0.9)],
    ]
    for found in strange:
        assert stand(task(0.5), found)["where we stand"] == "no rows"
    grey = rows("grey", [0.9] * 3, settings={"binarise": "none"})
    assert stand(task(0.5, binary=True), grey)["where we stand"] == "no rows"
    assert stand(task(0.5), grey)["by line"] == "grey"


def test_runs_whose_components_were_merged_count_with_the_metrics_of_both(stand):
    merged = {"used_clusters": 10.0, "accuracy_hungarian": 0.8}
    found = [each | {"merged": merged} for each in rows("many", [0.4] * 3, used=25)]
    cells = stand(task(0.7), found)
    assert (cells["by line"], cells["ours"]) == ("many, merged", "0.800 ± 0.000")
    partly = [*found[:2], found[2] | {"merged": {}}]
    assert stand(task(0.7), partly)["where we stand"] == "no rows"
    wide = Task("many", "mnist", HUNGARIAN.beside(0.3, "best run"), "someone", (20, 30))
    assert stand(wide, found)["by line"] == "many"
    assert stand(task(0.7, inferred=True), found)["where we stand"] == "no rows"


def test_less_may_be_better(stand):
    error = metric("nmi", "error", higher=False).beside(0.3, "")
    found = [*rows("one", [0.5] * 3), *rows("two", [0.2] * 3)]
    cells = stand(Task("error", "mnist", error, "someone"), found)
    assert (cells["by line"], cells["where we stand"]) == ("two", "ahead by 0.100")


def test_beside_a_measure_of_the_same_rows(stand):
    """Where nothing is published; rows without that measure do not count."""
    floor = metric("floor", "floor")
    wanted = Task("open", "mnist", NMI, "k-means", FEW, floor)
    found = rows("one", [0.8, 0.7, 0.9], floor=0.6)
    cells = stand(wanted, [*found, *rows("two", [0.95] * 3)])
    assert cells["best published"].startswith("0.600")
    assert cells["where we stand"] == f"ahead by {mean([0.8, 0.7, 0.9]) - 0.6:.3f}"


def test_every_task_has_a_value_to_compare_with():
    assert TASKS is tasks.TASKS
    for each in TASKS:
        assert (each.measure.published is None) == (each.beside is not None), each.title
        assert each.by
