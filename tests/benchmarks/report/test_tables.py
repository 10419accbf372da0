"""The tables of ``RESULTS.md``: between their marks, from the committed rows, and nothing else."""

import json
from pathlib import Path

import pytest

from priorzoo.benchmarks.grid.clusterings import CLUSTERINGS
from priorzoo.benchmarks.papers import PAPERS, RECIPES
from priorzoo.benchmarks.papers.paper import MAJORITY, NEGATIVE, Line, Paper
from priorzoo.benchmarks.report.result_tables import k_means_table, pixel_table, update_tables
from priorzoo.benchmarks.report.sections import of_measurements
from priorzoo.benchmarks.report.table import Cell, Table, to_markdown
from priorzoo.benchmarks.rows.files import RESULTS, append_row, read_folder, read_rows
from priorzoo.benchmarks.rows.schemas import schema_of

DOCUMENT = Path(__file__).parents[3] / "benchmarks" / "RESULTS.md"
MARKS = "before\n<!-- one: some.jsonl -->\nold\n<!-- /one -->\nafter\n"


def row(seed, elbo, accuracy, recipe="gmvae", steps=10_000, **more):
    metrics = {"clusters": 10.0, "used_clusters": 9.0 + seed, "entropy": 0.5}
    return {
        "recipe": recipe,
        "command": f"priorzoo train {recipe}",
        "changes": {},
        "budget": "standard",
        "cell": "",
        "device": "cpu",
        "steps": steps,
        "seed": seed,
        "settings": {"data": "mnist"},
        "terms": {"elbo": elbo},
        "metrics": metrics | {"accuracy_majority": accuracy},
        **more,
    }


def lines_of(text):
    """The cells of each line of the only table of a text."""
    found = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found]


@pytest.fixture
def document(tmp_path):
    """Write rows and a document of one mark, and give the text that the document then has."""

    def written(*rows, text=MARKS):
        for made in rows:
            append_row(made, tmp_path / "some.jsonl")
        measures = (NEGATIVE, MAJORITY)
        mine = Paper("one", "", "", (Line("GMVAE", "gmvae", {"quick": 1}, measures=measures),))
        (tmp_path / "document.md").write_text(text)
        update_tables(tmp_path / "document.md", tmp_path, [mine])
        return (tmp_path / "document.md").read_text()

    return written


def test_rows_that_differ_only_in_their_seed_make_one_line(document):
    text = document(row(0, -96.0, 0.6), row(1, -98.0, 0.8))
    head, _, line = lines_of(text)
    assert dict(zip(head, line, strict=True)) == {
        "line": "GMVAE",
        "-ELBO, nats": "97.00 ± 1.41",
        "majority accuracy": "0.700 ± 0.141",
        "used K": "9 to 10",
        "command": "`priorzoo train gmvae`",
    }
    assert "In every row: steps 10,000, seeds 2 (0, 1), budget standard, device cpu." in text
    assert text.startswith("before\n<!-- one: some.jsonl -->\n")
    assert text.endswith("<!-- /one -->\nafter\n")
    assert "old" not in text


@pytest.mark.parametrize("other", [{"recipe": "m2"}, {"steps": 500}])
def test_rows_of_other_recipes_or_lengths_are_not_mixed(document, other):
    lines = lines_of(document(row(0, -96.0, 0.6), row(1, -98.0, 0.8) | other))
    assert sum("96.00" in line for line in lines) == 1
    assert not any("97.00 ± 1.41" in line for line in lines)


def test_an_argument_that_a_version_of_torch_adds_does_not_split_a_line(document):
    """Resolved settings hold every default of the optimiser's class."""
    later = {"optimiser": {"decoupled_weight_decay": False}}
    text = document(row(0, -96.0, 0.6), row(1, -98.0, 0.8, settings=later))
    assert len(lines_of(text)) == 3


@pytest.mark.parametrize("text", ["", "<!-- one: a -->", "<!-- /one --> <!-- one: a -->"])
def test_a_document_without_marks_is_refused(document, tmp_path, text):
    with pytest.raises(ValueError, match=r"Expected marks such as .* add them"):
        document(row(0, -96.0, 0.6), text=text)
    assert (tmp_path / "document.md").read_text() == text


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        (MARKS.replace("one", "two"), ValueError, "Unknown table 'two' in .*; it may be speed, "),
        (MARKS.replace("some", "gone"), FileNotFoundError, r"gone\.jsonl"),
    ],
)
def test_a_mark_that_names_what_is_not_there_changes_nothing(
    document, tmp_path, text, error, words
):
    with pytest.raises(error, match=words):
        document(row(0, -96.0, 0.6), text=text)
    assert (tmp_path / "document.md").read_text() == text


def test_results_shows_the_committed_rows_and_nothing_else(tmp_path):
    copy = tmp_path / "RESULTS.md"
    copy.write_text(DOCUMENT.read_text("utf-8"), "utf-8")
    update_tables(copy, RESULTS, PAPERS)
    assert copy.read_text("utf-8") == DOCUMENT.read_text("utf-8")


def test_every_folder_of_committed_rows_has_its_place_in_results():
    named = DOCUMENT.read_text("utf-8")
    for path in RESULTS.rglob("*.jsonl"):
        place = path.relative_to(RESULTS)
        if place.parts[0] != "history":
            assert place.parts[0] in named, place


def test_the_report_reads_all_committed_rows_and_shows_those_of_every_measure():
    committed = read_folder(RESULTS)
    measured = [row for row in committed if "measure" in row]
    sections = list(of_measurements(measured))
    assert {section.key for section in sections} == {row["measure"] for row in measured}
    assert all(table.rows for section in sections for table in section.tables)


@pytest.mark.parametrize("wrong", [{"programs": [1.0]}, {"measure": "gone"}, {"output": 3}])
def test_a_row_of_serving_that_does_not_fit_is_refused(wrong):
    row = read_rows(RESULTS / "serving")[0]
    assert not schema_of(row).problem(row, "row")
    assert "Expected" in schema_of(row | wrong).problem(row | wrong, "row")


def test_committed_rows_belong_to_recipes_or_baselines_and_say_what_they_need():
    for committed in read_rows(RESULTS):
        if "kind" in committed:
            continue
        assert committed["recipe"] in {*RECIPES, *CLUSTERINGS}
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


def test_committed_changes_are_values_and_no_text_of_them():
    for path in RESULTS.rglob("*.jsonl"):
        for committed in read_rows(path) if path.parent.name != "history" else ():
            for value in committed.get("changes", {}).values():
                if isinstance(value, str):
                    with pytest.raises(json.JSONDecodeError):
                        json.loads(value)


def test_models_stand_beside_k_means_with_as_many_clusters_as_they_use():
    def clustered(recipe, seed, used, accuracy, data="mnist"):
        made = row(seed, -96.0 - seed, accuracy, recipe, settings={"data": data})
        more = {"used_clusters": used, "accuracy_best_example": 0.5, "nmi": 0.4}
        terms = {} if recipe == "k-means" else made["terms"]
        return made | {"metrics": made["metrics"] | more, "terms": terms}

    floors = [clustered("k-means", s, k, k / 40 + s / 10) for k in (20, 22) for s in (0, 1)]
    floors.append(clustered("k-means", 0, 20, 0.0, "fashion_mnist"))
    runs = [clustered("nggp-mnist", 0, 20.0, 0.7), clustered("nggp-mnist", 1, 22.0, 0.8)]
    alone = clustered("gmvae", 0, 21, 0.7)
    made = k_means_table(PAPERS, [*floors, *runs, alone])
    assert len(made.rows) == 2
    found = {cells[0].text: dict(zip(made.head, cells, strict=True)) for cells in made.rows}
    nggp, gmvae = found["MNIST, NGGP, Gaussian components"], found["Gaussian-mixture VAE"]
    assert (nggp["steps"].text, nggp["seeds"].note, nggp["used K"].text) == (
        "10,000",
        "0, 1",
        "20 to 22",
    )
    assert nggp["-ELBO, nats"].text == "96.50 ± 0.71"
    assert nggp["majority accuracy"].text == "0.750 ± 0.071"
    assert nggp["k-means, as many clusters"].text == "0.575"  # of .55 and .60
    assert gmvae["k-means, as many clusters"] == Cell()


def test_labelled_factors_stand_beside_regressions_in_a_table_of_their_own(tmp_path):
    values = {"accuracy": 0.8, "regression": 0.7, "judge": 0.9, "agreement": 0.75}
    for seed in (0, 1):
        metrics = {f"r_1.{name}": value + seed / 50 for name, value in values.items()}
        append_row(
            row(seed, -1.0, 0.0, "factorial-faces") | {"metrics": metrics}, tmp_path / "some.jsonl"
        )
    (tmp_path / "document.md").write_text(MARKS.replace("one", "paquet2018"))
    update_tables(tmp_path / "document.md", tmp_path, PAPERS)
    head, _, line = lines_of((tmp_path / "document.md").read_text())
    found = dict(zip(head, line, strict=True))
    names = ("assignment of eyes", "regression for eyes, same labels")
    names += ("regression for eyes, all labels", "drawn eyes as asked")
    expected = [f"{value + 0.01:.3f} ± 0.014" for value in values.values()]
    assert [found[name] for name in names] == expected


def test_planes_of_the_pixels_have_a_table_of_their_own():
    pca = {"neighbour_accuracy": 0.4, "trustworthiness": 0.7}
    rows = [row(0, -1.0, 0.5), {"embedding": {"pixels": {"seed": 3, "pca": pca}}}]
    (cells,) = pixel_table(rows).rows
    assert [cell.text for cell in cells] == ["PCA of the pixels", "3", "0.400", "0.700"]


def test_markdown_keeps_commands_as_they_are_and_escapes_the_rest():
    table = Table(
        ("a*",), ((Cell("[x]", note="<b>"),), (Cell("--set [1] x_y", code=True),)), ("n",)
    )
    assert to_markdown(table).splitlines() == [
        "| a\\* |",
        "|---|",
        "| \\[x\\] (\\<b>) |",
        "| `--set [1] x_y` |",
        "",
        "n",
    ]


def test_a_pseudo_likelihood_has_a_column_of_its_own():
    """Old rows of NGGP mixtures call no figure ELBO, and neither do tables; new ones have both."""
    rows = read_rows(RESULTS / "clusters") + read_rows(RESULTS / "bbc")
    growing = [row for row in rows if row["recipe"].startswith("nggp")]
    old = [row for row in growing if "elbo" not in row["terms"]]
    assert len(old) >= 15
    new = [row for row in growing if row not in old]
    others = [row for row in rows if row not in growing]
    for part, bounds in (([*old, *others], False), ([*new, *others], True)):
        made = k_means_table(PAPERS, part)
        for cells in made.rows:
            row = dict(zip(made.head, cells, strict=True))
            pseudo = "NGGP" in cells[0].text
            assert (row["-ELBO, nats"] == Cell()) == (pseudo and not bounds)
            assert row.get("-pseudo-likelihood, nats", Cell()) == Cell() or pseudo
