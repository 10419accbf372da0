"""The yardsticks compute what the zoo computes, and the measurement tells what it measured."""

import json

import pytest
import torch

from priorzoo.benchmarks.recipes.building import build_pair
from priorzoo.benchmarks.report.measured import growth_table, ratio_table
from priorzoo.benchmarks.report.table import to_markdown
from priorzoo.benchmarks.rows.files import read_rows
from priorzoo.benchmarks.speed import arms
from priorzoo.benchmarks.speed import measure as speed
from priorzoo.benchmarks.speed.by_hand import HandGMVAE, HandVAE
from priorzoo.cli import main as cli
from priorzoo.guides import ClusterThenCode, Code
from priorzoo.inference import ELBO
from priorzoo.models import GMVAE, MLP, VAE

P, D, K, HIDDEN = 6, 2, 3, (8, 5)


def give(network, maps):
    """Put the linear maps of a network where those of another are."""
    for own, other in zip(network.layers, maps, strict=True):
        own.load_state_dict(other.state_dict())


def linear(network):
    return [part for part in network if isinstance(part, torch.nn.Linear)]


def same_loss(objective, hand, x):
    torch.manual_seed(1)
    ours = objective(x)[0]
    torch.manual_seed(1)
    torch.testing.assert_close(hand(x), ours)


@pytest.mark.usefixtures("double")
def test_the_vae_by_hand_is_ours():
    hand = HandVAE(P, D, HIDDEN)
    model, guide = VAE(MLP(D, P, HIDDEN[::-1]), code=D), Code(MLP(P, 2 * D, HIDDEN))
    give(model.decoder, linear(hand.decoder))
    give(guide.encoder, linear(hand.encoder))
    same_loss(ELBO(model, guide), hand, torch.bernoulli(torch.full((4, P), 0.5)))


@pytest.mark.usefixtures("double")
def test_the_gmvae_by_hand_is_ours():
    hand = HandGMVAE(P, D, K, HIDDEN)
    model = GMVAE(MLP(D, P, HIDDEN[::-1]), code=D, clusters=K)
    guide = ClusterThenCode(MLP(P, K, HIDDEN), MLP(P, 2 * D, HIDDEN, clusters=K))
    give(model.decoder, linear(hand.decoder))
    give(guide.classifier, linear(hand.classifier))
    give(guide.conditional_encoder, [hand.first, *linear(hand.rest)])
    with torch.no_grad():
        guide.conditional_encoder.shift.copy_(hand.shift.squeeze(1))
        hand.loc.copy_(model.loc.unsqueeze(1))
        hand.raw.copy_(model.raw.unsqueeze(1))
    same_loss(ELBO(model, guide), hand, torch.bernoulli(torch.full((4, P), 0.5)))


def test_bench_speed_writes_rows_a_table_and_figures(tmp_path, capsys):
    rows, figures = tmp_path / "rows" / "speed.jsonl", tmp_path / "figures"
    words = ["bench", "speed", "--recipes", "[gmvae]", "--sizes", "[small]"]
    words += ["--rounds", "2", "--steps", "1"]
    words += ["--arms", "[hand-written,eager,pyro]", "--rows", str(rows), "--figures", str(figures)]
    assert cli.main(words) == 0
    measured = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [row["arm"] for row in measured] == ["hand-written", "eager", "pyro"]
    assert measured[0]["ratio"] == 1
    operations = [row["operations"] for row in measured]
    assert operations == sorted(operations)  # by hand fewer than ours, ours fewer than Pyro's
    for row in measured:
        assert row["command"].startswith("priorzoo bench speed --recipes")
        assert row["microseconds"] == pytest.approx(1e6 / row["steps_per_second"], rel=0.01)
        assert row["peak_mib"] > 4 * row["batch"] * 784 / 2**20  # of the batch itself
    assert all(row["kind"] == "speed" for row in measured)
    assert read_rows(rows.parent) == measured
    assert "| hand-written |" in capsys.readouterr().out
    assert (figures / "speed-1-ratios.png").stat().st_size > 1000


def test_a_summary_has_a_line_for_each_case_and_a_column_for_each_arm():
    common = {"recipe": "gmvae", "clusters": 10, "code": 64, "precision": "float32", "base": "a"}
    quartiles = {"ratio_quartiles": [0.5, 0.75]}
    rows = [
        {**common, **quartiles, "hidden": None, "batch": 100, "arm": "a", "ratio": 1.0},
        {**common, **quartiles, "hidden": None, "batch": 100, "arm": "b", "ratio": 0.6},
        {**common, **quartiles, "hidden": [64], "batch": 20, "arm": "a", "ratio": 1.0},
        {**common, **quartiles, "hidden": [64], "batch": 40, "arm": "a", "ratio": 1.0},  # a sweep's
        {**common, **quartiles, "hidden": None, "batch": 100, "arm": "b", "ratio": 9.0},  # again
    ]
    head, _, one, other = to_markdown(ratio_table(rows)).splitlines()
    assert head == "| recipe and sizes | a | b |"
    assert one == "| gmvae, B = 100, K = 10, D = 64, float32 | 1 | 0.60 (0.50 to 0.75) |"
    assert other == "| gmvae, B = 20, K = 10, D = 64, 64, float32 | 1 | – |"
    beside = {**rows[1], "arm": "eager", "base": "plain"}
    line = to_markdown(ratio_table([{**beside, "arm": "plain"}, beside])).splitlines()[2]
    assert line == (
        "| gmvae, B = 100, K = 10, D = 64, float32, by a plain VAE's step | 0.60 (0.50 to 0.75) |"
    )


def test_a_mixture_is_timed_beside_the_vae_of_its_networks():
    """Which differs from it by the globals alone, and in that its step does less."""
    (case,) = speed.cases(["digits-factorial"], ["small"], False, "float32", clusters=5)
    mixture, plain = (
        build_pair(recipe, arms.SHAPE)
        for recipe in (case.settings(), arms.without_mixture(case.settings()))
    )
    for ours, theirs in zip(mixture, plain, strict=True):
        shapes = {name: p.shape for name, p in ours.named_parameters()}
        own = {name: p.shape for name, p in theirs.named_parameters()}
        assert own.items() <= shapes.items()
        assert {name.partition(".")[0] for name in shapes.keys() - own} <= {"weights", "components"}
    choice = {"arms": ["plain", "eager"], "rounds": 2, "steps": 1}
    rows = list(speed.measure(case, torch.device("cpu"), **choice))
    assert [(row["arm"], row["base"], row["clusters"]) for row in rows] == [
        ("plain", "plain", 5),
        ("eager", "plain", 5),
    ]
    assert rows[0]["operations"] < rows[1]["operations"]
    assert rows[1]["ratio_quartiles"][0] <= rows[1]["ratio"] <= rows[1]["ratio_quartiles"][1]


def test_the_matrix_products_of_a_step_take_less_than_the_step():
    (case,) = speed.cases(["vae"], ["small"], False, "float32")
    choice = {"arms": ["eager", "matrix products"], "rounds": 3, "steps": 2}
    step, limit = speed.measure(case, torch.device("cpu"), **choice)
    assert limit["arm"] == "matrix products"
    assert limit["ratio"] < step["ratio"] == 1
    assert limit["operations"] == 17  # 6 forwards, 6 of weights and all but the first of inputs


def test_ratios_may_be_to_any_arm():
    (case,) = speed.cases(["vae"], ["small"], False, "float32")
    choice = {"arms": ["hand-written", "eager"], "base": "eager"}
    rows = list(speed.measure(case, torch.device("cpu"), rounds=1, steps=1, **choice))
    assert [row["ratio"] == 1 for row in rows] == [False, True]


def test_a_library_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(arms, "find_spec", lambda name: None)
    (case,) = speed.cases(["vae"], ["small"], False, "float32")
    with pytest.raises(ValueError, match=r"jax for the arm numpyro .* 'priorzoo\[peers\]'"):
        next(speed.measure(case, torch.device("cpu"), rounds=1, steps=1, arms=["numpyro"]))


def test_growth_is_the_power_of_a_size_that_was_varied():
    common = {"recipe": "gmvae", "hidden": [64], "precision": "float32", "batch": 20, "code": 64}
    common |= {"device": "cpu", "threads": 1}
    rows = [
        common | {"clusters": k, "arm": arm, "microseconds": 7 * k**power}
        for arm, power in (("compiled", 0.5), ("numpyro", 1.25))
        for k in (10, 100, 1000)
    ]
    head, _, line = to_markdown(growth_table(rows)).splitlines()
    assert head == "| growth of a step's time | compiled | numpyro |"
    assert line == "| gmvae, K = 10 to 1,000 | 0.50 | 1.25 |"


def test_only_mixtures_of_one_number_take_it():
    names = ["vae", "gmvae", "factorial-faces"]
    found = [case.clusters for case in speed.cases(names, ["small"], False, "float32", 7)]
    assert found == [None, 7, None]


def test_a_quick_sweep_has_at_least_three_sizes_of_each_with_the_ends():
    for quick in (False, True):
        found = list(speed.cases(["gmvae"], [], True, "float32", None, quick))
        for size, values in speed.SWEEP.items():
            varied = sorted({getattr(case, size) for case in found} - {None})
            assert varied[0] == min(values)
            assert varied[-1] == max(values)
            assert len(varied) >= 3
        assert all(tuple(case.hidden) == (64, 64) for case in found)


def test_bench_refuses_what_it_does_not_know(capsys):
    for words, hint in ((["bench", "speed", "--recipes", "[gmvea]"], "'gmvae'"),):
        assert cli.main(words) == 2
        assert hint in capsys.readouterr().err
