"""What is said and drawn of growing mixtures, against closed forms and planted words."""

import json
import math

import pytest
import torch
from torch import nn

from priorzoo.benchmarks.papers import mehta2018 as nggp
from priorzoo.benchmarks.scores.run import Run
from priorzoo.cli.main import main
from priorzoo.guides import CollapsedCode
from priorzoo.models import MLP, Multinomial, NGGPMixture
from priorzoo.models.nggp.law import NGGP

HISTORY = [
    {"step": 10, "split": "train", "clusters": 5.0, "occupied": 4.5},
    {"step": 10, "split": "valid", "elbo": -1.0},
    {"step": 10, "split": "moves", "births": 2, "splits": 1, "deaths": 1, "merges": 0},
    {"step": 20, "split": "train", "clusters": 7.0, "occupied": 6.5},
]


@pytest.mark.parametrize(("alpha", "data"), [(1.5, 20), (4.0, 300)])
def test_prior_of_v_of_a_dirichlet_process_is_a_ratio_of_gammas(alpha, data):
    """U = Gamma(n) / Gamma(alpha): p(v) = u^n (1 + u)^-(n + alpha) / B(n, alpha)."""
    v = torch.linspace(-2, 12, 1_001, dtype=torch.float64)
    found = nggp.log_prior_of_v(NGGP(alpha, 1e-9), data, v)
    beta = math.lgamma(data) + math.lgamma(alpha) - math.lgamma(data + alpha)
    expected = data * v - (data + alpha) * v.exp().log1p() - beta
    assert (found - expected).abs().max() < 2e-4


def test_prior_of_v_with_discount_has_mass_one_and_the_mean_of_its_clusters():
    v = torch.linspace(-5, 25, 6_001, dtype=torch.float64)
    found = nggp.log_prior_of_v(NGGP(1.0, 0.4), 200, v).exp()
    assert torch.trapezoid(found, v).item() == pytest.approx(1, abs=1e-3)
    law = NGGP(torch.tensor(1.0).double(), torch.tensor(0.4).double())
    k = torch.arange(1.0, 201.0, dtype=torch.float64)
    mean = (law.cluster_law(200).exp() * law.law_of_v(200.0, k).mean).sum()
    assert torch.trapezoid(v * found, v).item() == pytest.approx(mean.item(), abs=1e-2)


def test_posterior_of_v_on_a_grid_is_that_of_the_law():
    model = NGGPMixture(MLP(2, 5), code=2, clusters=4, start=3)
    v = torch.linspace(-4, 20, 4_001)
    found = nggp.log_posterior_of_v(model, 500, v)
    near = found > -8
    expected = model.law_of_v(500).log_prob(v)
    torch.testing.assert_close(found.float()[near], expected[near], atol=2e-3, rtol=1e-3)


def test_shares_of_the_prior_are_those_of_partitions():
    shares = nggp.prior_shares(NGGP(1.0, 0.3))
    torch.testing.assert_close(shares.sum(-1), torch.ones(nggp.PARTITIONS))
    assert (shares.diff(dim=-1) <= 0).all()
    clusters = (shares > 0).sum(-1).double()
    law = NGGP(1.0, 0.3).cluster_law(nggp.ROWS, 200).exp()
    k = torch.arange(1.0, 201.0)
    mean = (law * k).sum().item()
    spread = ((law * k**2).sum().item() - mean**2) ** 0.5
    assert abs(clusters.mean().item() - mean) < 4 * spread / nggp.PARTITIONS**0.5


class Topics(nn.Module):
    """Logits that are large for two words of the cluster in whose corner the code is."""

    def forward(self, z):
        logits = torch.zeros(*z.shape[:-1], 7)
        for k in range(3):
            own = z[..., k : k + 1] * torch.eye(7)[2 * k] * 4
            logits = logits + own + z[..., k : k + 1] * torch.eye(7)[2 * k + 1] * 3
        return logits + 6 * torch.eye(7)[6]  # a word that all rows have


def topics():
    model = NGGPMixture(Topics(), Multinomial(), code=3, clusters=5, start=3)
    corners = torch.cat([torch.eye(3), torch.zeros(2, 3)])
    model.set_components(corners, torch.full((5, 3), 0.1), model.active)
    return model


def test_top_words_are_those_that_tell_a_cluster_from_the_rest():
    words = list("abcdefg")
    found = nggp.top_words(topics(), words, torch.ones(4, 7) + 40 * torch.eye(7)[6], most=2)
    assert found == {"0": ["a", "b"], "1": ["c", "d"], "2": ["e", "f"]}


def test_growth_is_drawn_as_lines_and_moves_as_bars():
    ax = nggp.draw_growth(HISTORY)
    clusters, held, _ = ax.lines
    assert clusters.get_xydata().tolist() == [[10, 5], [20, 7]]
    assert held.get_ydata().tolist() == [4.5, 6.5]
    assert [bar.get_height() for bar in ax.patches] == [3, -1]


def test_sizes_are_drawn_by_rank_beside_the_prior():
    prior = torch.tensor([[0.5, 0.3, 0.2, 0.0], [0.7, 0.2, 0.1, 0.0], [0.6, 0.2, 0.1, 0.1]])
    shares = torch.tensor([0.0, 0.1, 0.6, 0.3])
    ax = nggp.draw_sizes(shares, prior, 0.5)
    median, tail, model = ax.lines
    torch.testing.assert_close(torch.tensor(median.get_ydata()), prior.quantile(0.5, 0)[:3])
    assert tail.get_xdata()[0] == 3
    assert tail.get_ydata() == pytest.approx([0.1, 0.1 * (4 / 3) ** -2])
    assert model.get_ydata() == pytest.approx([0.6, 0.3, 0.1])


def test_words_are_listed_by_share():
    words = {"0": ["a", "b"], "2": ["c"]}
    shares = torch.tensor([0.2, 0.0, 0.7, 0.1])
    ax = nggp.draw_words(words, shares)
    assert [text.get_text() for text in ax.texts] == ["2: 70.0%", "c", "0: 20.0%", "a, b"]


@pytest.mark.parametrize("law", ["normal", "log-concave"])
def test_the_charts_of_a_model_are_those_that_it_has_something_to_say_on(law, tmp_path):
    model = topics()
    guide = CollapsedCode(MLP(7, 6, (4,)), model, law)
    q = torch.rand(50, 6).softmax(-1)
    run = Run(tmp_path, model, guide, {}, [])
    assert [name for name, _ in nggp.cluster_charts(model, run, q)] == ["sizes"]
    model.observe(q, data=50)
    run = Run(tmp_path, model, guide, {"words": {"0": ["a"]}}, HISTORY)
    drawn = {name: make() for name, make in nggp.cluster_charts(model, run, q)}
    assert list(drawn) == ["growth", "log_u", "sizes", "words"]
    curves = {line.get_label(): line.get_xydata() for line in drawn["log_u"].lines}
    for curve in curves.values():
        mass = torch.trapezoid(torch.tensor(curve[:, 1]), torch.tensor(curve[:, 0])).item()
        assert mass == pytest.approx(1, abs=0.05)
    assert list(curves) == [f"p(v | z), E[K] = {float(model.law_of_v(50).occupied):.1f}", "prior"]


def test_a_recipe_with_moves_of_one_s_own_trains_and_is_judged_on_the_clusters_there_are(
    tmp_path, capsys
):
    moves = "{mine: {class_path: priorzoo.inference.move_clusters, init_args: {margin: 0.2}}}"
    words = ["train", "digits-nggp", "--steps", "60", "--every", "30", "--moves", moves]
    assert main([*words, "--model.learn_law", "true", "--out", str(tmp_path / "run")]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["settings"]["moves"]["mine"]["init_args"] == {"margin": 0.2}
    assert result["metrics"]["clusters"] == result["metrics"]["active_clusters"] + 1
    assert result["metrics"]["discount"] != 0.25
    rows = [json.loads(s) for s in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row.get("moves") == "mine"] == [30]
    assert (tmp_path / "run" / "figures" / "growth.png").is_file()
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["metrics"] == result["metrics"]
    assert again["terms"] == result["terms"]
