"""Finds steps with NaN or infinity on the device, and undoes them there."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from priorzoo.inference.objectives.contract import Objective
from priorzoo.inference.running import Home, places_of

SUMS = ("elbo", "objective", "pseudo-likelihood")  # terms that are not finite if another is not


@dataclass(frozen=True)
class Trouble:
    """The first step of a span that was not finite.

    Args:
        after: number of steps of the span before it.
        terms: names of its terms that were NaN or infinite.
        parameters: names of the parameters whose gradients were NaN or infinite.
        steps: how many steps of the span were not finite, if that is counted.
    """

    after: int
    terms: list[str]
    parameters: list[str]
    steps: int


class Watch:
    """Records which terms and gradients stay finite, without host synchronisation.

    A gradient counts as infinite if its norm overflows too, since optimisers square it.

    Args:
        objective: the objective whose parameters are watched.
        counts: whether all steps that were not finite are counted, and not only found.
    """

    def __init__(self, objective: Objective, counts: bool = False) -> None:
        self.objective, self.counts = objective, counts
        self._names = _names(objective)
        self.parameters = list(self._names.values())
        self._norms: dict[str, Tensor] = {}
        self.reset()

    def reset(self) -> None:
        """Forget all steps; the next one allocates new tensors."""
        self.finite: Tensor | None = None  # (terms + parameters,): finite in all steps so far
        self.lasted = self.bad = torch.zeros((), dtype=torch.int64)
        self.terms: list[str] = []

    def clear(self) -> None:
        """Begin a new span, in place: a captured graph continues with the same tensors."""
        if self.finite is not None:
            self.finite.fill_(True)
            self.lasted.zero_()
            self.bad.zero_()

    def gradients(self, updated: Sequence[Tensor]) -> None:
        """Record the norms of the gradients of an optimiser's step, before clipping."""
        if any(id(p) not in self._names for p in updated):
            self._names = _names(self.objective)  # of a program that makes new ones
        given = {id(p): p.grad for p in updated if p.grad is not None}
        norms = torch._foreach_norm(list(given.values())) if given else ()
        for place, norm in zip(given, norms, strict=True):
            self._norms[self._names.get(place, "")] = norm

    def take(self, names: Sequence[str], terms: Tensor) -> Tensor:
        """Take the terms of a step, ``(T,)``; returns what was finite, ``(T + parameters,)``."""
        missing = self._norms.keys() ^ set(self.parameters)
        zero = terms.new_zeros(()) if missing else terms
        norms = [self._norms.get(name, zero) for name in self.parameters]
        self._norms.clear()
        return self.add(names, all_finite(terms, norms))

    def add(self, names: Sequence[str], finite: Tensor) -> Tensor:
        """Take what was finite in a step, terms and then parameters; returns it."""
        if self.finite is None:
            self.terms = list(names)
            self.finite = torch.ones_like(finite)
            self.lasted = torch.zeros_like(finite, dtype=torch.int64)
            self.bad = torch.zeros_like(self.lasted[0])
        self.finite &= finite
        self.lasted += self.finite
        if self.counts:
            self.bad += ~finite.all()
        return finite

    def trouble(self) -> Trouble | None:
        """The first step since :meth:`clear` that was not finite, with one host synchronisation."""
        if self.finite is None or bool(self.finite.all()):
            return None
        names = [*self.terms, *self.parameters]
        lasted = self.lasted.where(~self.finite, torch.iinfo(torch.int64).max)
        first = lasted == lasted.min()
        bad = [name for name, found in zip(names, first.tolist(), strict=True) if found]
        terms = [name for name in bad if name in self.terms]
        parts = [name for name in terms if name not in SUMS]
        parameters = [name for name in bad if name not in self.terms]
        return Trouble(int(lasted.min()), parts or terms, parameters, int(self.bad))

    def state(self) -> dict[str, Any]:
        """What was found since :meth:`clear`."""
        return {"finite": self.finite, "lasted": self.lasted, "bad": self.bad, "terms": self.terms}

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Continue from a :meth:`state`."""
        self.reset()
        if state["finite"] is not None:
            self.finite = state["finite"].to(device, copy=True)
            self.lasted = state["lasted"].to(device, copy=True)
            self.bad = state["bad"].to(device, copy=True)
            self.terms = list(state["terms"])


class Undo:
    """Undoes a step that was not finite, on the device and without host synchronisation.

    Parameters, buffers and the tensors of the optimiser's state are put back; the clock goes on.
    State that a step creates, such as that of Adam's first step, and plain numbers that it changes
    cost a synchronisation.
    """

    def __init__(self, objective: Objective, optimiser: Optimizer) -> None:
        self.objective, self.optimiser = objective, optimiser
        self._places: list[tuple[Home, str, Tensor, Tensor]] = []
        self._slots: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._owners: set[object] = set()

    def keep(self) -> None:
        """Copy everything that the next step may change."""
        clock = set(map(id, self.objective.clock.buffers()))
        copies: dict[int, Tensor] = {}
        self._places = []
        for home, key, tensor in places_of(self.objective):
            if id(tensor) not in clock:
                copy = copies.setdefault(id(tensor), tensor.detach().clone())
                self._places.append((home, key, tensor, copy))
        self._owners = set(self.optimiser.state)
        self._slots = [(slot, _copied(slot)) for slot in self._held()]

    @torch.no_grad()
    def unless(self, good: Tensor) -> None:
        """Put everything back as it was at :meth:`keep` if the step was not good."""
        for home, key, tensor, copy in self._places:
            now = home[key]
            assert now is not None
            if now is tensor:
                tensor.copy_(torch.where(good, tensor, copy))
            elif now.shape == copy.shape:
                home[key] = _like(now, torch.where(good, now.detach(), copy))
            elif not bool(good):
                home[key] = tensor
        for owner in set(self.optimiser.state) - self._owners:
            if not bool(good):
                del self.optimiser.state[owner]
        for slot, before in self._slots:
            _put_back(slot, before, good)
        self._places, self._slots = [], []

    def _held(self) -> Iterator[dict[str, Any]]:
        yield from self.optimiser.state.values()
        yield from self.optimiser.param_groups


def all_finite(terms: Tensor, norms: Sequence[Tensor]) -> Tensor:
    """Which of the terms ``(T,)`` and norms are finite, ``(T + parameters,)``."""
    return torch.cat([terms, *([torch.stack(list(norms))] if norms else [])]).isfinite()


def _names(objective: Objective) -> dict[int, str]:
    return {id(p): name for name, p in objective.named_parameters() if p.requires_grad}


def _copied(slot: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v.clone() if isinstance(v, Tensor) else v for k, v in slot.items()}


def _like(now: Tensor, value: Tensor) -> Tensor:
    return nn.Parameter(value) if isinstance(now, nn.Parameter) else value


def _put_back(slot: dict[str, Any], before: Mapping[str, Any], good: Tensor) -> None:
    for key, value in list(slot.items()):
        old = before.get(key, ...)
        if isinstance(value, Tensor) and isinstance(old, Tensor) and value.shape == old.shape:
            value.copy_(torch.where(good.to(value.device), value, old))
        elif value is not old and not bool(good):
            if old is ...:
                del slot[key]
            else:
                slot[key] = old
