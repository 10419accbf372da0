"""Steps that are compiled or captured: what they compute, when they give up, what they cost."""

import resource

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from priorzoo.guides import Code
from priorzoo.inference import (
    ELBO,
    KL,
    Collapsed,
    ConjugateAdam,
    ConjugateELBO,
    Linear,
    Loss,
    Training,
    binarised,
    descend,
    fit,
)
from priorzoo.inference.batch import Batch
from priorzoo.inference.data.pixels import Pixels
from priorzoo.inference.training.captured import Captured
from priorzoo.inference.training.execution import choose
from priorzoo.inference.training.tracing import trace
from priorzoo.models import MLP, VAE, data_plate

P, D = 6, 2


@pytest.fixture
def two_threads():
    """Torch's own, however many the tests have: kernels divide their work only among several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def made(entry):
    torch.manual_seed(0)
    return entry.pair()


def trained(entry, data, portions, every=1, **settings):
    """The optimised quantity of each step, and the training."""
    pair = made(entry)
    objective = ELBO(*pair, kl={"z": KL(Linear(0, 1, fraction=0.5), floor=0.1)})
    training = Training(*pair, data, objective=objective, every=every, seed=3, **settings)
    for steps in portions:
        training.run(steps)
    return torch.tensor([row["objective"] for row in training.history]), training


@pytest.mark.slow
def test_compiled_is_eager_faster(zoo):
    """The same draws give the same losses over 50 steps: with a batch of another size in each
    pass, fresh binarisation, a cut gradient, and a schedule by the length of a training that goes
    on. Its memory does not grow.
    """
    grey = torch.rand(50, P)
    settings = {"batch_size": 20, "clip": 0.5, "transform": torch.bernoulli}
    expected, _ = trained(zoo["gmvae"], grey, (30, 20), **settings)
    found, training = trained(zoo["gmvae"], grey, (30, 20), step="compiled", **settings)
    assert training.steps.descend.reason == ""
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    training.every = 10**6
    training.run(100)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    training.run(800)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4_000  # of 1,024 bytes


@pytest.mark.slow
@pytest.mark.usefixtures("two_threads")
def test_compiled_in_half_precision(zoo):
    """What is fused is rounded less often than in eager steps."""
    x = zoo["vae"].rows(20)
    expected, _ = trained(zoo["vae"], x, (10,), precision="bf16")
    found, training = trained(zoo["vae"], x, (10,), step="compiled", precision="bf16")
    assert training.steps.descend.reason == ""
    torch.testing.assert_close(found, expected, rtol=0.01, atol=0.01)


def test_labels_are_inputs_of_the_graph(zoo):
    """Traced with some labels, it gives the terms of others."""
    objective, x = ELBO(*made(zoo["gmvae"])), zoo["gmvae"].rows(8)
    traced = trace(objective, Batch(x, 10, {"y": torch.arange(8) % 3}))
    other = torch.arange(8) % 4 - 1
    torch.manual_seed(1)
    means, *_ = traced.graph(*traced.inputs, x, other)
    torch.manual_seed(1)
    _, terms = objective(x, 10, {"y": other})
    torch.testing.assert_close(means, torch.stack([term.mean() for term in terms.values()]))


def check_traced(entry, precision):
    """Means and gradients of the graph are those of a step; each gradient lies as its parameter."""
    (model, guide), x = made(entry), entry.rows(5)
    objective = ELBO(model, guide)
    traced = trace(objective, Batch(x, 10), precision=precision)
    torch.manual_seed(1)
    means, *gradients = traced.graph(*traced.inputs, x)
    torch.manual_seed(1)
    optimiser = torch.optim.SGD(objective.parameters(), lr=0.0)
    terms = descend(objective, optimiser, x, 10, precision=precision)
    assert traced.terms == list(terms)
    torch.testing.assert_close(means, torch.stack(list(terms.values())))
    for name, gradient in zip(traced.learnt, gradients, strict=True):
        parameter = objective.get_parameter(name)
        assert gradient.stride() == parameter.stride()
        # On the CPU torch's own gradient of a convolution in half precision can be anything where
        # the picture is smaller than the kernel, as here.
        if precision == "float32" or parameter.dim() < 4:
            torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("name", ["gmvae", "gmvae-conv", "nggp", "sticks-beta"])
def test_some_pairs_are_traced(zoo, name, precision):
    check_traced(zoo[name], precision)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_every_pair_is_traced(entry, precision):
    check_traced(entry, precision)


class Decides(MLP):
    def forward(self, z):
        logits = super().forward(z)
        return logits if logits.sum() > 0 else logits * 1.5


class Selects(MLP):
    def forward(self, z):
        logits = super().forward(z)
        return logits.index_add(-1, torch.arange(P), logits) if len(z.nonzero()) else logits


@pytest.mark.parametrize(
    ("decoder", "operation"), [(Decides, "_local_scalar_dense"), (Selects, "nonzero")]
)
def test_a_program_that_depends_on_values_is_trained_eagerly(zoo, decoder, operation):
    """One warning that names the operation, and to the last bit what eager steps give."""
    x = zoo["vae"].rows(10)
    results = []
    for step in ("eager", "compiled"):
        torch.manual_seed(0)
        pair = VAE(decoder(D, P, (8,)), code=D), Code(MLP(P, 2 * D, (5,)))

        def adam(parameters):
            return torch.optim.Adam(parameters, lr=1e-3, fused=True)

        training = Training(*pair, x, batch_size=4, step=step, optimiser=adam)
        if step == "compiled":
            with pytest.warns(UserWarning, match=operation) as warned:
                training.run(7)
            assert len(warned) == 1
        else:
            training.run(7)
        results.append(training.objective.state_dict())
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)


def test_what_cannot_be_captured_is_refused(zoo):
    pair, x = zoo["vae"].pair(), zoo["vae"].rows(10)
    with pytest.raises(ValueError, match=r"CUDA device.*compiled"):
        fit(*pair, x, steps=1, step="cudagraph")
    with pytest.raises(ValueError, match="'warp'"):
        fit(*pair, x, steps=1, step="warp")
    with pytest.raises(ValueError, match="iterable"):
        choose("cudagraph", torch.device("cuda"), in_memory=False)
    assert choose("auto", torch.device("cpu"), in_memory=True) == "compiled"
    assert choose("auto", torch.device("cuda"), in_memory=True) == "cudagraph"
    assert choose("auto", torch.device("cuda"), in_memory=False) == "compiled"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_captured_steps_train_as_eager_ones_do(zoo):
    """With a batch of another size in each pass, a schedule of the step size, and a resumption."""
    grey = torch.rand(50, P, device="cuda")
    settings = {
        "batch_size": 20,
        "transform": torch.bernoulli,
        "schedule": lambda optimiser: torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.99),
    }
    bounds = {}
    for step in ("eager", "cudagraph"):
        pair = [module.cuda() for module in made(zoo["gmvae"])]
        training = Training(*pair, grey, every=50, seed=1, step=step, **settings)
        training.run(300)
        again = Training(*pair, grey, every=50, seed=1, step=step, **settings)
        again.restore(training.state())
        rows = [row["elbo"] for row in [*training.history, *again.run(300)]]
        assert len(set(rows)) == len(rows)  # a replay draws anew
        bounds[step] = torch.tensor(rows)
        if step == "cudagraph":
            assert isinstance(training.steps, Captured)
            assert training.steps._graph is not None
    torch.testing.assert_close(bounds["cudagraph"], bounds["eager"], rtol=0.05, atol=0.0)


def test_bytes_are_the_grey_values_they_stand_for(zoo):
    """A training on bytes is that on the floats, to the last bit, at a quarter of the memory."""
    kept = torch.randint(0, 256, (30, P), dtype=torch.uint8)
    grey = kept.float() / 255
    assert torch.equal(Pixels()(kept), grey)
    results = []
    for data, transform in ((kept, Pixels(binarise=True)), (grey, binarised)):
        pair = made(zoo["vae"])
        fit(*pair, data, steps=9, batch_size=10, transform=transform)
        results.append([module.state_dict() for module in pair])
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


def test_frozen_parameters_stay_as_they_are(zoo):
    """A graph gives no gradient for what does not learn."""
    model, guide = made(zoo["vae"])
    nn.Module.requires_grad_(model, False)
    traced = trace(ELBO(model, guide), Batch(zoo["vae"].rows(5), 10))
    assert traced.learnt
    assert all(name.startswith("guide.") for name in traced.learnt)


def test_code_that_gives_other_gradients_is_not_used(zoo, monkeypatch):
    """As torch 2.15's did of a mixture's, with kernels in place and two threads."""

    def spoilt(graph, inputs, options):
        def run(*given):
            before = [each.clone() for each in given]
            found = graph(*given)
            for old, new in zip(before, given, strict=True):
                if new.is_floating_point():
                    new.copy_(2 * old - new)  # the opposite change
            return found

        return run

    monkeypatch.setattr(torch._inductor, "compile", spoilt)
    x = zoo["gmvae"].rows(20)
    expected = fit(*made(zoo["gmvae"]), x, steps=3)
    with pytest.warns(UserWarning, match="wrong by 200.0%"):
        found = fit(*made(zoo["gmvae"]), x, steps=3, step="compiled")
    assert [row["elbo"] for row in found] == [row["elbo"] for row in expected]


class Kept(nn.Module):
    """Keeps its prior, with the checks of values that were on when it was made."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder
        self.prior = dist.Normal(0.0, 1.0, validate_args=True).expand([D]).to_event(1)

    def forward(self, x=None, size=None):
        with data_plate(x, size):
            z = pyro.sample("z", self.prior)
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)


def test_a_distribution_that_checks_its_values_is_traced(zoo):
    """Such as the prior of a PyroSample; the checks of the user's object stay on."""
    model = Kept(MLP(D, P))
    assert trace(ELBO(model, Code(MLP(P, 2 * D))), Batch(zoo["vae"].rows(5), 10)).learnt
    assert model.prior.base_dist._validate_args


class Counting(ELBO):
    """Counts the rows that it has seen, and adds what it has counted to the loss."""

    def __init__(self, *pair):
        super().__init__(*pair)
        self.register_buffer("seen", torch.zeros(()))

    def loss_of(self, draws):
        value, terms, _ = super().loss_of(draws)
        count = terms["reconstruction"].new_ones(len(draws.batch.x)).sum()
        return Loss(value + self.seen, terms | {"seen": self.seen.clone()}, {"count": count})

    def commit(self, carry):
        self.seen += carry["count"]


@pytest.mark.slow
def test_state_that_a_batch_moves_is_committed_once_a_step(zoo):
    """Compiled as eager: what a step sees is what the steps before it have committed."""
    x = zoo["vae"].rows(25)
    found = {}
    for step in ("eager", "compiled"):
        pair = made(zoo["vae"])
        settings = {"objective": Counting(*pair), "batch_size": 10, "every": 1}
        training = Training(*pair, x, step=step, **settings)
        training.run(6)
        if step == "compiled":
            assert training.steps.descend.reason == ""
        assert [row["seen"] for row in training.history] == [0, 10, 20, 25, 35, 45]
        assert training.objective.seen == 50
        found[step] = torch.tensor([row["objective"] for row in training.history])
    torch.testing.assert_close(found["compiled"], found["eager"], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(
    ("name", "objective", "optimiser"),
    [
        ("factorial", ConjugateELBO, ConjugateAdam),
        ("factorial-two", ConjugateELBO, ConjugateAdam),
        ("nggp", Collapsed, torch.optim.Adam),
        ("nggp-log-concave", Collapsed, torch.optim.Adam),
    ],
)
def test_gradients_asked_for_once_more_and_running_sizes_are_compiled_too(
    zoo, name, objective, optimiser
):
    """Natural gradients after the networks have moved, and what the clock counts of each batch."""
    found = {}
    x = zoo[name].rows(20).double()
    for step in ("eager", "compiled"):
        pair = [part.double() for part in made(zoo[name])]
        settings = {"objective": objective(*pair), "optimiser": lambda p: optimiser(p, lr=1e-3)}
        training = Training(*pair, x, batch_size=10, every=1, step=step, seed=2, **settings)
        training.run(12)
        if step == "compiled":
            assert training.steps.descend.reason == ""
        rows = [[row[term] for term in training.steps.names] for row in training.history]
        found[step] = torch.tensor(rows), training.objective.state_dict()
    torch.testing.assert_close(found["compiled"], found["eager"], rtol=1e-9, atol=1e-9)
    bound = found["eager"][0][:, training.steps.names.index("elbo")]
    assert bound[0] != bound[-1]
