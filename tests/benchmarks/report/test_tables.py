import json
from pathlib import Path

import pytest

from priorzoo.benchmarks.papers import RECIPES
from priorzoo.benchmarks.report import tables
from priorzoo.benchmarks.rows.files import FORMAT, RESULTS, append_row, read_rows


def row(seed, elbo, accuracy, recipe="gmvae", steps=10_000, **settings):
    published = {"-elbo at 10,000 steps": 97.0, "accuracy_majority at 10,000 steps": 0.666}
    metrics = {"clusters": 10.0, "used_clusters": 9.0 + seed, "entropy": 0.5}
    return {
        "recipe": recipe,
        "command": f"priorzoo train {recipe}",
        "steps": steps,
        "seed": seed,
        "settings": {"precision": "float32", "published": published, **settings},
        "terms": {"elbo": elbo},
        "metrics": metrics | {"accuracy_majority": accuracy},
    }


def cells(line):
    return [cell.strip() for cell in line.strip("|\n").split("|")]


def test_rows_that_differ_only_in_their_seed_make_one_line():
    *_, line = tables.clustering_table([row(0, -96.0, 0.6), row(1, -98.0, 0.8)]).splitlines()
    assert cells(line) == [
        "`priorzoo train gmvae`",
        "10,000",
        "0, 1",
        "10, 9 to 10",
        "97.00 ± 1.41",
        "0.50 ± 0.00",
        "0.700 ± 0.141",
        "97, 0.666",
    ]


@pytest.mark.parametrize("other", [{"recipe": "m2"}, {"steps": 500}])
def test_rows_of_other_commands_or_lengths_are_not_mixed(other):
    lines = tables.clustering_table([row(0, -96.0, 0.6), row(1, -98.0, 0.8, **other)]).splitlines()
    assert len(lines) == 4


def test_an_argument_that_a_version_of_torch_adds_does_not_split_a_command():
    """Resolved settings hold every default of the optimiser's class."""
    rows = [row(0, -96.0, 0.6), row(1, -98.0, 0.8, optimiser={"decoupled_weight_decay": False})]
    *_, line = tables.clustering_table(rows).splitlines()
    assert cells(line)[2] == "0, 1"


def test_clusters_of_unlabelled_rows_have_no_accuracy():
    rows = [row(0, -96.0, 0.6), row(1, -98.0, 0.8)]
    del rows[1]["metrics"]["accuracy_majority"]
    *_, line = tables.clustering_table(rows).splitlines()
    assert cells(line)[5:7] == ["0.50 ± 0.00", "-"]


@pytest.mark.parametrize("text", ["", "<!-- results -->", "<!-- /results --> <!-- results -->"])
def test_a_readme_without_marks_is_refused(tmp_path, text):
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(ValueError, match="Expected <!-- results --> and then"):
        tables.write_readme(readme, [row(0, -96.0, 0.6)])
    assert readme.read_text() == text


def test_a_published_figure_stands_only_beside_as_many_steps():
    *_, line = tables.clustering_table([row(0, -96.0, 0.6, steps=500)]).splitlines()
    assert cells(line)[-1] == "-"


def test_rows_are_appended_and_read_back(tmp_path):
    for seed in (0, 1):
        append_row(row(seed, -96.0, 0.6), tmp_path / "new" / "some.jsonl")
    expected = [{"format": FORMAT, **row(seed, -96.0, 0.6)} for seed in (0, 1)]
    assert read_rows(tmp_path / "new") == read_rows(tmp_path / "new" / "some.jsonl") == expected


def test_readme_shows_the_committed_rows_and_nothing_else(tmp_path):
    readme = Path(__file__).parents[2] / "README.md"
    copy = tmp_path / "README.md"
    copy.write_text(readme.read_text())
    found = read_rows(RESULTS)
    rows = [row for row in found if row.get("kind") is None]
    timed = [row for row in found if row.get("kind") == "speed"]
    beside = [row for name in ("clusters", "sticks") for row in read_rows(RESULTS / name)]
    tables.write_readme(copy, rows, timed, beside)
    assert copy.read_text() == readme.read_text()


def test_committed_rows_belong_to_recipes_and_say_what_they_need():
    for committed in (row for row in read_rows(RESULTS) if "kind" not in row):
        assert committed["recipe"] in RECIPES
        assert committed.keys() >= {
            "command",
            "settings",
            "seed",
            "steps",
            "device",
            "seconds",
            "versions",
        }
        json.dumps(committed, allow_nan=False)


def test_models_stand_beside_k_means_with_as_many_clusters_as_they_use():
    def clustered(recipe, seed, used, accuracy, data="mnist"):
        made = row(seed, -96.0 - seed, accuracy, recipe, data=data)
        more = {"used_clusters": used, "accuracy_best_example": 0.5, "nmi": 0.4}
        return made | {"metrics": made["metrics"] | more}

    floors = [clustered("k-means", s, k, k / 40 + s / 10) for k in (20, 22) for s in (0, 1)]
    floors.append(clustered("k-means", 0, 20, 0.0, "fashion_mnist"))
    runs = [clustered("nggp-mnist", 0, 20.0, 0.7), clustered("nggp-mnist", 1, 22.0, 0.8)]
    alone = clustered("gmvae", 0, 21, 0.7)
    *_, line, last = tables.k_means_table([*floors, *runs, alone]).splitlines()
    assert cells(line)[1:4] == ["10,000", "0, 1", "20 to 22"]
    assert cells(line)[4:6] == ["96.50 ± 0.71", "0.750 ± 0.071"]
    assert cells(line)[-1] == "0.575"  # of .55 and .60
    assert cells(last)[-1] == "-"


def test_labelled_factors_have_a_table_of_their_own(tmp_path):
    figures = {"accuracy": 0.8, "regression": 0.7, "judge": 0.9, "agreement": 0.75}
    rows = [
        {
            "command": "priorzoo train faces",
            "steps": 1300,
            "seed": seed,
            "settings": {"labels": {"r_1": "eyes"}},
            "metrics": {f"r_1.{name}": value + seed / 50 for name, value in figures.items()},
        }
        for seed in (0, 1)
    ]
    *_, line = tables.factor_table(rows).splitlines()
    assert cells(line)[1:4] == ["1,300", "0, 1", "eyes"]
    assert cells(line)[4:] == [f"{v + 0.01:.3f} ± 0.014" for v in (0.8, 0.7, 0.9, 0.75)]
    assert tables.clustering_table(rows) == tables.HEAD
    readme = tmp_path / "README.md"
    marks = [f"<!-- {end}{name} -->" for name in ("results", "factors") for end in ("", "/")]
    readme.write_text("\n".join(marks))
    tables.write_readme(readme, rows)
    assert line in readme.read_text()
