"""Every function that takes rows takes them through one door, whatever brings them."""

import re

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.sparse
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from priorzoo.inference import (
    ELBO,
    Pixels,
    Training,
    binarised,
    check_data,
    cluster_probabilities,
    codes,
    descend,
    draw,
    enumerates,
    evaluate,
    fit,
    importance_bound,
    reconstructions,
    remember,
)
from priorzoo.models import data_plate

P, K = 6, 3
EXPECTED = re.compile(r"Expected .*but got .*[;.] ?", re.S)


def trained(pair, x, **settings):
    """The parameters after three steps."""
    torch.manual_seed(0)
    model, guide = pair()
    fit(model, guide, x, steps=3, batch_size=4, **settings)
    return torch.cat([p.detach().flatten() for m in (model, guide) for p in m.parameters()])


def functions(entry):
    """Each public function of rows, by name, of the same pair each time."""
    torch.manual_seed(1)
    model, guide = entry.pair()
    objective = ELBO(model, guide)
    optimiser = torch.optim.SGD(objective.parameters(), lr=0.0)
    return {
        "fit": lambda x: [r["elbo"] for r in fit(model, guide, x, steps=1)],
        "validation": lambda x: fit(model, guide, entry.rows(4), steps=1, validation=x) and [0.0],
        "evaluate": lambda x: list(evaluate(model, guide, x).values()),
        "importance_bound": lambda x: importance_bound(model, guide, x, 2).detach().numpy(),
        "cluster_probabilities": lambda x: cluster_probabilities(model, guide, x).numpy(),
        "codes": lambda x: codes(model, guide, x).numpy(),
        "reconstructions": lambda x: reconstructions(model, guide, x).numpy(),
        "enumerates": lambda x: [float(enumerates(model, guide, x))],
        "descend": lambda x: [v.item() for v in descend(objective, optimiser, x).values()],
        "check_data": lambda x: check_data(model, x) or [0.0],
    }


NAMES = [
    "fit",
    "validation",
    "evaluate",
    "importance_bound",
    "cluster_probabilities",
    "codes",
    "reconstructions",
    "enumerates",
    "descend",
    "check_data",
]
SAME = {  # the same binary rows
    "float64": lambda x: x.double(),
    "float16": lambda x: x.half(),
    "bytes": lambda x: x.byte(),
    "int64": lambda x: x.long(),
    "bool": lambda x: x.bool(),
    "uint16": lambda x: x.to(torch.uint16),
    "float8": lambda x: x.to(torch.float8_e4m3fn),
    "numpy": lambda x: x.numpy(),
    "numpy int": lambda x: x.numpy().astype(int),
    "big-endian": lambda x: x.numpy().astype(">f8"),
    "long double": lambda x: x.numpy().astype(np.longdouble),
    "negative strides": lambda x: x.numpy()[::-1, ::-1].copy()[::-1, ::-1],
    "read-only": lambda x: np.broadcast_to(x.numpy(), x.shape),
    "fortran": lambda x: np.asfortranarray(x.numpy()),
    "lists": lambda x: x.tolist(),
    "list of rows": lambda x: list(x),
    "tuple of arrays": lambda x: tuple(x.numpy()),
    "sparse": lambda x: x.to_sparse(),
    "scipy": lambda x: scipy.sparse.csr_matrix(x.numpy()),
    "transposed": lambda x: x.T.contiguous().T,
    "leaf": lambda x: x.clone().requires_grad_(),
    "parameter": lambda x: nn.Parameter(x),
    "pictures": lambda x: x.reshape(-1, 2, 3),
    "one channel first": lambda x: x.reshape(-1, 1, 3, 2),
    "numpy pictures": lambda x: x.byte().numpy().reshape(-1, 2, 3),
}
WRONG = {
    "NaN": lambda x: torch.full_like(x, torch.nan),
    "one infinity": lambda x: x.index_fill(0, torch.tensor([1]), torch.inf),
    "pixels": lambda x: 255 * (1 - x),
    "none": lambda x: x[:0],
    "another width": lambda x: x[:, 1:],
    "one row without its dimension": lambda x: x[0],
    "a number": lambda x: 3.0,
    "text": lambda x: "rows",
    "nothing": lambda x: None,
    "strings": lambda x: np.full((4, P), "1"),
    "objects": lambda x: np.full((4, P), None),
    "complex": lambda x: x.to(torch.complex64),
    "dates": lambda x: np.zeros((4, P), "datetime64[s]"),
    "ragged": lambda x: [[0.0] * P, [1.0]],
    "ragged tensors": lambda x: [torch.zeros(P), torch.zeros(2)],
    "masked": lambda x: np.ma.masked_array(x.numpy(), x.numpy() == 0),
    "large integers": lambda x: torch.full((4, P), 2**40 + 1),
    "set": lambda x: {1.0, 2.0},
    "dictionary": lambda x: {"rows": x},
    "empty list": lambda x: [],
}


@pytest.fixture(scope="module")
def plain(zoo):
    """Rows, and what each function makes of them."""
    torch.manual_seed(0)
    x = zoo["gmvae"].rows(9)
    return [x, *(functions(zoo["gmvae"])[name](x) for name in NAMES)]


@pytest.mark.parametrize("kind", SAME)
def test_the_same_rows_of_any_kind_give_the_same_result_everywhere(zoo, plain, kind):
    """Bit for bit, but for the order of sums of other memory layouts."""
    x, *expected = plain
    for name, value in zip(NAMES, expected, strict=True):
        found = functions(zoo["gmvae"])[name](SAME[kind](x))
        np.testing.assert_allclose(found, value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", WRONG)
def test_what_cannot_be_rows_is_refused_everywhere(zoo, kind):
    calls = functions(zoo["gmvae"])
    for name in [n for n in NAMES if kind != "nothing" or n != "validation"]:
        with pytest.raises(ValueError, match=EXPECTED) as error:
            calls[name](WRONG[kind](zoo["gmvae"].rows(4)))
        assert "\n" not in str(error.value), name


def test_the_first_wrong_value_is_named(zoo):
    model, guide = zoo["gmvae"].pair()
    x = zoo["gmvae"].rows(5)
    x[3, 2], x[4, 0] = torch.nan, torch.inf
    with pytest.raises(ValueError, match="in 2 of 5 rows, first in row 3, column 2"):
        codes(model, guide, x)
    x[3:] = 0
    x[2, 5] = 7.0
    with pytest.raises(ValueError, match=r"value, 7, is in row 2, column 5"):
        codes(model, guide, x)
    with pytest.raises(ValueError, match=r"likelihood \(bytes: transform=Pixels\(\)\)"):
        fit(model, guide, (200 * zoo["gmvae"].rows(5)).byte(), steps=1)


def test_bytes_train_by_their_transform(zoo):
    """Grey values of bytes, once divided by hand and once by the transform."""
    grey = torch.randint(256, (9, P), dtype=torch.uint8)
    expected = trained(zoo["gmvae"].pair, grey / 255)
    assert torch.equal(trained(zoo["gmvae"].pair, grey.numpy(), transform=Pixels()), expected)
    rows = zoo["gmvae"].rows(9)
    rows[8, 1] = 2.0  # a row that a check of some rows alone would not see
    with pytest.raises(ValueError, match=r"got values from 0 to 2"):
        fit(*zoo["gmvae"].pair(), rows, steps=1, transform=lambda x: x * 1.0)


@pytest.mark.parametrize("transform", [lambda x: x[:2], lambda x: x @ x, lambda x: None])
@pytest.mark.parametrize("call", [fit, evaluate])
def test_a_transform_that_cannot_be_applied_is_refused(zoo, transform, call):
    steps = {"steps": 1} if call is fit else {}
    with pytest.raises(ValueError, match="Expected a transform"):
        call(*zoo["gmvae"].pair(), zoo["gmvae"].rows(5), transform=transform, **steps)


@pytest.mark.parametrize("transform", [torch.bernoulli, binarised])
def test_values_that_are_no_probabilities_are_not_drawn_from(zoo, transform):
    for call, steps in ((fit, {"steps": 1}), (evaluate, {})):
        with pytest.raises(ValueError, match=r"within \[0, 1\] to binarise"):
            call(
                *zoo["vae-gaussian"].pair(),
                5 * zoo["vae-gaussian"].rows(9),
                transform=transform,
                **steps,
            )


class Rows(Dataset):
    def __init__(self, x, made=lambda row: row):
        self.x, self.made = x, made

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.made(self.x[index])


class Flow(IterableDataset):
    def __init__(self, x):
        self.x = x

    def __iter__(self):
        return iter(self.x)


def test_a_data_set_of_rows_is_shuffled_and_batched(zoo):
    """A TensorDataset of rows alone is these rows, and other data sets come in batches of rows."""
    x = torch.arange(10.0).unsqueeze(1).expand(-1, P).contiguous() / 10
    pair = zoo["gmvae"].pair
    assert torch.equal(trained(pair, TensorDataset(x)), trained(pair, x))
    for made in (lambda r: r, lambda r: r.numpy(), lambda r: (r,), lambda r: {"x": r}):
        training = Training(*pair(), Rows(x, made), batch_size=4)
        assert (training.size, training.epoch) == (10, 3)
        with training.stream:
            passes = [torch.cat([next(training.batches).x for _ in range(3)]) for _ in range(2)]
        for each in passes:
            assert sorted(each[:, 0].tolist()) == x[:, 0].tolist()
        assert not torch.equal(*passes)
    training = Training(*pair(), Flow(x), batch_size=4, size=10)
    assert torch.equal(torch.cat([next(training.batches).x for _ in range(3)]), x)


@pytest.mark.parametrize(
    "data",
    [
        lambda x: TensorDataset(x, x[:, 0]),
        lambda x: Rows(x, lambda row: (row, 1)),
        lambda x: Rows(x, lambda row: object()),
        lambda x: Rows(x[:0]),
        lambda x: Rows(x, lambda row: row[:2]),
    ],
)
def test_items_that_are_no_rows_are_refused(zoo, data):
    with pytest.raises(ValueError, match="Expected"):
        fit(*zoo["gmvae"].pair(), data(zoo["gmvae"].rows(9)), steps=1, batch_size=4)


@pytest.mark.parametrize("change", ["NaN", "one infinity", "pixels", "none", "another width"])
@pytest.mark.parametrize("wrong", [0, 2])
@pytest.mark.parametrize("form", [list, lambda b: DataLoader(b, None), lambda b: iter(5 * b)])
def test_every_batch_of_an_iterable_is_checked(zoo, change, wrong, form):
    """A DataLoader of pixels 0 to 255 trained under a Bernoulli at thousands of nats."""
    batches = list(zoo["gmvae"].rows(12).split(4))
    batches[wrong] = WRONG[change](batches[wrong])
    with pytest.raises(ValueError, match=EXPECTED):
        fit(*zoo["gmvae"].pair(), form(batches), steps=3, size=12)


@pytest.mark.parametrize("kind", ["float64", "bytes", "bool", "numpy", "lists", "pictures"])
def test_batches_of_any_kind_are_converted(zoo, kind):
    batches = zoo["gmvae"].rows(12).split(4)
    expected = trained(zoo["gmvae"].pair, list(batches), size=12)
    given = [{"x": SAME[kind](batch)} for batch in batches]
    assert torch.equal(trained(zoo["gmvae"].pair, given, size=12), expected)


@pytest.mark.parametrize("size", [0, -3, 2.5, "12"])
def test_a_size_that_is_no_count_is_refused(zoo, size):
    with pytest.raises(ValueError, match="positive size"):
        fit(*zoo["gmvae"].pair(), [zoo["gmvae"].rows(4)], steps=1, size=size)


@pytest.mark.parametrize("settings", [{"batch_size": 2.5}, {"every": 0.5}, {"patience": "2"}])
def test_settings_that_are_no_counts_are_refused(zoo, settings):
    with pytest.raises(ValueError, match="Expected a positive"):
        fit(*zoo["gmvae"].pair(), zoo["gmvae"].rows(4), steps=1, **settings)


def test_batches_of_no_rows_at_a_time_are_refused(zoo):
    model, guide = zoo["gmvae"].pair()
    for call in (evaluate, codes, reconstructions, cluster_probabilities):
        with pytest.raises(ValueError, match="positive batch_size"):
            call(model, guide, zoo["gmvae"].rows(4), batch_size=0)


@pytest.mark.parametrize("kind", [list, np.asarray, torch.tensor, lambda y: np.array(y)[:, None]])
def test_labels_of_any_kind_train_alike(zoo, kind):
    known = [0, 2, -1, 1, -1, 0, 1, 2, -1]
    x = zoo["gmvae"].rows(9)
    expected = trained(zoo["gmvae"].pair, x, labels={"y": torch.tensor(known)})
    assert torch.equal(trained(zoo["gmvae"].pair, x, labels={"y": kind(known)}), expected)


@pytest.mark.parametrize("labels", [torch.zeros(9), [0, 1], {"y": ["a"] * 9}, {"y": 3}])
def test_labels_that_are_none_are_refused(zoo, labels):
    with pytest.raises(ValueError, match="Expected"):
        fit(*zoo["gmvae"].pair(), zoo["gmvae"].rows(9), steps=1, labels=labels)


@pytest.mark.parametrize(
    "labels", [{"y": [0, 1, 3]}, {"y": [0, -2, 1]}, {"y": [0, 1]}, {"z": [0] * 3}, {"w": [0] * 3}]
)
def test_a_step_with_labels_that_no_site_can_have_is_refused(zoo, labels):
    """They gave NaN, or another exception, or were dropped."""
    objective = ELBO(*zoo["gmvae"].pair())
    optimiser = torch.optim.SGD(objective.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=EXPECTED):
        descend(objective, optimiser, zoo["gmvae"].rows(3), labels=labels)


class Counts(nn.Module):
    """Counts under a rate times an exposure that is told."""

    def __init__(self):
        super().__init__()
        self.log_rate = nn.Parameter(torch.zeros(2, P))

    def forward(self, x=None, size=None, *, exposure):
        with data_plate(x, size):
            y = pyro.sample("y", dist.Categorical(logits=self.log_rate.new_zeros(2)))
            rate = exposure[:, None] * self.log_rate[y].exp()
            return pyro.sample("x", dist.Poisson(rate).to_event(1), obs=x)


class Which(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(P, 2)

    def forward(self, x, size=None):
        with data_plate(x, size):
            logits = self.net(x)
            pyro.sample("y", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})


@pytest.mark.parametrize("kind", [np.asarray, list, lambda e: torch.tensor(e, dtype=torch.int32)])
def test_context_of_any_kind_is_converted(kind):
    exposure = [1, 2, 3, 4]
    x = torch.poisson(torch.full((4, P), 2.0))
    pair = Counts(), Which()
    expected = evaluate(*pair, x, context={"exposure": torch.tensor(exposure).float()})
    assert evaluate(*pair, x, context={"exposure": kind(exposure)}) == pytest.approx(expected)
    rows = [{"x": x, "exposure": kind(exposure)}]
    fit(*pair, rows, steps=1, size=4)
    assert draw(pair[0], 4, context={"exposure": kind(exposure)}).shape == (4, P)


@pytest.mark.parametrize(
    "exposure", [[1.0] * 3, 2.0, ["a"] * 4, [1.0, torch.nan, 1.0, 1.0], None, torch.ones(())]
)
def test_context_that_is_none_is_refused(exposure):
    x = torch.poisson(torch.full((4, P), 2.0))
    context = {"exposure": exposure}
    for call in (
        lambda: fit(Counts(), Which(), x, steps=1, context=context),
        lambda: fit(Counts(), Which(), [{"x": x, **context}], steps=1, size=4),
        lambda: evaluate(Counts(), Which(), x, context=context),
        lambda: cluster_probabilities(Counts(), Which(), x, context=context),
        lambda: draw(Counts(), 4, context=context),
    ):
        with pytest.raises(ValueError, match="Expected"):
            call()


@pytest.mark.parametrize(
    "given",
    [
        {"y": 1.5},
        {"y": torch.nan},
        {"z": [[0.0, torch.inf]]},
        {"z": torch.zeros(3, 5)},
        {"y": "one"},
        {"y": [0, 1]},
    ],
)
def test_values_that_no_site_can_have_are_not_drawn_from(zoo, given):
    with pytest.raises(ValueError, match="Expected"):
        draw(zoo["gmvae"].model(), 3, given=given)
    with pytest.raises(ValueError, match="positive size"):
        draw(zoo["gmvae"].model(), 0)


def test_a_memory_is_of_rows_that_fit(zoo):
    model, guide = zoo["nonparametric"].pair()
    x = zoo["nonparametric"].rows(5)
    expected = remember(model, guide, x)
    torch.testing.assert_close(remember(model, guide, x.numpy().astype(int)).codes, expected.codes)
    with pytest.raises(ValueError, match="Expected"):
        remember(model, guide, torch.full((4, P), torch.nan))


def test_a_step_costs_no_check_of_rows_in_memory(zoo, monkeypatch):
    """They are checked once, before the training."""
    from priorzoo.inference.data.accepts import Accepts

    training = Training(*zoo["gmvae"].pair(), zoo["gmvae"].rows(10), batch_size=4)
    monkeypatch.setattr(Accepts, "accepts", lambda *_: pytest.fail("a check in a step"))
    training.run(steps=5)


def test_a_batch_on_another_device_is_flagged_there(zoo):
    """What a GPU does, on the CPU: no error in the step, and one with the terms of the history."""
    training = Training(*zoo["gmvae"].pair(), [zoo["gmvae"].rows(4)], size=4, every=3)
    good, bad = zoo["gmvae"].rows(4), WRONG["pixels"](zoo["gmvae"].rows(4))
    training.run(steps=3)
    for x in (good, bad, good):
        training.batches.checked._flag(training.batches.checked._accepts.accepts(x))
    with pytest.raises(ValueError, match="one of the last 3 had NaN, infinity or values outside"):
        training.run(steps=3)
