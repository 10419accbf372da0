"""The whole step as one graph: optimisers, schedules, resumption, and what stays outside of it."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, RMSprop

from priorzoo.guides import Code
from priorzoo.inference import ELBO, Training, binarised
from priorzoo.inference.data.pixels import Pixels
from priorzoo.inference.training import compiled, graphs
from priorzoo.inference.training.optimisers import RobbinsMonro
from priorzoo.inference.training.updates import Updates, can_record
from priorzoo.models import MLP, VAE

P, D = 6, 2
OPTIMISERS = {
    "adam": lambda p: Adam(p, lr=0.01),
    "adam, decay": lambda p: Adam(p, lr=0.01, weight_decay=0.1, amsgrad=True),
    "adam, maximised": lambda p: Adam(p, lr=0.01, maximize=True, betas=(0.5, 0.9)),
    "adamw": lambda p: AdamW(p, lr=0.01, weight_decay=0.1),
    "sgd": lambda p: SGD(p, lr=0.01),
    "sgd, nesterov": lambda p: SGD(p, lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.1),
    "rmsprop": lambda p: RMSprop(p, lr=0.01, weight_decay=0.1),
    "rmsprop, centred": lambda p: RMSprop(p, lr=0.01, centered=True, momentum=0.5),
    "natural": lambda p: RobbinsMonro(p, rate=0.5, delay=3.0),
}


@pytest.fixture
def uncompiled(monkeypatch):
    """Runs recorded graphs as they are, without inductor."""
    monkeypatch.setattr(compiled, "lower", lambda graph, *_: graph)


def parameters(dtype=torch.float32):
    made = torch.Generator().manual_seed(2)
    return {
        name: nn.Parameter(torch.randn(shape, generator=made).to(dtype))
        for name, shape in {"a": (3, 2), "b": (4,), "c": ()}.items()
    }


def gradients(step, like):
    made = torch.Generator().manual_seed(10 + step)
    return {name: torch.randn(p.shape, generator=made).to(p) for name, p in like.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_updates_are_the_steps_of_torch(name, dtype):
    """With a rate that changes, eager steps between, and the state as torch keeps it."""
    expected, found = parameters(dtype), parameters(dtype)
    stock, own = (OPTIMISERS[name](list(each.values())) for each in (expected, found))
    updates = Updates(own, found)
    for step in range(8):
        for optimiser in (stock, own):
            optimiser.param_groups[0]["lr"] = 0.02 / (1 + step)
        if step == 5:  # as after a restored checkpoint
            own.load_state_dict(copy.deepcopy(own.state_dict()))
            assert not updates.is_bound or not own.state
            updates.bind()
        for each, optimiser in ((expected, stock), (found, own)):
            for key, gradient in gradients(step, each).items():
                each[key].grad = gradient
            if optimiser is stock or step == 3:  # an eager step, as for a smaller batch
                optimiser.step()
        if step != 3:
            updates.prepare()
            with torch.no_grad():
                updates.apply(updates.tensors, found, gradients(step, found))
            updates.advance()
        tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {}
        torch.testing.assert_close(found, expected, **tolerance)
    kept, stocks = own.state_dict()["state"], stock.state_dict()["state"]
    for state in stocks.values():  # torch names a momentum that it does not use
        state.pop("momentum_buffer", None) if state.get("momentum_buffer") is None else None
    for place, state in stocks.items():
        if state:
            torch.testing.assert_close(kept[place], state, rtol=1e-4, atol=1e-6)


def test_optimisers_of_other_kinds_are_not_recorded():
    p = list(parameters().values())
    assert can_record(Adam(p))
    assert not can_record(torch.optim.Adagrad(p))
    assert not can_record(Adam(p, differentiable=True))
    assert not can_record(SGD(p, momentum=0.9, dampening=0.1))

    hooked = Adam(p)
    hooked.register_step_post_hook(lambda *_: None)
    assert not can_record(hooked)

    class Other(Adam):
        """May step in any other way."""

    assert not can_record(Other(p))


def trained(zoo, name, step, settings, portions=(9,)):
    torch.manual_seed(0)
    pair = zoo[name].pair()
    grey = torch.rand(25, P)
    training = Training(*pair, grey, batch_size=10, every=1, seed=3, step=step, **settings)
    for steps in portions:
        training.run(steps)
    return training


def losses(training):
    return torch.tensor([row["elbo"] for row in training.history])


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize(
    ("transform", "clip"), [(None, None), (binarised, 0.1), (torch.bernoulli, None)]
)
def test_a_whole_step_is_an_eager_one(zoo, transform, clip):
    """The same draws, with a smaller last batch, a rate for each step, and a cut gradient."""
    settings = {
        "transform": transform,
        "clip": clip,
        "schedule": lambda optimiser: torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.9),
        "schedule_unit": "step",
    }
    name = "vae" if transform else "vae-gaussian"
    expected = trained(zoo, name, "eager", settings)
    found = trained(zoo, name, "compiled", settings)
    assert isinstance(found.steps.descend._made, graphs.OneGraph)
    torch.testing.assert_close(losses(found), losses(expected), rtol=1e-4, atol=1e-4)
    one, other = found.optimiser.state_dict(), expected.optimiser.state_dict()
    torch.testing.assert_close(one["state"], other["state"], rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("name", ["adam", "sgd, nesterov"])
def test_a_resumed_training_is_the_same_to_the_bit(zoo, name):
    """From a state of an earlier step, in the same training and in another one."""
    settings = {"optimiser": OPTIMISERS[name], "transform": binarised}
    whole = trained(zoo, "gmvae", "compiled", settings, (5,))
    state = copy.deepcopy(whole.state())
    expected = whole.run(7)[5:]
    for again in (trained(zoo, "gmvae", "compiled", settings, ()), whole):
        again.restore(copy.deepcopy(state))
        again.history.clear()
        assert [row["elbo"] for row in again.run(7)] == [row["elbo"] for row in expected]


@pytest.mark.usefixtures("uncompiled")
def test_a_decay_that_begins_later_is_recorded_anew(zoo):
    settings = {"optimiser": OPTIMISERS["adam"], "transform": binarised}
    ends = []
    for step in ("eager", "compiled"):
        training = trained(zoo, "vae", step, settings, (4,))
        training.optimiser.param_groups[0]["weight_decay"] = 0.5
        training.run(4)
        ends.append(losses(training))
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-4, atol=1e-4)


class Noisy:
    """A transform that counts its calls, which a graph would not."""

    def __init__(self):
        self.calls = 0

    def __call__(self, x):
        self.calls += 1
        return (x * (self.calls % 2)).round()


class Tallied(ELBO):
    """Commits to a plain attribute."""

    seen = 0

    def commit(self, carry):
        self.seen += 1


@pytest.mark.usefixtures("uncompiled")
def test_what_cannot_be_recorded_stays_outside(zoo):
    """Transforms of one's own, other optimisers, and state that is no tensor."""
    noisy = [Noisy(), Noisy()]
    runs = [
        trained(zoo, "vae", step, {"transform": transform})
        for step, transform in zip(("eager", "compiled"), noisy, strict=True)
    ]
    assert noisy[0].calls == noisy[1].calls
    assert not runs[1].steps.picks
    torch.testing.assert_close(*map(losses, runs), rtol=1e-4, atol=1e-4)
    settings = {"optimiser": torch.optim.Adagrad, "transform": binarised}
    other = trained(zoo, "vae", "compiled", settings)
    assert isinstance(other.steps.descend._made, graphs.TwoGraphs)
    torch.testing.assert_close(losses(other), losses(trained(zoo, "vae", "eager", settings)))
    pair = VAE(MLP(D, P, (8,)), code=D), Code(MLP(P, 2 * D, (8,)))
    tallied = Tallied(*pair)
    training = Training(*pair, zoo["vae"].rows(20), objective=tallied, step="compiled")
    training.run(5)
    assert isinstance(training.steps.descend._made, graphs.TwoGraphs)
    assert tallied.seen == 5


@pytest.mark.usefixtures("uncompiled")
def test_bytes_labels_and_frozen_parameters_are_part_of_the_graph(zoo):
    torch.manual_seed(1)
    pixels, labels = torch.randint(0, 256, (25, P), dtype=torch.uint8), torch.arange(25) % 4 - 1
    ends = []
    for step in ("eager", "compiled"):
        torch.manual_seed(0)
        model, guide = zoo["gmvae"].pair()
        model.decoder.requires_grad_(False)
        settings = {"labels": {"y": labels}, "transform": Pixels(binarise=True), "every": 1}
        training = Training(model, guide, pixels, batch_size=10, step=step, **settings)
        training.run(7)
        ends.append((losses(training), model.state_dict(), guide.state_dict()))
        assert len(training.optimiser.state) == sum(
            p.requires_grad for p in training.objective.parameters()
        )
    assert isinstance(training.steps.descend._made, graphs.OneGraph)
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-4, atol=1e-4)
