"""What is saved can be loaded again as it was: compared before it is written."""

import subprocess
import sys
import warnings
from contextlib import nullcontext

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from priorzoo.guides import Code
from priorzoo.inference import draw, evaluate, fit, load, save
from priorzoo.models import MLP, VAE, data_plate

P, D = 6, 2


def made():
    encoder = nn.Sequential(nn.Linear(P, P), nn.Tanh(), nn.Linear(P, 2 * D))
    return VAE(nn.Sequential(MLP(D, P, ()), nn.Linear(P, P)), code=D), Code(encoder)


def rows(count=5):
    return torch.bernoulli(torch.full((count, P), 0.5))


def assert_loads_as(folder, *pair):
    again, x = load(folder, trust=[__name__]), rows()
    assert evaluate(*again, x) == evaluate(*pair, x)
    return again


# Modules that were changed after their construction


def hooked(model, guide):
    guide.encoder[0].register_forward_hook(lambda module, given, output: 2 * output)


def other_forward(model, guide):
    model.decoder.forward = lambda z: torch.zeros(*z.shape[:-1], P)


def attribute(model, guide):
    guide.encoder[1].forward = torch.relu


def tied(model, guide):
    guide.encoder[0].weight = model.decoder[1].weight


def put_in(model, guide):
    guide.encoder[0].add_module("more", nn.Linear(2, 2))


def another_buffer(model, guide):
    guide.encoder[0].register_buffer("mean", torch.zeros(3))


def unsaved_buffer(model, guide):
    model.origin += 1


def wider(model, guide):
    guide.encoder[0].weight = nn.Parameter(torch.randn(P + 1, P))
    guide.encoder[0].bias = nn.Parameter(torch.randn(P + 1))
    guide.encoder[2].weight = nn.Parameter(torch.randn(2 * D, P + 1))


class Twice(nn.Module):
    def forward(self, weight):
        return 2 * weight


CHANGES = {
    "weight norm": (
        lambda m, g: parametrizations.weight_norm(g.encoder[0]),
        r"guide\.encoder\.0\.parametrizations.* were added",
    ),
    "spectral norm": (lambda m, g: parametrizations.spectral_norm(g.encoder[0]), "were added"),
    "orthogonal": (lambda m, g: parametrizations.orthogonal(g.encoder[0]), "were added"),
    "a parametrization of one's own": (
        lambda m, g: parametrize.register_parametrization(m.decoder[1], "weight", Twice()),
        r"model\.decoder\.1\.parametrizations.* were added",
    ),
    "spectral norm by a hook": (
        lambda m, g: nn.utils.spectral_norm(g.encoder[0]),
        r"guide\.encoder\.0\.weight_orig.* were added",
    ),
    "pruning": (lambda m, g: prune.l1_unstructured(g.encoder[0], "weight", 3), "weight_mask"),
    "a layer put in": (put_in, r"guide\.encoder\.0\.more\.weight'\] were added"),
    "another buffer": (another_buffer, r"guide\.encoder\.0\.mean'\] were added"),
    "other widths": (wider, "have a different shape"),
    "tied weights": (tied, "share a tensor in one of the pairs only"),
    "a hook": (hooked, "density of site 'z' in the guide differs|value of site 'z'"),
    "another function": (other_forward, "of site 'x' in the model differs"),
    "an activation": (attribute, "of site 'z' in the guide differs"),
    "a buffer that is not saved": (unsaved_buffer, "differs when it is built again"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_module_that_was_changed_is_named_when_it_is_saved(tmp_path, name):
    """Nothing is written, and the pair still works."""
    change, message = CHANGES[name]
    pair = made()
    change(*pair)
    with pytest.raises(ValueError, match=f"(?s)as its constructors build it.*{message}"):
        save(tmp_path / "run", *pair)
    assert not (tmp_path / "run").exists()
    fit(*pair, rows(), steps=1)


class Normed(nn.Module):
    """Makes the changes in its constructor."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.first = parametrizations.weight_norm(nn.Linear(inputs, inputs))
        self.second = parametrizations.spectral_norm(nn.Linear(inputs, inputs))
        self.third = nn.utils.spectral_norm(nn.Linear(inputs, inputs))
        self.last = nn.Linear(inputs, outputs)
        self.third.bias = self.last.bias if outputs == inputs else self.third.bias

    def forward(self, x):
        return self.last(self.third(self.second(self.first(x))))


class Lazily(nn.Module):
    """Has lazy layers, which are built again without shapes."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            self.layers = nn.Sequential(
                nn.LazyLinear(4), nn.LazyBatchNorm1d(), nn.LazyLinear(outputs)
            )

    def forward(self, x):
        return self.layers(x)


def lazy_layers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d(), nn.LazyLinear(2 * D))


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize(
    "encoder",
    [
        lambda: Normed(P, 2 * D),
        lambda: nn.Sequential(Normed(P, P), nn.Linear(P, 2 * D)),  # with a shared bias
        lambda: Lazily(2 * D),
        lazy_layers,
    ],
)
def test_the_same_changes_in_a_constructor_are_saved(tmp_path, encoder, double):
    pair = VAE(MLP(D, P, ()), code=D), Code(encoder())
    if double:
        pair = tuple(part.double() for part in pair)
    fit(*pair, rows(12), steps=3)
    save(tmp_path, *pair)
    again = assert_loads_as(tmp_path, *pair)
    assert draw(again[0], 2).dtype == (torch.float64 if double else torch.float32)
    fit(*again, rows(12), steps=1)


def test_lazy_modules_without_parameters_are_named(tmp_path):
    pair = VAE(MLP(D, P, ()), code=D), Code(lazy_layers())
    with pytest.raises(ValueError, match=r"guide\.encoder\.0\.weight.* have no shape yet"):
        save(tmp_path / "run", *pair)
    assert not (tmp_path / "run").exists()


def test_an_automatic_guide_is_refused_by_name(tmp_path):
    model = VAE(MLP(D, P, ()), code=D)
    with pytest.raises(ValueError, match="guide is an automatic AutoNormal, made of a function"):
        save(tmp_path / "run", model, AutoNormal(model))


# Compiled modules


@pytest.mark.parametrize("place", ["guide", "encoder", "layer", "both"])
def test_of_a_compiled_module_the_module_is_saved(tmp_path, place):
    """By names that a pair without compilation has too."""
    model, guide = made()
    expected = evaluate(model, guide, rows())

    def compiled(module):
        return torch.compile(module, backend="eager")

    if place == "encoder":
        guide.encoder = compiled(guide.encoder)
    elif place == "layer":
        guide.encoder[0] = compiled(guide.encoder[0])
    pair = {"guide": (model, compiled(guide)), "both": (compiled(model), compiled(guide))}
    save(tmp_path, *pair.get(place, (model, guide)))
    again = load(tmp_path, trust=[__name__])
    assert type(again[1]) is Code
    assert not any("_orig_mod" in name for part in again for name in part.state_dict())
    assert evaluate(*again, rows()).keys() == expected.keys()
    for old, new in zip(made_state(model, guide), made_state(*again), strict=True):
        torch.testing.assert_close(new, old, rtol=0, atol=0)


def made_state(*pair):
    return [t for part in pair for t in part.state_dict().values()]


# Classes of scripts and notebooks

SCRIPT = """
import sys, warnings, torch
from torch import nn
from priorzoo.guides import Code
from priorzoo.inference import load, save
from priorzoo.models import MLP, VAE

class Encoder(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs
        self.layer = nn.Linear(6, outputs)
    def forward(self, x):
        return self.layer(x)

folder = sys.argv[1]
if sys.argv[2] == "save":
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        save(folder, VAE(MLP(2, 6, ()), code=2), Code(Encoder(4)))
    print(*(w.message for w in caught))
else:
    print(type(load(folder, trust=["__main__"])[1].encoder).__name__)
    del Encoder
    load(folder, trust=["__main__"])
"""


def test_a_class_of_a_script_is_warned_of_and_loaded_by_scripts_that_define_it(tmp_path):
    script, runs = tmp_path / "script.py", {}
    script.write_text(SCRIPT)
    for use in ("save", "load"):
        command = [sys.executable, str(script), str(tmp_path / "run"), use]
        runs[use] = subprocess.run(command, capture_output=True, text=True)
    assert "__main__.Encoder is in a script or notebook" in runs["save"].stdout
    assert runs["load"].stdout.strip() == "Encoder"
    assert "__main__.Encoder" in runs["load"].stderr
    assert "cell that defines it first, or move it to a module" in runs["load"].stderr


class Encoder(nn.Module):
    """Stands for a class of a cell, which is run again."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs
        self.layer = nn.Linear(P, outputs)

    def forward(self, x):
        return self.layer(x)


class Same(Encoder):
    pass


class Behaves(Encoder):
    def forward(self, x):
        return -self.layer(x)


class Named(Encoder):
    def __init__(self, outputs):
        super().__init__(outputs)
        self.other, self.layer = self.layer, nn.Identity()


class Takes(Encoder):
    def __init__(self, outputs, colour):
        super().__init__(outputs)


@pytest.mark.parametrize(
    ("again", "message"),
    [
        (Same, None),
        (Behaves, "of site 'z' in the guide differs"),
        (Named, r"guide\.encoder\.layer\.bias.* were added"),
        (Takes, "it has changed.*colour"),
    ],
)
def test_a_class_that_was_defined_again_is_compared(tmp_path, monkeypatch, again, message):
    pair = VAE(MLP(D, P, ()), code=D), Code(Encoder(2 * D))
    again = type("Encoder", (again,), {"__module__": Encoder.__module__})
    monkeypatch.setattr(sys.modules[Encoder.__module__], "Encoder", again)
    refused = nullcontext() if message is None else pytest.raises(ValueError, match=message)
    expected = pytest.warns(UserWarning, match=r"guide\.encoder is of one that was defined before")
    with expected, refused:
        save(tmp_path / "run", *pair)
    if message is None:
        x = rows()
        assert evaluate(*load(tmp_path / "run", trust=[__name__]), x) == evaluate(*pair, x)
    else:
        assert not (tmp_path / "run").exists()


# Pairs that are not compared by what they compute


class Told(nn.Module):
    """Needs an exposure, which nobody knows at saving."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, x=None, size=None, *, exposure):
        with data_plate(x, size):
            z = pyro.sample("z", dist.Normal(torch.zeros(D), 1.0).to_event(1))
            rate = exposure[:, None] * self.decoder(z).exp()
            return pyro.sample("x", dist.Poisson(rate).to_event(1), obs=x)


class Random(nn.Module):
    """Draws by Python, which no seed of torch's decides."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, z):
        import random

        return self.inner(z) + random.random()


@pytest.mark.parametrize("decoder", [Told, lambda inner: VAE(Random(inner), code=D)])
def test_programs_whose_values_cannot_be_compared_are_saved_all_the_same(tmp_path, decoder):
    pair = decoder(MLP(D, P, ())), Code(MLP(P, 2 * D, ()))
    save(tmp_path, *pair)
    torch.testing.assert_close(
        made_state(*load(tmp_path, trust=[__name__])), made_state(*pair), rtol=0, atol=0
    )


def test_saving_leaves_the_pair_and_the_random_state_as_they_are(tmp_path):
    pair = made()
    before, state = [t.clone() for t in made_state(*pair)], torch.get_rng_state()
    save(tmp_path, *pair)
    torch.testing.assert_close(made_state(*pair), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for part in pair for module in part.modules())
