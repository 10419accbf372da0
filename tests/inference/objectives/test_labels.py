"""Labels: the bound of a datum whose cluster is known, and what teaches the classifier."""

import pytest
import torch
from pyro import poutine
from torch.nn import functional

from priorzoo.inference import ELBO, Classification, fit
from priorzoo.inference.batch import Batch

pytestmark = pytest.mark.usefixtures("double")
PAIRS = ["gmvae", "vade", "gmvae-mean-field", "gmvae-flow", "dilokthanakul", "m2"]


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("particles", [1, 3])
def test_a_known_label_is_an_observed_cluster(name, particles, zoo):
    """Term by term that of the model with y held: kl[y] = -log p(y), z drawn for this y."""
    model, guide = zoo[name].pair()
    x, label = zoo[name].rows(4), torch.tensor([0, 2, 1, 2])
    objective = ELBO(model, guide, particles=particles)
    torch.manual_seed(0)
    draws = objective.draw(Batch(x, None, {"y": label}))
    terms = objective.terms_of(draws)
    sites = {n: s["value"] for n, s in draws.guide_trace.nodes.items() if n in ("z", "w")}
    expected = {"kl[y]": 0.0, "reconstruction": 0.0, "kl[z]": 0.0}
    for s in range(particles):
        one = {n: _of(value, label, s, particles) for n, value in sites.items()}
        told = poutine.trace(poutine.condition(model, {**one, "y": label})).get_trace(x)
        guessed = poutine.trace(poutine.condition(guide, {**one, "y": label})).get_trace(x)
        for trace in (told, guessed):
            trace.compute_log_prob()
        p, q = told.nodes, guessed.nodes
        expected["kl[y]"] = expected["kl[y]"] - p["y"]["log_prob"] / particles
        expected["reconstruction"] = expected["reconstruction"] + p["x"]["log_prob"] / particles
        gap = q["z"]["log_prob"] - p["z"]["log_prob"]
        expected["kl[z]"] = expected["kl[z]"] + gap / particles
    for term, value in expected.items():
        torch.testing.assert_close(terms[term], value)


def _of(value, label, s, particles):
    """Of a code (K or 1, S or none, B, D), the draw s, of each datum's own cluster."""
    value = value.reshape(-1, particles, *value.shape[-2:])[:, s]
    own = label if len(value) > 1 else torch.zeros_like(label)
    return value[own, torch.arange(len(label))]


@pytest.mark.parametrize("name", PAIRS)
def test_unlabelled_rows_are_untouched(name, zoo):
    model, guide = zoo[name].pair()
    x, label = zoo[name].rows(6), torch.tensor([0, -1, 2, -1, -1, 1])
    objective = ELBO(model, guide)
    torch.manual_seed(0)
    loss, some = objective(x, None, {"y": label})
    loss.backward()
    assert all(p.grad.isfinite().all() for p in objective.parameters() if p.requires_grad)
    torch.manual_seed(0)
    plain, none = objective(x)
    for term in ("reconstruction", "kl[y]", "kl[z]", "elbo"):
        torch.testing.assert_close(some[term][label < 0], none[term][label < 0])
    assert ((some["elbo"] - none["elbo"])[label >= 0].abs() > 1e-6).all()
    torch.manual_seed(0)
    unknown, _ = objective(x, None, {"y": torch.full((6,), -1)})
    torch.testing.assert_close(unknown, plain)


def test_the_classification_term_is_the_cross_entropy_of_labelled_rows(zoo):
    model, guide = zoo["gmvae"].pair()
    x, label = zoo["gmvae"].rows(6), torch.tensor([0, -1, 2, -1, -1, 1])
    objective = ELBO(model, guide, penalties={"classification": Classification(weight=3.0)})
    torch.manual_seed(0)
    loss, terms = objective(x, None, {"y": label})
    known = label >= 0
    cross = functional.cross_entropy(guide.classifier(x)[known], label[known], reduction="none")
    torch.testing.assert_close(terms["classification"][known], cross)
    assert (terms["classification"][~known] == 0).all()
    torch.manual_seed(0)
    plain, _ = ELBO(model, guide)(x, None, {"y": label})
    torch.testing.assert_close(loss - plain, 3 * cross.sum() / 6)
    off = ELBO(model, guide, penalties={"classification": Classification(weight=0.0)})
    torch.manual_seed(0)
    torch.testing.assert_close(off(x, None, {"y": label})[0], plain, rtol=0, atol=0)


def test_a_classification_term_without_labels_is_refused(zoo):
    objective = ELBO(*zoo["gmvae"].pair(), penalties={"classification": Classification()})
    with pytest.raises(ValueError, match=r"Expected labels of 'y'.*-1 for unknown"):
        objective(zoo["gmvae"].rows(3))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"y": torch.zeros(3, dtype=torch.int64)}, r"shape \(20,\)"),
        ({"y": torch.zeros(20)}, "one integer label of 'y'"),
        ({"y": torch.full((20,), 3)}, "from 0 to 2, or -1"),
        ({"y": torch.full((20,), -2)}, "from 0 to 2, or -1"),
        ({"z": torch.zeros(20, dtype=torch.int64)}, r"enumerates, \['y'\]"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, message, zoo):
    model, guide = zoo["gmvae"].pair()
    with pytest.raises(ValueError, match=message):
        fit(model, guide, zoo["gmvae"].rows(20), steps=1, labels=labels)
