"""Weights of words against scikit-learn's, and networks that read them."""

import pytest
import torch
from sklearn.feature_extraction.text import TfidfTransformer
from torch import nn

from priorzoo.guides import Code
from priorzoo.inference import load, save, weigh_words
from priorzoo.models import MLP, VAE, Multinomial
from priorzoo.models.inlets import Inlet
from priorzoo.models.words import TfIdf

pytestmark = pytest.mark.usefixtures("double")
WORDS = 7


def documents(count):
    """Counts of which one row is empty, and one word occurs nowhere."""
    x = torch.poisson(torch.full((count, WORDS), 0.8))
    x[0], x[:, 3] = 0, 0
    return x


@pytest.mark.parametrize("sublinear", [False, True])
def test_weights_are_scikit_learns(sublinear):
    """Of the rows that they are learnt from and of others, in which the unknown word occurs."""
    x, other = documents(20), torch.poisson(torch.full((5, WORDS), 2.0)) + 1
    weights = TfIdf(WORDS, sublinear)
    weights.learn(x)
    known = TfidfTransformer(sublinear_tf=sublinear).fit(x.numpy())
    for rows in (x, other):
        expected = torch.as_tensor(known.transform(rows.numpy()).toarray())
        torch.testing.assert_close(weights(rows), expected)


def test_before_they_are_learnt_all_words_weigh_the_same():
    x = documents(9)[1:]
    torch.testing.assert_close(TfIdf(WORDS)(x), x / x.norm(dim=1, keepdim=True))


def pair(**settings):
    encoder = MLP(WORDS, 4, (5,), **settings)
    return VAE(MLP(2, WORDS, (5,)), Multinomial(), 2), Code(encoder)


@pytest.mark.parametrize("weighting", ["tf-idf", "log-tf-idf"])
def test_a_network_reads_the_weights_of_training_rows(weighting):
    x = documents(30)
    model, guide = pair(weighting=weighting)
    weigh_words(model, guide, x, seed=0)
    known = TfidfTransformer(sublinear_tf=weighting == "log-tf-idf").fit_transform(x.numpy())
    plain = MLP(WORDS, 4, (5,))
    plain.layers = guide.encoder.layers
    torch.testing.assert_close(guide.encoder(x), plain(torch.as_tensor(known.toarray())))


def test_weights_are_saved(tmp_path):
    x = documents(12)
    model, guide = pair(weighting="tf-idf", input_dropout=0.2)
    weigh_words(model, guide, x, seed=0)
    save(tmp_path, model, guide)
    _, found = load(tmp_path)
    guide.eval(), found.eval()
    torch.testing.assert_close(found.double().encoder(x), guide.encoder(x), atol=1e-6, rtol=1e-5)


def test_input_dropout_leaves_out_cells_alone():
    """Each with the probability given; the mask and the covariates stay."""
    inlet = Inlet(2_000, covariates=3, masked=True, dropout=0.3)
    told = {"observed": torch.ones(1, 2_000, dtype=torch.bool), "covariates": torch.ones(1, 3)}
    cells, rest = inlet(torch.ones(1, 2_000), **told).split([2_000, 2_003], -1)
    torch.testing.assert_close(cells.unique(), torch.tensor([0, 1 / 0.7]))
    assert (cells == 0).double().mean().item() == pytest.approx(0.3, abs=0.05)
    assert (rest == 1).all()
    assert (inlet.eval()(torch.ones(1, 2_000), **told) == 1).all()


def test_what_cannot_be_weighed_is_refused():
    with pytest.raises(ValueError, match="weighting among"):
        MLP(WORDS, 4, weighting="idf")
    with pytest.raises(ValueError, match="columns of several kinds"):
        MLP(2, 4, weighting="tf-idf", features=["log", "number"])
    with pytest.raises(ValueError, match="weighting='tf-idf'"):
        weigh_words(*pair(), documents(3), seed=0)
    with pytest.raises(ValueError, match=f"{WORDS} words"):
        weigh_words(nn.Identity(), MLP(WORDS, 2, weighting="tf-idf"), documents(3)[:, 1:], seed=0)
