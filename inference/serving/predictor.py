"""Predictions of a trained pair without a trace of its programs in each call."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from pyro.distributions import constraints
from torch import Tensor, nn
from torch.fx import GraphModule

from priorzoo.inference.batch import Batch, Context
from priorzoo.inference.data.accepts import Accepts, device_of
from priorzoo.inference.data.beside import beside_of, by_name, context_of
from priorzoo.inference.data.tensors import as_tensor, check_count, check_finite
from priorzoo.inference.pairs import plate_depth
from priorzoo.inference.prediction import draw
from priorzoo.inference.randomness import Stream
from priorzoo.inference.running import PROGRAM_LOCK
from priorzoo.inference.serving.graph import part_of, plain_function, record_any_size
from priorzoo.inference.serving.outputs import Outputs, predict
from priorzoo.inference.training.state import State, UntraceableError, state_of

TRIED = (1, 2, 7)  # rows of the batches on which a graph is compared with the programs


@dataclass(frozen=True, eq=False)
class Recorded:
    """The predictions of a pair as a graph.

    Args:
        graph: takes rows ``(B, P)`` and then the context; returns a list of outputs.
        names: of the outputs.
        beside: names of the context.
        accepts: which rows the model's likelihood accepts.
        example: rows and context of two data.
    """

    graph: GraphModule
    names: tuple[str, ...]
    beside: tuple[str, ...]
    accepts: Accepts
    example: tuple[Tensor, ...]


def record_predictions(
    model: nn.Module, guide: nn.Module, context: Context | None = None
) -> Recorded:
    """Record all predictions of a pair as one graph, and compare it with the programs.

    Args:
        model, guide: a trained pair; later changes of its parameters do not change the graph.
        context: an example of the keyword arguments beside x, each with at least one row.

    Raises:
        UntraceableError: for a pair whose predictions no graph can hold, with the reason.
    """
    place = device_of(model, torch.device("cpu"))
    one = {key: as_tensor(value, key)[:1] for key, value in by_name(context, "context").items()}
    rows = max(TRIED)
    beside = context_of(model, {k: v.expand(rows, *v.shape[1:]) for k, v in one.items()}, rows)
    accepts = Accepts.of(model, beside)
    with Stream(0, place):
        x = draw(model, rows, means=False, context=beside).to(accepts.dtype)
    batch = Batch(x, None, {}, beside)
    plate_depth(model, guide, batch)
    run, names = predict(model, guide), list[str]()

    def outputs(*given: Tensor) -> list[Tensor]:
        found = run(Batch(given[0], None, {}, dict(zip(beside, given[1:], strict=True))))
        names[:] = found
        return list(found.values())

    shapes = [(each.shape[1:], each.dtype) for each in batch.tensors]
    with _plain(model, guide):
        graph = record_any_size(outputs, shapes, place)
    made = Recorded(graph, tuple(names), tuple(beside), accepts, _first(batch, 2))
    _compare(made, batch, run)
    return made


def _plain(model: nn.Module, guide: nn.Module) -> AbstractContextManager[object]:
    """Inside ``with``, parameters are plain tensors, constants for whatever is recorded."""
    pair = nn.ModuleList([model, guide])
    return State(pair).replaced_by({k: v.detach() for k, v in state_of(pair).items()})


def _first(batch: Batch, rows: int) -> tuple[Tensor, ...]:
    return tuple(each[:rows] for each in batch.tensors)


def _compare(made: Recorded, batch: Batch, run: Callable[[Batch], Outputs]) -> None:
    for rows in TRIED:
        given = _first(batch, rows)
        expected = run(batch.with_tensors(list(given)))
        with torch.no_grad():
            found = dict(zip(made.names, made.graph(*given), strict=True))
        for name, value in expected.items():
            if not torch.allclose(found[name], value, rtol=1e-4, atol=1e-5, equal_nan=True):
                worst = (found[name] - value).abs().max().item()
                raise UntraceableError(f"{name} of {rows} rows differs by {worst:.2g} in a graph")


class Predictor:
    """Predictions of a trained pair by one recorded graph, without Pyro.

    Of one row this takes a tenth of the time of :func:`cluster_probabilities` and its like, whose
    values it gives. Any number of threads may call it at a time. Made by :func:`serve`.

    Args:
        recorded: the graph of the pair.
        batch_size: rows that are computed at a time.
    """

    def __init__(self, recorded: Recorded, batch_size: int = 500) -> None:
        check_count(batch_size, "batch_size")
        self.recorded, self.batch_size = recorded, batch_size
        support = recorded.accepts.fn.support
        self._real = getattr(support, "base_constraint", support) is constraints.real
        parts = [part_of(recorded.graph, i) for i in range(len(recorded.names))]
        self._graphs = dict(zip(recorded.names, map(plain_function, parts), strict=True))

    @property
    def names(self) -> tuple[str, ...]:
        """The outputs, such as ``probabilities``, ``codes`` and ``reconstruction``."""
        return self.recorded.names

    def probabilities(self, x: object, context: Context | None = None) -> Tensor:
        """``(N, K)`` cluster probabilities, as :func:`cluster_probabilities` gives them."""
        return self.output("probabilities", x, context)

    def codes(self, x: object, context: Context | None = None) -> Tensor:
        """``(N, D)`` means of the codes, as :func:`codes` gives them."""
        return self.output("codes", x, context)

    def reconstructions(self, x: object, context: Context | None = None) -> Tensor:
        """``(N, P)`` means of x, as :func:`reconstructions` gives them."""
        return self.output("reconstruction", x, context)

    def output(self, name: str, x: object, context: Context | None = None) -> Tensor:
        """One of the outputs :attr:`names` for rows ``(N, P)``.

        Args:
            name: of the output.
            x: rows, a tensor or an array.
            context: keyword arguments beside x, each ``(N, ...)``.

        Raises:
            ValueError: for rows that the likelihood does not accept, or an unknown name.
        """
        if name not in self._graphs:
            raise ValueError(
                f"Expected one of the outputs {list(self.names)} but got {name!r}; name one."
            )
        return self._run(self._graphs[name], self._given(x, context))

    def __call__(self, x: object, context: Context | None = None) -> Outputs:
        """All outputs by name."""
        given = self._given(x, context)
        return {name: self._run(graph, given) for name, graph in self._graphs.items()}

    @torch.no_grad()
    def _run(self, graph: Callable[..., Tensor], given: Sequence[Tensor]) -> Tensor:
        if len(given[0]) <= self.batch_size:
            return graph(*given).clone()  # which may be a constant, or the rows themselves
        parts = zip(*(each.split(self.batch_size) for each in given), strict=True)
        return torch.cat([graph(*part) for part in parts])

    @torch.no_grad()
    def _given(self, x: object, context: Context | None) -> list[Tensor]:
        accepts, example = self.recorded.accepts, self.recorded.example
        rows = as_tensor(x, "x")
        if rows.dtype != accepts.dtype or rows.shape[1:] != accepts.shape or len(rows) == 0:
            rows = accepts.converted(rows)
        small = (rows.abs() <= accepts.largest).all()  # false for NaN
        if not (bool(small) if self._real else bool(accepts.accepts(rows))):
            accepts.refuse(rows, "x")
        given = [rows.to(example[0].device)]
        if context is None and not self.recorded.beside:
            return given
        found = beside_of(by_name(context, "context"), len(rows), check_finite)
        if set(found) != set(self.recorded.beside):
            raise ValueError(
                f"Expected context {list(self.recorded.beside)} as in serve but got "
                f"{list(found)}; give these."
            )
        like = dict(zip(self.recorded.beside, example[1:], strict=True))
        return given + [found[name].to(tensor) for name, tensor in like.items()]


def serve(
    model: nn.Module, guide: nn.Module, *, context: Context | None = None, batch_size: int = 500
) -> Predictor:
    """Prepare a trained pair for fast predictions, which takes less than a second.

    Args:
        model, guide: a trained pair; later changes of its parameters do not change the predictor.
        context: if the programs take keyword arguments beside x, an example of each with at least
            one row.
        batch_size: rows that are computed at a time.

    Raises:
        ValueError: for a pair whose predictions cannot be recorded as a graph, with the reason.
    """
    return Predictor(recorded(model, guide, context), batch_size)


def recorded(model: nn.Module, guide: nn.Module, context: Context | None = None) -> Recorded:
    """:func:`record_predictions`, whose errors name the pair and say what to do.

    Raises:
        ValueError: for a pair whose predictions cannot be recorded as a graph, with the reason.
    """
    with PROGRAM_LOCK:
        try:
            return record_predictions(model, guide, context)
        except UntraceableError as error:
            pair = f"{type(model).__name__} and {type(guide).__name__}"
            raise ValueError(
                f"Expected predictions that a graph can hold but those of {pair} cannot be "
                f"recorded: {error}; use cluster_probabilities, codes and reconstructions."
            ) from error
