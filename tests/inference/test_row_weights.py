"""Weights of rows: a row of weight w is w rows, in training, evaluation and prediction."""

import pytest
import torch

from priorzoo.inference import ELBO, Batch, Collapsed, evaluate, fit, importance_bound
from priorzoo.inference.training import compiled

N = 6
WEIGHTS = torch.tensor([1, 3, 0, 2, 1, 4])


@pytest.fixture
def recorded(monkeypatch):
    monkeypatch.setattr(compiled, "lower", lambda graph, *_: graph)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


@pytest.mark.usefixtures("double", "recorded")
@pytest.mark.parametrize("step", ["eager", "compiled"])
def test_training_on_weighted_rows_is_training_on_repeated_ones(zoo, step):
    """Of a guide without draws, by gradient descent on all rows."""
    x, ends = zoo["vq-vae"].rows(N), []
    for rows, context in ((x, {"weights": WEIGHTS}), (x.repeat_interleave(WEIGHTS, 0), {})):
        torch.manual_seed(0)
        pair = zoo["vq-vae"].pair()
        settings = {"optimiser": sgd, "context": context, "validation": rows, "step": step}
        history = fit(*pair, rows, epochs=4, validation_context=context, **settings)
        found = [[row["elbo"] for row in history], evaluate(*pair, rows, context=context)]
        ends.append([*found, *(module.state_dict() for module in pair)])
    torch.testing.assert_close(*ends)
    assert ends[0][0][-1] > ends[0][0][0]


@pytest.mark.usefixtures("double")
def test_batches_of_weighted_rows_add_up(zoo):
    """Over batches of any weights, to the loss of all rows."""
    entry = zoo["vq-vae"]
    objective, x = ELBO(*entry.pair()), entry.rows(N)
    data = int(WEIGHTS.sum())
    relative = WEIGHTS * N / data
    whole, _ = objective(x, data, context={"weights": relative})
    parts = [
        objective(x[i : i + 2], data, context={"weights": relative[i : i + 2]})[0]
        for i in range(0, N, 2)
    ]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


@pytest.mark.usefixtures("double")
def test_cluster_sizes_and_the_collapsed_bound_count_weights(zoo):
    entry = zoo["nggp"]
    model, guide = entry.pair()
    x = entry.rows(N)
    many = x.repeat_interleave(WEIGHTS, 0)
    found = evaluate(model, guide, x, context={"weights": WEIGHTS})
    expected = evaluate(model, guide, many)
    assert found["kl[y]"] == pytest.approx(expected["kl[y]"])
    assert found["kl[z]"] == pytest.approx(expected["kl[z]"])
    data, states = len(many), []
    for rows, context in ((x, {"weights": WEIGHTS * N / data}), (many, {})):
        torch.manual_seed(0)
        model, guide = entry.pair()
        objective = Collapsed(model, guide, rate=1.0)
        objective.commit(objective.loss(Batch(rows, data, {}, context)).carry)
        states.append([model.mean.clone(), model.variance.clone(), model.log_empty.clone()])
    torch.testing.assert_close(*states)


def test_the_importance_bound_in_an_evaluation_is_weighted(zoo):
    entry = zoo["vae"]
    pair, x = entry.pair(), entry.rows(N)
    found = evaluate(*pair, x, importance_samples=500, context={"weights": WEIGHTS})
    each = importance_bound(*pair, x, 20_000)
    expected = (each * WEIGHTS).sum() / WEIGHTS.sum()
    assert found["log p(x)"] == pytest.approx(expected.item(), abs=0.1)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (-torch.ones(N), "at least 0"),
        (torch.zeros(N), "some above"),
        (torch.ones(N, 2), r"shape \(6,\)"),
        (torch.ones(N - 1), "each of 6 rows"),
        (torch.full((N,), torch.nan), "finite"),
    ],
)
def test_weights_that_are_none_are_refused_in_one_line(zoo, weights, message):
    entry = zoo["vae"]
    for use, settings in ((fit, {"steps": 1}), (evaluate, {})):
        with pytest.raises(ValueError, match=message) as refused:
            use(*entry.pair(), entry.rows(N), context={"weights": weights}, **settings)
        assert "\n" not in str(refused.value)
