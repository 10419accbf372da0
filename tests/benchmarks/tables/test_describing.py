import re

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from priorzoo.benchmarks.runs.reference import Reference
from priorzoo.benchmarks.tables.describing import describe
from priorzoo.benchmarks.tables.page import Description, hue
from priorzoo.benchmarks.tables.predicting import write_columns
from priorzoo.benchmarks.tables.traits import traits_of
from priorzoo.inference import read_table


@pytest.fixture
def people():
    """Two groups that differ in age and city, with missing cells, and their probabilities."""
    rng, n = np.random.default_rng(0), 200
    group = np.arange(n) % 2
    columns = {
        "age": np.where(rng.random(n) < 0.1, np.nan, rng.normal(40 + 20 * group, 5)),
        "visits": rng.poisson(3, n),
        "city": np.where(rng.random(n) < 0.8, np.array(["Oslo", "Rome"])[group], "Bern"),
    }
    q = torch.tensor(np.where(group == 1, 0.9, 0.2))
    return read_table(columns), torch.stack([1 - q, q], 1), columns


def test_traits_are_weighted_means_and_shares(people):
    table, q, columns = people
    traits = {(t.name, t.category): t for t in traits_of(table, q)[1]}
    age, w = columns["age"], q[:, 1].numpy()
    known = ~np.isnan(age)
    mean = (age * w)[known].sum() / w[known].sum()
    found = traits["age", ""]
    assert found.here == pytest.approx(mean, rel=1e-5)
    assert found.all == pytest.approx(np.nanmean(age), rel=1e-5)
    assert found.score == pytest.approx((mean - np.nanmean(age)) / np.nanstd(age), rel=1e-4)
    rome = columns["city"] == "Rome"
    here, every = (rome * w).sum() / w.sum(), rome.mean()
    found = traits["city", "Rome"]
    assert (found.here, found.all) == pytest.approx((here, every))
    assert found.score == pytest.approx((here - every) / np.sqrt(every * (1 - every)))


def test_wide_counts_are_compared_by_their_shares():
    counts = np.random.default_rng(0).poisson(2.0, (60, 50))
    counts[30:, 7] += 20
    table = read_table(counts, columns="x*=poisson")
    q = torch.zeros(60, 2)
    q[:30, 0] = q[30:, 1] = 1
    first = traits_of(table, q)[1][0]
    share = counts[30:].sum(0) / counts[30:].sum()
    assert first.name == "x7"
    assert first.here == pytest.approx(100 * share[7], rel=0.01)
    assert first.all == pytest.approx(100 * counts[:, 7].sum() / counts.sum(), rel=0.01)


def test_clusters_are_described(people):
    table, q, _ = people
    z = torch.stack([q[:, 1] * 10, torch.linspace(0, 1, 200).double()], 1)
    q = torch.cat([q, torch.zeros(200, 1)], 1)  # a cluster without rows
    first, second, empty = describe(table, q, z)
    assert (first.rows, second.rows, empty.rows) == (100, 100, 0)
    by_number = {cluster.number: cluster for cluster in (first, second)}
    assert by_number[1].certainty == pytest.approx(0.9)
    assert by_number[1].share == pytest.approx(0.55)
    assert [k for k, _ in by_number[1].nearest] == [0]
    assert by_number[1].traits[0].text.startswith(("age 5", "city Rome in"))
    means = (q[:, 1:2] * z).sum(0) / q[:, 1].sum()
    own = [row for row in range(200) if row % 2]
    nearest = min(own, key=lambda row: float((z[row] - means).square().sum()))
    assert by_number[1].prototypes[0] == nearest


def test_the_page_loads_nothing_and_escapes_names(people, tmp_path):
    _, q, columns = people
    columns = {"<b>age</b>": columns["age"], "city": columns["city"]}
    table = read_table(columns)
    clusters = describe(table, q, q)
    title = "Clusters of <i>mine</i>.csv"
    facts = {"data": "mine.csv"}
    made = Description(title, facts, table, clusters, q, q)
    page = made.write(tmp_path).read_text("utf-8")
    assert "<b>age" not in page
    assert "<i>mine" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page
    assert page.count("<section") == 2
    assert "nan" not in page.lower()
    assert (tmp_path / "clusters.csv").read_text().startswith("cluster,rows,share,certainty,")
    assert len((tmp_path / "traits.csv").read_text().splitlines()) > 2
    assert "  + &lt;b&gt;" not in "\n".join(made.lines())  # text is not HTML


def test_numbers_are_written_without_exponents_and_missing_cells_as_a_dash(people, tmp_path):
    rng = np.random.default_rng(0)
    income, age = np.exp(rng.normal(10 + np.arange(200) % 2, 0.2)), rng.normal(50, 10, 200)
    pages, q = [], people[1]
    for missing in (rng.random(200) < 0.5, np.arange(200) >= 4):
        columns = {"income": income, "age": np.where(missing, np.nan, age)}
        table = read_table(columns, columns="income=positive")
        made = Description("Clusters", {}, table, describe(table, q, q), q, None)
        pages.append(made.page())
    assert "\N{EN DASH}</td>" not in pages[0]  # typical rows are complete ones if there are any
    assert "e+0" not in made.page()
    assert "category" not in made.page()
    assert '<td class="number">\N{EN DASH}</td>' in pages[1]
    assert re.search(r"income \d\d,\d{3} \(all rows \d\d,\d{3}\)", "\n".join(made.lines()))


def test_forty_clusters_have_colours_of_their_own():
    assert len({hue(number) for number in range(40)}) == 40


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_a_phone_and_a_screen(people, browser, tmp_path, width):
    _, q, columns = people
    table = read_table({f"{name} of a person": cells for name, cells in columns.items()})
    facts = {"data": "a_long_name_of_a_file_without_any_space_in_it_" * 3}
    path = Description("Clusters", facts, table, describe(table, q, q), q, q).write(tmp_path)
    page = browser.new_page(viewport={"width": width, "height": 800})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert said == []
    page.close()


def test_places_are_those_of_principal_components():
    z = torch.randn(100, 5, dtype=torch.float64) * torch.tensor([3.0, 1.0, 0.1, 2.0, 0.2])
    reference = Reference.of(z, None)
    expected = np.abs(PCA(2).fit_transform(z.numpy()))
    np.testing.assert_allclose(reference.place(z).abs(), expected, rtol=1e-6, atol=1e-9)
    two = Reference.of(z[:, :2], None)
    torch.testing.assert_close(two.place(z[:, :2]), z[:, :2])
    one = Reference.of(z[:, :1], None)
    assert one.place(z[:, :1]).shape == (100, 2)
    few = Reference.of(z[:1], None)
    assert few.place(z[:1]).shape == (1, 2)


def test_outliers_are_rarer_than_the_training_rows():
    known = torch.randn(5_000, dtype=torch.float64)
    reference = Reference.of(torch.zeros(5_000, 2), known)
    asked = torch.tensor([-9.0, -1.0, 0.0, 1.0, 9.0])
    expected = [(known > value).double().mean().item() for value in asked]
    np.testing.assert_allclose(reference.outlier(asked), expected, atol=0.002)


def test_cells_that_spreadsheets_take_for_formulas_are_made_inert(tmp_path):
    cells = np.array(["=1+1", "+a", "-a", "@a", "\ta", "Oslo"], dtype=object)
    write_columns({"=name": cells, "n": np.array([-1.5] * 6)}, tmp_path / "a.csv")
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[0] == "'=name,n"
    assert [line.split(",")[0] for line in lines[1:]] == [
        "'=1+1", "'+a", "'-a", "'@a", "'\ta", "Oslo",
    ]  # fmt: skip
    assert lines[1].endswith(",-1.5")
    with pytest.raises(ValueError, match=r"Expected --out FILE\.csv"):
        write_columns({}, tmp_path / "a.xlsx")
