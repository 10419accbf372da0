"""Every pair runs on one device, and asks it for no number: traced on a GPU that is not there.

Fake tensors have a shape, a dtype and a device but no values. An operation on two devices fails,
and so does whatever needs a value on the host, such as ``.item()``. Autograd needs a driver, so
that gradients are checked in the recorded graph of a whole step.
"""

from contextlib import contextmanager, suppress

import pyro
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorDeviceMismatchError,
    FakeTensorMode,
)
from torch.fx import Interpreter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from priorzoo.inference import ELBO, Batch, Pretraining
from priorzoo.inference.bounds import log_sums
from priorzoo.inference.nggp.collapsed_bound import Codes, CollapsedBound, Mixture
from priorzoo.inference.nggp.growth import MOVES
from priorzoo.inference.objectives.conjugate import bound, predictive
from priorzoo.inference.objectives.control_variates import Baselined
from priorzoo.inference.objectives.elbo import Autoencoder
from priorzoo.inference.pairs import plate_depth, run_pair
from priorzoo.inference.prediction import code_of, mean_of, probabilities_of
from priorzoo.inference.sites import is_enumerated, latent_sites
from priorzoo.inference.training.state import State
from priorzoo.inference.training.tracing import trace
from priorzoo.models import StickBreakingVAE
from priorzoo.models.distributions.exponential import Natural
from priorzoo.models.nggp.code_families import FAMILIES
from priorzoo.models.nggp.law import NGGP

B, N = 4, 10
# Elementwise, without a fake implementation in torch.
UNTRACEABLE = [torch.ops.aten._standard_gamma_grad.default, torch.ops.aten._dirichlet_grad.default]
UNTRACEABLE += [torch.ops.aten._sample_dirichlet.default]
HOST = suppress(DataDependentOutputException, DynamicOutputShapeException)  # outside a step
CUDA = torch.device("cuda", 0)


def fake(tensor):
    """A tensor of the same layout on the GPU; inside a fake mode."""
    made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=CUDA)
    return made.requires_grad_(tensor.requires_grad)


@contextmanager
def on_gpu(module, *tensors):
    """Parameters and buffers of a module, and tensors, on the GPU."""
    state = State(module)
    with FakeTensorMode(allow_non_fake_inputs=True), pyro.validation_enabled(False):
        values = {name: fake(tensor) for name, tensor in state.tensors.items()}
        with state.replaced_by(values):
            yield [fake(tensor) for tensor in tensors]


def objectives(model, guide, entry):
    """All that can train the pair."""
    penalties = entry.penalties()
    yield ELBO(model, guide, penalties=penalties)
    yield ELBO(model, guide, particles=2, penalties=penalties)
    yield Autoencoder(model, guide, penalties=penalties)
    yield Baselined(model, guide, penalties=penalties)
    yield bound(model, guide)
    if any(isinstance(parameter, Natural) for parameter in guide.parameters()):
        yield Pretraining(model, guide)


def check_devices(tensors):
    assert tensors
    for name, tensor in tensors.items():
        assert tensor.device == CUDA, name


def prepared(entry):
    """A new pair, which has run once on the CPU."""
    model, guide = entry.pair()
    plate_depth(model, guide, Batch(entry.rows(B), N))
    return model, guide


def check_objectives(pair, entry):
    x = entry.rows(B)
    for objective in objectives(*pair, entry):
        with on_gpu(objective, x) as (rows,):
            value, terms, carry = objective.loss(Batch(rows, N))
            check_devices({**terms, **carry, "loss": value})
            with torch.no_grad(), HOST:
                check_devices(objective.held_out(Batch(rows, N)))


def check_predictions(pair, entry):
    x, model = entry.rows(B), pair[0]
    with on_gpu(nn.ModuleList(pair), x) as (rows,), torch.no_grad():
        drawn, told = run_pair(*pair, Batch(rows, N), means=True)
        check_devices({"mean": mean_of(drawn, told)})
        for name, site in latent_sites(drawn).items():
            check_devices({name: site["value"]})
            if is_enumerated(site):
                check_devices({name: probabilities_of(drawn, name)})
        if "z" in latent_sites(drawn):
            check_devices({"code": code_of(drawn, "z")})
        if not isinstance(model, StickBreakingVAE):  # torch cannot trace draws of its Beta
            with HOST:
                check_devices({"drawn": model(size=N)})


def check_importance(pair, entry):
    if not entry.importance:
        return
    x, both = entry.rows(B), predictive(*pair)
    plate_depth(*both, Batch(x))
    with on_gpu(nn.ModuleList(both), x) as (rows,), torch.no_grad():
        check_devices({"bound": log_sums(*both, Batch(rows), 3)})


class OnGPU(Interpreter):
    """Runs a graph that was recorded on the CPU as if what it makes were made on the GPU."""

    def get_attr(self, target, args, kwargs):
        return fake(super().get_attr(target, args, kwargs))

    def call_function(self, target, args, kwargs):
        if target in UNTRACEABLE:
            return torch.empty_like(args[0])
        place = {"device": CUDA} if "device" in kwargs else {}
        return super().call_function(target, args, {**kwargs, **place})


def check_step(pair, entry):
    """Losses, gradients and natural gradients: no operation needs a value on the host."""
    x = entry.rows(B)
    for objective in objectives(*pair, entry):
        traced = trace(objective, Batch(x, N))
        with FakeTensorMode(allow_non_fake_inputs=True):
            given = [fake(tensor) for tensor in (*traced.inputs, x)]
            for graph in filter(None, (traced.graph, traced.second)):
                outputs = OnGPU(graph).run(*given)
                check_devices(dict(enumerate(outputs)))


CHECKS = [check_objectives, check_predictions, check_importance, check_step]


@pytest.mark.parametrize("name", ["gmvae", "factorial"])
def test_a_few_pairs_are_of_one_device(zoo, name):
    for check in CHECKS[:3]:
        check(prepared(zoo[name]), zoo[name])


def test_a_step_with_gradients_is_of_one_device(zoo):
    check_step(prepared(zoo["vae"]), zoo["vae"])


class Doubles(TorchDispatchMode):
    """Counts the tensors of float64 that operations make."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(made) if isinstance(leaf, torch.Tensor)]
        self.count += sum(tensor.dtype == torch.float64 for tensor in tensors)
        return made


@pytest.mark.parametrize("name", ["vae", "gmvae", "vade", "m2", "vamp-prior", "nonparametric"])
def test_steps_for_the_gpu_of_a_mac_make_no_float64(zoo, name):
    """Which ``mps`` lacks; ``docs/running.md`` says which models it takes."""
    entry = zoo[name]
    objective = ELBO(*prepared(entry))
    with Doubles() as doubles:
        value, *_ = objective.loss(Batch(entry.rows(B), N))
        value.mean().backward()
    assert doubles.count == 0


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
def test_all_pairs_are_of_one_device(entry, check):
    check(prepared(entry), entry)


def test_a_tensor_of_another_device_is_found(zoo):
    entry = zoo["vae"]
    model, guide = prepared(entry)
    del model.origin
    model.__dict__["origin"] = torch.zeros(model.code)  # not a buffer, which would move
    with pytest.raises(FakeTensorDeviceMismatchError, match="cuda:0 and cpu"):
        check_objectives((model, guide), entry)


def test_a_question_to_the_host_is_found(zoo):
    entry = zoo["vae"]
    model, guide = prepared(entry)
    network = guide.encoder

    class Asking(nn.Module):
        def forward(self, x):
            return network(x) if bool((x > 0).any()) else 0 * network(x)

    guide.encoder = Asking()
    with pytest.raises(DataDependentOutputException):
        check_objectives((model, guide), entry)


@pytest.mark.parametrize("family", FAMILIES)
def test_moves_are_of_one_device_as_far_as_shapes_go(family):
    """They choose rows by their values, where the trace ends."""
    kind, clusters = FAMILIES[family], 3
    z = torch.rand(12, 2) + 0.1
    codes = Codes(z / z.sum(-1, keepdim=True), torch.full_like(z, 0.1))
    loc, scale = kind.match(*codes, torch.eye(clusters)[torch.arange(12) % clusters])
    given = (loc, scale, torch.ones(clusters, dtype=torch.bool), *codes, torch.ones(2))
    with FakeTensorMode(), torch.no_grad(), pyro.validation_enabled(False):
        loc, scale, existing, mean, spread, ones = map(fake, given)
        told = CollapsedBound(NGGP(*ones.unbind()), 1.0, 100, 0.3, kind)
        mixture, rows = Mixture(loc, scale, existing), Codes(mean, spread)
        with HOST:
            refitted = told.refit(mixture, rows, 2)
            check_devices(refitted._asdict())
            now = told.assigned(refitted, rows)
            for move in MOVES.values():
                with HOST:
                    list(move(told, now))
