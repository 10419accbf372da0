import csv
import json
import math
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from priorzoo.benchmarks.papers import PAPERS as PUBLISHED
from priorzoo.benchmarks.papers.paper import Line, Measure, Paper
from priorzoo.benchmarks.report import charts as report_figures
from priorzoo.benchmarks.report.groups import Group, deviation, group_rows
from priorzoo.benchmarks.report.measured import step_table
from priorzoo.benchmarks.report.page import write_report
from priorzoo.benchmarks.report.paper_tables import paper_table, paper_tables
from priorzoo.benchmarks.report.sections import of_papers
from priorzoo.benchmarks.report.table import Cell
from priorzoo.benchmarks.rows.files import FORMAT, RESULTS, read_folder

ELBO = Measure("-ELBO", ("terms", "elbo"), {100: 97.0}, protocol="7 runs", higher=False, sign=-1)
ACCURACY = Measure("accuracy", ("metrics", "accuracy_majority"), 0.7, spread=0.05)
HOSTILE = "<img src=x onerror=\"document.title='owned'\">|$\\frac$`&</script>"


def row(seed=0, elbo=-96.0, accuracy=0.6, recipe="gmvae", steps=100, budget="quick", **more):
    return {
        "format": FORMAT,
        "cell": "c0ffee",
        "budget": budget,
        "recipe": recipe,
        "changes": {},
        "command": f"priorzoo train {recipe} --steps {steps}",
        "settings": {},
        "shape": [28, 28],
        "seed": seed,
        "steps": steps,
        "seconds": 10.0 + seed,
        "device": "cpu",
        "threads": 1,
        "versions": {"torch": "2.6"},
        "peak_mib": None,
        "history": None,
        "terms": {"elbo": elbo},
        "metrics": {"clusters": 10.0, "used_clusters": 9.0 + seed, "accuracy_majority": accuracy},
        **more,
    }


def line(title="GMVAE", recipe="gmvae", measures=(ELBO, ACCURACY), **more):
    return Line(title, recipe, {"quick": 100}, measures=tuple(measures), **more)


def paper(*lines, name="paper", **more):
    return Paper(name, "A title", "Author, 2016", lines or (line(),), **more)


def write(folder, rows, name="rows.jsonl"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def table(*rows, papers=None):
    papers = [paper()] if papers is None else papers
    made = paper_table(group_rows(papers, rows)[papers[0].name])
    return [dict(zip(made.head, cells, strict=True)) for cells in made.rows]


def test_a_row_is_the_mean_and_sd_of_its_seeds_beside_the_published_figure():
    """0.6, 0.7 and 0.8 have mean 0.7 and standard deviation 0.1."""
    rows = [row(seed, -elbo, 0.6 + 0.1 * seed) for seed, elbo in enumerate((96.0, 98.0, 100.0))]
    made = paper_table(group_rows([paper()], rows)["paper"])
    (found,) = table(*reversed(rows))
    assert found["line"].text == "GMVAE"
    assert (found["seeds"].text, found["seeds"].note) == ("3", "0, 1, 2")
    assert found["-ELBO"].text == "98.000 ± 2.000"
    assert found["-ELBO"].value == pytest.approx(98)
    assert found["-ELBO"].deviation == pytest.approx(2)
    assert found["-ELBO"].published == "97.000"
    assert made.notes[0] == "Published -ELBO: 7 runs."
    assert found["accuracy"].text == "0.700 ± 0.100"
    assert found["accuracy"].published == "0.700 ± 0.050"
    assert found["used K"].text == "9 to 11"
    assert (found["steps"].text, found["budget"].text) == ("100", "quick")
    assert (found["seconds"].text, found["device"].text) == ("11", "cpu")


@pytest.mark.parametrize(
    ("measure", "value", "verdict"),
    [
        (ELBO, 96.5, "met"),
        (ELBO, 97.0, "met"),  # a tie
        (ELBO, 97.25, "short by 0.250"),
        (ELBO, 97.0004, "short by 0.0004"),
        (ACCURACY, 0.7, "met"),
        (ACCURACY, 0.65, "within the spread"),  # a published standard deviation off
        (ACCURACY, 0.64, "short by 0.060"),
        (ACCURACY, math.nan, "short by any measure: not finite"),
        (ACCURACY, math.inf, "short by any measure: not finite"),
        (Measure("a", ("metrics", "accuracy_majority")), 0.6, ""),
        (
            Measure("a", ("metrics", "accuracy_majority"), 0.5, incomparable="K = 32"),
            0.6,
            "not comparable: K = 32",
        ),
        (
            Measure("a", ("metrics", "accuracy_majority"), {50: 0.5}),
            0.6,
            "not comparable: nothing published at 100 steps",
        ),
    ],
)
def test_verdicts(measure, value, verdict):
    rows = (row(elbo=-value, accuracy=value),)
    assert Group(line(), rows).verdict(measure) == verdict


def test_a_gap_within_our_own_deviation_is_within_the_spread():
    """95, 97 and 99.9 have mean 97.3 and deviation 2.46, and 97.1, 97.3 and 97.5 have 0.2."""
    wide = tuple(row(seed, elbo) for seed, elbo in enumerate((-95.0, -97.0, -99.9)))
    narrow = tuple(row(seed, elbo) for seed, elbo in enumerate((-97.1, -97.3, -97.5)))
    assert Group(line(), wide).verdict(ELBO) == "within the spread"
    assert Group(line(), narrow).verdict(ELBO) == "short by 0.300"


def test_a_gap_of_the_deviation_is_within_the_spread_whatever_the_rounding():
    """0.8 - 0.7 is above 0.1 in floating point."""
    measure = Measure("a", ("metrics", "accuracy_majority"), 0.8, spread=0.1)
    assert 0.8 - 0.7 > 0.1
    assert Group(line(), (row(accuracy=0.7),)).verdict(measure) == "within the spread"


def test_a_measure_that_rows_lack_has_no_verdict():
    rows = [row(seed) for seed in (0, 1)]
    for lacking in rows:
        del lacking["metrics"]["accuracy_majority"]
    (found,) = table(*rows)
    assert (found["accuracy"].text, found["accuracy"].verdict) == ("not measured", "")
    (found,) = table(row(0, accuracy=0.72), rows[1])
    assert (found["accuracy"].text, found["accuracy"].note) == ("0.720", "of 1 seeds")


def test_a_line_without_rows_keeps_its_place_and_its_published_figures():
    first, second = table(row(), papers=[paper(line("M2", "m2"), line())])
    assert (first["line"].text, first["line"].verdict) == ("M2", "no rows yet")
    assert first["budget"] == first["steps"] == first["seeds"] == Cell()
    assert first["-ELBO"].published == "97.000 at 100"
    assert second["line"].text == "GMVAE"


@pytest.mark.parametrize("other", [{"steps": 50}, {"budget": "standard"}, {"cell": "beef"}])
def test_rows_of_other_lengths_budgets_or_settings_are_not_mixed(other):
    assert [found["seeds"].text for found in table(row(0), row(1) | other)] == ["1", "1"]


def test_budgets_come_in_their_order_and_the_last_row_of_a_seed_counts():
    rows = [row(budget=name) for name in ("paper", "quick", "standard")]
    found = table(*rows, row(budget="quick", accuracy=0.9))
    assert [cells["budget"].text for cells in found] == ["quick", "standard", "paper"]
    assert found[0]["accuracy"].text == "0.900"


def test_other_settings_of_a_papers_recipe_are_not_comparable():
    _, found = table(row(), row(changes={"model.clusters": 16}))
    assert (found["line"].text, found["line"].note) == ("GMVAE", "model.clusters=16")
    assert found["accuracy"].verdict == "not comparable: other settings"
    assert found["accuracy"].published == ""


def test_other_settings_are_told_beside_the_line_that_has_most_of_them():
    lines = [line("K = 16", changes={"model.clusters": 16}), line()]
    changes = {"model.clusters": 16, "optimiser.eps": 1e-08, "steps": 100}
    *_, found = table(row(changes=changes), papers=[paper(*lines)])
    assert (found["line"].text, found["line"].note) == ("K = 16", "optimiser.eps=1e-08")
    (found,) = group_rows([paper(lines[0])], [row()])["paper"][1:]
    assert found.name == "gmvae"


def test_lines_without_a_common_measure_stand_in_tables_of_their_own():
    lines = [line("a"), line("b", "m2", [Measure("ARI", ("metrics", "ari"), 0.5)]), line("c")]
    first, second = paper_tables([Group(one) for one in lines])
    assert [cells[0].text for cells in first.rows] == ["a", "c"]
    assert [cells[0].text for cells in second.rows] == ["b"]


def test_a_column_that_says_the_same_in_every_row_is_said_once():
    made = paper_table(group_rows([paper()], [row(0), row(0, steps=200)])["paper"]).condensed()
    assert "budget" not in made.head
    assert "steps" in made.head
    assert "In every row: seeds 1 (0), budget quick, device cpu." in made.notes
    assert {len(cells) for cells in made.rows} == {len(made.head)}


def test_how_values_were_published_is_said_once_for_all_of_their_columns():
    how = {"published": 0.5, "protocol": "best of 10"}
    measures = [Measure(name, ("metrics", name), **how) for name in ("nmi", "ari")]
    other = Measure("accuracy", ("metrics", "accuracy"), 0.5, protocol="mean")
    made = paper_table([Group(line(measures=measures)), Group(line(measures=[*measures, other]))])
    assert made.notes == ("Published nmi; ari: best of 10.", "Published accuracy: mean.")


def test_a_row_that_fits_a_line_of_another_paper_is_shown_there_alone():
    changes = {"data": "fashion"}
    papers = [paper(), paper(line(changes=changes), name="fashion")]
    groups = group_rows(papers, [row(), row(changes=changes)])
    assert [len(groups[name]) for name in ("paper", "fashion", "other")] == [1, 1, 0]


def test_recipes_of_no_paper_come_last():
    groups = group_rows([paper()], [row(recipe="mine", accuracy=0.25)])
    (found,) = paper_table(groups["other"]).rows
    assert found[0].text == "mine"
    assert "0.250" in [cell.text for cell in found]


def test_values_that_are_not_finite_are_counted():
    (found,) = table(row(0), row(1, elbo=math.nan))
    assert (found["-ELBO"].text, found["-ELBO"].value) == ("not finite in 1 of 2", None)
    assert math.isnan(deviation([math.inf, 0.0]))


@pytest.mark.parametrize("given", [{"format": None}, {"format": 1}, {"format": 3}])
def test_rows_of_another_format_are_refused_and_nothing_is_written(tmp_path, given):
    write(tmp_path / "rows", [row(), {**row(1), **given}], "deep/some.jsonl")
    with pytest.raises(ValueError, match=r"format 2 in .*some.jsonl, line 2 but got .*; make"):
        write_report(tmp_path / "rows", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_rows_name_must_be_there(tmp_path):
    write(tmp_path / "rows", [row(history="gone.jsonl")])
    with pytest.raises(ValueError, match=r"gone.jsonl, which .*line 1 names.*copy it"):
        write_report(tmp_path / "rows", tmp_path / "out")
    (tmp_path / "rows" / "rows.jsonl").write_text('{"format": 2}\n{')
    with pytest.raises(ValueError, match=r"Expected JSON in .*line 2"):
        read_folder(tmp_path / "rows")
    (tmp_path / "rows" / "rows.jsonl").write_text('{"format": 2}\n')
    with pytest.raises(ValueError, match=r"Expected command, seed, .* at row but there is none"):
        read_folder(tmp_path / "rows")
    with pytest.raises(ValueError, match="Expected a folder"):
        read_folder(tmp_path / "nowhere")


def history(*steps, split="valid", scale=1.0, **more):
    return [{"step": step, "split": split, "elbo": -scale * 1000 / step, **more} for step in steps]


def test_histories_are_no_results_and_need_not_belong_to_one(tmp_path):
    write(tmp_path, [row(history="runs/a.jsonl")])
    write(tmp_path, [{"step": 1, "elbo": -3.0}], "runs/a.jsonl")
    write(tmp_path, history(1, 2), "runs/of-a-failure.jsonl")
    failure = {"format": FORMAT, "recipe": "vade", "seed": 1, "error": "NaN"}
    write(tmp_path, [failure], "failures.jsonl")
    failed, result = read_folder(tmp_path)
    assert failed["error"] == "NaN"
    assert result["history"] == [{"step": 1, "elbo": -3.0}]


def test_curves_are_of_test_rows_if_there_are_any():
    train, valid = history(10, 20, split="train"), history(10, 20, split="valid", scale=2)
    last = {"step": 20, "split": "test", "terms": {"elbo": -9.0}, "metrics": {"nmi": 0.5}}
    assert report_figures.curve(train, "elbo") == {10: -100, 20: -50}
    assert report_figures.curve(train + valid, "elbo") == {10: -200, 20: -100}
    assert report_figures.curve([*train, *valid, last], "elbo") == {10: -200, 20: -100}
    two = [last | {"step": 10}, last]
    assert report_figures.curve([*train, *valid, *two], "elbo") == {10: -9, 20: -9}
    assert report_figures.curve([*valid, *two], "nmi") == {10: 0.5, 20: 0.5}


def test_bands_are_over_the_steps_that_all_seeds_have():
    found = report_figures.band([{1: 2.0, 5: 0.0}, {1: 4.0, 9: 0.0}])
    assert found == [(1, 3.0, pytest.approx(np.std([2, 4], ddof=1)))]


def test_the_mean_over_the_seeds_is_what_is_drawn():
    rows = tuple(row(s, history=history(10, 100, scale=1 + s)) for s in (0, 1))
    ax = report_figures.draw_curves([Group(line(), rows)], "elbo", {"GMVAE": "red"}, {})
    (drawn,) = ax.lines
    np.testing.assert_allclose(drawn.get_xydata(), [(10, -150), (100, -15)])
    assert report_figures.draw_curves([Group(line(), rows)], "nmi", {"GMVAE": "red"}, {}) is None


def test_a_sweep_is_drawn_of_the_longest_rows_of_its_recipe():
    def swept(clusters, steps=100, recipe="factorial"):
        settings = {"data": "mnist", "model": {"init_args": {"clusters": clusters}}}
        terms = {"elbo": -90.0, "reconstruction": -70.0, "kl[z_1]": 19.0, "kl[r_1]": 1.0}
        changes = {"model.clusters": clusters}
        return row(
            recipe=recipe,
            steps=steps,
            changes=changes,
            settings=settings,
            terms=terms,
            cell=str(clusters),
        )

    def charts(*rows):
        lines = [line(f"K = {k}", "factorial", changes={"model.clusters": k}) for k in (1, 8)]
        found = [{"figures": [], **each} for each in rows]
        (section,) = of_papers([paper(*lines, sweep="factorial")], found)
        return [image for image in section.charts if "components K" in image.words]

    (image,) = charts(swept(1), swept(8), swept(1, steps=7))
    assert image.uri.startswith("data:image/png")
    assert charts(swept(1), swept(8, steps=7)) == []


def test_the_reference_has_the_published_means_of_its_logs():
    """Of GMVAE at 50, 100, 200 and 500 epochs of 500 steps, as the literature rounds them."""
    (shu,) = (paper for paper in PUBLISHED if paper.logs)
    groups = [Group(one) for one in shu.lines]
    elbo = report_figures.logged(shu, groups, "elbo")
    accuracy = report_figures.logged(shu, groups, "accuracy_majority")["Gaussian-mixture VAE"]
    at = {25_000: (-95.0, 0.722), 50_000: (-94.2, 0.766), 100_000: (-93.5, 0.799)}
    for step, (bound, share) in (at | {250_000: (-93.1, 0.835)}).items():
        assert dict(elbo["Gaussian-mixture VAE"])[step] == pytest.approx(bound, abs=0.06)
        assert dict(accuracy)[step] == pytest.approx(share, abs=6e-4)
    sixteen = dict(elbo["Gaussian-mixture VAE, K = 16"])
    assert sixteen[25_000] == pytest.approx(-94.0 - math.log(1.6), abs=0.06)
    assert report_figures.logged(shu, groups, "nmi") == {}
    assert report_figures.logged(paper(), groups, "elbo") == {}


def speed(arm="eager", batch=20, recipe="gmvae", **more):
    return {
        "format": FORMAT,
        "kind": "speed",
        "recipe": recipe,
        "hidden": [64, 64],
        "batch": batch,
        "clusters": 10,
        "code": 8,
        "arm": arm,
        "microseconds": 1234.5 + batch,
        "ratio": 1.5,
        "ratio_quartiles": [1.4, 1.6],
        "operations": 5,
        "peak_mib": 2.0,
        "device": "cpu",
        "threads": 1,
        "command": "priorzoo bench speed",
        **more,
    }


def test_rows_of_speed_are_ordered_by_their_numbers():
    found = step_table([speed()])
    assert [cell.value for cell in found.rows[0]] == [None, None, 1254.5, 1.5, 5, 2, None]


RUN = {"steps": 10, "seconds": 1.0, "full_steps": 100, "extrapolated_seconds": 10.0}
GRADIENTS = [
    {
        "format": FORMAT,
        "expectation": f"{HOSTILE} {case}",
        "estimator": name,
        "gradient": 1.0,
        "estimate": 1.1,
        "variance": 10.0**power,
        "draws": 100,
        "command": "python -m priorzoo.benchmarks.speed.estimators",
    }
    for case in "ab"
    for power, name in enumerate(("pathwise", "score"))
]


@pytest.fixture
def folder(tmp_path):
    """Rows of every kind, with histories, figures and names that would break a careless page."""
    from matplotlib.image import imsave

    folder = tmp_path / "rows"
    rows = [
        row(s, accuracy=a, steps=n, command=f"train {HOSTILE}", history=f"h/{n}-{s}.jsonl")
        for s in (0, 1)
        for a, n in ((0.9, 100), (0.1, 200), (0.5, 1000))
    ]
    for made in rows:
        write(folder, history(10, made["steps"], scale=1 + made["seed"]), made["history"])
    imsave(folder / "digits.png", np.eye(8))
    rows[0]["figures"] = ["digits.png"]
    rows += [row(recipe=HOSTILE, changes={HOSTILE: HOSTILE}, device=HOSTILE)]
    write(folder, rows)
    run = speed(kind="speed-run", replicas=1, **RUN)
    swept = [speed(arm, batch) for arm in ("eager", "compiled") for batch in (10, 20, 40)]
    write(folder, [*swept, speed(recipe=f"a | {HOSTILE}"), run], "speed.jsonl")
    write(folder, GRADIENTS, "estimators/gradients.jsonl")
    failure = {
        "format": FORMAT,
        "recipe": "vade",
        "changes": {"data": "x"},
        "seed": 3,
        "error": HOSTILE,
    }
    write(folder, [failure], "failures.jsonl")
    return folder


PAPERS = (
    paper(line(HOSTILE, measures=(ELBO, ACCURACY)), line("M2", "m2"), name="shu2016", note=HOSTILE),
)


class Tags(HTMLParser):
    """Names and attributes of what a browser would make elements."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_hostile_names_are_words_on_the_page(folder, tmp_path):
    text = write_report(folder, tmp_path / "out", PAPERS).read_text()
    found = Tags(text).found
    assert sum(tag == "script" for tag, _ in found) == 2
    assert not [names for _, names in found if "onerror" in names]
    images = [names["src"] for tag, names in found if tag == "img"]
    assert len(images) == 5  # curve, digits, ratios, growth and gradients
    assert all(source.startswith("data:image/png;base64,") for source in images)


def test_the_page_depends_on_nothing_but_the_rows(folder, tmp_path):
    pages = [write_report(folder, tmp_path / name, PAPERS) for name in ("a", "b")]
    assert pages[0] == tmp_path / "a" / "index.html"
    for name in ("index.html", "tables.md", "shu2016.csv", "other.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_same_tables_are_written_as_markdown_and_csv(folder, tmp_path):
    write_report(folder, tmp_path / "out", PAPERS)
    with (tmp_path / "out" / "shu2016.csv").open(newline="") as file:
        records = list(csv.DictReader(file))
    assert [record["steps"] for record in records] == ["100", "200", "1000", ""]
    assert [record["accuracy: verdict"] for record in records[:2]] == ["met", "short by 0.600"]
    assert records[0]["accuracy: published"] == "0.700 ± 0.050"
    assert records[0]["command"] == f"train {HOSTILE}"
    assert float(records[0]["accuracy"]) == pytest.approx(0.9)
    assert float(records[0]["accuracy: sd"]) == 0
    assert records[0]["line"] == HOSTILE
    assert records[3]["'-ELBO: published"] == "97.000 at 100"
    text = (tmp_path / "out" / "tables.md").read_text()
    parts = [part.strip() for part in text.split("\n\n")]
    tables = [part.splitlines() for part in parts if part.startswith("|")]
    assert len(tables) == 6  # shu, others, two of speed, gradients and failures
    for lines in tables:
        bars = {made.count("|") - made.count("\\|") for made in lines}
        assert len(bars) == 1, lines
    assert "0.900 ± 0.000 (published 0.700 ± 0.050; met)" in text
    assert "<img" not in text.replace("\\<", "")


@pytest.fixture
def page(browser, folder, tmp_path):
    """The report, opened from its file; its errors and requests are kept in lists."""
    path = write_report(folder, tmp_path / "out", PAPERS)
    context = browser.new_context(color_scheme="light")
    page = context.new_page()
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(path.as_uri())
    yield page
    context.close()


def test_the_page_opens_without_errors_and_asks_for_nothing(page):
    assert page.said == []
    asked = [url for url in page.asked if not url.startswith("data:")]
    assert asked == [page.url]
    assert page.title().startswith("priorzoo")
    images = "[...document.images].map(image => image.complete ? image.naturalWidth : 0)"
    widths = page.evaluate(images)
    assert len(widths) == 5
    assert min(widths) > 0


def column(page, place):
    script = "(rows, i) => rows.map(row => row.cells[i].firstChild.textContent.trim())"
    return page.eval_on_selector_all("#shu2016 tbody tr", script, place)


def test_a_click_on_a_head_orders_the_rows_by_their_means(page):
    head = page.locator("#shu2016 thead th").nth(2)
    assert head.inner_text().startswith("accuracy")
    assert column(page, 2) == ["0.900 ± 0.000", "0.100 ± 0.000", "0.500 ± 0.000", "–"]
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, 2) == ["0.100 ± 0.000", "0.500 ± 0.000", "0.900 ± 0.000", "–"]
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, 2) == ["0.900 ± 0.000", "0.500 ± 0.000", "0.100 ± 0.000", "–"]
    steps = page.locator("#shu2016 thead th").nth(4)
    steps.locator("button").click()
    assert head.get_attribute("aria-sort") == "none"
    assert column(page, 4) == ["100", "200", "1,000", "–"]
    assert page.said == []


def test_the_toggle_makes_the_page_dark_and_light_again(page):
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.click("#theme")
    dark = page.evaluate(colour)
    assert sum(map(int, dark[4:-1].split(","))) < 150 < sum(map(int, light[4:-1].split(",")))
    page.click("#theme")
    assert page.evaluate(colour) == light
    page.emulate_media(color_scheme="dark")
    page.reload()
    page.evaluate("localStorage.clear()")
    page.reload()
    assert page.evaluate(colour) == dark


def test_a_phone_shows_the_page_without_scrolling_sideways(page):
    """A table scrolls in its box, and its first measure is seen beside the line's name at once."""
    page.set_viewport_size({"width": 390, "height": 844})
    page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    box = "box => box.scrollWidth > box.clientWidth"
    assert page.eval_on_selector("#shu2016 .box", box)
    measure = page.locator("#shu2016 tbody tr").first.locator("td").first.bounding_box()
    assert measure["x"] + measure["width"] <= 390


def test_a_desktop_shows_all_columns_of_a_paper_and_uses_the_head_s_width(page):
    page.set_viewport_size({"width": 1280, "height": 900})
    box = "box => box.scrollWidth <= box.clientWidth"
    assert page.eval_on_selector("#shu2016 .box", box)
    contents = page.locator("nav").bounding_box()
    assert contents["x"] > 640
    assert contents["x"] + contents["width"] > 1150


def test_a_command_is_copied_as_it_stands(page):
    page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")
    page.evaluate("navigator.clipboard.writeText = async text => { window.taken = text; }")
    assert page.locator("#shu2016 code").first.inner_text() == f"train {HOSTILE}"
    page.locator("#shu2016 .copy").first.click()
    assert page.evaluate("window.taken") == f"train {HOSTILE}"
    assert page.locator("#shu2016 .copy").first.inner_text() == "copied"


def test_a_folder_without_rows_gives_a_page_that_says_so(tmp_path):
    (tmp_path / "rows").mkdir()
    text = write_report(tmp_path / "rows", tmp_path / "out", [paper()]).read_text()
    assert "no rows yet" in text


def test_judged_samples_have_a_section_of_their_own_beside_the_runs(folder, tmp_path):
    shutil.copy(RESULTS / "samples.jsonl", folder / "samples.jsonl")
    text = write_report(folder, tmp_path / "out", PAPERS).read_text()
    assert "Samples of categories" in text
    assert "infogan on fashion_mnist" in (tmp_path / "out" / "samples.csv").read_text()
