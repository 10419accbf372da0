"""What a training refuses, and that it says why."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from priorzoo.guides import ClusterThenCode, Code
from priorzoo.inference import ELBO, KL, Training, check_data, check_pair, descend, fit
from priorzoo.models import GMVAE, M2, MLP, VAE, data_plate

P, D, K = 6, 2, 3


def test_exactly_one_of_steps_and_epochs(zoo):
    x = zoo["vae"].rows(10)
    for length in ({}, {"steps": 1, "epochs": 1}):
        with pytest.raises(ValueError, match="Expected steps or epochs"):
            fit(*zoo["vae"].pair(), x, **length)


@pytest.mark.parametrize(
    "length",
    [
        {"steps": 0},
        {"steps": -5},
        {"epochs": 0.0},
        {"epochs": math.nan},
        {"epochs": math.inf},
        {"epochs": 0.001},  # of one step
    ],
)
def test_a_length_of_no_step_or_without_end_is_refused(zoo, length):
    """Also before the training, for those who have something to lose by then."""
    training = Training(*zoo["vae"].pair(), zoo["vae"].rows(10))
    for refused in (training.length, training.run):
        with pytest.raises(ValueError, match="length of at least one step"):
            refused(**length)
    assert training.history == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patience": 2}, "validation rows with patience"),
        ({"patience": 0, "validation": torch.zeros(3, P)}, "positive patience"),
        ({"batch_size": 0}, "positive batch_size"),
        ({"clip": 0.0}, "positive clip but got 0.0"),
        ({"clip": math.nan}, "positive clip but got nan"),
        ({"precision": "fp8"}, "precision among"),
        ({"optimiser": torch.optim.LBFGS}, "LBFGS needs closure"),
        (
            {"schedule": torch.optim.lr_scheduler.ReduceLROnPlateau},
            "validation rows with ReduceLROnPlateau",
        ),
        ({"validation": torch.zeros(3, P + 1)}, r"validation of shape \(N, 6\) but got \(3, 7\)"),
    ],
)
def test_settings_that_do_not_fit_are_refused(zoo, settings, message):
    with pytest.raises(ValueError, match=message):
        Training(*zoo["vae"].pair(), zoo["vae"].rows(10), **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"particles": 0}, "at least one particle but got particles=0"),
        ({"kl": {"y": KL(0.5), "z": KL()}}, r"among \['z'\] but got \['y'\]"),
    ],
)
def test_objectives_that_do_not_fit_are_refused_before_the_first_step(zoo, settings, message):
    pair = zoo["vae"].pair()
    with pytest.raises(ValueError, match=message):
        Training(*pair, zoo["vae"].rows(10), objective=ELBO(*pair, **settings))


def test_a_step_of_ones_own_refuses_a_norm_that_turns_the_gradient_round(zoo):
    objective = ELBO(*zoo["vae"].pair())
    optimiser = torch.optim.SGD(objective.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="positive clip but got -1"):
        descend(objective, optimiser, zoo["vae"].rows(10), clip=-1.0)


def test_a_misspelt_precision_is_refused(zoo):
    with pytest.raises(ValueError, match="bfloat16"):
        fit(*zoo["vae"].pair(), zoo["vae"].rows(10), steps=1, precision="bfloat16")


def test_an_iterable_needs_its_size(zoo):
    with pytest.raises(ValueError, match="give size=N"):
        fit(*zoo["vae"].pair(), [zoo["vae"].rows(10)], steps=1)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3, 2, 4), r"shape \(N, 6\) but got \(3, 2, 4\)"),
        (torch.zeros(3, 5), r"shape \(N, 6\) but got \(3, 5\)"),
        (torch.zeros(6), r"shape \(N, 6\) but got \(6,\)"),
        (torch.zeros(0, P), "at least one row"),
        (255 * torch.eye(P), "from 0 to 255; rescale"),
        (torch.full((3, P), math.nan), "NaN or infinity"),
        (torch.full((3, P), math.inf), "NaN or infinity"),
        (torch.full((3, P), 2**24 + 1), "int64 with values that it cannot hold"),
    ],
)
def test_data_that_cannot_be_scored_are_refused(zoo, x, message):
    with pytest.raises(ValueError, match=message):
        fit(*zoo["vae"].pair(), x, steps=1)


class Coins(torch.nn.Module):
    def forward(self, x=None, size=None):
        with data_plate(x, size):
            pyro.sample("x", dist.Bernoulli(torch.full((P,), 0.5)).to_event(1), obs=x)


def test_probabilities_that_are_binarised_fit_a_likelihood_of_bits():
    check_data(Coins(), torch.rand(9, P), transform=torch.bernoulli)
    with pytest.raises(ValueError, match=r"x within \[0, 1\] to binarise"):
        check_data(Coins(), torch.full((3, P), 1.2), transform=torch.bernoulli)
    with pytest.raises(ValueError, match=r"x to hold 0 or 1 for Bernoulli"):
        check_data(Coins(), torch.rand(9, P))


def test_fractions_of_words_are_refused(zoo):
    with pytest.raises(ValueError, match="rescale the data or choose another likelihood"):
        fit(*zoo["vae-multinomial"].pair(), torch.full((3, P), 0.5), steps=1)


class Unsummed(ClusterThenCode):
    def forward(self, x, size=None):
        with data_plate(x, size):
            y = pyro.sample("y", dist.Categorical(logits=self.classifier(x)))
            loc, scale = self.conditional_encoder(x, y).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))


def vae():
    return VAE(MLP(D, P), code=D)


def gmvae():
    return GMVAE(MLP(D, P), code=D, clusters=K)


def m2(known):
    return M2(MLP(D, P, clusters=known), code=D, clusters=K)


def guide(kind=ClusterThenCode, code=D, clusters=K, known=K):
    return kind(MLP(P, clusters), MLP(P, 2 * code, clusters=known))


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (lambda: (gmvae(), Code(MLP(P, 2 * D))), r"lacks the latent sites \['y'\]"),
        (lambda: (vae(), guide()), r"model lacks the guide's sites \['y'\]"),
        (lambda: (gmvae(), guide(clusters=4, known=4)), r"'y' .*3 values in the model, 4 values"),
        (lambda: (vae(), Code(MLP(P, 6))), r"'z' .*\(2, 2\) in the model, \(2, 3\) in the guide"),
        (lambda: (gmvae(), guide(code=3)), r"'z' .*\(2, 2\) in the model, \(2, 3\) in the guide"),
        (lambda: (gmvae(), guide(Unsummed)), "neither enumerates nor reparameterises site 'y'"),
        (lambda: (vae(), Code(MLP(P + 1, 2 * D))), r"Code cannot run on rows .*\(6,\)"),
        (lambda: (gmvae(), guide(known=K - 1)), "ClusterThenCode cannot run"),
        (lambda: (gmvae(), guide(known=None)), "ClusterThenCode cannot run"),
        (lambda: (m2(known=None), guide()), "M2 cannot run"),
        (lambda: (m2(known=K - 1), guide()), "M2 cannot run"),
    ],
)
def test_a_pair_that_does_not_fit_is_refused(pair, message):
    """In one line, before the first step, and whatever cluster is drawn in the check."""
    for seed in range(5):
        torch.manual_seed(seed)
        with pytest.raises(ValueError, match=message) as error:
            check_pair(*pair())
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=message):
        fit(*pair(), torch.zeros(3, P), steps=1)


class Point(torch.nn.Module):
    """The cluster as a point, not a distribution."""

    def __init__(self, cluster):
        super().__init__()
        self.encoder, self.cluster = MLP(P, 2 * D), cluster

    def forward(self, x, size=None):
        with data_plate(x, size):
            pyro.sample("y", dist.Delta(torch.full((len(x),), self.cluster)))
            loc, raw = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))


def test_a_discrete_site_may_be_a_point_within_its_support():
    check_pair(gmvae(), Point(K - 1))
    with pytest.raises(ValueError, match=f"'y' is a point outside its support, {K} values"):
        check_pair(gmvae(), Point(K))


@pytest.mark.parametrize("error", [KeyError("width"), ZeroDivisionError("by zero")])
def test_an_error_of_a_model_is_not_taken_for_a_missing_site(error):
    """Programs may look up or divide by anything; what they raise is told as theirs."""

    class Fails(VAE):
        def forward(self, x=None, size=None, **beside):
            raise error

    model = Fails(MLP(D, P, ()), code=D)
    for refuse in (lambda: check_data(model, torch.zeros(3, P)), lambda: check_pair(model, model)):
        with pytest.raises(ValueError, match=r"Fails cannot run on size=\d: .*(width|by zero)"):
            refuse()
